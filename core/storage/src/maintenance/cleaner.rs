//! The cleaner: copies live data out of mostly dead segments into a new one, sorted by stream.
//!
//! One stream whose position never moves thus does not keep the data of others on the disk. The cleaner also sorts
//! segments whose streams are very interleaved, so that reading one of them does not seek. It runs before the checkpoint,
//! under the maintenance lock; appends go on meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::rewrite::{MovedRun, OldRun, RewriteError, Rewriter, SegmentCopy};
use crate::clock::Clock;
use crate::error::LogError;
use crate::metrics::LogMetrics;
use crate::options::LogOptions;
use crate::read::segments::Segment;
use crate::seeded_bugs::{Bug, is_seeded};
use crate::stream::StreamInner;
use crate::stream::runs::Run;

/// Number of small cleaned segments that are merged into one.
const SMALL_MAX: usize = 16;

type StreamRuns = (Arc<StreamInner>, Vec<OldRun>);

pub(super) struct Cleaner {
    rewriter: Arc<Rewriter>,
    clock: Arc<dyn Clock>,
    metrics: Arc<LogMetrics>,
    segment_bytes_max: u64,
    live_percent_max: u32,
    places_min: u32,
    places_age_ms: i64,
}

impl Cleaner {
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
            live_percent_max: options.clean_live_percent_max,
            places_min: options.clean_places_min,
            places_age_ms: i64::try_from(options.clean_places_age.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// Rewrites one set of mostly dead segments, if there is any. Returns whether a checkpoint is wanted now.
    pub(super) fn clean(&self) -> Result<bool, LogError> {
        let chosen = self.choose();
        if chosen.is_empty() {
            return Ok(false);
        }
        match self.rewrite(&chosen) {
            Ok(()) => Ok(true),
            Err(RewriteError::Unreadable(error)) => {
                tracing::error!(%error, "failed to clean a segment");
                for segment in &chosen {
                    if error.file() == Some(segment.id.file_name().as_str()) {
                        segment.is_unreadable.store(true, Ordering::Relaxed);
                    }
                }
                self.rewriter.discard();
                Ok(false)
            }
            Err(RewriteError::Io(error)) => {
                self.rewriter.pause(&error);
                Ok(false)
            }
            Err(RewriteError::Log(error)) => Err(error),
        }
    }

    /// Chooses the segments to rewrite into a new one: mostly dead ones, and small ones that the cleaner wrote before. If
    /// no segment is mostly dead: one that is interleaved, or else small ones if there are many.
    fn choose(&self) -> Vec<Arc<Segment>> {
        let percent = u64::from(self.live_percent_max);
        let room = self.segment_bytes_max;
        let mut chosen: Vec<Arc<Segment>> = Vec::new();
        let mut bytes = 0;
        let live = |segment: &Segment| segment.live_bytes.load(Ordering::Relaxed);
        let (mut small, mut others) = (Vec::new(), Vec::new());
        for segment in self.rewriter.read.segments.list() {
            let total = segment.entries_end.load(Ordering::Relaxed);
            let is_live = segment.live_runs.load(Ordering::Relaxed) > 0;
            if !segment.is_sealed() || !is_live || segment.is_unreadable.load(Ordering::Relaxed) {
                continue;
            }
            if live(&segment) * 100 < total * percent {
                if bytes + live(&segment) <= room {
                    bytes += live(&segment);
                    chosen.push(segment);
                }
            } else if segment.id.is_cleaned() && total < room / 2 {
                small.push(segment);
            } else if !segment.id.is_cleaned() {
                others.push(segment);
            }
        }
        if chosen.is_empty()
            && let Some(interleaved) =
                others.into_iter().find(|segment| live(segment) <= room && self.is_interleaved(segment))
        {
            return vec![interleaved];
        }
        let (dead, is_many) = (chosen.len(), small.len() >= SMALL_MAX);
        for segment in small {
            // A small segment joins if it at most doubles the work, so that the number of files stays low.
            let is_worth_it = is_many || (!chosen.is_empty() && live(&segment) <= bytes);
            if is_worth_it && bytes + live(&segment) <= room {
                bytes += live(&segment);
                chosen.push(segment);
            }
        }
        // Rewriting one small segment alone would gain nothing.
        if dead == 0 && chosen.len() < 2 { Vec::new() } else { chosen }
    }

    /// Whether the segment's streams are interleaved enough to be worth sorting.
    fn is_interleaved(&self, segment: &Segment) -> bool {
        let age_ms = self.clock.now_ms().saturating_sub(segment.known_created_ms().unwrap_or_default());
        let places_min = u64::from(self.places_min);
        if places_min == 0 || age_ms < self.places_age_ms {
            return false;
        }
        match self.rewriter.read.spread(segment) {
            Ok(spread) => u64::from(spread.places) >= u64::from(spread.streams).max(1) * places_min,
            Err(error) => {
                tracing::error!(%error, "failed to clean a segment");
                segment.is_unreadable.store(true, Ordering::Relaxed);
                false
            }
        }
    }

    fn rewrite(&self, chosen: &[Arc<Segment>]) -> Result<(), RewriteError> {
        let mut copy = self.rewriter.create()?;
        let mut moved: BTreeMap<u64, (Arc<StreamInner>, Vec<MovedRun>)> = BTreeMap::new();
        for (stream, olds) in self.live_streams(chosen)? {
            let mut runs = Vec::new();
            for old in olds {
                let run = self.copy_run(&mut copy, &stream, old)?;
                if !run.is_empty() {
                    runs.push(run);
                }
            }
            moved.insert(stream.id, (stream, runs));
        }
        if let Some(failure) = self.rewriter.intake.failure() {
            return Err(RewriteError::Log(failure));
        }
        let segment = self.rewriter.finish(copy, chosen)?;
        for (stream, runs) in moved.values() {
            let is_old = |run: &Run| chosen.iter().any(|old| Arc::ptr_eq(old, &run.segment));
            self.rewriter.install(stream, is_old, runs, Some(&segment));
        }
        self.metrics.cleaned_segments.add(chosen.len() as u64);
        let bytes = segment.live_bytes.load(Ordering::Relaxed);
        tracing::info!(?segment, replaced = chosen.len(), bytes, "segments cleaned");
        Ok(())
    }

    /// The streams that have runs in these segments, with these runs in order.
    fn live_streams(&self, chosen: &[Arc<Segment>]) -> Result<Vec<StreamRuns>, RewriteError> {
        let mut ids = Vec::new();
        for segment in chosen {
            self.rewriter.read.stream_ids(segment, &mut ids)?;
        }
        ids.sort_unstable();
        ids.dedup();
        let directory = &self.rewriter.intake.directory;
        let mut streams = Vec::new();
        for stream in ids.into_iter().filter_map(|id| directory.streams.get(id)) {
            let state = stream.state.lock();
            let ends = state.runs.iter().skip(1).map(|next| next.first).chain([u64::MAX]);
            let olds: Vec<OldRun> = state
                .runs
                .iter()
                .zip(ends)
                .filter(|(run, _)| chosen.iter().any(|old| Arc::ptr_eq(old, &run.segment)))
                .map(|(run, end)| OldRun { segment: run.segment.clone(), first: run.first, end })
                .collect();
            drop(state);
            if !olds.is_empty() {
                streams.push((stream, olds));
            }
        }
        Ok(streams)
    }

    /// Copies the live part of a run.
    fn copy_run(
        &self,
        copy: &mut SegmentCopy,
        stream: &StreamInner,
        old: OldRun,
    ) -> Result<MovedRun, RewriteError> {
        let mut from = stream.start.load(Ordering::Acquire).max(old.first);
        let mut moved = MovedRun::new(old);
        loop {
            let (extents, batches) = self.rewriter.read_run(stream, &moved.old, from)?;
            let Some(last) = extents.last() else { break };
            from = last.end();
            copy.put_entry(stream.id, &extents, &batches)?;
            moved.add(&extents);
            if is_seeded(Bug::CopyTooLittle) {
                break;
            }
        }
        Ok(moved)
    }
}
