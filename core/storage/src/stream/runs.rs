//! Where a stream's batches lie: a run a segment. The run of a segment that is not sealed yet holds every extent;
//! those of sealed ones are read from the segment's index when they are wanted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::format::index::Extent;
use crate::sabotage::{Bug, is_seeded};
use crate::segments::Segment;

/// The batches of one stream in one segment.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) segment: Arc<Segment>,
    /// Base offset of its first batch.
    pub(crate) first: u64,
    pub(crate) bytes: u64,
    /// How many of these lie below the stream's start, as far as offsets tell. Of sealed segments only.
    pub(crate) dead: u64,
    pub(crate) max_timestamp: i64,
    /// In order; empty when the segment is sealed.
    pub(crate) extents: Vec<Extent>,
}

impl Run {
    /// The segment does not hold it any more.
    fn release(&self) {
        self.segment.release(self.bytes - self.dead);
    }

    /// What lies below `start` is not wanted any more. Where exactly batches lie is in the segment's index, so it is
    /// reckoned by offsets.
    fn count_dead(&mut self, start: u64, end: u64) {
        let gone = u128::from(start.saturating_sub(self.first));
        let span = u128::from(end.saturating_sub(self.first)).max(1);
        let dead = (u128::from(self.bytes) * gone / span).min(u128::from(self.bytes)) as u64;
        if dead > self.dead {
            self.segment.live_bytes.fetch_sub(dead - self.dead, Ordering::Relaxed);
            self.dead = dead;
        }
    }
}

/// A stream's runs, in the order of their offsets.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    runs: Vec<Run>,
    bytes: u64,
}

impl Runs {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Run> {
        self.runs.iter()
    }

    /// Adds a batch. Whether it is the stream's first in this segment.
    pub(crate) fn append(&mut self, segment: &Arc<Segment>, extent: Extent) -> bool {
        let bytes = u64::from(extent.length);
        self.bytes += bytes;
        if let Some(last) = self.runs.last_mut().filter(|last| Arc::ptr_eq(&last.segment, segment)) {
            last.bytes += bytes;
            last.max_timestamp = last.max_timestamp.max(extent.max_timestamp);
            last.extents.push(extent);
            segment.live_bytes.fetch_add(bytes, Ordering::Relaxed);
            return false;
        }
        segment.hold(bytes);
        self.runs.push(Run {
            segment: segment.clone(),
            first: extent.base,
            bytes,
            dead: 0,
            max_timestamp: extent.max_timestamp,
            extents: vec![extent],
        });
        true
    }

    /// Adds a run that lies in a sealed segment.
    pub(crate) fn restore(&mut self, segment: Arc<Segment>, first: u64, bytes: u64, max_timestamp: i64) {
        segment.hold(bytes);
        self.bytes += bytes;
        self.runs.push(Run { segment, first, bytes, dead: 0, max_timestamp, extents: Vec::new() });
    }

    /// Lets go of runs in sealed segments that lie wholly below `start`, and counts what of the next one does. `high` is
    /// where the last run ends.
    pub(crate) fn release_below(&mut self, start: u64, high: u64) {
        let mut dead = 0;
        while let Some(run) = self.runs.get(dead) {
            let end = self.runs.get(dead + 1).map_or(high, |next| next.first);
            let is_wanted = if is_seeded(Bug::TrimTooFar) { run.first >= start } else { end > start };
            if is_wanted || !run.segment.is_sealed() {
                break;
            }
            dead += 1;
        }
        for run in self.runs.drain(..dead) {
            run.release();
            self.bytes -= run.bytes;
        }
        let end = self.runs.get(1).map_or(high, |next| next.first);
        if let Some(run) = self.runs.first_mut().filter(|run| run.segment.is_sealed()) {
            run.count_dead(start, end);
        }
        if self.runs.is_empty() {
            self.runs = Vec::new();
        }
    }

    /// Lets go of everything.
    pub(crate) fn release_all(&mut self) {
        for run in std::mem::take(&mut self.runs) {
            run.release();
        }
        self.bytes = 0;
    }

    /// The extents that this stream has in a segment about to be sealed, less what lies below `start`. A run of
    /// which nothing is left is let go.
    pub(crate) fn extents_to_seal(&mut self, segment: &Arc<Segment>, start: u64) -> Vec<Extent> {
        let Some(at) = self.position_of(segment) else { return Vec::new() };
        let Some(run) = self.runs.get(at) else { return Vec::new() };
        let dead = run.extents.partition_point(|extent| extent.end() <= start);
        let extents = run.extents.get(dead..).unwrap_or_default().to_vec();
        if extents.is_empty() {
            let run = self.runs.remove(at);
            run.release();
            self.bytes -= run.bytes;
        }
        extents
    }

    /// Drops the extents of a segment whose index is on the medium now.
    pub(crate) fn sealed(&mut self, segment: &Arc<Segment>, start: u64) {
        let Some(at) = self.position_of(segment) else { return };
        let Some(run) = self.runs.get_mut(at) else { return };
        let dead: u64 = run
            .extents
            .iter()
            .take_while(|extent| extent.end() <= start)
            .map(|extent| u64::from(extent.length))
            .sum();
        // Not in the index, so not in the run either.
        if let Some(first) = run.extents.iter().find(|extent| extent.end() > start) {
            run.first = first.base;
            run.bytes -= dead;
            self.bytes -= dead;
            segment.live_bytes.fetch_sub(dead, Ordering::Relaxed);
        }
        run.extents = Vec::new();
    }

    /// Replaces each run in segments that the cleaner rewrote by one in the segment that it wrote; `None` when nothing of
    /// it was wanted any more. The order of offsets stays, and two of the new runs may be in one segment.
    pub(crate) fn replace(&mut self, is_old: impl Fn(&Run) -> bool, new: impl Fn(&Run) -> Option<Run>) {
        let runs = std::mem::take(&mut self.runs);
        for run in runs {
            if !is_old(&run) {
                self.runs.push(run);
                continue;
            }
            run.release();
            self.bytes -= run.bytes;
            if let Some(run) = new(&run) {
                run.segment.hold(run.bytes);
                self.bytes += run.bytes;
                self.runs.push(run);
            }
        }
    }

    /// The run that holds an offset, or the next one above it.
    pub(crate) fn find(&self, offset: u64) -> usize {
        self.runs.partition_point(|run| run.first <= offset).saturating_sub(1)
    }

    /// The offset up to which every batch from `from` on is older than a timestamp, as far as is known in memory.
    /// `high` is where the last run ends.
    pub(crate) fn older_until(&self, from: u64, timestamp_ms: i64, high: u64) -> u64 {
        let mut until = from;
        for (at, run) in self.runs.iter().enumerate().skip(self.find(from)) {
            if run.max_timestamp >= timestamp_ms {
                let first = run.extents.partition_point(|extent| extent.end() <= from);
                let extents = run.extents.get(first..).unwrap_or_default();
                if let Some(newer) = extents.iter().find(|extent| extent.max_timestamp >= timestamp_ms) {
                    return newer.base.clamp(until, high);
                }
                if extents.is_empty() {
                    return until;
                }
            }
            until = self.runs.get(at + 1).map_or(high, |next| next.first).clamp(until, high);
        }
        until
    }

    pub(crate) fn get(&self, at: usize) -> Option<&Run> {
        self.runs.get(at)
    }

    fn position_of(&self, segment: &Arc<Segment>) -> Option<usize> {
        self.runs.iter().rposition(|run| Arc::ptr_eq(&run.segment, segment))
    }
}
