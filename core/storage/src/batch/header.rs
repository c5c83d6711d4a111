//! The 61-byte header of a record batch, version 2.
//!
//! ```text
//!  0 base offset          i64     27 base timestamp       i64
//!  8 batch length         i32     35 max timestamp        i64
//! 12 partition leader ep. i32     43 producer id          i64
//! 16 magic (2)            i8      51 producer epoch       i16
//! 17 CRC-32C of 21..end   u32     53 base sequence        i32
//! 21 attributes           i16     57 record count         i32
//! 23 last offset delta    i32     61 records …
//! ```
//! All integers are big-endian. `batch length` counts from byte 12.

use super::error::BatchError;

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;
/// Bytes that `batch length` does not count.
pub(crate) const LENGTH_PREFIX_BYTES: usize = 12;
/// Start of the bytes covered by the CRC.
pub(crate) const CRC_START: usize = 21;
/// The one supported format version.
pub const MAGIC: i8 = 2;

/// Attributes, bits 0–2: the compression codec.
pub const COMPRESSION_MASK: i16 = 0x07;
/// Attributes, bit 3: timestamps were assigned by the broker.
pub const LOG_APPEND_TIME: i16 = 0x08;
/// Attributes, bit 4: part of a transaction.
pub const TRANSACTIONAL: i16 = 0x10;
/// Attributes, bit 5: a control batch (transaction marker).
pub const CONTROL: i16 = 0x20;

/// Attributes, bit 14, which the format does not use: free for the user of the log. Compaction keeps it, and every record
/// of the batch tells it.
pub const MARK: i16 = 0x4000;

/// The fields of a batch header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// As written by the producer; not authoritative (see [`crate::StoredBatch`]).
    pub base_offset: i64,
    /// Number of bytes after byte 12.
    pub batch_length: u32,
    /// Not used by the log; −1 in batches that the broker builds.
    pub partition_leader_epoch: i32,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Bits: [`COMPRESSION_MASK`], [`LOG_APPEND_TIME`], [`TRANSACTIONAL`], [`CONTROL`], [`MARK`].
    pub attributes: i16,
    /// Offset of the last record minus the base offset.
    pub last_offset_delta: u32,
    /// Timestamp of the first record, milliseconds since the epoch.
    pub base_timestamp: i64,
    /// The greatest timestamp.
    pub max_timestamp: i64,
    /// −1 when the producer is not idempotent.
    pub producer_id: i64,
    /// −1 when the producer is not idempotent.
    pub producer_epoch: i16,
    /// Sequence of the first record, −1 when the producer is not idempotent.
    pub base_sequence: i32,
    /// Number of records.
    pub record_count: u32,
}

impl BatchHeader {
    /// Parses a header and checks everything that does not need the records. `bytes` may be longer.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let head: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(BatchError::Truncated)?;
        let magic = i8::from_be_bytes(field(head, 16));
        if magic != MAGIC {
            return Err(BatchError::Magic(magic));
        }
        let batch_length = i32::from_be_bytes(field(head, 8));
        let least = (HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32;
        if batch_length < least {
            return Err(BatchError::Length { claimed: i64::from(batch_length) });
        }
        let last_offset_delta = i32::from_be_bytes(field(head, 23));
        let record_count = i32::from_be_bytes(field(head, 57));
        if last_offset_delta < 0 || record_count < 0 {
            return Err(BatchError::Count);
        }
        Ok(Self {
            base_offset: i64::from_be_bytes(field(head, 0)),
            batch_length: batch_length as u32,
            partition_leader_epoch: i32::from_be_bytes(field(head, 12)),
            crc: u32::from_be_bytes(field(head, 17)),
            attributes: i16::from_be_bytes(field(head, 21)),
            last_offset_delta: last_offset_delta as u32,
            base_timestamp: i64::from_be_bytes(field(head, 27)),
            max_timestamp: i64::from_be_bytes(field(head, 35)),
            producer_id: i64::from_be_bytes(field(head, 43)),
            producer_epoch: i16::from_be_bytes(field(head, 51)),
            base_sequence: i32::from_be_bytes(field(head, 53)),
            record_count: record_count as u32,
        })
    }

    /// The attributes in the bytes of a batch, without a look at the rest; none are set where there are too few bytes.
    #[must_use]
    pub fn attributes_of(bytes: &[u8]) -> i16 {
        bytes.first_chunk().map_or(0, |head| i16::from_be_bytes(field(head, CRC_START)))
    }

    /// Encodes the header, with the CRC in `self.crc`.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        put(&mut out, 0, self.base_offset.to_be_bytes());
        put(&mut out, 8, self.batch_length.to_be_bytes());
        put(&mut out, 12, self.partition_leader_epoch.to_be_bytes());
        put(&mut out, 16, MAGIC.to_be_bytes());
        put(&mut out, 17, self.crc.to_be_bytes());
        put(&mut out, 21, self.attributes.to_be_bytes());
        put(&mut out, 23, self.last_offset_delta.to_be_bytes());
        put(&mut out, 27, self.base_timestamp.to_be_bytes());
        put(&mut out, 35, self.max_timestamp.to_be_bytes());
        put(&mut out, 43, self.producer_id.to_be_bytes());
        put(&mut out, 51, self.producer_epoch.to_be_bytes());
        put(&mut out, 53, self.base_sequence.to_be_bytes());
        put(&mut out, 57, self.record_count.to_be_bytes());
        out
    }

    /// Size in bytes of the whole batch.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.batch_length as usize + LENGTH_PREFIX_BYTES
    }

    /// Number of offsets that the batch covers in a stream.
    #[must_use]
    pub fn offset_span(&self) -> u64 {
        u64::from(self.last_offset_delta) + 1
    }

    /// Whether it is part of a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether it is a control batch (a transaction marker), which consumers do not see.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether it has a producer id.
    #[must_use]
    pub fn has_producer(&self) -> bool {
        self.producer_id >= 0
    }
}

/// `N` bytes at a position known to be inside the header.
fn field<const N: usize>(head: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&head[at..at + N]);
    out
}

fn put<const N: usize>(head: &mut [u8; HEADER_BYTES], at: usize, value: [u8; N]) {
    head[at..at + N].copy_from_slice(&value);
}
