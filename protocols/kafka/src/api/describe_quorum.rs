//! DescribeQuorum: the voters of the metadata log (KIP-595). This node is the only one.

use std::ops::RangeInclusive;

use inver_access::Operation;

use super::context::RequestContext;
use super::handler::Handler;
use super::reply::{Reply, message};
use crate::access;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::node::LEADER_EPOCH;

messages! {
    /// Versions 0-2, flexible 0+.
    pub struct DescribeQuorumRequest {
        topics: Vec<DescribedTopic> [0..],
    }

    /// The topics to describe.
    pub struct DescribedTopic {
        topic_name: Str [0..],
        partitions: Vec<DescribedPartition> [0..],
    }

    /// The partitions to describe.
    pub struct DescribedPartition {
        partition_index: i32 [0..],
    }

    /// Versions 0-2, flexible 0+.
    pub struct DescribeQuorumResponse {
        error_code: ErrorCode [0..],
        error_message: Option<Str> [2..; null 2..],
        topics: Vec<TopicData> [0..],
        nodes: Vec<Node> [2..],
    }

    /// The response from the describe quorum API.
    pub struct TopicData {
        topic_name: Str [0..],
        partitions: Vec<PartitionData> [0..],
    }

    /// The partition data.
    pub struct PartitionData {
        partition_index: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [2..; null 2..],
        leader_id: i32 [0..],
        leader_epoch: i32 [0..],
        high_watermark: i64 [0..],
        current_voters: Vec<ReplicaState> [0..],
        observers: Vec<ReplicaState> [0..],
    }

    /// The state of a voter or observer.
    pub struct ReplicaState {
        replica_id: i32 [0..],
        replica_directory_id: Uuid [2..],
        log_end_offset: i64 [0..],
        last_fetch_timestamp: i64 [1..; default -1],
        last_caught_up_timestamp: i64 [1..; default -1],
    }

    /// The nodes in the quorum.
    pub struct Node {
        node_id: i32 [2..],
        listeners: Vec<Listener> [2..],
    }

    /// The listeners of this controller.
    pub struct Listener {
        name: Str [2..],
        host: Str [2..],
        port: u16 [2..],
    }
}

/// The DescribeQuorum API.
pub struct DescribeQuorum;

/// Kafka's name of the metadata log, whose only partition is 0. Here it is the broker's log.
const METADATA: &str = "__cluster_metadata";

impl Handler for DescribeQuorum {
    const KEY: i16 = 55;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const FLEXIBLE_FROM: i16 = 0;

    type Request = DescribeQuorumRequest;
    type Response = DescribeQuorumResponse;

    fn handle(cx: &mut RequestContext<'_>, request: DescribeQuorumRequest) -> Reply<DescribeQuorumResponse> {
        if let Err(error_code) = cx.access.check_cluster(Operation::Describe) {
            return Reply::now(DescribeQuorumResponse {
                error_code,
                error_message: message(access::text(error_code)),
                ..DescribeQuorumResponse::default()
            });
        }
        let topics = request.topics.into_iter().map(|topic| {
            let is_metadata = topic.topic_name == *METADATA;
            let described = topic.partitions.iter().map(|partition| match partition.partition_index {
                0 if is_metadata => metadata_partition(cx),
                partition_index => PartitionData {
                    partition_index,
                    error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    error_message: message("This server does not host this topic-partition."),
                    ..PartitionData::default()
                },
            });
            TopicData { partitions: described.collect(), topic_name: topic.topic_name }
        });
        let topics = topics.collect();
        let (host, port) = cx.advertised_address();
        let port = u16::try_from(port).unwrap_or_default();
        let listener = Listener { name: Str::from_static("CONTROLLER"), host, port };
        let nodes = vec![Node { node_id: cx.config().node_id, listeners: vec![listener] }];
        Reply::now(DescribeQuorumResponse { topics, nodes, ..DescribeQuorumResponse::default() })
    }
}

fn metadata_partition(cx: &RequestContext<'_>) -> PartitionData {
    let end = i64::try_from(cx.node.broker.log().committed().0).unwrap_or(i64::MAX);
    let (node_id, now_ms) = (cx.config().node_id, cx.node.now_ms());
    PartitionData {
        partition_index: 0,
        leader_id: node_id,
        leader_epoch: LEADER_EPOCH,
        high_watermark: end,
        current_voters: vec![ReplicaState {
            replica_id: node_id,
            log_end_offset: end,
            last_fetch_timestamp: now_ms,
            last_caught_up_timestamp: now_ms,
            ..ReplicaState::default()
        }],
        ..PartitionData::default()
    }
}
