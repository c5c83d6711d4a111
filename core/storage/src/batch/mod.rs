//! Record batches, version 2: the one form of messages, in memory, on disk and on the way to Kafka's readers.
//!
//! - [`Batch`]: a whole batch whose header is sane, whose length is exact and whose CRC-32C holds.
//! - [`fn@records`]: its records, lazily, decompressed if needed under [`DECOMPRESSED_BYTES_MAX`].
//! - [`BatchBuilder`]: records into a batch.
//!
//! Invariants: no length or count is believed before it fits the bytes that are there; nothing here panics on
//! any input; memory reserved is a small multiple of the input, except what decompression truly yields.
//! Deliberately absent: the older message formats 0 and 1 (nothing stores or accepts them).

mod builder;
mod compression;
mod header;
mod records;
#[cfg(test)]
mod tests;
mod varint;

use bytes::Bytes;

pub(crate) use self::builder::seal;
pub use self::builder::{BatchBuilder, ProducerStamp};
pub(crate) use self::compression::compress;
pub use self::compression::{Compression, DECOMPRESSED_BYTES_MAX};
pub use self::header::{
    BatchHeader, COMPRESSION_MASK, CONTROL, HEADER_BYTES, LOG_APPEND_TIME, MAGIC, TRANSACTIONAL,
};
pub use self::records::{Headers, Record, Records, records};
pub use self::varint::{get_varint, get_varlong, put_varint, put_varlong};

use self::header::CRC_START;

/// Why bytes are not a record batch, or not one that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("batch is cut short")]
    Truncated,
    /// A format version other than 2.
    #[error("batch format version {0} is not supported")]
    Magic(i8),
    /// The length field does not fit the bytes.
    #[error("batch length {claimed} does not fit")]
    Length {
        /// What the field says.
        claimed: i64,
    },
    /// The checksum does not hold.
    #[error("batch checksum is {found:08x}, its bytes give {computed:08x}")]
    Checksum {
        /// What the field says.
        found: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// Record count and offset span contradict each other or are negative.
    #[error("record count does not fit the batch")]
    Count,
    /// A record is malformed.
    #[error("record {index} is malformed: {detail}")]
    Record {
        /// Its place in the batch.
        index: u32,
        /// What is wrong.
        detail: &'static str,
    },
    /// Unknown codec in the attributes.
    #[error("unknown compression codec {0}")]
    Codec(i16),
    /// The compressed records cannot be read.
    #[error("records cannot be decompressed: {0}")]
    Decompress(String),
    /// The records would be larger than [`DECOMPRESSED_BYTES_MAX`].
    #[error("records would take more than {bytes_max} bytes")]
    TooLarge {
        /// The bound.
        bytes_max: usize,
    },
}

/// A whole batch whose header is sane, whose length is exact and whose checksum holds. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    bytes: Bytes,
    header: BatchHeader,
}

impl Batch {
    /// Takes bytes that must be exactly one batch. One pass over them (the checksum), no copy.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let batch = Self::parse_unverified(bytes)?;
        let computed = crc32c::crc32c(batch.bytes.get(CRC_START..).unwrap_or_default());
        if computed != batch.header.crc {
            return Err(BatchError::Checksum { found: batch.header.crc, computed });
        }
        Ok(batch)
    }

    /// Splits the first batch off a buffer that may hold several (a produce request's record set).
    pub fn split_first(bytes: &mut Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let total = header.total_bytes();
        if total > bytes.len() {
            return Err(BatchError::Truncated);
        }
        Self::parse(bytes.split_to(total))
    }

    /// As [`Batch::parse`] without the checksum: for bytes that were verified before.
    pub(crate) fn parse_unverified(bytes: Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        if header.total_bytes() != bytes.len() {
            return Err(BatchError::Length { claimed: i64::from(header.batch_length) });
        }
        // Compaction may remove records but never widens the span; a producer's batch has them equal.
        if u64::from(header.record_count) > header.offset_span() {
            return Err(BatchError::Count);
        }
        Ok(Self { bytes, header })
    }

    /// A batch made by the builder, which is sane by construction.
    pub(crate) fn trusted(bytes: Bytes, header: BatchHeader) -> Self {
        Self { bytes, header }
    }

    /// The header's fields.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch, header included.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Records in it.
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
