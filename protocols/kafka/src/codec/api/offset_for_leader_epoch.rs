//! OffsetForLeaderEpoch: where an epoch ended.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 2-4, flexible 4+.
    pub struct OffsetForLeaderEpochRequest {
        replica_id: i32 [3..; default -2],
        topics: Vec<OffsetForLeaderTopic> [0..],
    }

    /// Each topic to get offsets for.
    pub struct OffsetForLeaderTopic {
        topic: Str [0..],
        partitions: Vec<OffsetForLeaderPartition> [0..],
    }

    /// Each partition to get offsets for.
    pub struct OffsetForLeaderPartition {
        partition: i32 [0..],
        current_leader_epoch: i32 [2..; default -1],
        leader_epoch: i32 [0..],
    }

    /// Versions 2-4, flexible 4+.
    pub struct OffsetForLeaderEpochResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<OffsetForLeaderTopicResult> [0..],
    }

    /// Each topic we fetched offsets for.
    pub struct OffsetForLeaderTopicResult {
        topic: Str [0..],
        partitions: Vec<EpochEndOffset> [0..],
    }

    /// Each partition in the topic we fetched offsets for.
    pub struct EpochEndOffset {
        error_code: ErrorCode [0..],
        partition: i32 [0..],
        leader_epoch: i32 [1..; default -1],
        end_offset: i64 [0..; default -1],
    }
}
