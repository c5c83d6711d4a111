//! The encoding of stored rows: that of Kafka's flexible messages, after a byte with the row's version.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::codec::reader::{DecodeError, Reader};
use crate::codec::wire::{Version, Wire};

/// The version of rows: of groups of either protocol, and of the members of one whose assignment the broker makes.
const ROW_VERSION: u8 = 1;
const VERSION: Version = Version { number: ROW_VERSION as i16, flexible: true };

/// The reason why a row cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum RowError {
    /// Written by another version of the broker.
    #[error("unsupported row version {0}, expected {ROW_VERSION}")]
    Version(u8),
    /// Damaged.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

/// A row to be stored.
pub(super) fn encode(row: &impl Wire) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(ROW_VERSION);
    row.write(&mut out, VERSION);
    out.freeze()
}

/// A stored row.
pub(super) fn decode<T: Wire>(row: Bytes) -> Result<T, RowError> {
    let mut reader = Reader::new(row);
    let version = reader.u8()?;
    if version != ROW_VERSION {
        return Err(RowError::Version(version));
    }
    Ok(T::read(&mut reader, VERSION)?)
}
