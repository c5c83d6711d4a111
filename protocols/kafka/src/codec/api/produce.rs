//! Produce: records in.

use bytes::Bytes;

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;

messages! {
    /// Versions 3-13, flexible 9+.
    pub struct ProduceRequest {
        transactional_id: Option<Str> [3..; null 3..],
        acks: i16 [0..],
        timeout_ms: i32 [0..],
        topic_data: Vec<TopicProduceData> [0..],
    }

    /// Each topic to produce to.
    pub struct TopicProduceData {
        name: Str [0..=12],
        topic_id: Uuid [13..],
        partition_data: Vec<PartitionProduceData> [0..],
    }

    /// Each partition to produce to.
    pub struct PartitionProduceData {
        index: i32 [0..],
        records: Option<Bytes> [0..; null 0..],
    }

    /// Versions 3-13, flexible 9+.
    pub struct ProduceResponse {
        responses: Vec<TopicProduceResponse> [0..],
        throttle_time_ms: i32 [1..],
    }

    /// Each produce response.
    pub struct TopicProduceResponse {
        name: Str [0..=12],
        topic_id: Uuid [13..],
        partition_responses: Vec<PartitionProduceResponse> [0..],
    }

    /// Each partition that we produced to within the topic.
    pub struct PartitionProduceResponse {
        index: i32 [0..],
        error_code: ErrorCode [0..],
        base_offset: i64 [0..],
        log_append_time_ms: i64 [2..; default -1],
        log_start_offset: i64 [5..; default -1],
        record_errors: Vec<BatchIndexAndErrorMessage> [8..],
        error_message: Option<Str> [8..; null 8..],
    }

    /// The batch indices of records that caused the batch to be dropped.
    pub struct BatchIndexAndErrorMessage {
        batch_index: i32 [8..],
        batch_index_error_message: Option<Str> [8..; null 8..],
    }
}
