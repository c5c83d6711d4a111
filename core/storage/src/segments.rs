//! The set of segment files: what each still holds, and a bounded number of them open for reading.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use crate::format::segment::{SegmentId, Spread};
use crate::medium::{Medium, MediumFile};
use crate::stream::StreamInner;

/// A segment file.
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    /// Position in the log of the file's byte 0 (log segments only).
    pub(crate) base: u64,
    pub(crate) created_ms: i64,
    /// Where entries end, as a position in the file; 0 while it is being appended to.
    pub(crate) entries_end: AtomicU64,
    /// The footer is on the medium.
    pub(crate) sealed: AtomicBool,
    pub(crate) max_timestamp: AtomicI64,
    /// The cleaner could not read it.
    pub(crate) is_unreadable: AtomicBool,
    /// Streams' runs that still count on this file, and the bytes of their batches.
    pub(crate) live_runs: AtomicU64,
    pub(crate) live_bytes: AtomicU64,
    /// Where the index starts and how many blocks it has, once known.
    pub(crate) index_place: OnceLock<(u64, u32)>,
    /// How much its streams lie among each other, once known.
    pub(crate) spread: OnceLock<Spread>,
    /// Streams that got data here, until it is sealed. May name one twice.
    pub(crate) touched: Mutex<Vec<Arc<StreamInner>>>,
}

impl Segment {
    pub(crate) fn new(id: SegmentId, base: u64, created_ms: i64) -> Self {
        Self {
            id,
            base,
            created_ms,
            entries_end: AtomicU64::new(0),
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

    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
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

/// All segments, by id.
#[derive(Debug)]
pub(crate) struct Segments {
    medium: Arc<dyn Medium>,
    all: RwLock<BTreeMap<SegmentId, Arc<Segment>>>,
    open: Mutex<OpenFiles>,
}

#[derive(Debug)]
struct OpenFiles {
    files_max: usize,
    tick: u64,
    by_id: HashMap<SegmentId, (u64, Arc<dyn MediumFile>)>,
}

impl Segments {
    pub(crate) fn new(medium: Arc<dyn Medium>, files_max: usize) -> Self {
        let open = OpenFiles { files_max: files_max.max(1), tick: 0, by_id: HashMap::new() };
        Self { medium, all: RwLock::new(BTreeMap::new()), open: Mutex::new(open) }
    }

    pub(crate) fn insert(&self, segment: Arc<Segment>) {
        self.all.write().insert(segment.id, segment);
    }

    pub(crate) fn get(&self, id: SegmentId) -> Option<Arc<Segment>> {
        self.all.read().get(&id).cloned()
    }

    pub(crate) fn list(&self) -> Vec<Arc<Segment>> {
        self.all.read().values().cloned().collect()
    }

    /// Forgets a segment; its file is removed by the caller.
    pub(crate) fn forget(&self, id: SegmentId) {
        self.all.write().remove(&id);
        self.open.lock().by_id.remove(&id);
    }

    /// The file for reading, opened if need be. Blocks on I/O.
    pub(crate) fn file(&self, id: SegmentId) -> io::Result<Arc<dyn MediumFile>> {
        let mut open = self.open.lock();
        open.tick += 1;
        let tick = open.tick;
        if let Some((used, file)) = open.by_id.get_mut(&id) {
            *used = tick;
            return Ok(file.clone());
        }
        drop(open);
        let file = self.medium.open(&id.file_name())?;
        let mut open = self.open.lock();
        if open.by_id.len() >= open.files_max {
            let longest_unused = open.by_id.iter().min_by_key(|(_, (used, _))| *used).map(|(id, _)| *id);
            if let Some(unused) = longest_unused {
                open.by_id.remove(&unused);
            }
        }
        open.by_id.insert(id, (tick, file.clone()));
        Ok(file)
    }
}
