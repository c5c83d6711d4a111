//! ElectLeaders: leaders are chosen anew.

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
