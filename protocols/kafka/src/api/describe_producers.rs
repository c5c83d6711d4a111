//! DescribeProducers: the idempotent producers of partitions, and their open transactions (KIP-664).

use std::ops::RangeInclusive;

use inver_access::Operation;
use inver_storage::Stream;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Reply, message};
use crate::access;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::map::partition::wire_offset;

messages! {
    /// Versions 0, flexible 0+.
    pub struct DescribeProducersRequest {
        topics: Vec<TopicRequest> [0..],
    }

    /// The topics to list producers for.
    pub struct TopicRequest {
        name: Str [0..],
        partition_indexes: Vec<i32> [0..],
    }

    /// Versions 0, flexible 0+.
    pub struct DescribeProducersResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<TopicResponse> [0..],
    }

    /// Each topic in the response.
    pub struct TopicResponse {
        name: Str [0..],
        partitions: Vec<PartitionResponse> [0..],
    }

    /// Each partition in the response.
    pub struct PartitionResponse {
        partition_index: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        active_producers: Vec<ProducerState> [0..],
    }

    /// The active producers for the partition.
    pub struct ProducerState {
        producer_id: i64 [0..],
        producer_epoch: i32 [0..],
        last_sequence: i32 [0..; default -1],
        last_timestamp: i64 [0..; default -1],
        coordinator_epoch: i32 [0..],
        current_txn_start_offset: i64 [0..; default -1],
    }
}

/// The DescribeProducers API.
pub struct DescribeProducers;

/// Coordinator epoch of a producer without transactions.
const NO_COORDINATOR_EPOCH: i32 = -1;
/// Coordinator epoch of a producer with one: there is one coordinator, which never changes.
const COORDINATOR_EPOCH: i32 = 0;

impl Handler for DescribeProducers {
    const KEY: i16 = 61;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const FLEXIBLE_FROM: i16 = 0;

    const LENGTH: Length = Length::Long;

    type Request = DescribeProducersRequest;
    type Response = DescribeProducersResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: DescribeProducersRequest,
    ) -> Reply<DescribeProducersResponse> {
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partition_indexes.into_iter().map(|partition_index| {
                match cx.partition_for(Operation::Read, &topic.name, partition_index) {
                    Ok(partition) => PartitionResponse {
                        partition_index,
                        active_producers: active_producers(partition.stream()),
                        ..PartitionResponse::default()
                    },
                    Err(error_code) => PartitionResponse {
                        partition_index,
                        error_code,
                        error_message: message(match error_code {
                            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => "There is no such partition.",
                            code => access::text(code),
                        }),
                        ..PartitionResponse::default()
                    },
                }
            });
            let partitions = partitions.collect();
            TopicResponse { name: topic.name, partitions }
        });
        let topics = topics.collect();
        Reply::now(DescribeProducersResponse { throttle_time_ms: 0, topics })
    }
}

/// The producers of a partition. One with an open transaction is there whatever else is remembered of it.
fn active_producers(stream: &Stream) -> Vec<ProducerState> {
    let mut producers: Vec<ProducerState> = stream.producers().into_iter().map(ProducerState::from).collect();
    for open in stream.open_transactions() {
        let known = producers.iter_mut().find(|producer| producer.producer_id == open.producer_id);
        match known {
            Some(known) => {
                known.current_txn_start_offset = wire_offset(open.first);
                known.coordinator_epoch = COORDINATOR_EPOCH;
            }
            None => producers.push(ProducerState {
                producer_id: open.producer_id,
                producer_epoch: i32::from(open.producer_epoch),
                last_timestamp: open.started_ms,
                coordinator_epoch: COORDINATOR_EPOCH,
                current_txn_start_offset: wire_offset(open.first),
                ..ProducerState::default()
            }),
        }
    }
    producers
}

impl From<inver_storage::ProducerState> for ProducerState {
    fn from(producer: inver_storage::ProducerState) -> ProducerState {
        ProducerState {
            producer_id: producer.id,
            producer_epoch: i32::from(producer.epoch),
            last_sequence: producer.last_sequence.unwrap_or(-1),
            last_timestamp: producer.seen_ms,
            coordinator_epoch: NO_COORDINATOR_EPOCH,
            ..ProducerState::default()
        }
    }
}
