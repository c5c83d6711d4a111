//! DescribeProducers: who writes to a partition.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0, flexible 0+.
    pub struct DescribeProducersRequest {
        topics: Vec<TopicRequest> [0..],
    }

    /// The topics to list producers for.
    pub struct TopicRequest {
        name: Str [0..],
        partition_indexes: Vec<i32> [0..],
    }

    /// Versions 0, flexible 0+.
    pub struct DescribeProducersResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<TopicResponse> [0..],
    }

    /// Each topic in the response.
    pub struct TopicResponse {
        name: Str [0..],
        partitions: Vec<PartitionResponse> [0..],
    }

    /// Each partition in the response.
    pub struct PartitionResponse {
        partition_index: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        active_producers: Vec<ProducerState> [0..],
    }

    /// The active producers for the partition.
    pub struct ProducerState {
        producer_id: i64 [0..],
        producer_epoch: i32 [0..],
        last_sequence: i32 [0..; default -1],
        last_timestamp: i64 [0..; default -1],
        coordinator_epoch: i32 [0..],
        current_txn_start_offset: i64 [0..; default -1],
    }
}
