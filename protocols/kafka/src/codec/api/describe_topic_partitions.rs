//! DescribeTopicPartitions: topics, page by page.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;

messages! {
    /// Versions 0, flexible 0+.
    pub struct DescribeTopicPartitionsRequest {
        topics: Vec<TopicRequest> [0..],
        response_partition_limit: i32 [0..; default 2000],
        cursor: Option<Cursor> [0..; null 0..],
    }

    /// The topics to fetch details for.
    pub struct TopicRequest {
        name: Str [0..],
    }

    /// The first topic and partition index to fetch details for.
    pub struct Cursor {
        topic_name: Str [0..],
        partition_index: i32 [0..],
    }

    /// Versions 0, flexible 0+.
    pub struct DescribeTopicPartitionsResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<DescribeTopicPartitionsResponseTopic> [0..],
        next_cursor: Option<Cursor> [0..; null 0..],
    }

    /// Each topic in the response.
    pub struct DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode [0..],
        name: Option<Str> [0..; null 0..],
        topic_id: Uuid [0..],
        is_internal: bool [0..],
        partitions: Vec<DescribeTopicPartitionsResponsePartition> [0..],
        topic_authorized_operations: i32 [0..; default i32::MIN],
    }

    /// Each partition in the topic.
    pub struct DescribeTopicPartitionsResponsePartition {
        error_code: ErrorCode [0..],
        partition_index: i32 [0..],
        leader_id: i32 [0..],
        leader_epoch: i32 [0..; default -1],
        replica_nodes: Vec<i32> [0..],
        isr_nodes: Vec<i32> [0..],
        eligible_leader_replicas: Option<Vec<i32>> [0..; null 0..],
        last_known_elr: Option<Vec<i32>> [0..; null 0..],
        offline_replicas: Vec<i32> [0..],
    }
}
