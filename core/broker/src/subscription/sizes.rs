//! The sizes of messages, as bounds count them.

use inver_storage::batch::Record;

/// Bytes of a message as bounds count them.
pub(super) fn size(record: &Record) -> usize {
    let part = |b: &Option<bytes::Bytes>| b.as_ref().map_or(0, bytes::Bytes::len);
    part(&record.key) + part(&record.value) + record.headers.len()
}

/// Bytes of a message's value, as a queue's byte limit counts them.
pub(super) fn value_bytes(record: &Record) -> u32 {
    record.value.as_ref().map_or(0, |v| u32::try_from(v.len()).unwrap_or(u32::MAX))
}
