//! OffsetFetch: how far a group has come.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;

messages! {
    /// Versions 1-10, flexible 6+.
    pub struct OffsetFetchRequest {
        group_id: Str [0..=7],
        topics: Option<Vec<OffsetFetchRequestTopic>> [0..=7; null 2..=7],
        groups: Vec<OffsetFetchRequestGroup> [8..],
        require_stable: bool [7..],
    }

    /// Each topic we would like to fetch offsets for, or null to fetch offsets for all topics.
    pub struct OffsetFetchRequestTopic {
        name: Str [0..=7],
        partition_indexes: Vec<i32> [0..=7],
    }

    /// Each group we would like to fetch offsets for.
    pub struct OffsetFetchRequestGroup {
        group_id: Str [8..],
        member_id: Option<Str> [9..; null 9..],
        member_epoch: i32 [9..; default -1],
        topics: Option<Vec<OffsetFetchRequestTopics>> [8..; null 8..],
    }

    /// Each topic we would like to fetch offsets for, or null to fetch offsets for all topics.
    pub struct OffsetFetchRequestTopics {
        name: Str [8..=9],
        topic_id: Uuid [10..],
        partition_indexes: Vec<i32> [8..],
    }

    /// Versions 1-10, flexible 6+.
    pub struct OffsetFetchResponse {
        throttle_time_ms: i32 [3..],
        topics: Vec<OffsetFetchResponseTopic> [0..=7],
        error_code: ErrorCode [2..=7],
        groups: Vec<OffsetFetchResponseGroup> [8..],
    }

    /// The responses per topic.
    pub struct OffsetFetchResponseTopic {
        name: Str [0..=7],
        partitions: Vec<OffsetFetchResponsePartition> [0..=7],
    }

    /// The responses per partition.
    pub struct OffsetFetchResponsePartition {
        partition_index: i32 [0..=7],
        committed_offset: i64 [0..=7],
        committed_leader_epoch: i32 [5..=7; default -1],
        metadata: Option<Str> [0..=7; null 0..=7],
        error_code: ErrorCode [0..=7],
    }

    /// The responses per group id.
    pub struct OffsetFetchResponseGroup {
        group_id: Str [8..],
        topics: Vec<OffsetFetchResponseTopics> [8..],
        error_code: ErrorCode [8..],
    }

    /// The responses per topic.
    pub struct OffsetFetchResponseTopics {
        name: Str [8..=9],
        topic_id: Uuid [10..],
        partitions: Vec<OffsetFetchResponsePartitions> [8..],
    }

    /// The responses per partition.
    pub struct OffsetFetchResponsePartitions {
        partition_index: i32 [8..],
        committed_offset: i64 [8..],
        committed_leader_epoch: i32 [8..; default -1],
        metadata: Option<Str> [8..; null 8..],
        error_code: ErrorCode [8..],
    }
}
