//! Key compaction: of the records of a stream with the same key, only the last one is kept.
//!
//! Rewrites the sealed part of one stream into new segments. Offsets do not change: batches lose records but keep their
//! base offset and span, and a batch that lost all of them is a gap. Not compacted: data outside of sealed segments,
//! records without a key, batches that cannot be decoded, and records in or after an open transaction. Records of aborted
//! transactions are dropped, and markers of transactions without remaining records as tombstones are.
//!
//! A tombstone is kept for a time from the first pass that found it (KIP-534), so that readers that follow within this time
//! see it. All times are the log's, not those of records: when a segment was started and closed, and when a pass was made.
//!
//! The state of idempotent producers does not depend on the batches and outlives them. Readers keep the bytes
//! that they hold; a reader about to read a replaced segment looks the offset up again, and replaced batches leave the
//! tail cache.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::rewrite::{MovedRun, OldRun, RewriteError, Rewriter, SegmentCopy};
use super::survivors::Survivors;
use crate::batch::BatchHeader;
use crate::clock::Clock;
use crate::compaction::{CompactedStream, Progress, ms};
use crate::error::LogError;
use crate::format::index::Extent;
use crate::ids::{TableId, stream_row_key};
use crate::metrics::LogMetrics;
use crate::options::LogOptions;
use crate::read::StoredBatch;
use crate::read::segments::Segment;
use crate::stream::StreamInner;
use crate::stream::runs::Run;

/// Streams compacted before a checkpoint is taken.
const STREAMS_AT_ONCE_MAX: usize = 64;
/// Least age of a segment that is closed for a stream that must be compacted.
const ROLL_AGE_MS_MIN: i64 = 60_000;

pub(super) struct Compactor {
    rewriter: Arc<Rewriter>,
    clock: Arc<dyn Clock>,
    metrics: Arc<LogMetrics>,
    segment_bytes_max: u64,
    keys_max: usize,
}

impl Compactor {
    pub(super) fn new(
        rewriter: Arc<Rewriter>,
        clock: Arc<dyn Clock>,
        metrics: Arc<LogMetrics>,
        options: &LogOptions,
    ) -> Self {
        Self {
            rewriter,
            clock,
            metrics,
            segment_bytes_max: options.segment_bytes_max,
            keys_max: options.compaction_keys_max,
        }
    }

    /// Compacts streams with enough new data, or with tombstones whose time is over, if there are any. Returns whether a
    /// checkpoint is wanted now.
    pub(super) fn compact(&self) -> Result<bool, LogError> {
        let mut compacted = 0;
        for (stream, known) in self.rewriter.intake.directory.compacted_streams() {
            let due = Due::new(self.clock.now_ms(), &known);
            let Some((runs, end)) = self.runs_to_compact(&stream, &known, &due) else { continue };
            // A damaged stream counts as scanned as well: it is not tried again before there is new data.
            let mut progress =
                Progress { scanned_to: end.max(known.progress.scanned_to), ..known.progress.clone() };
            match self.compact_stream(&stream, &known, &due, runs) {
                Ok(survivors) => {
                    progress.clean_to = survivors.end().min(end).max(progress.clean_to);
                    stream.compacted(progress.clean_to);
                    if survivors.is_full() && progress.clean_to > known.progress.clean_to {
                        progress.scanned_to = progress.clean_to;
                    }
                    progress.note_pass(due.now_ms, due.tombstones_ms, survivors.has_tombstones());
                }
                Err(RewriteError::Unreadable(error)) => {
                    tracing::error!(%error, stream = stream.id, "failed to compact a stream");
                    progress.put_off(due.now_ms);
                    self.rewriter.discard();
                }
                Err(RewriteError::Io(error)) => {
                    self.rewriter.pause(&error);
                    return Ok(compacted > 0);
                }
                Err(RewriteError::Log(error)) => return Err(error),
            }
            self.set_progress(stream.id, progress);
            compacted += 1;
            if compacted == STREAMS_AT_ONCE_MAX {
                break;
            }
        }
        Ok(compacted > 0)
    }

    /// Whether a segment that is being appended to must be closed, because a stream must be compacted that has data in it.
    pub(super) fn must_close(&self, active: &Arc<Segment>) -> bool {
        let age_ms = self.clock.now_ms().saturating_sub(active.known_created_ms().unwrap_or_default());
        if age_ms < ROLL_AGE_MS_MIN {
            return false;
        }
        let directory = &self.rewriter.intake.directory;
        let due = directory.compaction.ids_where(|known| age_ms as u64 >= ms(known.policy.lag_max));
        due.into_iter().filter_map(|id| directory.streams.get(id)).any(|stream| {
            let state = stream.state.lock();
            state.runs.iter().next_back().is_some_and(|run| Arc::ptr_eq(&run.segment, active))
        })
    }

    fn set_progress(&self, stream: u64, progress: Progress) {
        let intake = &self.rewriter.intake;
        let row = progress.encode();
        let mut state = intake.lock();
        if intake.directory.compaction.set_progress(stream, progress) {
            let key = (TableId::COMPACTION_PROGRESS.0, stream_row_key(stream));
            state.dirty.state.insert(key, Some(row));
        }
    }

    fn compact_stream(
        &self,
        stream: &Arc<StreamInner>,
        known: &CompactedStream,
        due: &Due,
        runs: Vec<OldRun>,
    ) -> Result<Survivors, RewriteError> {
        let clean_to = known.progress.clean_to;
        let is_kept = !known.policy.delete_retention.is_zero();
        let expired_to = if is_kept { known.progress.found_before(due.tombstones_ms) } else { u64::MAX };
        let mut survivors = Survivors::new(clean_to, self.keys_max, expired_to);
        self.scan(stream, &runs, clean_to, &mut survivors)?;
        survivors.start_second_pass();
        let mut runs = runs.into_iter().peekable();
        while runs.peek().is_some() {
            let mut copy = self.rewriter.create()?;
            let (mut olds, mut moved) = (Vec::new(), Vec::new());
            while copy.bytes() < self.segment_bytes_max
                && let Some(run) = runs.next()
            {
                olds.push((run.segment.clone(), run.first));
                let run = self.copy_survivors(&mut copy, stream, run, &mut survivors)?;
                if !run.is_empty() {
                    moved.push(run);
                }
            }
            let segment = if moved.is_empty() {
                None
            } else {
                Some(self.rewriter.finish(copy, olds.iter().map(|(old, _)| old))?)
            };
            self.rewriter.discard();
            let is_old = |run: &Run| {
                olds.iter().any(|(old, first)| *first == run.first && Arc::ptr_eq(old, &run.segment))
            };
            self.rewriter.install(stream, is_old, &moved, segment.as_ref());
        }
        self.metrics.compactions.add(1);
        Ok(survivors)
    }

    /// The first pass: finds the last record of each key. Below `clean_to` each key occurs once.
    fn scan(
        &self,
        stream: &StreamInner,
        runs: &[OldRun],
        clean_to: u64,
        survivors: &mut Survivors,
    ) -> Result<(), RewriteError> {
        for run in runs.iter().filter(|run| run.end > clean_to) {
            let mut from = stream.start.load(Ordering::Acquire).max(run.first).max(clean_to);
            loop {
                let (extents, batches) = self.rewriter.read_run(stream, run, from)?;
                let Some(end) = extents.last().map(Extent::end) else { break };
                from = end;
                if !batches.iter().all(|stored| survivors.note(stored)) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The second pass: copies the surviving records of a run.
    fn copy_survivors(
        &self,
        copy: &mut SegmentCopy,
        stream: &StreamInner,
        run: OldRun,
        survivors: &mut Survivors,
    ) -> Result<MovedRun, RewriteError> {
        let mut from = stream.start.load(Ordering::Acquire).max(run.first);
        let mut moved = MovedRun::new(run);
        loop {
            let (extents, batches) = self.rewriter.read_run(stream, &moved.old, from)?;
            let Some(end) = extents.last().map(Extent::end) else { break };
            from = end;
            let (mut kept_extents, mut kept) = (Vec::new(), Vec::new());
            for (extent, stored) in extents.iter().zip(batches) {
                let Some(bytes) = survivors.keep(&stored) else { continue };
                let Ok(header) = BatchHeader::parse(&bytes) else { continue };
                kept_extents.push(Extent {
                    length: bytes.len() as u32,
                    max_timestamp: header.max_timestamp,
                    ..*extent
                });
                kept.push(StoredBatch { bytes, ..stored });
            }
            if !kept.is_empty() {
                copy.put_entry(stream.id, &kept_extents, &kept)?;
                moved.add(&kept_extents);
            }
        }
        Ok(moved)
    }

    /// The sealed runs of a stream and where they end, if it has to be compacted.
    fn runs_to_compact(
        &self,
        stream: &StreamInner,
        known: &CompactedStream,
        due: &Due,
    ) -> Option<(Vec<OldRun>, u64)> {
        let mut sealed: Vec<(OldRun, u64)> = {
            let state = stream.state.lock();
            let high = stream.high.load(Ordering::Acquire);
            let ends = state.runs.iter().skip(1).map(|next| next.first).chain([high]);
            let sealed = state.runs.iter().zip(ends).take_while(|(run, _)| run.segment.is_sealed());
            let old = |run: &Run, end| OldRun { segment: run.segment.clone(), first: run.first, end };
            sealed.map(|(run, end)| (old(run, end), run.bytes)).collect()
        };
        if known.policy.lag_min > Duration::ZERO {
            let is_young = |run: &OldRun| {
                run.end > known.progress.scanned_to && !self.is_written_before(&run.segment, due.youngest_ms)
            };
            let young = sealed.iter().position(|(run, _)| is_young(run));
            sealed.truncate(young.unwrap_or(sealed.len()));
        }
        let total: u64 = sealed.iter().map(|(_, bytes)| bytes).sum();
        let new = || sealed.iter().filter(|(run, _)| run.end > known.progress.scanned_to);
        let dirty: u64 = new().map(|(_, bytes)| bytes).sum();
        let end = sealed.last()?.0.end;
        let is_wanted = dirty > 0 && dirty * 100 >= total * u64::from(known.policy.dirty_percent_min)
            || known.progress.found_before(due.tombstones_ms) > 0
            || due
                .oldest_ms
                .is_some_and(|oldest_ms| new().any(|(run, _)| self.may_be_older(&run.segment, oldest_ms)));
        is_wanted.then(|| (sealed.into_iter().map(|(run, _)| run).collect(), end))
    }

    /// Whether everything in a sealed segment was written before a time. Not if that is unknown, because it cannot be read.
    fn is_written_before(&self, segment: &Segment, time_ms: i64) -> bool {
        let until_ms = self.rewriter.read.written_until_ms(segment);
        until_ms.is_ok_and(|until_ms| until_ms.is_some_and(|until_ms| until_ms <= time_ms))
    }

    /// Whether anything in a sealed segment may have been written before a time. A copy does not tell.
    fn may_be_older(&self, segment: &Segment, time_ms: i64) -> bool {
        segment.id.is_cleaned()
            || self.rewriter.read.created_ms(segment).is_ok_and(|created_ms| created_ms <= time_ms)
    }
}

/// Points in time by the policy of a stream, ms since the epoch.
struct Due {
    now_ms: i64,
    /// Tombstones that a pass found before are dropped.
    tombstones_ms: i64,
    /// What was written later is not compacted.
    youngest_ms: i64,
    /// What was written earlier is compacted whatever its share.
    oldest_ms: Option<i64>,
}

impl Due {
    fn new(now_ms: i64, known: &CompactedStream) -> Self {
        let before = |age: Duration| now_ms.saturating_sub_unsigned(ms(age));
        let policy = &known.policy;
        Self {
            now_ms,
            tombstones_ms: before(policy.delete_retention),
            youngest_ms: before(policy.lag_min),
            oldest_ms: (ms(policy.lag_max) < i64::MAX as u64).then(|| before(policy.lag_max)),
        }
    }
}
