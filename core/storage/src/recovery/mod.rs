//! Recovery of a log: the checkpoint, then a replay of later entries.
//!
//! Invariants:
//! - segments that the checkpoint lists as sealed are not read; the bytes read are bounded by those written since;
//! - a torn tail is cut at the last whole entry, in the last segment only, and only where no later entry proves that the
//!   place had been synced; any other inconsistency is an error that names file and position;
//! - recovered data is on the medium before anybody sees it. It may have been in the page cache only, and after a failed
//!   sync the page cache may hold it as clean while the medium does not have it: data not proven to be synced is therefore
//!   written again.

mod plan;
mod replay;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use self::plan::{NO_COPY, Plan, read_meta};
use self::replay::{Replay, Replayed};
use crate::allocator::{ActiveSegment, SegmentAllocator};
use crate::checkpoint::{CheckpointStore, Meta, MirroredStore};
use crate::clock::Clock;
use crate::directory::Directory;
use crate::error::{CHECKPOINT_COPY_FILE, CHECKPOINT_FILE, OpenError, RESTORE_FOLDER};
use crate::format::index::BLOCK_BYTES as INDEX_BLOCK_BYTES;
use crate::format::segment::{HEADER_BYTES, SegmentId, TRAILER_BYTES};
use crate::intake::{FAILED_FILE, Intake};
use crate::medium::{LOCK_FILE, Medium, MediumFile};
use crate::options::{LogOptions, segment_bytes_at};
use crate::read::ReadPath;
use crate::read::segments::{Segment, Segments};
use crate::sealing::SealQueue;
use crate::seeded_bugs::{Bug, is_seeded};
use crate::space::{DiskSpace, is_full};

/// A log after recovery, before its writer and its maintenance exist.
pub(crate) struct Recovered {
    pub(crate) log_id: u128,
    pub(crate) intake: Arc<Intake>,
    pub(crate) read: Arc<ReadPath>,
    pub(crate) allocator: Arc<SegmentAllocator>,
    pub(crate) sealing: Arc<SealQueue>,
    pub(crate) store: Box<dyn CheckpointStore>,
    /// Replay position of the last checkpoint.
    pub(crate) checkpoint_lsn: u64,
    pub(crate) active: ActiveSegment,
    /// Position of the next entry in the active segment.
    pub(crate) position: u64,
    pub(crate) folder_lock: Box<dyn Send + Sync>,
}

/// Locks the folder and recovers the committed entries. `new_log_id`: identity of a log that does not exist yet.
///
/// A checkpoint that cannot be read is replaced by its copy, or else rebuilt from a log that is complete without it.
pub(crate) fn recover(
    medium: &Arc<dyn Medium>,
    clock: &Arc<dyn Clock>,
    options: &LogOptions,
    space: &Arc<DiskSpace>,
    new_log_id: u128,
) -> Result<Recovered, OpenError> {
    let folder_lock = lock(medium.as_ref())?;
    let names = tidy_folder(medium.as_ref())?;
    let found: Vec<SegmentId> = names.iter().filter_map(|name| SegmentId::from_file_name(name)).collect();
    let attempt = Attempt { medium, clock, options, space, new_log_id, found: &found };
    let error = match MirroredStore::open(medium.clone(), options.checkpoint_cache_bytes_max) {
        Ok(mut store) => loop {
            match attempt.with(&mut store) {
                Err(OpenError::Checkpoint(_)) if store.fall_back() => {}
                Err(OpenError::Checkpoint(error)) => break error,
                Err(error) => return Err(error),
                Ok(restored) => return restored.finish(medium, Box::new(store), folder_lock),
            }
        },
        Err(error) => error,
    };
    if error.is_of_medium() {
        return Err(error.into());
    }
    if !is_complete(&found) {
        return Err(OpenError::CheckpointLost(error));
    }
    tracing::warn!(%error, "checkpoint cannot be read, rebuilding it from the log");
    let mut store = MirroredStore::rebuild(medium.clone(), options.checkpoint_cache_bytes_max)?;
    let restored = match attempt.with(&mut store) {
        Ok(restored) => restored,
        Err(OpenError::Damaged { .. }) => return Err(OpenError::CheckpointLost(error)),
        Err(error) => return Err(error),
    };
    store.finish_rebuild()?;
    restored.finish(medium, Box::new(store), folder_lock)
}

/// Whether the files could be a log from its beginning, which replay then proves.
fn is_complete(found: &[SegmentId]) -> bool {
    found.contains(&SegmentId(0)) && !found.iter().any(|id| id.is_cleaned())
}

/// One attempt to recover the log from a checkpoint.
struct Attempt<'a> {
    medium: &'a Arc<dyn Medium>,
    clock: &'a Arc<dyn Clock>,
    options: &'a LogOptions,
    space: &'a Arc<DiskSpace>,
    new_log_id: u128,
    found: &'a [SegmentId],
}

/// A log that an attempt restored.
struct Restored {
    meta: Meta,
    intake: Arc<Intake>,
    read: Arc<ReadPath>,
    allocator: SegmentAllocator,
    sealing: SealQueue,
    active: ActiveSegment,
    position: u64,
    leftovers: Vec<SegmentId>,
}

impl Attempt<'_> {
    fn with(&self, store: &mut dyn CheckpointStore) -> Result<Restored, OpenError> {
        let (medium, options) = (self.medium, self.options);
        if !store.is_mirrored() {
            // Nothing takes the place of rows that turn out to be damaged when the layers above ask for them.
            store.check()?;
        }
        let known = read_meta(store)?;
        let plan = Plan::new(store, known.as_ref(), self.found)?;
        let meta = match known {
            Some(meta) => meta,
            None => plan.first_meta(medium.as_ref(), store, self.new_log_id)?,
        };
        let directory = Arc::new(Directory::new(meta.next_stream, meta.next_cursor, meta.next_cleaned));
        let segments = Segments::new(medium.clone(), options.open_files_max);
        let read =
            Arc::new(ReadPath::new(segments, options.index_cache_bytes_max, options.read_buffers_bytes_max));
        let intake = Intake::new(options, self.clock.clone(), medium.clone(), directory, &read);
        let clock = self.clock.clone();
        let space = self.space.clone();
        let allocator =
            SegmentAllocator::new(medium.clone(), clock, read.clone(), meta.log_id, options, space);
        let sealing = SealQueue::default();
        let replay = Replay { medium: medium.as_ref(), intake: &intake, read: &read, meta: &meta };
        let (active, position) = restore(&replay, store, &plan, &sealing, &allocator, options)?;
        Ok(Restored { meta, intake, read, allocator, sealing, active, position, leftovers: plan.leftovers })
    }
}

impl Restored {
    fn finish(
        self,
        medium: &Arc<dyn Medium>,
        store: Box<dyn CheckpointStore>,
        folder_lock: Box<dyn Send + Sync>,
    ) -> Result<Recovered, OpenError> {
        for leftover in &self.leftovers {
            remove(medium.as_ref(), &leftover.file_name())?;
        }
        Ok(Recovered {
            log_id: self.meta.log_id,
            intake: self.intake,
            read: self.read,
            allocator: Arc::new(self.allocator),
            sealing: Arc::new(self.sealing),
            store,
            checkpoint_lsn: self.meta.lsn,
            active: self.active,
            position: self.position,
            folder_lock,
        })
    }
}

fn lock(medium: &dyn Medium) -> Result<Box<dyn Send + Sync>, OpenError> {
    medium.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            let dir = PathBuf::from(medium.describe());
            OpenError::Locked { lock: dir.join(LOCK_FILE), dir }
        }
        _ => OpenError::io("lock the folder")(error),
    })
}

fn remove(medium: &dyn Medium, name: &str) -> Result<(), OpenError> {
    medium.remove(name).map_err(OpenError::io(format!("remove {name}")))
}

/// Removes temporary files and makes the checkpoint files trustworthy. Returns the names of the folder's files.
fn tidy_folder(medium: &dyn Medium) -> Result<Vec<String>, OpenError> {
    let names = medium.list().map_err(OpenError::io("list the folder"))?;
    if names.iter().any(|name| name == RESTORE_FOLDER) {
        return Err(OpenError::damaged(
            RESTORE_FOLDER,
            0,
            "a restore did not end: run `inver restore` again",
        ));
    }
    for name in names.iter().filter(|name| name.ends_with(".tmp")) {
        remove(medium, name)?;
    }
    // Names that the last process created and did not sync.
    medium.sync_folder().map_err(OpenError::io("sync the folder"))?;
    if names.iter().any(|name| name == FAILED_FILE) {
        rewrite_checkpoint(medium, &names)?;
    }
    Ok(names)
}

/// Writes the checkpoint files again before they are trusted, after a sync failed in the last process.
fn rewrite_checkpoint(medium: &dyn Medium, names: &[String]) -> Result<(), OpenError> {
    let io = || OpenError::io("rewrite the checkpoint files");
    for name in [CHECKPOINT_FILE, CHECKPOINT_COPY_FILE] {
        if names.iter().any(|found| found == name) && !is_seeded(Bug::TrustPageCache) {
            let file = medium.open(name).map_err(io())?;
            let length = file.len().map_err(io())?;
            rewrite(file.as_ref(), 0, length).map_err(io())?;
            file.sync().map_err(io())?;
        }
    }
    medium.remove(FAILED_FILE).map_err(io())?;
    medium.sync_folder().map_err(io())
}

/// Overwrites a part of a file with its own content, so that the next sync takes it to the medium.
fn rewrite(file: &dyn MediumFile, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = from;
    while at < to {
        let wanted = buffer.len().min((to - at) as usize);
        let read = file.read_at(at, buffer.get_mut(..wanted).unwrap_or_default())?;
        if read == 0 {
            break;
        }
        file.write_at(at, &[io::IoSlice::new(buffer.get(..read).unwrap_or_default())])?;
        at += read as u64;
    }
    Ok(())
}

/// Restores the state of the log. Returns the segment to append to, and the position in it.
fn restore(
    replay: &Replay<'_>,
    store: &dyn CheckpointStore,
    plan: &Plan,
    sealing: &SealQueue,
    allocator: &SegmentAllocator,
    options: &LogOptions,
) -> Result<(ActiveSegment, u64), OpenError> {
    let (intake, read, meta) = (replay.intake, replay.read, replay.meta);
    for (id, record) in &plan.sealed {
        let file_bytes = replay.medium.file_bytes(&id.file_name()).unwrap_or(record.entries_end);
        if !is_sealed_length(file_bytes, record.entries_end) {
            let detail =
                format!("the checkpoint says that the file is sealed, but it has no index; {NO_COPY}");
            return Err(OpenError::damaged(&id.file_name(), record.entries_end, &detail));
        }
        let segment = Segment::new(*id, record.base, None);
        let segment = segment.sealed(record.entries_end, file_bytes, record.max_timestamp);
        read.segments.insert(Arc::new(segment));
    }
    replay.load(store)?;
    let last = replay_segments(replay, plan, sealing)?;
    let end = last.as_ref().map_or(0, |last| last.segment.base + last.entries_end);
    if end < meta.lsn.max(meta.durable) {
        let file = last.as_ref().map_or(CHECKPOINT_FILE.to_owned(), |last| last.segment.id.file_name());
        let position = last.map_or(0, |last| last.entries_end);
        let detail = format!("log ends before a position known to be synced; {NO_COPY}");
        return Err(OpenError::damaged(&file, position, &detail));
    }
    let mut closes_last = false;
    let (active, position) = match last {
        Some(last) => {
            if !make_appendable(&last, options)? {
                tracing::warn!(segment = ?last.segment, "disk is full: the last segment gets no more entries");
                closes_last = true;
            }
            let active = ActiveSegment { segment: last.segment, file: last.file };
            allocator.set_active(Some(active.clone()));
            (active, last.entries_end)
        }
        None => {
            let created = allocator.create(0, 0);
            (created.map_err(|error| intake.fail("create the first segment", error))?, HEADER_BYTES)
        }
    };
    let end = active.segment.base + position;
    let mut state = intake.lock();
    state.start_at(active.segment.base, end);
    if closes_last {
        state.request_roll(active.segment.base);
    }
    drop(state);
    intake.marks.start_at(end);
    let streams = &intake.directory.streams;
    for stream in streams.ids().into_iter().filter_map(|id| streams.get(id)) {
        stream.high.store(stream.next.load(Ordering::Relaxed), Ordering::Release);
        stream.trim(stream.start.load(Ordering::Relaxed));
    }
    Ok((active, position))
}

/// Whether a file of this length can end with an index and a trailer. A copy made before the file was sealed does not.
fn is_sealed_length(file_bytes: u64, entries_end: u64) -> bool {
    let behind = file_bytes.checked_sub(entries_end + TRAILER_BYTES);
    behind.is_some_and(|index_bytes| index_bytes % INDEX_BLOCK_BYTES as u64 == 0)
}

/// Replays the segments in order, and queues all but the last for sealing. Returns the last.
fn replay_segments(
    replay: &Replay<'_>,
    plan: &Plan,
    sealing: &SealQueue,
) -> Result<Option<Replayed>, OpenError> {
    let mut last = None;
    for (at, id) in plan.replayed.iter().enumerate() {
        let next = plan.replayed.get(at + 1).copied();
        let replayed = replay.segment(*id, next)?;
        if next.is_some() {
            replayed.segment.entries_end.store(replayed.entries_end, Ordering::Release);
            sealing.push([replayed.segment]);
        } else {
            last = Some(replayed);
        }
    }
    Ok(last)
}

/// Prepares the last segment for appending: no bytes behind its last entry, space reserved, and everything synced. False
/// if there is no space for more entries.
fn make_appendable(last: &Replayed, options: &LogOptions) -> Result<bool, OpenError> {
    let (file, name) = (last.file.as_ref(), last.segment.id.file_name());
    let io = |attempt: &str| OpenError::io(format!("{attempt} {name}"));
    if last.is_torn {
        tracing::warn!(file = %name, position = last.entries_end, "torn tail truncated");
        file.set_len(last.entries_end).map_err(io("truncate"))?;
        file.sync().map_err(io("sync"))?;
    }
    if !is_seeded(Bug::TrustPageCache) {
        rewrite(file, last.synced, last.entries_end).map_err(io("rewrite the end of"))?;
    }
    let mut has_space = true;
    let segment_bytes = segment_bytes_at(last.segment.base, options.segment_bytes_max);
    if options.preallocate && last.entries_end < segment_bytes {
        match file.allocate(segment_bytes) {
            Err(error) if is_full(&error) => has_space = false,
            allocated => allocated.map_err(io("reserve space for"))?,
        }
    }
    file.sync().map_err(io("sync"))?;
    last.segment.file_bytes.store(file.len().unwrap_or(last.entries_end), Ordering::Relaxed);
    Ok(has_space)
}
