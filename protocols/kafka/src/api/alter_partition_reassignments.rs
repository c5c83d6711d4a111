//! AlterPartitionReassignments: moves replicas to other nodes (KIP-455). An assignment to this node alone succeeds, any
//! other is rejected, as by a Kafka cluster of one node.

use std::ops::RangeInclusive;

use inver_access::Operation;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Reply, message};
use crate::access;
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

/// The AlterPartitionReassignments API.
pub struct AlterPartitionReassignments;

impl Handler for AlterPartitionReassignments {
    const KEY: i16 = 45;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const FLEXIBLE_FROM: i16 = 0;

    const LENGTH: Length = Length::Long;

    type Request = AlterPartitionReassignmentsRequest;
    type Response = AlterPartitionReassignmentsResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: AlterPartitionReassignmentsRequest,
    ) -> Reply<AlterPartitionReassignmentsResponse> {
        let checked = cx.access.check_cluster(Operation::Alter);
        let allow_replication_factor_change = request.allow_replication_factor_change;
        let responses = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|wanted| {
                let outcome = match checked {
                    Ok(()) => check(cx, &topic.name, &wanted),
                    Err(code) => Err((code, access::text(code))),
                };
                ReassignablePartitionResponse {
                    partition_index: wanted.partition_index,
                    error_code: outcome.err().map_or(ErrorCode::NONE, |(code, _)| code),
                    error_message: outcome.err().and_then(|(_, text)| message(text)),
                }
            });
            let partitions = partitions.collect();
            ReassignableTopicResponse { name: topic.name, partitions }
        });
        Reply::now(AlterPartitionReassignmentsResponse {
            allow_replication_factor_change,
            error_code: checked.err().unwrap_or_default(),
            error_message: checked.err().and_then(|code| message(access::text(code))),
            responses: responses.collect(),
            ..AlterPartitionReassignmentsResponse::default()
        })
    }
}

fn check(
    cx: &RequestContext<'_>,
    topic: &str,
    wanted: &ReassignablePartition,
) -> Result<(), (ErrorCode, &'static str)> {
    if cx.partition(topic, wanted.partition_index).is_none() {
        return Err((ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "There is no such partition."));
    }
    match &wanted.replicas {
        Some(replicas) if *replicas == [cx.config().node_id] => Ok(()),
        Some(_) => {
            let text = "The only possible replica of a partition is this node.";
            Err((ErrorCode::INVALID_REPLICA_ASSIGNMENT, text))
        }
        None => Err((ErrorCode::NO_REASSIGNMENT_IN_PROGRESS, "No partition reassignment is in progress.")),
    }
}
