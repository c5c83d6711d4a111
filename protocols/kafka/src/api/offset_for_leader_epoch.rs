//! OffsetForLeaderEpoch: the end offset of a leader epoch (KIP-101).

use std::ops::RangeInclusive;

use inver_access::Operation;

use super::context::RequestContext;
use super::handler::Handler;
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::map::partition::{check_leader_epoch, partition_index, wire_offset};
use crate::node::LEADER_EPOCH;

messages! {
    /// Versions 2-4, flexible 4+.
    pub struct OffsetForLeaderEpochRequest {
        replica_id: i32 [3..; default -2],
        topics: Vec<OffsetForLeaderTopic> [0..],
    }

    /// Each topic to get offsets for.
    pub struct OffsetForLeaderTopic {
        topic: Str [0..],
        partitions: Vec<OffsetForLeaderPartition> [0..],
    }

    /// Each partition to get offsets for.
    pub struct OffsetForLeaderPartition {
        partition: i32 [0..],
        current_leader_epoch: i32 [2..; default -1],
        leader_epoch: i32 [0..],
    }

    /// Versions 2-4, flexible 4+.
    pub struct OffsetForLeaderEpochResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<OffsetForLeaderTopicResult> [0..],
    }

    /// Each topic we fetched offsets for.
    pub struct OffsetForLeaderTopicResult {
        topic: Str [0..],
        partitions: Vec<EpochEndOffset> [0..],
    }

    /// Each partition in the topic we fetched offsets for.
    pub struct EpochEndOffset {
        error_code: ErrorCode [0..],
        partition: i32 [0..],
        leader_epoch: i32 [1..; default -1],
        end_offset: i64 [0..; default -1],
    }
}

/// The OffsetForLeaderEpoch API.
pub struct OffsetForLeaderEpoch;

impl Handler for OffsetForLeaderEpoch {
    const KEY: i16 = 23;
    const VERSIONS: RangeInclusive<i16> = 2..=4;
    const FLEXIBLE_FROM: i16 = 4;

    type Request = OffsetForLeaderEpochRequest;
    type Response = OffsetForLeaderEpochResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: OffsetForLeaderEpochRequest,
    ) -> Reply<OffsetForLeaderEpochResponse> {
        let topics = request.topics.into_iter().map(|topic| {
            let known = cx.topic(Operation::Describe, &topic.topic);
            let partitions = topic.partitions.into_iter().map(|wanted| {
                let partition = known.as_ref().map_err(|code| *code).and_then(|topic| {
                    let partition = partition_index(wanted.partition);
                    let partition = partition.and_then(|index| topic.partition(index));
                    partition.ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
                });
                let mut answer = EpochEndOffset { partition: wanted.partition, ..EpochEndOffset::default() };
                match (partition, check_leader_epoch(wanted.current_leader_epoch)) {
                    (Err(code), _) | (_, Err(code)) => answer.error_code = code,
                    // All records belong to the only epoch there is.
                    (Ok(partition), Ok(())) if wanted.leader_epoch == LEADER_EPOCH => {
                        answer.leader_epoch = LEADER_EPOCH;
                        answer.end_offset = wire_offset(partition.stream().high_watermark());
                    }
                    _ => {}
                }
                answer
            });
            OffsetForLeaderTopicResult { topic: topic.topic, partitions: partitions.collect() }
        });
        let topics = topics.collect();
        Reply::now(OffsetForLeaderEpochResponse { throttle_time_ms: 0, topics })
    }
}
