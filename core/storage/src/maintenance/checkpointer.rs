//! Checkpoints, taken while the log goes on, and removal of segments without live data.
//!
//! 1. The list of sealed segments is read first: the snapshots taken later are final for them.
//! 2. Under the intake lock: the replay position is the end of the submitted entries, and the list of changed objects is
//!    taken.
//! 3. Everything up to that position is awaited, so that the snapshots contain it.
//! 4. Snapshots of the changed objects are put into a transaction. They may contain changes beyond the replay position.
//! 5. Everything submitted until now is made durable; only then is the transaction committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::checkpoint::{
    CheckpointStore, Meta, RunRecord, SegmentRecord, Sink, Space, encode_cursor, encode_stream,
};
use crate::clock::Clock;
use crate::cursor::CursorInner;
use crate::durability::Durability;
use crate::error::{CheckpointError, FailureCause, LogError};
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
        Self { parts, state: Mutex::new(CheckpointState { store, lsn }), taken_ms }
    }

    /// Time since the last checkpoint, or since the start.
    pub(crate) fn age(&self) -> Duration {
        let passed_ms = self.parts.clock.now_ms().saturating_sub(self.taken_ms.load(Ordering::Relaxed));
        Duration::from_millis(u64::try_from(passed_ms).unwrap_or(0))
    }

    pub(super) fn is_due(&self) -> bool {
        let submitted = self.parts.intake.lock().submitted();
        let since = submitted.saturating_sub(self.state.lock().lsn);
        since > 0 && (since >= self.parts.bytes_max || self.age() >= self.parts.interval)
    }

    /// The rows of a table, in key order: the last checkpoint, and changes since. A failure to read ends the log, as every
    /// other failure of the medium does; the rows read so far are returned then.
    pub(crate) fn rows(&self, table: TableId) -> Vec<(Bytes, Bytes)> {
        let state = self.state.lock();
        let prefix = table.0.to_be_bytes();
        let mut rows = BTreeMap::new();
        let read = state.store.scan(Space::State, &prefix, &mut |key, value| {
            let key = Bytes::copy_from_slice(key.get(prefix.len()..).unwrap_or_default());
            rows.insert(key, Bytes::copy_from_slice(value));
            Ok(())
        });
        if let Err(error) = read {
            self.parts.intake.fail("read the recovered state", error);
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

    /// Takes a checkpoint that does not name segments without live data, then removes their files.
    pub(crate) fn reclaim(&self) -> Result<(), LogError> {
        let segments = self.parts.read.segments.list();
        let dead: Vec<_> = segments.into_iter().filter(|segment| segment.is_dead()).collect();
        if is_seeded(Bug::RemoveEarly) {
            self.remove(&dead)?;
            return self.take(&dead);
        }
        self.take(&dead)?;
        self.remove(&dead)
    }

    /// Removes the files of segments that the checkpoint no longer names.
    fn remove(&self, segments: &[Arc<Segment>]) -> Result<(), LogError> {
        for segment in segments {
            self.parts.read.segments.forget(segment.id);
            let name = segment.id.file_name();
            let removed = self.parts.medium.remove(&name);
            removed.map_err(|error| self.parts.intake.fail(format!("remove {name}"), error))?;
            self.parts.metrics.reclaimed_segments.add(1);
            self.parts.metrics.reclaimed_bytes.add(segment.file_bytes.load(Ordering::Relaxed));
        }
        Ok(())
    }

    /// Takes a checkpoint that names all segments but the `dead`. A failure ends the log: the changes would be missing
    /// from later checkpoints.
    pub(crate) fn take(&self, dead: &[Arc<Segment>]) -> Result<(), LogError> {
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
        committed.map_err(|error| match error {
            CheckpointError::Log(failure) => failure,
            error => parts.intake.fail("take a checkpoint", FailureCause::from(error)),
        })?;
        state.lsn = lsn;
        self.taken_ms.store(parts.clock.now_ms(), Ordering::Relaxed);
        parts.metrics.checkpoints.add(1);
        Ok(())
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
        encode_stream(marks, &runs, producers)
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
