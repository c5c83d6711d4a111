//! ElectLeaders: elects leaders of partitions (KIP-460). This node leads every partition already.

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
    /// Versions 0-2, flexible 2+.
    pub struct ElectLeadersRequest {
        election_type: i8 [1..],
        topic_partitions: Option<Vec<TopicPartitions>> [0..; null 0..],
        timeout_ms: i32 [0..; default 60000],
    }

    /// The topic partitions to elect leaders.
    pub struct TopicPartitions {
        topic: Str [0..],
        partitions: Vec<i32> [0..],
    }

    /// Versions 0-2, flexible 2+.
    pub struct ElectLeadersResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [1..],
        replica_election_results: Vec<ReplicaElectionResult> [0..],
    }

    /// The election results, or an empty array if the requester did not have permission and the request asks for
    /// all partitions.
    pub struct ReplicaElectionResult {
        topic: Str [0..],
        partition_result: Vec<PartitionResult> [0..],
    }

    /// The results for each partition.
    pub struct PartitionResult {
        partition_id: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
    }
}

/// The ElectLeaders API.
pub struct ElectLeaders;

impl Handler for ElectLeaders {
    const KEY: i16 = 43;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const FLEXIBLE_FROM: i16 = 2;

    const LENGTH: Length = Length::Long;

    type Request = ElectLeadersRequest;
    type Response = ElectLeadersResponse;

    fn handle(cx: &mut RequestContext<'_>, request: ElectLeadersRequest) -> Reply<ElectLeadersResponse> {
        let checked = cx.access.check_cluster(Operation::Alter);
        // Null asks for all partitions; Kafka then reports only those whose leader has changed.
        let named = request.topic_partitions.unwrap_or_default();
        let results = named.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|partition_id| {
                let (error_code, text) = match cx.partition(&topic.topic, partition_id) {
                    _ if checked.is_err() => {
                        let code = checked.err().unwrap_or_default();
                        (code, access::text(code))
                    }
                    Some(_) => {
                        (ErrorCode::ELECTION_NOT_NEEDED, "Leader election not needed for topic partition.")
                    }
                    None => (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "There is no such partition."),
                };
                PartitionResult { partition_id, error_code, error_message: message(text) }
            });
            let partition_result = partitions.collect();
            ReplicaElectionResult { topic: topic.topic, partition_result }
        });
        Reply::now(ElectLeadersResponse {
            error_code: checked.err().unwrap_or_default(),
            replica_election_results: results.collect(),
            ..ElectLeadersResponse::default()
        })
    }
}
