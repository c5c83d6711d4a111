//! ListOffsets and OffsetForLeaderEpoch: where a partition starts and ends, and where it was at a time.

use inver_storage::{ColdTimeLookup, Offset, ReadError, Stream, TimeLookup};

use super::{Call, Session, offset, partition_index};
use crate::codec::api::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use crate::codec::api::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
};
use crate::codec::error_code::ErrorCode;
use crate::codec::frame::respond;
use crate::error::ConnectionError;
use crate::node::LEADER_EPOCH;

/// Times that are none.
mod special {
    pub(super) const LATEST: i64 = -1;
    pub(super) const EARLIEST: i64 = -2;
    pub(super) const MAX_TIMESTAMP: i64 = -3;
    /// The earliest that is not only in remote storage: there is none such here.
    pub(super) const EARLIEST_LOCAL: i64 = -4;
    /// The last that was copied to remote storage, and the first that was not.
    pub(super) const LATEST_TIERED: i64 = -5;
    pub(super) const EARLIEST_PENDING_UPLOAD: i64 = -6;
}

/// Checks what a client believes of the leader's epoch.
pub(super) fn check_epoch(believed: i32) -> Result<(), ErrorCode> {
    match believed {
        ..=LEADER_EPOCH => Ok(()),
        _ => Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
    }
}

/// A look-up that needs the disk, and the place of its answer: topic, partition.
type Cold = (usize, usize, ColdTimeLookup);

fn found(answer: &mut ListOffsetsPartitionResponse, found: Result<Option<(Offset, i64)>, ReadError>) {
    match found {
        Ok(Some((at, timestamp))) => {
            answer.offset = offset(at);
            answer.timestamp = timestamp;
            answer.leader_epoch = LEADER_EPOCH;
        }
        Ok(None) => {}
        Err(error) => answer.error_code = read_error(&error),
    }
}

/// The code for a read that failed.
pub(super) fn read_error(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OFFSET_OUT_OF_RANGE,
        ReadError::Deleted => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ReadError::Damaged { .. } | ReadError::Io { .. } => {
            tracing::error!(%error, "a partition cannot be read");
            ErrorCode::KAFKA_STORAGE_ERROR
        }
    }
}

impl Session {
    pub(super) fn list_offsets(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: ListOffsetsRequest = call.read()?;
        let mut cold: Vec<Cold> = Vec::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let known = self.node.namespace.topic(&topic.name);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for wanted in topic.partitions {
                let mut answer = ListOffsetsPartitionResponse {
                    partition_index: wanted.partition_index,
                    ..ListOffsetsPartitionResponse::default()
                };
                let partition = known.as_ref().zip(partition_index(wanted.partition_index));
                match partition.and_then(|(topic, index)| topic.partition(index)) {
                    None => answer.error_code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    Some(partition) => match look_up(partition.stream(), &wanted, &mut answer) {
                        Ok(None) => {}
                        Ok(Some(lookup)) => cold.push((topics.len(), partitions.len(), lookup)),
                        Err(code) => answer.error_code = code,
                    },
                }
                partitions.push(answer);
            }
            topics.push(ListOffsetsTopicResponse { name: topic.name, partitions });
        }
        let response = ListOffsetsResponse { throttle_time_ms: 0, topics };
        match cold.is_empty() {
            true => self.answer(&call, &response),
            false => self.list_cold_offsets(&call, response, cold),
        }
        Ok(())
    }

    /// Finishes on a thread that may wait for the disk.
    fn list_cold_offsets(&mut self, call: &Call, mut response: ListOffsetsResponse, cold: Vec<Cold>) {
        let (ticket, claim) = self.ticket();
        let header = call.header.clone();
        self.pipeline.push_claim(claim);
        tokio::task::spawn_blocking(move || {
            for (topic, partition, lookup) in cold {
                let answer =
                    response.topics.get_mut(topic).and_then(|topic| topic.partitions.get_mut(partition));
                if let Some(answer) = answer {
                    found(answer, lookup.run());
                }
            }
            ticket.fill(respond(&mut bytes::BytesMut::new(), &header, &response));
        });
    }

    pub(super) fn offset_for_leader_epoch(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: OffsetForLeaderEpochRequest = call.read()?;
        let topics = request.topics.into_iter().map(|topic| {
            let known = self.node.namespace.topic(&topic.topic);
            let partitions = topic.partitions.into_iter().map(|wanted: OffsetForLeaderPartition| {
                let partition = known.as_ref().zip(partition_index(wanted.partition));
                let partition = partition.and_then(|(topic, index)| topic.partition(index));
                let mut answer = EpochEndOffset { partition: wanted.partition, ..EpochEndOffset::default() };
                match (partition, check_epoch(wanted.current_leader_epoch)) {
                    (None, _) => answer.error_code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    (_, Err(code)) => answer.error_code = code,
                    // All records are of the one epoch that there ever was.
                    (Some(partition), Ok(())) if wanted.leader_epoch == LEADER_EPOCH => {
                        answer.leader_epoch = LEADER_EPOCH;
                        answer.end_offset = offset(partition.stream().high_watermark());
                    }
                    _ => {}
                }
                answer
            });
            OffsetForLeaderTopicResult { topic: topic.topic, partitions: partitions.collect() }
        });
        let response = OffsetForLeaderEpochResponse { throttle_time_ms: 0, topics: topics.collect() };
        self.answer(&call, &response);
        Ok(())
    }
}

/// Answers what can be answered at once; the rest is given back.
fn look_up(
    stream: &Stream,
    wanted: &ListOffsetsPartition,
    answer: &mut ListOffsetsPartitionResponse,
) -> Result<Option<ColdTimeLookup>, ErrorCode> {
    check_epoch(wanted.current_leader_epoch)?;
    let time = match wanted.timestamp {
        special::LATEST => {
            (answer.offset, answer.leader_epoch) = (offset(stream.high_watermark()), LEADER_EPOCH);
            return Ok(None);
        }
        special::EARLIEST | special::EARLIEST_LOCAL => {
            (answer.offset, answer.leader_epoch) = (offset(stream.start()), LEADER_EPOCH);
            return Ok(None);
        }
        special::LATEST_TIERED | special::EARLIEST_PENDING_UPLOAD => return Ok(None),
        // The first record of the greatest time.
        special::MAX_TIMESTAMP => match stream.last_timestamp() {
            ..0 => return Ok(None),
            last => last,
        },
        time @ 0.. => time,
        _ => return Err(ErrorCode::INVALID_REQUEST),
    };
    match stream.offset_for_time(time) {
        Ok(TimeLookup::Ready(ready)) => found(answer, Ok(ready)),
        Ok(TimeLookup::Cold(cold)) => return Ok(Some(cold)),
        Err(error) => return Err(read_error(&error)),
    }
    Ok(None)
}
