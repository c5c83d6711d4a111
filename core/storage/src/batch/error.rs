//! Errors of record batches.

use std::error::Error;
use std::sync::Arc;

#[cfg(doc)]
use super::compression::DECOMPRESSED_BYTES_MAX;

/// Rejection of bytes that are not a valid record batch, or whose records cannot be decoded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("batch is truncated")]
    Truncated,
    /// A format version other than 2.
    #[error("batch format version {0} is not supported")]
    Magic(i8),
    /// The length field does not match the bytes.
    #[error("batch length {claimed} does not match the bytes")]
    Length {
        /// Value of the field.
        claimed: i64,
    },
    /// The checksum does not match.
    #[error("batch checksum is {found:08x}, computed {computed:08x}")]
    Checksum {
        /// Value of the field.
        found: u32,
        /// Checksum of the bytes.
        computed: u32,
    },
    /// Record count and offset span contradict each other or are negative.
    #[error("record count does not match the batch")]
    Count,
    /// A record is malformed.
    #[error("record {index} is malformed: {detail}")]
    Record {
        /// Its index in the batch.
        index: u32,
        /// The malformed field.
        detail: &'static str,
    },
    /// Unknown codec in the attributes.
    #[error("unknown compression codec {0}")]
    Codec(i16),
    /// The records cannot be decompressed.
    #[error("failed to decompress records: {0}")]
    Decompress(#[source] Arc<dyn Error + Send + Sync>),
    /// The decompressed records are larger than [`DECOMPRESSED_BYTES_MAX`].
    #[error("decompressed records exceed the limit of {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
}
