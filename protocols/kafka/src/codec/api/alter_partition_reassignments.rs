//! AlterPartitionReassignments: replicas are moved to other nodes.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-1, flexible 0+.
    pub struct AlterPartitionReassignmentsRequest {
        timeout_ms: i32 [0..; default 60000],
        allow_replication_factor_change: bool [1..; default true],
        topics: Vec<ReassignableTopic> [0..],
    }

    /// The topics to reassign.
    pub struct ReassignableTopic {
        name: Str [0..],
        partitions: Vec<ReassignablePartition> [0..],
    }

    /// The partitions to reassign.
    pub struct ReassignablePartition {
        partition_index: i32 [0..],
        replicas: Option<Vec<i32>> [0..; null 0..],
    }

    /// Versions 0-1, flexible 0+.
    pub struct AlterPartitionReassignmentsResponse {
        throttle_time_ms: i32 [0..],
        allow_replication_factor_change: bool [1..; default true],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        responses: Vec<ReassignableTopicResponse> [0..],
    }

    /// The responses to topics to reassign.
    pub struct ReassignableTopicResponse {
        name: Str [0..],
        partitions: Vec<ReassignablePartitionResponse> [0..],
    }

    /// The responses to partitions to reassign.
    pub struct ReassignablePartitionResponse {
        partition_index: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
    }
}
