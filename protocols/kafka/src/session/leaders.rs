//! ElectLeaders, AlterPartitionReassignments, ListPartitionReassignments: moving what cannot move, since there is one
//! node. What asks for things to be as they are is granted, the rest is refused as by a Kafka of one node.

use super::{Call, Session, message, partition_index};
use crate::codec::api::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartition,
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use crate::codec::api::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};
use crate::codec::api::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};
use crate::codec::error_code::ErrorCode;
use crate::error::ConnectionError;

impl Session {
    /// Whether there is such a partition.
    pub(super) fn has_partition(&self, topic: &str, index: i32) -> bool {
        let topic = self.node.namespace.topic(topic);
        topic.zip(partition_index(index)).is_some_and(|(topic, index)| index < topic.partition_count())
    }

    /// The node leads every partition already.
    pub(super) fn elect_leaders(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: ElectLeadersRequest = call.read()?;
        // Asked for all, Kafka tells only of those whose leader has changed.
        let named = request.topic_partitions.unwrap_or_default();
        let results = named.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|partition_id| {
                let (error_code, text) = match self.has_partition(&topic.topic, partition_id) {
                    true => {
                        (ErrorCode::ELECTION_NOT_NEEDED, "Leader election not needed for topic partition.")
                    }
                    false => (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "There is no such partition."),
                };
                PartitionResult { partition_id, error_code, error_message: message(text) }
            });
            let partition_result = partitions.collect();
            ReplicaElectionResult { topic: topic.topic, partition_result }
        });
        let response = ElectLeadersResponse {
            replica_election_results: results.collect(),
            ..ElectLeadersResponse::default()
        };
        self.answer(&call, &response);
        Ok(())
    }

    pub(super) fn alter_partition_reassignments(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: AlterPartitionReassignmentsRequest = call.read()?;
        let allow_replication_factor_change = request.allow_replication_factor_change;
        let responses = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|wanted| {
                let outcome = self.reassign(&topic.name, &wanted);
                ReassignablePartitionResponse {
                    partition_index: wanted.partition_index,
                    error_code: outcome.err().map_or(ErrorCode::NONE, |(code, _)| code),
                    error_message: outcome.err().and_then(|(_, text)| message(text)),
                }
            });
            let partitions = partitions.collect();
            ReassignableTopicResponse { name: topic.name, partitions }
        });
        let response = AlterPartitionReassignmentsResponse {
            allow_replication_factor_change,
            responses: responses.collect(),
            ..AlterPartitionReassignmentsResponse::default()
        };
        self.answer(&call, &response);
        Ok(())
    }

    fn reassign(&self, topic: &str, wanted: &ReassignablePartition) -> Result<(), (ErrorCode, &'static str)> {
        if !self.has_partition(topic, wanted.partition_index) {
            return Err((ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "There is no such partition."));
        }
        match &wanted.replicas {
            Some(replicas) if *replicas == [self.node.config.node_id] => Ok(()),
            Some(_) => {
                let text = "The only replica that a partition can have is on this node.";
                Err((ErrorCode::INVALID_REPLICA_ASSIGNMENT, text))
            }
            None => {
                Err((ErrorCode::NO_REASSIGNMENT_IN_PROGRESS, "No partition reassignment is in progress."))
            }
        }
    }

    /// With one node nothing is ever on the move.
    pub(super) fn list_partition_reassignments(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let _: ListPartitionReassignmentsRequest = call.read()?;
        self.answer(&call, &ListPartitionReassignmentsResponse::default());
        Ok(())
    }
}
