//! Key compaction: of the records of a stream with the same key, only the last one is kept.
//!
//! Rewrites the sealed part of one stream into new segments. Offsets do not change: batches lose records but keep their
//! base offset and span, and a batch that lost all of them is a gap. Not compacted: data outside of sealed segments,
//! records without a key, batches that cannot be decoded, and records in or after an open transaction. Records of aborted
//! transactions are dropped, and markers of transactions without remaining records, once the tombstone retention has
//! passed. The state of idempotent producers does not depend on the batches and outlives them. Readers keep the bytes
//! that they hold; a reader about to read a replaced segment looks the offset up again, and replaced batches leave the
//! tail cache.

use std::sync::Arc;
use std::sync::atomic::Ordering;

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
use crate::stream::StreamInner;
use crate::stream::runs::Run;

/// Streams compacted before a checkpoint is taken.
const STREAMS_AT_ONCE_MAX: usize = 64;

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

    /// Compacts streams with enough new data, if there are any. Returns whether a checkpoint is wanted now.
    pub(super) fn compact(&self) -> Result<bool, LogError> {
        let mut compacted = 0;
        for (stream, known) in self.rewriter.intake.directory.compacted_streams() {
            let Some((runs, end)) = self.runs_to_compact(&stream, &known) else { continue };
            // A damaged stream counts as scanned as well: it is not tried again before there is new data.
            let mut progress = Progress { clean_to: known.progress.clean_to, scanned_to: end };
            match self.compact_stream(&stream, &known, runs) {
                Ok(survivors) => {
                    progress.clean_to = survivors.end().min(end).max(progress.clean_to);
                    stream.compacted(progress.clean_to);
                    if survivors.is_full() && progress.clean_to > known.progress.clean_to {
                        progress.scanned_to = progress.clean_to;
                    }
                }
                Err(RewriteError::Unreadable(error)) => {
                    tracing::error!(%error, stream = stream.id, "failed to compact a stream");
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

    fn set_progress(&self, stream: u64, progress: Progress) {
        let intake = &self.rewriter.intake;
        let mut state = intake.lock();
        if intake.directory.compaction.set_progress(stream, progress) {
            let key = (TableId::COMPACTION_PROGRESS.0, stream_row_key(stream));
            state.dirty.state.insert(key, Some(progress.encode()));
        }
    }

    fn compact_stream(
        &self,
        stream: &Arc<StreamInner>,
        known: &CompactedStream,
        runs: Vec<OldRun>,
    ) -> Result<Survivors, RewriteError> {
        let expired_to_ms = self.clock.now_ms().saturating_sub_unsigned(ms(known.policy.delete_retention));
        let clean_to = known.progress.clean_to;
        let mut survivors = Survivors::new(clean_to, self.keys_max, expired_to_ms);
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
            let segment = if moved.is_empty() { None } else { Some(self.rewriter.finish(copy)?) };
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

    /// The sealed runs of a stream and where they end, if enough of their data is new.
    fn runs_to_compact(&self, stream: &StreamInner, known: &CompactedStream) -> Option<(Vec<OldRun>, u64)> {
        let lag_ms = ms(known.policy.lag_min);
        let youngest_ms =
            if lag_ms == 0 { i64::MAX } else { self.clock.now_ms().saturating_sub_unsigned(lag_ms) };
        let state = stream.state.lock();
        let high = stream.high.load(Ordering::Acquire);
        let ends = state.runs.iter().skip(1).map(|next| next.first).chain([high]);
        let is_ready = |run: &Run| run.segment.is_sealed() && run.max_timestamp <= youngest_ms;
        let sealed: Vec<_> = state.runs.iter().zip(ends).take_while(|(run, _)| is_ready(run)).collect();
        let total: u64 = sealed.iter().map(|(run, _)| run.bytes).sum();
        let is_new = |end: u64| end > known.progress.scanned_to;
        let dirty: u64 = sealed.iter().filter(|(_, end)| is_new(*end)).map(|(run, _)| run.bytes).sum();
        let end = sealed.last()?.1;
        let is_wanted = dirty > 0 && dirty * 100 >= total * u64::from(known.policy.dirty_percent_min);
        let old =
            |(run, end): &(&Run, u64)| OldRun { segment: run.segment.clone(), first: run.first, end: *end };
        is_wanted.then(|| (sealed.iter().map(old).collect(), end))
    }
}
