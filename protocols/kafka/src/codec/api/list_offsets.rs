//! ListOffsets: where a partition starts, ends, or was at a time.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 1-11, flexible 6+.
    pub struct ListOffsetsRequest {
        replica_id: i32 [0..],
        isolation_level: i8 [2..],
        topics: Vec<ListOffsetsTopic> [0..],
        timeout_ms: i32 [10..],
    }

    /// Each topic in the request.
    pub struct ListOffsetsTopic {
        name: Str [0..],
        partitions: Vec<ListOffsetsPartition> [0..],
    }

    /// Each partition in the request.
    pub struct ListOffsetsPartition {
        partition_index: i32 [0..],
        current_leader_epoch: i32 [4..; default -1],
        timestamp: i64 [0..],
    }

    /// Versions 1-11, flexible 6+.
    pub struct ListOffsetsResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<ListOffsetsTopicResponse> [0..],
    }

    /// Each topic in the response.
    pub struct ListOffsetsTopicResponse {
        name: Str [0..],
        partitions: Vec<ListOffsetsPartitionResponse> [0..],
    }

    /// Each partition in the response.
    pub struct ListOffsetsPartitionResponse {
        partition_index: i32 [0..],
        error_code: ErrorCode [0..],
        timestamp: i64 [1..; default -1],
        offset: i64 [1..; default -1],
        leader_epoch: i32 [4..; default -1],
    }
}
