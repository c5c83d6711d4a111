//! The set of segment files: what each still holds, and a bounded number of them kept open for reading.
//!
//! Reads of files and the removal of files are up to the callers.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::BuildHasherDefault;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use quick_cache::UnitWeighter;
use quick_cache::unsync::Cache;

use crate::format::segment::{SegmentId, Spread};
use crate::medium::{Medium, MediumFile};
use crate::registry::IdHasher;

/// A segment file.
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    /// Position in the log of the file's byte 0 (log segments only).
    pub(crate) base: u64,
    /// When its file was created, once known.
    created_ms: OnceLock<i64>,
    /// A time at which everything in it had been written, once known.
    written_until_ms: OnceLock<i64>,
    /// Where entries end, as a position in the file; 0 while it is being appended to.
    pub(crate) entries_end: AtomicU64,
    /// Length of the file, reserved space included.
    pub(crate) file_bytes: AtomicU64,
    /// The footer is on the medium.
    pub(crate) sealed: AtomicBool,
    pub(crate) max_timestamp: AtomicI64,
    /// The cleaner could not read it.
    pub(crate) is_unreadable: AtomicBool,
    /// Streams' runs that still refer to this file, and the bytes of their batches.
    pub(crate) live_runs: AtomicU64,
    pub(crate) live_bytes: AtomicU64,
    /// Where the index starts and how many blocks it has, once known.
    pub(crate) index_place: OnceLock<(u64, u32)>,
    /// How far its streams are interleaved, once known.
    pub(crate) spread: OnceLock<Spread>,
    /// Ids of streams that got data here, until it is sealed. May contain duplicates.
    pub(crate) touched: Mutex<Vec<u64>>,
}

impl Segment {
    /// `created_ms`: if it is known already.
    pub(crate) fn new(id: SegmentId, base: u64, created_ms: Option<i64>) -> Self {
        Self {
            id,
            base,
            created_ms: created_ms.map_or_else(OnceLock::new, OnceLock::from),
            written_until_ms: OnceLock::new(),
            entries_end: AtomicU64::new(0),
            file_bytes: AtomicU64::new(0),
            sealed: AtomicBool::new(false),
            max_timestamp: AtomicI64::new(i64::MIN),
            is_unreadable: AtomicBool::new(false),
            live_runs: AtomicU64::new(0),
            live_bytes: AtomicU64::new(0),
            index_place: OnceLock::new(),
            spread: OnceLock::new(),
            touched: Mutex::new(Vec::new()),
        }
    }

    /// A segment whose footer is on the medium.
    pub(crate) fn sealed(self, entries_end: u64, file_bytes: u64, max_timestamp: i64) -> Self {
        self.entries_end.store(entries_end, Ordering::Relaxed);
        self.file_bytes.store(file_bytes, Ordering::Relaxed);
        self.max_timestamp.store(max_timestamp, Ordering::Relaxed);
        self.sealed.store(true, Ordering::Release);
        self
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// When its file was created, if that was not read from the file yet.
    pub(crate) fn known_created_ms(&self) -> Option<i64> {
        self.created_ms.get().copied()
    }

    /// A time at which everything in it had been written, if that is known.
    pub(crate) fn known_written_until_ms(&self) -> Option<i64> {
        self.written_until_ms.get().copied()
    }

    /// Notes that nothing is written to it any more.
    pub(crate) fn note_written_until(&self, time_ms: i64) -> i64 {
        *self.written_until_ms.get_or_init(|| time_ms)
    }

    pub(super) fn note_created(&self, created_ms: i64) -> i64 {
        *self.created_ms.get_or_init(|| created_ms)
    }

    /// Whether it is sealed and no stream refers to it any more. Its changes of state are in every checkpoint that does
    /// not name it.
    pub(crate) fn is_dead(&self) -> bool {
        self.is_sealed() && self.live_runs.load(Ordering::Acquire) == 0
    }

    pub(crate) fn hold(&self, bytes: u64) {
        self.live_runs.fetch_add(1, Ordering::Relaxed);
        self.live_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn release(&self, bytes: u64) {
        self.live_runs.fetch_sub(1, Ordering::Relaxed);
        self.live_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id.file_name())
    }
}

type OpenFiles = Cache<SegmentId, Arc<dyn MediumFile>, UnitWeighter, BuildHasherDefault<IdHasher>>;

/// All segments, by id.
pub(crate) struct Segments {
    medium: Arc<dyn Medium>,
    all: RwLock<BTreeMap<SegmentId, Arc<Segment>>>,
    /// Files open for reading. Not sharded, so that the bound holds exactly.
    open: Mutex<OpenFiles>,
}

impl Segments {
    pub(crate) fn new(medium: Arc<dyn Medium>, open_files_max: usize) -> Self {
        let files_max = open_files_max.max(1);
        let open = Cache::with(
            files_max,
            files_max as u64,
            UnitWeighter,
            BuildHasherDefault::default(),
            Default::default(),
        );
        Self { medium, all: RwLock::new(BTreeMap::new()), open: Mutex::new(open) }
    }

    pub(crate) fn insert(&self, segment: Arc<Segment>) {
        self.all.write().insert(segment.id, segment);
    }

    pub(crate) fn get(&self, id: SegmentId) -> Option<Arc<Segment>> {
        self.all.read().get(&id).cloned()
    }

    /// The segment of the log that follows a segment of the log.
    pub(crate) fn next_of_log(&self, id: SegmentId) -> Option<Arc<Segment>> {
        let all = self.all.read();
        let mut after = all.range((Bound::Excluded(id), Bound::Unbounded));
        after.next().map(|(_, next)| next.clone()).filter(|next| !next.id.is_cleaned())
    }

    pub(crate) fn list(&self) -> Vec<Arc<Segment>> {
        self.all.read().values().cloned().collect()
    }

    /// How many there are, and the bytes of their files.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let all = self.all.read();
        (all.len() as u64, all.values().map(|segment| segment.file_bytes.load(Ordering::Relaxed)).sum())
    }

    pub(crate) fn is_any_dead(&self) -> bool {
        self.all.read().values().any(|segment| segment.is_dead())
    }

    /// Forgets a segment; the caller removes its file.
    pub(crate) fn forget(&self, id: SegmentId) {
        self.all.write().remove(&id);
        self.open.lock().remove(&id);
    }

    /// The file, opened if it is not cached. Blocks on I/O.
    pub(crate) fn file(&self, id: SegmentId) -> io::Result<Arc<dyn MediumFile>> {
        if let Some(file) = self.open.lock().get(&id) {
            return Ok(file.clone());
        }
        let file = self.medium.open(&id.file_name())?;
        self.open.lock().insert(id, file.clone());
        Ok(file)
    }
}
