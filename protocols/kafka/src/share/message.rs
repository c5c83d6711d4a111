//! The messages of ShareFetch, and what those of ShareAcknowledge have of them.

use bytes::Bytes;

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;

messages! {
    /// Versions 1-2, flexible 0+.
    pub struct ShareFetchRequest {
        group_id: Option<Str> [0..; null 0..],
        member_id: Option<Str> [0..; null 0..],
        share_session_epoch: i32 [0..],
        max_wait_ms: i32 [0..],
        min_bytes: i32 [0..],
        max_bytes: i32 [0..; default i32::MAX],
        max_records: i32 [1..],
        batch_size: i32 [1..],
        share_acquire_mode: i8 [2..],
        is_renew_ack: bool [2..],
        topics: Vec<FetchTopic> [0..],
        forgotten_topics_data: Vec<ForgottenTopic> [0..],
    }

    /// The topics to fetch.
    pub struct FetchTopic {
        topic_id: Uuid [0..],
        partitions: Vec<FetchPartition> [0..],
    }

    /// The partitions to fetch.
    pub struct FetchPartition {
        partition_index: i32 [0..],
        partition_max_bytes: i32 [0..=0],
        acknowledgement_batches: Vec<AcknowledgementBatch> [0..],
    }

    /// Records to acknowledge.
    pub struct AcknowledgementBatch {
        first_offset: i64 [0..],
        last_offset: i64 [0..],
        acknowledge_types: Vec<i8> [0..],
    }

    /// The partitions to remove from the session.
    pub struct ForgottenTopic {
        topic_id: Uuid [0..],
        partitions: Vec<i32> [0..],
    }

    /// Versions 1-2, flexible 0+.
    pub struct ShareFetchResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        acquisition_lock_timeout_ms: i32 [1..],
        responses: Vec<ShareFetchableTopicResponse> [0..],
        node_endpoints: Vec<NodeEndpoint> [0..],
    }

    /// The response topics.
    pub struct ShareFetchableTopicResponse {
        topic_id: Uuid [0..],
        partitions: Vec<PartitionData> [0..],
    }

    /// The topic partitions.
    pub struct PartitionData {
        partition_index: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        acknowledge_error_code: ErrorCode [0..],
        acknowledge_error_message: Option<Str> [0..; null 0..],
        current_leader: LeaderIdAndEpoch [0..],
        records: Option<Bytes> [0..; null 0..=0],
        acquired_records: Vec<AcquiredRecords> [0..],
    }

    /// The leader of a partition.
    pub struct LeaderIdAndEpoch {
        leader_id: i32 [0..],
        leader_epoch: i32 [0..],
    }

    /// Acquired records.
    pub struct AcquiredRecords {
        first_offset: i64 [0..],
        last_offset: i64 [0..],
        delivery_count: i16 [0..],
    }

    /// The address of a leader.
    pub struct NodeEndpoint {
        node_id: i32 [0..],
        host: Str [0..],
        port: i32 [0..],
        rack: Option<Str> [0..; null 0..],
    }
}
