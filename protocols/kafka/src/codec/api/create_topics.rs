//! CreateTopics: topics are made.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;

messages! {
    /// Versions 2-7, flexible 5+.
    pub struct CreateTopicsRequest {
        topics: Vec<CreatableTopic> [0..],
        timeout_ms: i32 [0..; default 60000],
        validate_only: bool [1..],
    }

    /// The topics to create.
    pub struct CreatableTopic {
        name: Str [0..],
        num_partitions: i32 [0..],
        replication_factor: i16 [0..],
        assignments: Vec<CreatableReplicaAssignment> [0..],
        configs: Vec<CreatableTopicConfig> [0..],
    }

    /// The manual partition assignment, or the empty array if we are using automatic assignment.
    pub struct CreatableReplicaAssignment {
        partition_index: i32 [0..],
        broker_ids: Vec<i32> [0..],
    }

    /// The custom topic configurations to set.
    pub struct CreatableTopicConfig {
        name: Str [0..],
        value: Option<Str> [0..; null 0..],
    }

    /// Versions 2-7, flexible 5+.
    pub struct CreateTopicsResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<CreatableTopicResult> [0..],
    }

    /// Results for each topic we tried to create.
    pub struct CreatableTopicResult {
        name: Str [0..],
        topic_id: Uuid [7..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [1..; null 0..],
        num_partitions: i32 [5..; default -1],
        replication_factor: i16 [5..; default -1],
        configs: Option<Vec<CreatableTopicConfigs>> [5..; null 5..],
    } tagged {
        0 topic_config_error_code: ErrorCode [5..],
    }

    /// Configuration of the topic.
    pub struct CreatableTopicConfigs {
        name: Str [5..],
        value: Option<Str> [5..; null 5..],
        read_only: bool [5..],
        config_source: i8 [5..; default -1],
        is_sensitive: bool [5..],
    }
}
