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

/// How a stream is compacted by key. Durations count in milliseconds, at most 2^63 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Time that a record without a value (a tombstone) is kept after its timestamp, so that readers see it.
    pub delete_retention: Duration,
    /// Least share (percent) of sealed bytes appended since the last compaction.
    pub dirty_percent_min: u32,
    /// Age before which records are not compacted.
    pub lag_min: Duration,
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            delete_retention: Duration::from_secs(24 * 3600),
            dirty_percent_min: 50,
            lag_min: Duration::ZERO,
        }
    }
}

impl Compaction {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        out.extend_from_slice(&ms(self.delete_retention).to_le_bytes());
        out.extend_from_slice(&self.dirty_percent_min.to_le_bytes());
        out.extend_from_slice(&ms(self.lag_min).to_le_bytes());
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
        })
    }
}

/// Milliseconds, bounded so that they can be subtracted from a time.
pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(i64::MAX as u64)
}

/// How far a stream was compacted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Offset below which each key occurs once and no transaction is open.
    pub(crate) clean_to: u64,
    /// Offset below which nothing more can be compacted until data beyond it is sealed.
    pub(crate) scanned_to: u64,
}

impl Progress {
    pub(crate) fn encode(self) -> Bytes {
        [self.scanned_to.to_le_bytes(), self.clean_to.to_le_bytes()].concat().into()
    }

    /// A row of the first version holds `scanned_to` alone: nothing is known to be clean then.
    fn decode(value: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(value);
        let scanned_to = fields.u64()?;
        Some(Self { clean_to: fields.u64().unwrap_or(0), scanned_to })
    }
}

/// A compacted stream: its policy and progress.
#[derive(Clone, Copy, Debug, Default)]
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

    /// All compacted streams, by id.
    pub(crate) fn list(&self) -> Vec<(u64, CompactedStream)> {
        self.0.lock().iter().map(|(id, known)| (*id, *known)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_progress_row_of_the_first_version_says_nothing_is_clean() {
        let progress = Progress { clean_to: 3, scanned_to: 7 };
        assert_eq!(Progress::decode(&progress.encode()), Some(progress));
        assert_eq!(Progress::decode(&7u64.to_le_bytes()), Some(Progress { clean_to: 0, scanned_to: 7 }));
        assert_eq!(Progress::decode(&[1, 2, 3]), None);
    }
}
