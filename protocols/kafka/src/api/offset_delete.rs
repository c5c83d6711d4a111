//! OffsetDelete: deletes committed offsets of topics that the group is not subscribed to (KIP-496).

use std::ops::RangeInclusive;

use bytes::Bytes;

use inver_access::Operation;
use inver_broker::{AuditKind, Completion};

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::reader::Reader;
use crate::codec::text::Str;
use crate::coordinator::consumer::ConsumerGroup;
use crate::coordinator::group::{Group, State};
use crate::map::partition::partition_index;

messages! {
    /// Versions 0, flexible none.
    pub struct OffsetDeleteRequest {
        group_id: Str [0..],
        topics: Vec<OffsetDeleteRequestTopic> [0..],
    }

    /// The topics to delete offsets for.
    pub struct OffsetDeleteRequestTopic {
        name: Str [0..],
        partitions: Vec<OffsetDeleteRequestPartition> [0..],
    }

    /// Each partition to delete offsets for.
    pub struct OffsetDeleteRequestPartition {
        partition_index: i32 [0..],
    }

    /// Versions 0, flexible none.
    pub struct OffsetDeleteResponse {
        error_code: ErrorCode [0..],
        throttle_time_ms: i32 [0..],
        topics: Vec<OffsetDeleteResponseTopic> [0..],
    }

    /// The responses for each topic.
    pub struct OffsetDeleteResponseTopic {
        name: Str [0..],
        partitions: Vec<OffsetDeleteResponsePartition> [0..],
    }

    /// The responses for each partition in the topic.
    pub struct OffsetDeleteResponsePartition {
        partition_index: i32 [0..],
        error_code: ErrorCode [0..],
    }
}

/// The OffsetDelete API.
pub struct OffsetDelete;

impl Handler for OffsetDelete {
    const KEY: i16 = 47;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const FLEXIBLE_FROM: i16 = 1;

    const LENGTH: Length = Length::Long;

    type Request = OffsetDeleteRequest;
    type Response = OffsetDeleteResponse;

    fn handle(cx: &mut RequestContext<'_>, request: OffsetDeleteRequest) -> Reply<OffsetDeleteResponse> {
        match delete(cx, &request) {
            Ok((topics, completion)) => {
                let response = OffsetDeleteResponse { topics, ..OffsetDeleteResponse::default() };
                Reply::Response(response, completion)
            }
            Err(error_code) => {
                Reply::now(OffsetDeleteResponse { error_code, ..OffsetDeleteResponse::default() })
            }
        }
    }
}

fn delete(
    cx: &RequestContext<'_>,
    request: &OffsetDeleteRequest,
) -> Result<(Vec<OffsetDeleteResponseTopic>, Completion), ErrorCode> {
    cx.access.check_group(&request.group_id, Operation::Delete)?;
    let subscribed = match cx.coordinator().with_group(&request.group_id, subscribed_topics) {
        Some(subscribed) => subscribed?,
        None => {
            let topics =
                |group: &ConsumerGroup| group.subscription().into_iter().cloned().collect::<Vec<Str>>();
            let of_consumers = cx.coordinator().with_consumer_group(&request.group_id, topics);
            let has_offsets = cx.coordinator().has_committed_offsets(&request.group_id);
            of_consumers.or_else(|| has_offsets.then(Vec::new)).ok_or(ErrorCode::GROUP_ID_NOT_FOUND)?
        }
    };
    let is_deleted = |name: &str, index: u32| {
        let topics = request.topics.iter().filter(|topic| topic.name == *name);
        let mut partitions = topics.flat_map(|topic| topic.partitions.iter());
        let named = partitions.any(|partition| partition_index(partition.partition_index) == Some(index));
        named && !subscribed.iter().any(|topic| *topic == *name) && cx.access.may_topic(name, Operation::Read)
    };
    let deleted =
        cx.namespace().committed_offsets().delete(cx.node.broker.log(), &request.group_id, is_deleted);
    let completion = deleted.map_err(|_| ErrorCode::COORDINATOR_NOT_AVAILABLE)?;
    if completion.lsn().is_some() {
        cx.namespace().audit(AuditKind::Deleted, "delete-offsets", "group", &request.group_id);
    }
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let partition_index = partition.partition_index;
            let error_code = match cx.partition_for(Operation::Read, &topic.name, partition_index) {
                Err(code @ ErrorCode::TOPIC_AUTHORIZATION_FAILED) => code,
                _ if subscribed.contains(&topic.name) => ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC,
                Ok(_) => ErrorCode::NONE,
                Err(code) => code,
            };
            OffsetDeleteResponsePartition { partition_index, error_code }
        });
        OffsetDeleteResponseTopic { name: topic.name.clone(), partitions: partitions.collect() }
    });
    Ok((topics.collect(), completion))
}

/// The topics that the members of a group are subscribed to. Only consumers say what they are.
fn subscribed_topics<J, S>(group: &Group<J, S>) -> Result<Vec<Str>, ErrorCode> {
    match group.state() {
        State::Empty | State::Dead => Ok(Vec::new()),
        _ if group.protocol_type().is_some_and(|protocol_type| *protocol_type == "consumer") => {
            let protocol = group.protocol().cloned().unwrap_or_default();
            Ok(group.members().flat_map(|member| topics_of(member.metadata(&protocol))).collect())
        }
        _ => Err(ErrorCode::NON_EMPTY_GROUP),
    }
}

/// The topics in a consumer's subscription metadata, which begins with a version and the topics' names. Metadata that
/// cannot be decoded names none.
fn topics_of(metadata: Bytes) -> Vec<Str> {
    let mut reader = Reader::new(metadata);
    let mut read = || {
        reader.i16().ok()?;
        let count = reader.count(false, 2).ok()??;
        (0..count).map(|_| reader.string(false).ok()?).collect::<Option<Vec<Str>>>()
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscription_metadata_names_topics() {
        let metadata = b"\0\x01\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(topics_of(metadata[..].into()), ["a", "bc"]);
        assert!(topics_of(metadata[..11].into()).is_empty());
        assert!(topics_of(Bytes::new()).is_empty());
    }
}
