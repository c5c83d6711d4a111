//! Compaction policies of streams, and how far each stream was compacted.
//!
//! Both are rows of the log's own tables: a policy is set in the entry that creates or alters the stream, and both are
//! restored at the start. The compaction itself is part of maintenance.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::format::Fields;
use crate::ids::TableId;

const VERSION: u8 = 1;

/// Passes over a stream that are remembered for its tombstones. Beyond it, the two closest in time count as the later one.
const PASSES_MAX: usize = 16;

/// How a stream is compacted by key. Durations count in milliseconds, at most 2^63 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Time that a record without a value (a tombstone) is kept after the first compaction that found it, by the log's clock
    /// (KIP-534): a reader that follows within this time sees every deletion, whatever the timestamps.
    pub delete_retention: Duration,
    /// Least share (percent) of sealed bytes appended since the last compaction.
    pub dirty_percent_min: u32,
    /// Time for which records are not compacted after they were written, by the log's clock.
    pub lag_min: Duration,
    /// Time after which written records are compacted whatever their share, by the log's clock.
    pub lag_max: Duration,
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            delete_retention: Duration::from_secs(24 * 3600),
            dirty_percent_min: 50,
            lag_min: Duration::ZERO,
            lag_max: Duration::from_millis(i64::MAX as u64),
        }
    }
}

impl Compaction {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        out.extend_from_slice(&ms(self.delete_retention).to_le_bytes());
        out.extend_from_slice(&self.dirty_percent_min.to_le_bytes());
        out.extend_from_slice(&ms(self.lag_min).to_le_bytes());
        out.extend_from_slice(&ms(self.lag_max).to_le_bytes());
        Bytes::from(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        if fields.u8()? != VERSION {
            return None;
        }
        Some(Self {
            delete_retention: Duration::from_millis(fields.u64()?),
            dirty_percent_min: fields.u32()?,
            lag_min: Duration::from_millis(fields.u64()?),
            // Earlier rows end here.
            lag_max: fields.u64().map_or(Self::default().lag_max, Duration::from_millis),
        })
    }
}

/// Milliseconds, bounded so that they can be subtracted from a time.
pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(i64::MAX as u64)
}

/// How far a stream was compacted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Offset below which each key occurs once and no transaction is open.
    pub(crate) clean_to: u64,
    /// Offset below which nothing more can be compacted until data beyond it is sealed.
    pub(crate) scanned_to: u64,
    /// Passes that left tombstones, in order of both fields.
    pub(crate) passes: Vec<Pass>,
}

/// A pass of the compaction over a stream: a tombstone below its end is kept for some time from it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    pub(crate) end: u64,
    /// Milliseconds since the epoch.
    pub(crate) at_ms: i64,
}

impl Progress {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = [self.scanned_to.to_le_bytes(), self.clean_to.to_le_bytes()].concat();
        for pass in &self.passes {
            out.extend_from_slice(&pass.end.to_le_bytes());
            out.extend_from_slice(&pass.at_ms.to_le_bytes());
        }
        out.into()
    }

    /// A row of the first version holds `scanned_to` alone: nothing is known to be clean then. One of the second has no
    /// passes: the next one counts as the first that found the tombstones.
    fn decode(value: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(value);
        let scanned_to = fields.u64()?;
        let clean_to = fields.u64().unwrap_or(0);
        let mut passes = Vec::new();
        while let (Some(end), Some(at_ms)) = (fields.u64(), fields.i64()) {
            passes.push(Pass { end, at_ms });
        }
        passes.truncate(PASSES_MAX);
        Some(Self { clean_to, scanned_to, passes })
    }

    /// Offset below which tombstones were found before a time. They are dropped by the next pass.
    pub(crate) fn found_before(&self, time_ms: i64) -> u64 {
        self.passes.iter().rfind(|pass| pass.at_ms < time_ms).map_or(0, |pass| pass.end)
    }

    /// Notes a pass up to `clean_to` that dropped the tombstones found before `dropped_ms`. `has_tombstones`: it left some.
    pub(crate) fn note_pass(&mut self, at_ms: i64, dropped_ms: i64, has_tombstones: bool) {
        self.passes.retain(|pass| has_tombstones && pass.at_ms >= dropped_ms);
        let noted_to = self.passes.last().map_or(0, |pass| pass.end);
        if !has_tombstones || noted_to >= self.clean_to {
            return;
        }
        // The clock may have been set back: a later pass counts as no earlier one.
        let at_ms = self.passes.last().map_or(at_ms, |last| last.at_ms.max(at_ms));
        self.passes.push(Pass { end: self.clean_to, at_ms });
        if self.passes.len() > PASSES_MAX {
            let gap = |at: &usize| match (self.passes.get(*at), self.passes.get(at + 1)) {
                (Some(one), Some(next)) => next.at_ms.saturating_sub(one.at_ms),
                _ => i64::MAX,
            };
            if let Some(closest) = (0..PASSES_MAX).min_by_key(gap) {
                self.passes.remove(closest);
            }
        }
    }

    /// Lets all tombstones count as found now: they could not be dropped.
    pub(crate) fn put_off(&mut self, now_ms: i64) {
        self.passes = self.passes.last().map(|last| Pass { at_ms: now_ms, ..*last }).into_iter().collect();
    }
}

/// A compacted stream: its policy and progress.
#[derive(Clone, Debug, Default)]
pub(crate) struct CompactedStream {
    pub(crate) policy: Compaction,
    pub(crate) progress: Progress,
}

/// The compacted streams, by id.
#[derive(Debug, Default)]
pub(crate) struct CompactionTable(Mutex<BTreeMap<u64, CompactedStream>>);

impl CompactionTable {
    /// Applies a row of one of the two tables that was read, set or removed. A malformed row is ignored.
    pub(crate) fn apply(&self, table: TableId, key: &[u8], value: Option<&[u8]>) {
        let Ok(stream) = key.try_into().map(u64::from_be_bytes) else { return };
        let mut streams = self.0.lock();
        match value {
            None if table == TableId::COMPACTION_POLICIES => {
                streams.remove(&stream);
            }
            Some(value) if table == TableId::COMPACTION_POLICIES => {
                if let Some(policy) = Compaction::decode(value) {
                    streams.entry(stream).or_default().policy = policy;
                }
            }
            Some(value) => {
                if let (Some(progress), Some(known)) = (Progress::decode(value), streams.get_mut(&stream)) {
                    known.progress = progress;
                }
            }
            None => {}
        }
    }

    /// Removes a deleted stream. Returns whether it was compacted.
    pub(crate) fn remove(&self, stream: u64) -> bool {
        self.0.lock().remove(&stream).is_some()
    }

    /// Sets how far a stream was compacted. Returns whether the stream is still compacted.
    pub(crate) fn set_progress(&self, stream: u64, progress: Progress) -> bool {
        let mut streams = self.0.lock();
        let Some(known) = streams.get_mut(&stream) else { return false };
        known.progress = progress;
        true
    }

    pub(crate) fn policy(&self, stream: u64) -> Option<Compaction> {
        self.0.lock().get(&stream).map(|known| known.policy)
    }

    /// Ids of the compacted streams of which this holds.
    pub(crate) fn ids_where(&self, holds: impl Fn(&CompactedStream) -> bool) -> Vec<u64> {
        self.0.lock().iter().filter(|(_, known)| holds(known)).map(|(id, _)| *id).collect()
    }

    /// All compacted streams, by id.
    pub(crate) fn list(&self) -> Vec<(u64, CompactedStream)> {
        self.0.lock().iter().map(|(id, known)| (*id, known.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_earlier_versions_are_read() {
        let progress = Progress {
            clean_to: 3,
            scanned_to: 7,
            passes: vec![Pass { end: 2, at_ms: 5 }, Pass { end: 3, at_ms: 9 }],
        };
        assert_eq!(Progress::decode(&progress.encode()), Some(progress.clone()));
        let without = |clean_to| Some(Progress { clean_to, scanned_to: 7, passes: Vec::new() });
        assert_eq!(Progress::decode(&7u64.to_le_bytes()), without(0));
        assert_eq!(Progress::decode(progress.encode().get(..16).unwrap_or_default()), without(3));
        assert_eq!(Progress::decode(&[1, 2, 3]), None);
        let policy = Compaction { lag_max: Duration::from_secs(9), ..Compaction::default() };
        let row = policy.encode();
        assert_eq!(Compaction::decode(&row), Some(policy));
        assert_eq!(
            Compaction::decode(row.get(..row.len() - 8).unwrap_or_default()),
            Some(Compaction::default())
        );
    }

    #[test]
    fn tombstones_count_from_the_first_pass_that_found_them() {
        let mut progress = Progress { clean_to: 10, ..Progress::default() };
        progress.note_pass(1000, 0, true);
        assert_eq!((progress.found_before(1000), progress.found_before(1001)), (0, 10));
        progress.clean_to = 20;
        progress.note_pass(2000, 0, true);
        progress.note_pass(2500, 0, true);
        assert_eq!([1500, 2000, 2001, 9000].map(|time| progress.found_before(time)), [10, 10, 20, 20]);
        progress.note_pass(3000, 1500, true);
        assert_eq!([1500, 2001].map(|time| progress.found_before(time)), [0, 20]);
        progress.clean_to = 30;
        progress.note_pass(1, 0, true);
        assert_eq!(progress.found_before(2000), 0, "the clock was set back");
        assert_eq!(progress.found_before(2001), 30);
        progress.put_off(5000);
        assert_eq!((progress.found_before(5000), progress.found_before(5001)), (0, 30));
        progress.note_pass(6000, 0, false);
        assert_eq!(progress.passes, []);
    }

    #[test]
    fn the_passes_are_bounded_and_none_counts_as_an_earlier_one() {
        let mut progress = Progress::default();
        let mut all = Vec::new();
        for (number, at_ms) in (1u64..).zip((0..100).map(|at| at * at)) {
            progress.clean_to = number;
            progress.note_pass(at_ms, 0, true);
            all.push((number, at_ms));
            assert!(progress.passes.len() <= PASSES_MAX);
            for (end, at_ms) in &all {
                assert!(progress.found_before(*at_ms) < *end, "{end} is kept");
            }
            assert_eq!(progress.found_before(i64::MAX), number);
        }
        assert_eq!(Progress::decode(&progress.encode()), Some(progress));
    }
}
