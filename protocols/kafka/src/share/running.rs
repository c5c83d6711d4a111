//! A share fetch under way: its limits, and what it has found so far.

use bytes::Bytes;
use inver_broker::{Completion, Delivery};
use inver_storage::batch::Record;
use tokio::time::Instant;

use crate::codec::error_code::ErrorCode;
use crate::codec::header::ResponseHeader;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;

/// A member: its group and its id.
pub(super) type MemberKey = (Str, Str);

/// Bytes of a record beside its key, value and headers, in a batch with others.
const RECORD_OVERHEAD: usize = 16;

/// A share fetch under way.
pub(super) struct Running {
    pub(super) number: u64,
    pub(super) header: ResponseHeader,
    pub(super) member: MemberKey,
    /// When to respond with what there is.
    pub(super) deadline: Instant,
    /// Records and bytes that it may still find; the last record may exceed the bytes.
    pub(super) records_left: usize,
    pub(super) bytes_left: usize,
    /// Bytes found.
    pub(super) bytes: usize,
    /// Records found, by topic.
    pub(super) found: Vec<(Uuid, Delivery)>,
    /// Whether there is no more to wait for: it found something, or there is an error to report.
    pub(super) is_done: bool,
    /// Acknowledged partitions, with the error of each.
    pub(super) acknowledged: Vec<(Uuid, i32, ErrorCode)>,
    /// Partitions that cannot be fetched.
    pub(super) failed: Vec<(Uuid, i32, ErrorCode)>,
    /// When its acknowledgements hold.
    pub(super) completion: Completion,
}

impl Running {
    /// Adds records of a topic.
    pub(super) fn add(&mut self, topic: Uuid, found: Vec<Delivery>) {
        for delivery in found {
            let bytes = record_bytes(&delivery.record);
            self.records_left = self.records_left.saturating_sub(1);
            self.bytes_left = self.bytes_left.saturating_sub(bytes);
            self.bytes += bytes;
            self.found.push((topic, delivery));
            self.is_done = true;
        }
    }

    /// Whether to look for more records.
    pub(super) fn has_room(&self) -> bool {
        self.records_left > 0 && self.bytes_left > 0
    }
}

/// About the bytes that a record takes in a response.
pub(super) fn record_bytes(record: &Record) -> usize {
    let field = |field: &Option<Bytes>| field.as_ref().map_or(0, Bytes::len);
    RECORD_OVERHEAD + field(&record.key) + field(&record.value) + record.headers.len()
}
