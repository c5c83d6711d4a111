//! ListOffsets: the first offset of a partition, the last one, or the one at a timestamp.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use bytes::BytesMut;
use inver_access::Operation;
use inver_storage::{ColdTimeLookup, Offset, ReadError, Stream, TimeLookup};

use super::context::RequestContext;
use super::handler::Handler;
use super::repeated::repeated;
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::map::partition::{
    READ_COMMITTED, check_leader_epoch, partition_index, read_error, visible_end, wire_offset,
};
use crate::node::LEADER_EPOCH;
use crate::response::encode;

messages! {
    /// Versions 1-11, flexible 6+.
    pub struct ListOffsetsRequest {
        replica_id: i32 [0..],
        isolation_level: i8 [2..],
        topics: Vec<ListOffsetsTopic> [0..],
        timeout_ms: i32 [10..],
    }

    /// Each topic in the request.
    pub struct ListOffsetsTopic {
        name: Str [0..],
        partitions: Vec<ListOffsetsPartition> [0..],
    }

    /// Each partition in the request.
    pub struct ListOffsetsPartition {
        partition_index: i32 [0..],
        current_leader_epoch: i32 [4..; default -1],
        timestamp: i64 [0..],
    }

    /// Versions 1-11, flexible 6+.
    pub struct ListOffsetsResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<ListOffsetsTopicResponse> [0..],
    }

    /// Each topic in the response.
    pub struct ListOffsetsTopicResponse {
        name: Str [0..],
        partitions: Vec<ListOffsetsPartitionResponse> [0..],
    }

    /// Each partition in the response.
    pub struct ListOffsetsPartitionResponse {
        partition_index: i32 [0..],
        error_code: ErrorCode [0..],
        timestamp: i64 [1..; default -1],
        offset: i64 [1..; default -1],
        leader_epoch: i32 [4..; default -1],
    }
}

/// The ListOffsets API.
pub struct ListOffsets;

/// Timestamps with a special meaning.
mod special {
    pub(super) const LATEST: i64 = -1;
    pub(super) const EARLIEST: i64 = -2;
    /// The record with the greatest timestamp (KIP-734).
    pub(super) const MAX_TIMESTAMP: i64 = -3;
    /// The first offset on local disks (KIP-405): the same as the earliest, since there is no remote storage.
    pub(super) const EARLIEST_LOCAL: i64 = -4;
    /// The last offset copied to remote storage (KIP-1005): none.
    pub(super) const LATEST_TIERED: i64 = -5;
    /// The first offset not copied to remote storage (KIP-1023): none.
    pub(super) const EARLIEST_PENDING_UPLOAD: i64 = -6;
}

impl Handler for ListOffsets {
    const KEY: i16 = 2;
    const VERSIONS: RangeInclusive<i16> = 1..=11;
    const FLEXIBLE_FROM: i16 = 6;

    type Request = ListOffsetsRequest;
    type Response = ListOffsetsResponse;

    fn handle(cx: &mut RequestContext<'_>, request: ListOffsetsRequest) -> Reply<ListOffsetsResponse> {
        // Kafka fails a request with an unknown isolation level as a whole.
        let is_malformed = !matches!(request.isolation_level, 0 | 1);
        let committed = request.isolation_level == READ_COMMITTED;
        let version = cx.version();
        let mut cold: Vec<ColdLookup> = Vec::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let known = cx.topic(Operation::Describe, &topic.name);
            let repeated = repeated(topic.partitions.iter().map(|wanted| wanted.partition_index));
            let mut answered = HashSet::new();
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for wanted in topic.partitions {
                // A repeated one is answered once, as in Kafka.
                let is_repeated = repeated.contains(&wanted.partition_index);
                if is_repeated && !answered.insert(wanted.partition_index) {
                    continue;
                }
                let mut answer = ListOffsetsPartitionResponse {
                    partition_index: wanted.partition_index,
                    ..ListOffsetsPartitionResponse::default()
                };
                let partition = known.as_ref().map_err(|code| *code).and_then(|topic| {
                    check(version, is_malformed, &repeated, &wanted)?;
                    let partition = partition_index(wanted.partition_index);
                    let partition = partition.and_then(|index| topic.partition(index));
                    partition.ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
                });
                match partition {
                    Err(code) => answer.error_code = code,
                    Ok(partition) => match look_up(partition.stream(), &wanted, committed, &mut answer) {
                        Ok(None) => {}
                        Ok(Some(lookup)) => {
                            cold.push(ColdLookup {
                                topic: topics.len(),
                                partition: partitions.len(),
                                end: visible_end(partition.stream(), committed),
                                lookup,
                            });
                        }
                        Err(code) => answer.error_code = code,
                    },
                }
                partitions.push(answer);
            }
            topics.push(ListOffsetsTopicResponse { name: topic.name, partitions });
        }
        let response = ListOffsetsResponse { throttle_time_ms: 0, topics };
        match cold.is_empty() {
            true => Reply::now(response),
            false => finish_on_disk(cx, response, cold),
        }
    }
}

/// A lookup that has to read from disk, and the position of its answer in the response.
struct ColdLookup {
    topic: usize,
    partition: usize,
    /// Offsets from here on are not found.
    end: Offset,
    lookup: ColdTimeLookup,
}

/// Completes the response on a blocking thread.
fn finish_on_disk(
    cx: &RequestContext<'_>,
    mut response: ListOffsetsResponse,
    cold: Vec<ColdLookup>,
) -> Reply<ListOffsetsResponse> {
    let (ticket, claim) = cx.defer();
    let header = cx.header;
    tokio::task::spawn_blocking(move || {
        for ColdLookup { topic, partition, end, lookup } in cold {
            let topic = response.topics.get_mut(topic);
            if let Some(answer) = topic.and_then(|topic| topic.partitions.get_mut(partition)) {
                found(answer, end, lookup.run());
            }
        }
        ticket.fill(encode(&mut BytesMut::new(), header, &response));
    });
    Reply::Deferred(claim)
}

/// Checks what a client asks of a partition. A special timestamp is known from some version on.
fn check(
    version: i16,
    is_malformed: bool,
    repeated: &HashSet<i32>,
    wanted: &ListOffsetsPartition,
) -> Result<(), ErrorCode> {
    let since = match wanted.timestamp {
        special::EARLIEST | special::LATEST | 0.. => 1,
        special::MAX_TIMESTAMP => 7,
        special::EARLIEST_LOCAL => 8,
        special::LATEST_TIERED => 9,
        special::EARLIEST_PENDING_UPLOAD => 11,
        _ => i16::MAX,
    };
    match () {
        () if is_malformed => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
        () if repeated.contains(&wanted.partition_index) => Err(ErrorCode::INVALID_REQUEST),
        () if version < since => Err(ErrorCode::UNSUPPORTED_VERSION),
        () => Ok(()),
    }
}

/// Answers what needs no disk; otherwise returns the lookup that does.
fn look_up(
    stream: &Stream,
    wanted: &ListOffsetsPartition,
    committed: bool,
    answer: &mut ListOffsetsPartitionResponse,
) -> Result<Option<ColdTimeLookup>, ErrorCode> {
    check_leader_epoch(wanted.current_leader_epoch)?;
    let time = match wanted.timestamp {
        special::LATEST => {
            (answer.offset, answer.leader_epoch) =
                (wire_offset(visible_end(stream, committed)), LEADER_EPOCH);
            return Ok(None);
        }
        special::EARLIEST | special::EARLIEST_LOCAL => {
            (answer.offset, answer.leader_epoch) = (wire_offset(stream.start()), LEADER_EPOCH);
            return Ok(None);
        }
        special::LATEST_TIERED | special::EARLIEST_PENDING_UPLOAD => return Ok(None),
        special::MAX_TIMESTAMP => match stream.last_timestamp() {
            ..0 => return Ok(None),
            last => last,
        },
        time @ 0.. => time,
        _ => return Err(ErrorCode::INVALID_REQUEST),
    };
    match stream.offset_for_time(time) {
        Ok(TimeLookup::Ready(ready)) => found(answer, visible_end(stream, committed), Ok(ready)),
        Ok(TimeLookup::Cold(cold)) => return Ok(Some(cold)),
        Err(error) => return Err(read_error(&error)),
    }
    Ok(None)
}

fn found(
    answer: &mut ListOffsetsPartitionResponse,
    end: Offset,
    found: Result<Option<(Offset, i64)>, ReadError>,
) {
    match found {
        Ok(Some((at, timestamp))) if at < end => {
            answer.offset = wire_offset(at);
            answer.timestamp = timestamp;
            answer.leader_epoch = LEADER_EPOCH;
        }
        Ok(_) => {}
        Err(error) => answer.error_code = read_error(&error),
    }
}
