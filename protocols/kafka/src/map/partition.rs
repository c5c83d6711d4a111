//! Partition indexes, offsets, isolation, leader epochs, and the errors of reads.

use inver_storage::{Offset, ReadError, Stream};

use crate::codec::error_code::ErrorCode;
use crate::node::LEADER_EPOCH;

/// The isolation level of clients that read only what is committed.
pub(crate) const READ_COMMITTED: i8 = 1;

/// A partition's index in the model; `None` if it is negative.
pub(crate) fn partition_index(index: i32) -> Option<u32> {
    u32::try_from(index).ok()
}

/// An offset on the wire.
pub(crate) fn wire_offset(offset: Offset) -> i64 {
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}

/// The end of a partition for a client that reads what is committed, or everything.
pub(crate) fn visible_end(stream: &Stream, committed: bool) -> Offset {
    if committed { stream.stable_offset() } else { stream.high_watermark() }
}

/// Checks the leader epoch that a client knows (KIP-320). One that is newer than the broker's is unknown.
pub(crate) fn check_leader_epoch(known: i32) -> Result<(), ErrorCode> {
    match known {
        ..=LEADER_EPOCH => Ok(()),
        _ => Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
    }
}

/// The error code of a failed read. Damage is logged.
pub(crate) fn read_error(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OFFSET_OUT_OF_RANGE,
        ReadError::Deleted => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ReadError::Damaged { .. } | ReadError::Io { .. } => {
            tracing::error!(%error, "failed to read a partition");
            ErrorCode::KAFKA_STORAGE_ERROR
        }
    }
}
