//! CreatePartitions: adds partitions to topics.

use std::ops::RangeInclusive;

use inver_access::Operation;
use inver_broker::Completion;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::repeated::TopicNames;
use super::reply::{Refusal, Reply, message};
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::map;

messages! {
    /// Versions 0-3, flexible 2+.
    pub struct CreatePartitionsRequest {
        topics: Vec<CreatePartitionsTopic> [0..],
        timeout_ms: i32 [0..],
        validate_only: bool [0..],
    }

    /// Each topic that we want to create new partitions inside.
    pub struct CreatePartitionsTopic {
        name: Str [0..],
        count: i32 [0..],
        assignments: Option<Vec<CreatePartitionsAssignment>> [0..; null 0..],
    }

    /// The new partition assignments.
    pub struct CreatePartitionsAssignment {
        broker_ids: Vec<i32> [0..],
    }

    /// Versions 0-3, flexible 2+.
    pub struct CreatePartitionsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<CreatePartitionsTopicResult> [0..],
    }

    /// The partition creation results for each topic.
    pub struct CreatePartitionsTopicResult {
        name: Str [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
    }
}

/// The version from which on a used up quota refuses partitions (KIP-599).
const STRICT_SINCE: i16 = 3;

/// The CreatePartitions API.
pub struct CreatePartitions;

impl Handler for CreatePartitions {
    const KEY: i16 = 37;
    const VERSIONS: RangeInclusive<i16> = 0..=3;
    const FLEXIBLE_FROM: i16 = 2;

    const LENGTH: Length = Length::Long;

    type Request = CreatePartitionsRequest;
    type Response = CreatePartitionsResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: CreatePartitionsRequest,
    ) -> Reply<CreatePartitionsResponse> {
        let mut completion = Completion::Now;
        let mut results = Vec::with_capacity(request.topics.len());
        let mut names = TopicNames::new(request.topics.iter().map(|topic| &topic.name));
        for topic in request.topics {
            let Some(turn) = names.next(&topic.name) else { continue };
            let created = turn.and_then(|()| create(cx, &topic, request.validate_only));
            let (error_code, error_message) = match created {
                Ok(created) => {
                    completion = completion.and(created);
                    (ErrorCode::NONE, None)
                }
                Err((code, text)) => (code, message(text)),
            };
            results.push(CreatePartitionsTopicResult { name: topic.name, error_code, error_message });
        }
        Reply::Response(CreatePartitionsResponse { throttle_time_ms: 0, results }, completion)
    }
}

fn create(
    cx: &mut RequestContext<'_>,
    topic: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<Completion, Refusal> {
    let known = cx.topic(Operation::Alter, &topic.name).map_err(map::topic::no_topic)?;
    let present = known.partition_count() as i32;
    if topic.count == present {
        let text = format!("Topic already has {present} partition(s).");
        return Err((ErrorCode::INVALID_PARTITIONS, text));
    }
    if topic.count < present {
        let text = format!(
            "The topic {} currently has {present} partition(s); {} would not be an increase.",
            topic.name, topic.count
        );
        return Err((ErrorCode::INVALID_PARTITIONS, text));
    }
    if let Some(assignments) = &topic.assignments {
        let node_id = cx.config().node_id;
        let here = assignments.iter().all(|assignment| assignment.broker_ids == [node_id]);
        if assignments.len() as i32 != topic.count - present || !here {
            let text = "each new partition must have this node as its only replica";
            return Err((ErrorCode::INVALID_REPLICA_ASSIGNMENT, text.to_owned()));
        }
    }
    if validate_only {
        return Ok(Completion::Now);
    }
    cx.take_mutations((topic.count - present) as usize, STRICT_SINCE)?;
    let added = cx.namespace().add_partitions(&topic.name, topic.count as u32);
    added.map(Completion::At).map_err(|error| map::topic::refusal(&error))
}
