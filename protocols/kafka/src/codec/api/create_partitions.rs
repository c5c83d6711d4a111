//! CreatePartitions: topics grow.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-3, flexible 2+.
    pub struct CreatePartitionsRequest {
        topics: Vec<CreatePartitionsTopic> [0..],
        timeout_ms: i32 [0..],
        validate_only: bool [0..],
    }

    /// Each topic that we want to create new partitions inside.
    pub struct CreatePartitionsTopic {
        name: Str [0..],
        count: i32 [0..],
        assignments: Option<Vec<CreatePartitionsAssignment>> [0..; null 0..],
    }

    /// The new partition assignments.
    pub struct CreatePartitionsAssignment {
        broker_ids: Vec<i32> [0..],
    }

    /// Versions 0-3, flexible 2+.
    pub struct CreatePartitionsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<CreatePartitionsTopicResult> [0..],
    }

    /// The partition creation results for each topic.
    pub struct CreatePartitionsTopicResult {
        name: Str [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
    }
}
