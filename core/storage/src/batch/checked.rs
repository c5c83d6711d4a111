//! A whole batch whose header, length and checksum were checked.

use std::sync::Arc;

use bytes::Bytes;

use super::error::BatchError;
use super::header::{BatchHeader, CRC_START};
use crate::memory::{Memory, Share};

/// A whole batch with a valid header, an exact length and a matching checksum. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    bytes: Bytes,
    header: BatchHeader,
}

impl Batch {
    /// Parses bytes that must be exactly one batch. One pass for the checksum, no copy.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        if header.total_bytes() != bytes.len() {
            return Err(BatchError::Length { claimed: i64::from(header.batch_length) });
        }
        // Equal in a producer's batch; compaction removes records and keeps the span.
        if u64::from(header.record_count) > header.offset_span() {
            return Err(BatchError::Count);
        }
        let computed = crc32c::crc32c(bytes.get(CRC_START..).unwrap_or_default());
        if computed != header.crc {
            return Err(BatchError::Checksum { found: header.crc, computed });
        }
        Ok(Self { bytes, header })
    }

    /// Splits the first batch off a buffer of several (the record set of a Produce request).
    pub fn split_first(bytes: &mut Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let total = header.total_bytes();
        if total > bytes.len() {
            return Err(BatchError::Truncated);
        }
        Self::parse(bytes.split_to(total))
    }

    /// A batch made by the builder, which is valid by construction.
    pub(super) fn trusted(bytes: Bytes, header: BatchHeader) -> Self {
        Self { bytes, header }
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch, header included.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same batch, whose bytes count in the account for as long as anybody has them: see [`Memory::charge`].
    #[must_use]
    pub fn charged(&self, memory: &Arc<Memory>, share: Share) -> Batch {
        Batch { bytes: memory.charge(share, &self.bytes), header: self.header }
    }

    /// Number of records.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.header.record_count
    }

    /// The whole batch, header included.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}
