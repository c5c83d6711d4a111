//! Kafka record batches, version 2: the one representation of messages, in memory, on disk and for Kafka consumers.
//!
//! - [`Batch`]: a whole batch with a valid header, an exact length and a matching CRC-32C.
//! - [`fn@records`]: its records, decoded lazily, decompressed up to [`DECOMPRESSED_BYTES_MAX`].
//! - [`Inflated`]: the bytes of its records, decompressed piece by piece.
//! - [`BatchBuilder`]: builds a batch from records.
//!
//! Invariants: every length and count is checked against the bytes before it is used; nothing here panics on any input;
//! memory reserved is a small multiple of the input, apart from decompressed data. The older message formats 0 and 1 are
//! not supported.

mod builder;
mod checked;
mod compression;
mod control;
mod error;
mod header;
mod inflate;
mod records;
#[cfg(test)]
mod tests;
mod varint;

pub(crate) use self::builder::seal;
pub use self::builder::{BatchBuilder, ProducerStamp};
pub use self::checked::Batch;
pub(crate) use self::compression::compress;
pub use self::compression::{Compression, DECOMPRESSED_BYTES_MAX, decompress};
pub use self::control::{commits, marker};
pub use self::error::BatchError;
pub use self::header::{
    BatchHeader, COMPRESSION_MASK, CONTROL, HEADER_BYTES, LOG_APPEND_TIME, MAGIC, MARK, TRANSACTIONAL,
};
pub use self::inflate::Inflated;
pub use self::records::{Headers, Record, Records, decompressed, records, records_within};
pub use self::varint::{get_varint, get_varlong, put_varint, put_varlong};
