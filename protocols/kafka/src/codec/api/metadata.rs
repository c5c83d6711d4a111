//! Metadata: who holds which partition.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;

messages! {
    /// Versions 0-13, flexible 9+.
    pub struct MetadataRequest {
        topics: Option<Vec<MetadataRequestTopic>> [0..; null 1..],
        allow_auto_topic_creation: bool [4..; default true],
        include_cluster_authorized_operations: bool [8..=10],
        include_topic_authorized_operations: bool [8..],
    }

    /// The topics to fetch metadata for.
    pub struct MetadataRequestTopic {
        topic_id: Uuid [10..],
        name: Option<Str> [0..; null 10..],
    }

    /// Versions 0-13, flexible 9+.
    pub struct MetadataResponse {
        throttle_time_ms: i32 [3..],
        brokers: Vec<MetadataResponseBroker> [0..],
        cluster_id: Option<Str> [2..; null 2..],
        controller_id: i32 [1..; default -1],
        topics: Vec<MetadataResponseTopic> [0..],
        cluster_authorized_operations: i32 [8..=10; default i32::MIN],
        error_code: ErrorCode [13..],
    }

    /// A list of brokers present in the cluster.
    pub struct MetadataResponseBroker {
        node_id: i32 [0..],
        host: Str [0..],
        port: i32 [0..],
        rack: Option<Str> [1..; null 1..],
    }

    /// Each topic in the response.
    pub struct MetadataResponseTopic {
        error_code: ErrorCode [0..],
        name: Option<Str> [0..; null 12..],
        topic_id: Uuid [10..],
        is_internal: bool [1..],
        partitions: Vec<MetadataResponsePartition> [0..],
        topic_authorized_operations: i32 [8..; default i32::MIN],
    }

    /// Each partition in the topic.
    pub struct MetadataResponsePartition {
        error_code: ErrorCode [0..],
        partition_index: i32 [0..],
        leader_id: i32 [0..],
        leader_epoch: i32 [7..; default -1],
        replica_nodes: Vec<i32> [0..],
        isr_nodes: Vec<i32> [0..],
        offline_replicas: Vec<i32> [5..],
    }
}
