//! ListPartitionReassignments: the reassignments in progress (KIP-455). With one node there are never any.

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
    /// Versions 0, flexible 0+.
    pub struct ListPartitionReassignmentsRequest {
        timeout_ms: i32 [0..; default 60000],
        topics: Option<Vec<ListPartitionReassignmentsTopics>> [0..; null 0..],
    }

    /// The topics to list partition reassignments for, or null to list everything.
    pub struct ListPartitionReassignmentsTopics {
        name: Str [0..],
        partition_indexes: Vec<i32> [0..],
    }

    /// Versions 0, flexible 0+.
    pub struct ListPartitionReassignmentsResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        topics: Vec<OngoingTopicReassignment> [0..],
    }

    /// The ongoing reassignments for each topic.
    pub struct OngoingTopicReassignment {
        name: Str [0..],
        partitions: Vec<OngoingPartitionReassignment> [0..],
    }

    /// The ongoing reassignments for each partition.
    pub struct OngoingPartitionReassignment {
        partition_index: i32 [0..],
        replicas: Vec<i32> [0..],
        adding_replicas: Vec<i32> [0..],
        removing_replicas: Vec<i32> [0..],
    }
}

/// The ListPartitionReassignments API.
pub struct ListPartitionReassignments;

impl Handler for ListPartitionReassignments {
    const KEY: i16 = 46;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const FLEXIBLE_FROM: i16 = 0;

    const LENGTH: Length = Length::Long;

    type Request = ListPartitionReassignmentsRequest;
    type Response = ListPartitionReassignmentsResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        _: ListPartitionReassignmentsRequest,
    ) -> Reply<ListPartitionReassignmentsResponse> {
        let refused = cx.access.check_cluster(Operation::Describe).err();
        Reply::now(ListPartitionReassignmentsResponse {
            error_code: refused.unwrap_or_default(),
            error_message: refused.and_then(|code| message(access::text(code))),
            ..ListPartitionReassignmentsResponse::default()
        })
    }
}
