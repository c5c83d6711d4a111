//! Which streams are compacted by key, and how: rows of the log's own tables, so that it is set in the entry that makes
//! or alters the stream and is there again after a start.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::format::Fields;
use crate::ids::TableId;
use crate::inner::{Inner, Intake};

/// Stream id (big-endian) → [`Compaction`].
pub(crate) const POLICIES: TableId = TableId(TableId::RESERVED);
/// Stream id (big-endian) → how far it was compacted: [`Compacted::clean_to`] and [`Compacted::looked_to`]. In
/// checkpoints only.
pub(crate) const CLEAN_TO: TableId = TableId(TableId::RESERVED + 1);
const VERSION: u8 = 1;

/// How a stream is compacted. Durations count in milliseconds, at most 2^63 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// A record without a value (a tombstone) stays this long after its timestamp, so that readers see it.
    pub delete_retention: Duration,
    /// Compacted when at least this share (percent) of the sealed bytes came since the last time.
    pub dirty_percent_min: u32,
    /// What is younger than this stays as it is.
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

pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(i64::MAX as u64)
}

/// A stream that is to be compacted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Compacted {
    pub(super) policy: Compaction,
    /// Below this offset each key is there once, and no transaction is open.
    pub(super) clean_to: u64,
    /// What lies between could not be compacted, and waits for something new behind this offset.
    pub(super) looked_to: u64,
}

/// The key of a stream's rows.
pub(crate) fn row_key(stream: u64) -> Bytes {
    Bytes::copy_from_slice(&stream.to_be_bytes())
}

fn encode_progress(clean_to: u64, looked_to: u64) -> Bytes {
    [looked_to.to_le_bytes(), clean_to.to_le_bytes()].concat().into()
}

/// [`Compacted::clean_to`] and [`Compacted::looked_to`]. A row that has the latter alone says nothing of what is clean.
fn decode_progress(value: &[u8]) -> Option<(u64, u64)> {
    let mut fields = Fields::new(value);
    let looked_to = fields.u64()?;
    Some((fields.u64().unwrap_or(0), looked_to))
}

impl Inner {
    /// A row of [`POLICIES`] or [`CLEAN_TO`] was read, set or removed. Rows that are malformed are passed over.
    pub(crate) fn note_compaction(&self, table: u16, key: &[u8], value: Option<&[u8]>) {
        let Ok(stream) = key.try_into().map(u64::from_be_bytes) else { return };
        let mut compacted = self.compacted.lock();
        match value {
            None if table == POLICIES.0 => {
                compacted.remove(&stream);
            }
            Some(value) if table == POLICIES.0 => {
                if let Some(policy) = Compaction::decode(value) {
                    compacted.entry(stream).or_default().policy = policy;
                }
            }
            Some(value) => {
                if let (Some(progress), Some(known)) = (decode_progress(value), compacted.get_mut(&stream)) {
                    (known.clean_to, known.looked_to) = progress;
                }
            }
            None => {}
        }
    }

    /// A stream was deleted.
    pub(crate) fn forget_compaction(&self, intake: &mut Intake, stream: u64) {
        if self.compacted.lock().remove(&stream).is_some() {
            for table in [POLICIES, CLEAN_TO] {
                intake.dirty.state.insert((table.0, row_key(stream)), None);
            }
        }
    }

    pub(super) fn set_clean_to(&self, stream: u64, clean_to: u64, looked_to: u64) {
        let mut intake = self.intake.lock();
        if let Some(known) = self.compacted.lock().get_mut(&stream) {
            (known.clean_to, known.looked_to) = (clean_to, looked_to);
            let value = Some(encode_progress(clean_to, looked_to));
            intake.dirty.state.insert((CLEAN_TO.0, row_key(stream)), value);
        }
    }

    pub(crate) fn compaction_of(&self, stream: u64) -> Option<Compaction> {
        self.compacted.lock().get(&stream).map(|known| known.policy)
    }

    pub(super) fn compacted_streams(&self) -> Vec<(Arc<crate::stream::StreamInner>, Compacted)> {
        let compacted = self.compacted.lock();
        compacted.iter().filter_map(|(id, known)| Some((self.streams.get(*id)?, *known))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_clean_by_the_row_of_a_log_that_only_knew_how_far_it_had_looked() {
        assert_eq!(decode_progress(&encode_progress(3, 7)), Some((3, 7)));
        assert_eq!(decode_progress(&7u64.to_le_bytes()), Some((0, 7)));
        assert_eq!(decode_progress(&[1, 2, 3]), None);
    }
}
