//! OffsetCommit: a group writes down how far it has come.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;

messages! {
    /// Versions 2-10, flexible 8+.
    pub struct OffsetCommitRequest {
        group_id: Str [0..],
        generation_id_or_member_epoch: i32 [1..; default -1],
        member_id: Str [1..],
        group_instance_id: Option<Str> [7..; null 7..],
        retention_time_ms: i64 [2..=4; default -1],
        topics: Vec<OffsetCommitRequestTopic> [0..],
    }

    /// The topics to commit offsets for.
    pub struct OffsetCommitRequestTopic {
        name: Str [0..=9],
        topic_id: Uuid [10..],
        partitions: Vec<OffsetCommitRequestPartition> [0..],
    }

    /// Each partition to commit offsets for.
    pub struct OffsetCommitRequestPartition {
        partition_index: i32 [0..],
        committed_offset: i64 [0..],
        committed_leader_epoch: i32 [6..; default -1],
        committed_metadata: Option<Str> [0..; null 0..],
    }

    /// Versions 2-10, flexible 8+.
    pub struct OffsetCommitResponse {
        throttle_time_ms: i32 [3..],
        topics: Vec<OffsetCommitResponseTopic> [0..],
    }

    /// The responses for each topic.
    pub struct OffsetCommitResponseTopic {
        name: Str [0..=9],
        topic_id: Uuid [10..],
        partitions: Vec<OffsetCommitResponsePartition> [0..],
    }

    /// The responses for each partition in the topic.
    pub struct OffsetCommitResponsePartition {
        partition_index: i32 [0..],
        error_code: ErrorCode [0..],
    }
}
