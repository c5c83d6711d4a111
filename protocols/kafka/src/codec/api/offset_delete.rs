//! OffsetDelete: positions are forgotten.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0, flexible none.
    pub struct OffsetDeleteRequest {
        group_id: Str [0..],
        topics: Vec<OffsetDeleteRequestTopic> [0..],
    }

    /// The topics to delete offsets for.
    pub struct OffsetDeleteRequestTopic {
        name: Str [0..],
        partitions: Vec<OffsetDeleteRequestPartition> [0..],
    }

    /// Each partition to delete offsets for.
    pub struct OffsetDeleteRequestPartition {
        partition_index: i32 [0..],
    }

    /// Versions 0, flexible none.
    pub struct OffsetDeleteResponse {
        error_code: ErrorCode [0..],
        throttle_time_ms: i32 [0..],
        topics: Vec<OffsetDeleteResponseTopic> [0..],
    }

    /// The responses for each topic.
    pub struct OffsetDeleteResponseTopic {
        name: Str [0..],
        partitions: Vec<OffsetDeleteResponsePartition> [0..],
    }

    /// The responses for each partition in the topic.
    pub struct OffsetDeleteResponsePartition {
        partition_index: i32 [0..],
        error_code: ErrorCode [0..],
    }
}
