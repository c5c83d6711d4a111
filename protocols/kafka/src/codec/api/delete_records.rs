//! DeleteRecords: the front of a partition is given up.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-2, flexible 2+.
    pub struct DeleteRecordsRequest {
        topics: Vec<DeleteRecordsTopic> [0..],
        timeout_ms: i32 [0..],
    }

    /// Each topic that we want to delete records from.
    pub struct DeleteRecordsTopic {
        name: Str [0..],
        partitions: Vec<DeleteRecordsPartition> [0..],
    }

    /// Each partition that we want to delete records from.
    pub struct DeleteRecordsPartition {
        partition_index: i32 [0..],
        offset: i64 [0..],
    }

    /// Versions 0-2, flexible 2+.
    pub struct DeleteRecordsResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<DeleteRecordsTopicResult> [0..],
    }

    /// Each topic that we wanted to delete records from.
    pub struct DeleteRecordsTopicResult {
        name: Str [0..],
        partitions: Vec<DeleteRecordsPartitionResult> [0..],
    }

    /// Each partition that we wanted to delete records from.
    pub struct DeleteRecordsPartitionResult {
        partition_index: i32 [0..],
        low_watermark: i64 [0..],
        error_code: ErrorCode [0..],
    }
}
