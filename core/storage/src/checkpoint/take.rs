//! Taking a checkpoint while the log goes on.
//!
//! 1. Which segments are sealed is read first: what the snapshots below say about them is final.
//! 2. Under the intake lock: the replay position is the end of what was submitted, and the list of what changed is
//!    taken over.
//! 3. Everything up to there is awaited, so that the snapshots contain it.
//! 4. Snapshots of what changed are put into a transaction. They may contain changes beyond the replay position.
//! 5. Everything submitted until now is made durable: only then may the transaction be committed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{CheckpointError, Meta, RunRecord, SegmentRecord, Sink, Space, encode_cursor, encode_stream};
use crate::cursor::CursorInner;
use crate::error::LogError;
use crate::inner::{Dirty, Inner};
use crate::sabotage::{Bug, is_seeded};
use crate::segments::Segment;
use crate::stream::StreamInner;

/// What to do to the segments in the same transaction.
#[derive(Default)]
pub(crate) struct SegmentChanges {
    /// Not the log's any more once the checkpoint is committed.
    pub(crate) gone: Vec<Arc<Segment>>,
}

impl Inner {
    /// Takes a checkpoint. A failure ends the log: what changed is lost to later checkpoints otherwise.
    pub(crate) fn checkpoint(&self, changes: &SegmentChanges) -> Result<(), LogError> {
        let mut checkpoints = self.checkpoints.lock();
        let segments = self.segments.list();
        let segments: Vec<(u64, SegmentRecord)> = segments
            .iter()
            .filter(|segment| !changes.gone.iter().any(|gone| gone.id == segment.id))
            .map(|segment| (segment.id.0, record_of(segment)))
            .collect();
        let (lsn, dirty) = {
            let mut intake = self.intake.lock();
            if let Some(failure) = &intake.failure {
                return Err(failure.clone());
            }
            self.flush_acks(&mut intake);
            intake.round = intake.round.wrapping_add(1);
            (intake.next_lsn, std::mem::take(&mut intake.dirty))
        };
        // What was submitted before is now in the streams' runs; what comes later is listed for the next round.
        self.wait_committed_blocking(lsn)?;
        let mut failure = None;
        let committed = checkpoints.store.commit(&mut |sink| {
            put_dirty(sink, &dirty)?;
            for (id, record) in &segments {
                sink.put(Space::Segments, &id.to_be_bytes(), &record.encode())?;
            }
            for gone in &changes.gone {
                sink.remove(Space::Segments, &gone.id.0.to_be_bytes())?;
            }
            let submitted = self.intake.lock().next_lsn;
            let durable = if is_seeded(Bug::CheckpointEarly) {
                self.marks.durable()
            } else {
                self.make_durable(submitted).map_err(|error| {
                    failure = Some(error.clone());
                    CheckpointError(error.to_string())
                })?
            };
            let meta = Meta {
                log_id: self.log_id,
                lsn,
                durable,
                next_stream: self.next_stream.load(Ordering::Relaxed),
                next_cursor: self.next_cursor.load(Ordering::Relaxed),
                next_cleaned: self.next_cleaned.load(Ordering::Relaxed),
            };
            sink.put(Space::Meta, Meta::KEY, &meta.encode())
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        committed.map_err(|error| self.fail("taking a checkpoint", &error))?;
        checkpoints.lsn = lsn;
        self.last_checkpoint_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Blocks until everything up to `lsn` is on the medium. Returns the position that is.
    pub(crate) fn make_durable(&self, lsn: u64) -> Result<u64, LogError> {
        self.wait_committed_blocking(lsn)?;
        self.sync_written()
    }
}

fn record_of(segment: &Segment) -> SegmentRecord {
    // Sealed is read first: the rest is final then.
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
