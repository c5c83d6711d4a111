//! OffsetFetch: reads the committed offsets of groups.

use std::ops::RangeInclusive;

use inver_access::Operation;
use inver_broker::CommittedOffset;

use super::context::RequestContext;
use super::handler::Handler;
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::map::partition::partition_index;

messages! {
    /// Versions 1-10, flexible 6+.
    pub struct OffsetFetchRequest {
        group_id: Str [0..=7],
        topics: Option<Vec<OffsetFetchRequestTopic>> [0..=7; null 2..=7],
        groups: Vec<OffsetFetchRequestGroup> [8..],
        require_stable: bool [7..],
    }

    /// Each topic we would like to fetch offsets for, or null to fetch offsets for all topics.
    pub struct OffsetFetchRequestTopic {
        name: Str [0..=7],
        partition_indexes: Vec<i32> [0..=7],
    }

    /// Each group we would like to fetch offsets for.
    pub struct OffsetFetchRequestGroup {
        group_id: Str [8..],
        member_id: Option<Str> [9..; null 9..],
        member_epoch: i32 [9..; default -1],
        topics: Option<Vec<OffsetFetchRequestTopics>> [8..; null 8..],
    }

    /// Each topic we would like to fetch offsets for, or null to fetch offsets for all topics.
    pub struct OffsetFetchRequestTopics {
        name: Str [8..=9],
        topic_id: Uuid [10..],
        partition_indexes: Vec<i32> [8..],
    }

    /// Versions 1-10, flexible 6+.
    pub struct OffsetFetchResponse {
        throttle_time_ms: i32 [3..],
        topics: Vec<OffsetFetchResponseTopic> [0..=7],
        error_code: ErrorCode [2..=7],
        groups: Vec<OffsetFetchResponseGroup> [8..],
    }

    /// The responses per topic.
    pub struct OffsetFetchResponseTopic {
        name: Str [0..=7],
        partitions: Vec<OffsetFetchResponsePartition> [0..=7],
    }

    /// The responses per partition.
    pub struct OffsetFetchResponsePartition {
        partition_index: i32 [0..=7],
        committed_offset: i64 [0..=7],
        committed_leader_epoch: i32 [5..=7; default -1],
        metadata: Option<Str> [0..=7; null 0..=7],
        error_code: ErrorCode [0..=7],
    }

    /// The responses per group id.
    pub struct OffsetFetchResponseGroup {
        group_id: Str [8..],
        topics: Vec<OffsetFetchResponseTopics> [8..],
        error_code: ErrorCode [8..],
    }

    /// The responses per topic.
    pub struct OffsetFetchResponseTopics {
        name: Str [8..=9],
        topic_id: Uuid [10..],
        partitions: Vec<OffsetFetchResponsePartitions> [8..],
    }

    /// The responses per partition.
    pub struct OffsetFetchResponsePartitions {
        partition_index: i32 [8..],
        committed_offset: i64 [8..],
        committed_leader_epoch: i32 [8..; default -1],
        metadata: Option<Str> [8..; null 8..],
        error_code: ErrorCode [8..],
    }
}

/// The OffsetFetch API.
pub struct OffsetFetch;

/// First version that names several groups (KIP-709).
const GROUPS_SINCE: i16 = 8;

/// First version that names topics by id (KIP-848).
const BY_ID_SINCE: i16 = 10;

impl OffsetFetchRequestGroup {
    /// Whether the offsets are for a member of this epoch only.
    fn asks_as_member(&self) -> bool {
        self.member_id.is_some() && self.member_epoch >= 0
    }
}

impl Handler for OffsetFetch {
    const KEY: i16 = 9;
    const VERSIONS: RangeInclusive<i16> = 1..=10;
    const FLEXIBLE_FROM: i16 = 6;

    type Request = OffsetFetchRequest;
    type Response = OffsetFetchResponse;

    fn is_long(cx: &RequestContext<'_>, request: &OffsetFetchRequest) -> bool {
        // All offsets of a group, or those that a member of a group asks for whose lock is held for long.
        let is_held = |group: &OffsetFetchRequestGroup| {
            group.asks_as_member() && cx.coordinator().is_held(&group.group_id)
        };
        match cx.version() >= GROUPS_SINCE {
            true => request.groups.iter().any(|group| group.topics.is_none() || is_held(group)),
            false => request.topics.is_none(),
        }
    }

    fn handle(cx: &mut RequestContext<'_>, request: OffsetFetchRequest) -> Reply<OffsetFetchResponse> {
        if cx.version() >= GROUPS_SINCE {
            let stable = request.require_stable;
            let groups = request.groups.into_iter().map(|group| fetch_group(cx, group, stable)).collect();
            return Reply::now(OffsetFetchResponse { groups, ..OffsetFetchResponse::default() });
        }
        let topics = request.topics.map(|topics| {
            let named = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
                name: topic.name,
                topic_id: Uuid::ZERO,
                partition_indexes: topic.partition_indexes,
            });
            named.collect()
        });
        let group = OffsetFetchRequestGroup { group_id: request.group_id, topics, ..Default::default() };
        let group = fetch_group(cx, group, request.require_stable);
        let topics = group.topics.into_iter().map(|topic| OffsetFetchResponseTopic {
            name: topic.name,
            partitions: topic.partitions.into_iter().map(single_group).collect(),
        });
        Reply::now(OffsetFetchResponse {
            topics: topics.collect(),
            error_code: group.error_code,
            ..OffsetFetchResponse::default()
        })
    }
}

/// `stable`: an offset that an open transaction may change is not told (KIP-447).
fn fetch_group(
    cx: &mut RequestContext<'_>,
    group: OffsetFetchRequestGroup,
    stable: bool,
) -> OffsetFetchResponseGroup {
    if let Err(error_code) = cx.access.check_group(&group.group_id, Operation::Describe) {
        return OffsetFetchResponseGroup { group_id: group.group_id, topics: Vec::new(), error_code };
    }
    if group.asks_as_member()
        && let Some(member_id) = &group.member_id
        && let Some(Err(error_code)) = cx
            .coordinator()
            .with_consumer_group(&group.group_id, |known| known.check_commit(member_id, group.member_epoch))
    {
        return OffsetFetchResponseGroup { group_id: group.group_id, topics: Vec::new(), error_code };
    }
    let topics = match group.topics {
        Some(topics) => {
            topics.into_iter().map(|topic| fetch_topic(cx, &group.group_id, topic, stable)).collect()
        }
        None => fetch_all(cx, &group.group_id, stable),
    };
    OffsetFetchResponseGroup { group_id: group.group_id, topics, error_code: ErrorCode::NONE }
}

fn fetch_topic(
    cx: &mut RequestContext<'_>,
    group: &str,
    topic: OffsetFetchRequestTopics,
    stable: bool,
) -> OffsetFetchResponseTopics {
    let name = match cx.version() {
        // Offsets of a topic outlive it, so it need not exist.
        ..BY_ID_SINCE => {
            cx.access.check_topic(&topic.name, Operation::Describe).map(|()| topic.name.to_string())
        }
        _ => cx
            .topic_for(Operation::Describe, BY_ID_SINCE, "", topic.topic_id)
            .map(|topic| topic.name().to_owned()),
    };
    let offsets = cx.namespace().committed_offsets();
    let partitions = topic.partition_indexes.into_iter().map(|index| match &name {
        Err(code) => partition(index, None, *code),
        Ok(name) if stable && is_pending(cx, group, name, index) => {
            partition(index, None, ErrorCode::UNSTABLE_OFFSET_COMMIT)
        }
        Ok(name) => {
            let offset = partition_index(index).and_then(|index| offsets.get(group, name, index));
            partition(index, offset, ErrorCode::NONE)
        }
    });
    let partitions = partitions.collect();
    OffsetFetchResponseTopics { name: topic.name, topic_id: topic.topic_id, partitions }
}

/// All committed offsets of a group, by topic and partition.
fn fetch_all(cx: &RequestContext<'_>, group: &str, stable: bool) -> Vec<OffsetFetchResponseTopics> {
    let mut topics: Vec<OffsetFetchResponseTopics> = Vec::new();
    for (name, index, offset) in cx.namespace().committed_offsets().of_group(group) {
        if !cx.access.may_topic(&name, Operation::Describe) {
            continue;
        }
        let known = match stable && is_pending(cx, group, &name, index as i32) {
            true => partition(index as i32, None, ErrorCode::UNSTABLE_OFFSET_COMMIT),
            false => partition(index as i32, Some(offset), ErrorCode::NONE),
        };
        match topics.last_mut() {
            Some(topic) if topic.name == *name => topic.partitions.push(known),
            _ => topics.push(OffsetFetchResponseTopics {
                topic_id: cx.namespace().topic(&name).map_or(Uuid::ZERO, |topic| Uuid(topic.id().0)),
                name: name.into(),
                partitions: vec![known],
            }),
        }
    }
    topics
}

/// Whether an open transaction has an offset of a group in a partition.
fn is_pending(cx: &RequestContext<'_>, group: &str, topic: &str, index: i32) -> bool {
    let transactions = cx.namespace().transactions();
    partition_index(index).is_some_and(|index| transactions.has_pending_offset(group, topic, index))
}

fn partition(
    partition_index: i32,
    offset: Option<CommittedOffset>,
    error_code: ErrorCode,
) -> OffsetFetchResponsePartitions {
    match offset {
        Some(offset) => OffsetFetchResponsePartitions {
            partition_index,
            committed_offset: offset.offset,
            committed_leader_epoch: offset.leader_epoch,
            metadata: Some(offset.metadata.map(Str::from).unwrap_or_default()),
            error_code,
        },
        None => OffsetFetchResponsePartitions {
            partition_index,
            committed_offset: -1,
            committed_leader_epoch: -1,
            metadata: Some(Str::default()),
            error_code,
        },
    }
}

/// The form of versions before [`GROUPS_SINCE`].
fn single_group(partition: OffsetFetchResponsePartitions) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
    }
}
