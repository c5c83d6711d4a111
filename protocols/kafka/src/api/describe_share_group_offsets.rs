//! DescribeShareGroupOffsets: the start offsets of share groups, and how much is behind them (KIP-932, KIP-1226).

use std::ops::RangeInclusive;

use inver_access::Operation;
use inver_broker::{NamedSubscription, Position};

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Reply, message};
use crate::access;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::coordinator::shares;
use crate::node::LEADER_EPOCH;

messages! {
    /// Versions 0-1, flexible 0+.
    pub struct DescribeShareGroupOffsetsRequest {
        groups: Vec<DescribeShareGroupOffsetsRequestGroup> [0..],
    }

    /// The groups to describe.
    pub struct DescribeShareGroupOffsetsRequestGroup {
        group_id: Str [0..],
        topics: Option<Vec<DescribeShareGroupOffsetsRequestTopic>> [0..; null 0..],
    }

    /// The topics to describe; without them, all.
    pub struct DescribeShareGroupOffsetsRequestTopic {
        topic_name: Str [0..],
        partitions: Vec<i32> [0..],
    }

    /// Versions 0-1, flexible 0+.
    pub struct DescribeShareGroupOffsetsResponse {
        throttle_time_ms: i32 [0..],
        groups: Vec<DescribeShareGroupOffsetsResponseGroup> [0..],
    }

    /// The described groups.
    pub struct DescribeShareGroupOffsetsResponseGroup {
        group_id: Str [0..],
        topics: Vec<DescribeShareGroupOffsetsResponseTopic> [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
    }

    /// The topics of a group.
    pub struct DescribeShareGroupOffsetsResponseTopic {
        topic_name: Str [0..],
        topic_id: Uuid [0..],
        partitions: Vec<DescribeShareGroupOffsetsResponsePartition> [0..],
    }

    /// The partitions of a topic.
    pub struct DescribeShareGroupOffsetsResponsePartition {
        partition_index: i32 [0..],
        start_offset: i64 [0..],
        leader_epoch: i32 [0..],
        lag: i64 [1..; default -1],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
    }
}

/// The DescribeShareGroupOffsets API.
pub struct DescribeShareGroupOffsets;

/// The start offset of a partition that a group has no position on.
const NO_OFFSET: i64 = -1;

impl Handler for DescribeShareGroupOffsets {
    const KEY: i16 = 90;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const FLEXIBLE_FROM: i16 = 0;
    const LENGTH: Length = Length::Long;

    type Request = DescribeShareGroupOffsetsRequest;
    type Response = DescribeShareGroupOffsetsResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: DescribeShareGroupOffsetsRequest,
    ) -> Reply<DescribeShareGroupOffsetsResponse> {
        let groups = request.groups.into_iter().map(|asked| {
            let group_id = asked.group_id;
            let refused = match cx.access.check_group(&group_id, Operation::Describe) {
                Err(code) => Some((code, message(access::text(code)))),
                Ok(()) if !cx.coordinator().has_share_group(&group_id) => {
                    let refusal = shares::not_found(&group_id);
                    Some((refusal.code, message(refusal.text.into_owned())))
                }
                Ok(()) => None,
            };
            if let Some((error_code, error_message)) = refused {
                let topics = Vec::new();
                return DescribeShareGroupOffsetsResponseGroup {
                    group_id,
                    topics,
                    error_code,
                    error_message,
                };
            }
            let shares = cx.coordinator().shares_of(&group_id);
            let topics = match asked.topics {
                Some(topics) => topics.into_iter().map(|topic| asked_topic(cx, &shares, topic)).collect(),
                None => {
                    let seen = shares
                        .iter()
                        .filter(|share| cx.access.may_topic(share.topic.name(), Operation::Describe));
                    seen.map(|share| answer(share, None)).collect()
                }
            };
            DescribeShareGroupOffsetsResponseGroup { group_id, topics, ..Default::default() }
        });
        let groups = groups.collect();
        Reply::now(DescribeShareGroupOffsetsResponse { throttle_time_ms: 0, groups })
    }
}

/// A topic that a client asks for.
fn asked_topic(
    cx: &RequestContext<'_>,
    shares: &[NamedSubscription],
    asked: DescribeShareGroupOffsetsRequestTopic,
) -> DescribeShareGroupOffsetsResponseTopic {
    let failed = |error_code, partition_index| DescribeShareGroupOffsetsResponsePartition {
        partition_index,
        start_offset: NO_OFFSET,
        error_code,
        error_message: message(ErrorCode::name(error_code)).filter(|_| !error_code.is_none()),
        ..DescribeShareGroupOffsetsResponsePartition::default()
    };
    let all_failed = |error| asked.partitions.iter().map(|index| failed(error, *index)).collect();
    let topic = match cx.topic(Operation::Describe, &asked.topic_name) {
        Ok(topic) => topic,
        Err(error) => {
            let partitions = all_failed(error);
            return DescribeShareGroupOffsetsResponseTopic {
                topic_name: asked.topic_name,
                topic_id: Uuid::ZERO,
                partitions,
            };
        }
    };
    match shares.iter().find(|share| share.topic.id() == topic.id()) {
        Some(share) => answer(share, Some(&asked.partitions)),
        // One that the group does not share has no start offset.
        None => DescribeShareGroupOffsetsResponseTopic {
            topic_id: Uuid(topic.id().0),
            partitions: all_failed(ErrorCode::NONE),
            topic_name: asked.topic_name,
        },
    }
}

/// The positions of a group on a topic: of the partitions that are asked for, or of all.
fn answer(share: &NamedSubscription, asked: Option<&[i32]>) -> DescribeShareGroupOffsetsResponseTopic {
    let wire = |offset: u64| i64::try_from(offset).unwrap_or(i64::MAX);
    let partition = |at: &Position| DescribeShareGroupOffsetsResponsePartition {
        partition_index: i32::try_from(at.partition).unwrap_or(i32::MAX),
        start_offset: wire(at.offset.max(at.start)),
        leader_epoch: LEADER_EPOCH,
        lag: wire(at.left),
        ..DescribeShareGroupOffsetsResponsePartition::default()
    };
    let positions = share.subscription.positions();
    let all = positions.iter().map(partition);
    let partitions = match asked {
        None => all.collect(),
        Some(asked) => {
            let known: Vec<_> = all.collect();
            let of = |index: &i32| {
                let found = known.iter().find(|partition| partition.partition_index == *index);
                found.cloned().unwrap_or_else(|| DescribeShareGroupOffsetsResponsePartition {
                    partition_index: *index,
                    start_offset: NO_OFFSET,
                    error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    error_message: message(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.name()),
                    ..DescribeShareGroupOffsetsResponsePartition::default()
                })
            };
            asked.iter().map(of).collect()
        }
    };
    DescribeShareGroupOffsetsResponseTopic {
        topic_name: Str::from(share.topic.name()),
        topic_id: Uuid(share.topic.id().0),
        partitions,
    }
}
