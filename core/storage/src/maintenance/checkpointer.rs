//! Checkpoints, taken while the log goes on, and removal of segments without live data.
//!
//! 1. The list of sealed segments is read first: the snapshots taken later are final for them.
//! 2. Under the intake lock: the replay position is the end of the submitted entries, and the list of changed objects is
//!    taken.
//! 3. Everything up to that position is awaited, so that the snapshots contain it.
//! 4. Snapshots of the changed objects are put into a transaction. They may contain changes beyond the replay position.
//! 5. Everything submitted until now is made durable; only then is the transaction committed.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::background::{Background, BackgroundTask};
use crate::checkpoint::{
    CheckpointStore, Meta, RunRecord, SegmentRecord, Sink, Space, encode_cursor, encode_stream,
};
use crate::clock::Clock;
use crate::cursor::CursorInner;
use crate::durability::Durability;
use crate::error::{CheckpointError, FailureCause, LogError};
use crate::format::segment::SegmentId;
use crate::ids::TableId;
use crate::intake::{Dirty, Intake};
use crate::medium::Medium;
use crate::metrics::LogMetrics;
use crate::read::ReadPath;
use crate::read::segments::Segment;
use crate::seeded_bugs::{Bug, is_seeded};
use crate::stream::StreamInner;
use crate::waiter::CommitWaiter;

pub(crate) struct Checkpointer {
    parts: CheckpointerParts,
    state: Mutex<CheckpointState>,
    taken_ms: AtomicI64,
    background: Arc<Background>,
    /// Files that could not be removed.
    left: Mutex<Vec<SegmentId>>,
    /// A backup reads segment files: none is removed.
    pub(super) is_held: AtomicBool,
    /// Whether the checkpoint is kept in two files.
    is_mirrored: AtomicBool,
}

/// The parts of the log that checkpoints are taken of.
pub(crate) struct CheckpointerParts {
    pub(crate) log_id: u128,
    pub(crate) medium: Arc<dyn Medium>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) read: Arc<ReadPath>,
    pub(crate) waiter: Arc<CommitWaiter>,
    pub(crate) durability: Arc<Durability>,
    pub(crate) metrics: Arc<LogMetrics>,
    pub(crate) interval: Duration,
    pub(crate) bytes_max: u64,
}

struct CheckpointState {
    store: Box<dyn CheckpointStore>,
    /// Replay position of the last checkpoint.
    lsn: u64,
}

impl Checkpointer {
    pub(crate) fn new(parts: CheckpointerParts, store: Box<dyn CheckpointStore>, lsn: u64) -> Self {
        let taken_ms = AtomicI64::new(parts.clock.now_ms());
        let is_mirrored = AtomicBool::new(store.is_mirrored());
        let state = Mutex::new(CheckpointState { store, lsn });
        let background = Arc::new(Background::new(parts.clock.clone()));
        Self {
            parts,
            state,
            taken_ms,
            background,
            left: Mutex::default(),
            is_held: AtomicBool::new(false),
            is_mirrored,
        }
    }

    /// Time since the last checkpoint, or since the start.
    pub(crate) fn age(&self) -> Duration {
        let passed_ms = self.parts.clock.now_ms().saturating_sub(self.taken_ms.load(Ordering::Relaxed));
        Duration::from_millis(u64::try_from(passed_ms).unwrap_or(0))
    }

    /// Closes the files, before the folder's lock is released.
    pub(crate) fn close(&self) {
        self.state.lock().store.close();
    }

    /// Writes a copy of the last checkpoint into a file.
    pub(super) fn copy_to(&self, name: &str) -> Result<(), CheckpointError> {
        self.state.lock().store.copy_to(name)
    }

    /// The work of maintenance that is put off.
    pub(super) fn background(&self) -> Arc<Background> {
        self.background.clone()
    }

    /// Whether the checkpoint is kept in two files, so that damage of one loses nothing.
    pub(crate) fn is_mirrored(&self) -> bool {
        self.is_mirrored.load(Ordering::Relaxed)
    }

    pub(super) fn is_due(&self) -> bool {
        let submitted = self.parts.intake.lock().submitted();
        let since = submitted.saturating_sub(self.state.lock().lsn);
        since > 0 && (since >= self.parts.bytes_max || self.age() >= self.parts.interval)
    }

    /// The rows of a table, in key order: the last checkpoint, and changes since. A failure to read ends the log, as every
    /// other failure of the medium does; the rows read so far are returned then.
    pub(crate) fn rows(&self, table: TableId) -> Vec<(Bytes, Bytes)> {
        let mut state = self.state.lock();
        let prefix = table.0.to_be_bytes();
        let mut rows = BTreeMap::new();
        loop {
            let read = state.store.scan(Space::State, &prefix, &mut |key, value| {
                let key = Bytes::copy_from_slice(key.get(prefix.len()..).unwrap_or_default());
                rows.insert(key, Bytes::copy_from_slice(value));
                Ok(())
            });
            let Err(error) = read else { break };
            if !state.store.fall_back() {
                self.parts.intake.fail("read the recovered state", error);
                break;
            }
            rows.clear();
        }
        for ((changed, key), value) in &self.parts.intake.lock().dirty.state {
            if *changed == table.0 {
                match value {
                    Some(value) => rows.insert(key.clone(), value.clone()),
                    None => rows.remove(key),
                };
            }
        }
        rows.into_iter().collect()
    }

    /// Takes a checkpoint that does not name segments without live data, then removes their files. False if the checkpoint
    /// was put off.
    pub(crate) fn reclaim(&self) -> Result<bool, LogError> {
        let segments = self.parts.read.segments.list();
        let is_held = self.is_held.load(Ordering::Acquire);
        let dead: Vec<_> = segments.into_iter().filter(|segment| !is_held && segment.is_dead()).collect();
        if is_seeded(Bug::RemoveEarly) {
            self.remove(&dead);
            return self.take(&dead);
        }
        let is_taken = self.take(&dead)?;
        if is_taken {
            self.remove(&dead);
        }
        Ok(is_taken)
    }

    /// Removes the files of segments that the checkpoint no longer names. What stays is tried again later, and at the next
    /// start.
    fn remove(&self, segments: &[Arc<Segment>]) {
        for segment in segments {
            self.parts.read.segments.forget(segment.id);
            if let Err(error) = self.parts.medium.remove(&segment.id.file_name()) {
                self.left.lock().push(segment.id);
                self.background.put_off(BackgroundTask::Removal, &error);
                continue;
            }
            self.parts.metrics.reclaimed_segments.add(1);
            self.parts.metrics.reclaimed_bytes.add(segment.file_bytes.load(Ordering::Relaxed));
        }
    }

    /// Removes files that could not be removed before.
    pub(super) fn remove_left(&self) {
        let mut left = self.left.lock();
        if left.is_empty() || !self.background.may_try(BackgroundTask::Removal) {
            return;
        }
        while let Some(id) = left.last() {
            match self.parts.medium.remove(&id.file_name()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return self.background.put_off(BackgroundTask::Removal, &error);
                }
                _ => left.pop(),
            };
        }
        self.background.done(BackgroundTask::Removal);
    }

    /// Takes a checkpoint that names all segments but the `dead`. False if it could not be written: it is put off, and the
    /// changes go into the next one. After a failed sync of the only file the log ends, because its content is unknown.
    pub(crate) fn take(&self, dead: &[Arc<Segment>]) -> Result<bool, LogError> {
        let parts = &self.parts;
        let mut state = self.state.lock();
        let segments: Vec<(u64, SegmentRecord)> = parts
            .read
            .segments
            .list()
            .iter()
            .filter(|segment| !dead.iter().any(|dead| dead.id == segment.id))
            .map(|segment| (segment.id.0, record_of(segment)))
            .collect();
        let (lsn, dirty) = {
            let mut intake = parts.intake.lock();
            parts.intake.check_failure()?;
            parts.intake.flush_acks(&mut intake);
            (intake.next_lsn, intake.take_dirty())
        };
        // Earlier entries are in the streams' runs after this wait; later changes are listed for the next round.
        parts.waiter.wait(lsn)?;
        let committed = state.store.commit(&mut |sink| {
            put_dirty(sink, &dirty)?;
            for (id, record) in &segments {
                sink.put(Space::Segments, &id.to_be_bytes(), &record.encode())?;
            }
            for segment in dead {
                sink.remove(Space::Segments, &segment.id.0.to_be_bytes())?;
            }
            let submitted = parts.intake.lock().next_lsn;
            let durable = if is_seeded(Bug::CheckpointEarly) {
                parts.intake.marks.durable()
            } else {
                parts.durability.make_durable(submitted)?
            };
            let meta = Meta {
                log_id: parts.log_id,
                lsn,
                durable,
                next_stream: parts.intake.directory.next_stream(),
                next_cursor: parts.intake.directory.next_cursor(),
                next_cleaned: parts.intake.directory.next_cleaned(),
            };
            sink.put(Space::Meta, Meta::KEY, &meta.encode())
        });
        self.is_mirrored.store(state.store.is_mirrored(), Ordering::Relaxed);
        match committed {
            Ok(()) => {}
            Err(CheckpointError::Log(failure)) => return Err(failure),
            Err(error @ CheckpointError::Unsynced) => {
                return Err(parts.intake.fail("take a checkpoint", FailureCause::from(error)));
            }
            Err(error) => {
                self.set_put_off(&error);
                parts.intake.lock().put_back(dirty);
                return Ok(false);
            }
        }
        state.lsn = lsn;
        self.taken_ms.store(parts.clock.now_ms(), Ordering::Relaxed);
        self.background.done(BackgroundTask::Checkpoint);
        match state.store.copy_failure() {
            Some(error) => {
                if self.background.may_try(BackgroundTask::CheckpointCopy) {
                    self.background.put_off(BackgroundTask::CheckpointCopy, error);
                }
            }
            None => self.background.done(BackgroundTask::CheckpointCopy),
        }
        parts.metrics.checkpoints.add(1);
        Ok(true)
    }

    fn set_put_off(&self, error: &CheckpointError) {
        self.parts.metrics.checkpoints_put_off.add(1);
        self.background.put_off(BackgroundTask::Checkpoint, error);
    }
}

fn record_of(segment: &Segment) -> SegmentRecord {
    // Read `sealed` first: the other fields are final then.
    let is_sealed = segment.is_sealed();
    SegmentRecord {
        is_sealed,
        base: segment.base,
        entries_end: segment.entries_end.load(Ordering::Acquire),
        max_timestamp: segment.max_timestamp.load(Ordering::Relaxed),
    }
}

fn put_dirty(sink: &mut dyn Sink, dirty: &Dirty) -> Result<(), CheckpointError> {
    for ((table, key), value) in &dirty.state {
        let mut full = table.to_be_bytes().to_vec();
        full.extend_from_slice(key);
        match value {
            Some(value) => sink.put(Space::State, &full, value)?,
            None => sink.remove(Space::State, &full)?,
        }
    }
    for stream in &dirty.streams {
        put_stream(sink, stream)?;
    }
    for cursor in &dirty.cursors {
        put_cursor(sink, cursor)?;
    }
    Ok(())
}

fn put_stream(sink: &mut dyn Sink, stream: &StreamInner) -> Result<(), CheckpointError> {
    let key = stream.id.to_be_bytes();
    if stream.deleted.load(Ordering::Acquire) {
        return sink.remove(Space::Streams, &key);
    }
    let value = {
        let producers = stream.producers.lock();
        let state = stream.state.lock();
        let run_record = |run: &crate::stream::runs::Run| RunRecord {
            segment: run.segment.id.0,
            first: run.first,
            bytes: run.bytes,
            max_timestamp: run.max_timestamp,
        };
        let runs: Vec<RunRecord> = state.runs.iter().map(run_record).collect();
        let marks = (
            stream.start.load(Ordering::Acquire),
            stream.next.load(Ordering::Acquire),
            stream.last_timestamp.load(Ordering::Acquire),
        );
        let producers = if is_seeded(Bug::ForgetProducers) { None } else { producers.as_deref() };
        // What is submitted is durable before the checkpoint is.
        let transactions = state.transactions.as_ref().map(|transactions| transactions.settled());
        encode_stream(marks, &runs, producers, transactions.as_ref())
    };
    sink.put(Space::Streams, &key, &value)
}

fn put_cursor(sink: &mut dyn Sink, cursor: &CursorInner) -> Result<(), CheckpointError> {
    let key = cursor.id.to_be_bytes();
    if cursor.deleted.load(Ordering::Acquire) {
        return sink.remove(Space::Cursors, &key);
    }
    let value = encode_cursor(cursor.stream, &cursor.state.lock());
    sink.put(Space::Cursors, &key, &value)
}
