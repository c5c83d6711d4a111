//! The messages of Fetch.

use bytes::Bytes;

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;

messages! {
    /// Versions 4-18, flexible 12+.
    pub struct FetchRequest {
        replica_id: i32 [0..=14; default -1],
        max_wait_ms: i32 [0..],
        min_bytes: i32 [0..],
        max_bytes: i32 [3..; default i32::MAX],
        isolation_level: i8 [4..],
        session_id: i32 [7..],
        session_epoch: i32 [7..; default -1],
        topics: Vec<FetchTopic> [0..],
        forgotten_topics_data: Vec<ForgottenTopic> [7..],
        rack_id: Str [11..],
    }

    /// The topics to fetch.
    pub struct FetchTopic {
        topic: Str [0..=12],
        topic_id: Uuid [13..],
        partitions: Vec<FetchPartition> [0..],
    }

    /// The partitions to fetch.
    pub struct FetchPartition {
        partition: i32 [0..],
        current_leader_epoch: i32 [9..; default -1],
        fetch_offset: i64 [0..],
        last_fetched_epoch: i32 [12..; default -1],
        log_start_offset: i64 [5..; default -1],
        partition_max_bytes: i32 [0..],
    }

    /// In an incremental fetch request, the partitions to remove.
    pub struct ForgottenTopic {
        topic: Str [7..=12],
        topic_id: Uuid [13..],
        partitions: Vec<i32> [7..],
    }

    /// Versions 4-18, flexible 12+.
    pub struct FetchResponse {
        throttle_time_ms: i32 [1..],
        error_code: ErrorCode [7..],
        session_id: i32 [7..],
        responses: Vec<FetchableTopicResponse> [0..],
    }

    /// The response topics.
    pub struct FetchableTopicResponse {
        topic: Str [0..=12],
        topic_id: Uuid [13..],
        partitions: Vec<PartitionData> [0..],
    }

    /// The topic partitions.
    pub struct PartitionData {
        partition_index: i32 [0..],
        error_code: ErrorCode [0..],
        high_watermark: i64 [0..],
        last_stable_offset: i64 [4..; default -1],
        log_start_offset: i64 [5..; default -1],
        aborted_transactions: Option<Vec<AbortedTransaction>> [4..; null 4..],
        preferred_read_replica: i32 [11..; default -1],
        records: Option<Bytes> [0..; null 0..],
    }

    /// The aborted transactions.
    pub struct AbortedTransaction {
        producer_id: i64 [4..],
        first_offset: i64 [4..],
    }
}

impl FetchRequest {
    /// Bytes of memory that it takes beside those that it was received in.
    pub(crate) fn parsed_bytes(&self) -> usize {
        let topic = |topic: &FetchTopic| {
            size_of::<FetchTopic>() + topic.partitions.capacity() * size_of::<FetchPartition>()
        };
        let forgotten = |topic: &ForgottenTopic| {
            size_of::<ForgottenTopic>() + topic.partitions.capacity() * size_of::<i32>()
        };
        self.topics.iter().map(topic).sum::<usize>()
            + self.forgotten_topics_data.iter().map(forgotten).sum::<usize>()
    }
}
