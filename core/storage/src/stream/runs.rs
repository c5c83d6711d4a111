//! Runs: the places of a stream's batches, one run per segment.
//!
//! The run of an unsealed segment holds every extent; extents in sealed segments are read from the segment's index on
//! demand. Runs keep the segments' counts of live data.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::format::index::Extent;
use crate::read::segments::Segment;
use crate::seeded_bugs::{Bug, is_seeded};

/// The batches of one stream in one segment.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) segment: Arc<Segment>,
    /// Base offset of its first batch.
    pub(crate) first: u64,
    pub(crate) bytes: u64,
    /// Estimate of how many of these are below the stream's start. Sealed segments only.
    pub(crate) dead: u64,
    pub(crate) max_timestamp: i64,
    /// Time of the first batch that is kept, if it is known, and the offset from which on it is the first.
    pub(crate) first_timestamp: Option<(u64, i64)>,
    /// The segment's index is damaged.
    pub(crate) is_unreadable: bool,
    /// In order; empty when the segment is sealed.
    pub(crate) extents: Vec<Extent>,
}

impl Run {
    /// Subtracts the run from its segment's live data.
    fn release(&self) {
        self.segment.release(self.bytes - self.dead);
    }

    /// Estimate by offsets of the bytes below `start`; `end`: end of the run.
    pub(crate) fn bytes_below(&self, start: u64, end: u64) -> u64 {
        let gone = u128::from(start.saturating_sub(self.first));
        let span = u128::from(end.saturating_sub(self.first)).max(1);
        (u128::from(self.bytes) * gone / span).min(u128::from(self.bytes)) as u64
    }

    /// Counts data below `start` as dead. The exact places of batches are in the segment's index only, so the bytes are
    /// estimated by offsets.
    fn count_dead(&mut self, start: u64, end: u64) {
        let dead = self.bytes_below(start, end);
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

    /// Estimate of the bytes from `start` on. `high`: end of the last run.
    pub(crate) fn bytes_from(&self, start: u64, high: u64) -> u64 {
        let ends = self.runs.iter().skip(1).map(|next| next.first).chain([high]);
        let below = |(run, end): (&Run, u64)| run.bytes_below(start, end);
        let below: u64 = self.runs.iter().zip(ends).take_while(|(run, _)| run.first < start).map(below).sum();
        self.bytes - below
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Run> {
        self.runs.iter()
    }

    /// Adds a batch. Returns whether it is the stream's first in this segment.
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
            first_timestamp: None,
            is_unreadable: false,
            extents: vec![extent],
        });
        true
    }

    /// Adds a run in a sealed segment.
    pub(crate) fn restore(&mut self, segment: Arc<Segment>, first: u64, bytes: u64, max_timestamp: i64) {
        segment.hold(bytes);
        self.bytes += bytes;
        self.runs.push(Run {
            segment,
            first,
            bytes,
            dead: 0,
            max_timestamp,
            first_timestamp: None,
            is_unreadable: false,
            extents: Vec::new(),
        });
    }

    /// Releases runs in sealed segments wholly below `start`, and counts the dead part of the next one. `high`: end of the
    /// last run.
    pub(crate) fn release_below(&mut self, start: u64, high: u64) {
        let mut dead = 0;
        while let Some(run) = self.runs.get(dead) {
            let end = self.runs.get(dead + 1).map_or(high, |next| next.first);
            let is_live = if is_seeded(Bug::TrimTooFar) { run.first >= start } else { end > start };
            if is_live || !run.segment.is_sealed() {
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

    /// Releases all runs.
    pub(crate) fn release_all(&mut self) {
        for run in std::mem::take(&mut self.runs) {
            run.release();
        }
        self.bytes = 0;
    }

    /// The extents of this stream in a segment about to be sealed, without those below `start`. Releases a run of which
    /// nothing is left.
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

    /// Drops the extents of a segment whose index is now on the medium.
    pub(crate) fn sealed(&mut self, segment: &Arc<Segment>, start: u64) {
        let Some(at) = self.position_of(segment) else { return };
        let Some(run) = self.runs.get_mut(at) else { return };
        let dead: u64 = run
            .extents
            .iter()
            .take_while(|extent| extent.end() <= start)
            .map(|extent| u64::from(extent.length))
            .sum();
        // Extents below the start are not in the index.
        if let Some(first) = run.extents.iter().find(|extent| extent.end() > start) {
            run.first = first.base;
            run.first_timestamp = Some((first.base, first.max_timestamp));
            run.bytes -= dead;
            self.bytes -= dead;
            segment.live_bytes.fetch_sub(dead, Ordering::Relaxed);
        }
        run.extents = Vec::new();
    }

    /// Replaces each run in rewritten segments by its copy; `None` when nothing of it is live any more. Offsets keep their
    /// order, and two of the new runs may be in one segment.
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

    /// Notes the time of the first batch at or above an offset, in the segment that has it.
    pub(crate) fn note_first(&mut self, segment: &Arc<Segment>, from: u64, timestamp_ms: i64) {
        if let Some(run) = self.run_in(segment, from) {
            run.first_timestamp = Some((from, timestamp_ms));
        }
    }

    /// Notes that the index of the segment that has an offset is damaged.
    pub(crate) fn note_unreadable(&mut self, segment: &Arc<Segment>, offset: u64) {
        if let Some(run) = self.run_in(segment, offset) {
            run.is_unreadable = true;
        }
    }

    /// The run that contains an offset, if it is in this segment.
    fn run_in(&mut self, segment: &Arc<Segment>, offset: u64) -> Option<&mut Run> {
        let at = self.find(offset);
        self.runs.get_mut(at).filter(|run| Arc::ptr_eq(&run.segment, segment))
    }

    /// Index of the run that contains an offset, or of the next one above it.
    pub(crate) fn find(&self, offset: u64) -> usize {
        self.runs.partition_point(|run| run.first <= offset).saturating_sub(1)
    }

    /// Offset up to which every batch from `from` on is older than a timestamp, as far as known in memory. `high`: end of
    /// the last run.
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
