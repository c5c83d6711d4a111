//! InitProducerId, DescribeProducers, ListTransactions: an identity for a producer, so that what it sends twice is kept
//! once, and what is known of producers.

use inver_storage::ProducerState as Known;

use super::{Call, Session, message, partition_index};
use crate::codec::api::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use crate::codec::api::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use crate::codec::api::list_transactions::{ListTransactionsRequest, ListTransactionsResponse};
use crate::codec::error_code::ErrorCode;
use crate::error::ConnectionError;

/// States that a transaction can be asked for by.
const STATES: &[&str] = &[
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

impl Session {
    pub(super) fn init_producer_id(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: InitProducerIdRequest = call.read()?;
        if request.transactional_id.is_some() {
            let error_code = ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
            self.answer(&call, &InitProducerIdResponse { error_code, ..InitProducerIdResponse::default() });
            return Ok(());
        }
        match self.node.producer_id() {
            Ok((producer_id, lsn)) => {
                let response = InitProducerIdResponse { producer_id, ..InitProducerIdResponse::default() };
                self.answer_after(&call, &response, Some(lsn));
            }
            Err(error) => {
                tracing::error!(%error, "no producer id could be set aside");
                let error_code = ErrorCode::COORDINATOR_NOT_AVAILABLE;
                self.answer(
                    &call,
                    &InitProducerIdResponse { error_code, ..InitProducerIdResponse::default() },
                );
            }
        }
        Ok(())
    }

    pub(super) fn describe_producers(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: DescribeProducersRequest = call.read()?;
        let topics = request.topics.into_iter().map(|topic| {
            let known = self.node.namespace.topic(&topic.name);
            let partitions = topic.partition_indexes.into_iter().map(|index| {
                let partition = known.as_ref().zip(partition_index(index));
                match partition.and_then(|(topic, index)| topic.partition(index)) {
                    Some(partition) => PartitionResponse {
                        partition_index: index,
                        active_producers: partition.stream().producers().into_iter().map(told).collect(),
                        ..PartitionResponse::default()
                    },
                    None => PartitionResponse {
                        partition_index: index,
                        error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                        error_message: message("There is no such partition."),
                        ..PartitionResponse::default()
                    },
                }
            });
            let partitions = partitions.collect();
            TopicResponse { name: topic.name, partitions }
        });
        let response = DescribeProducersResponse { throttle_time_ms: 0, topics: topics.collect() };
        self.answer(&call, &response);
        Ok(())
    }

    /// There are none.
    pub(super) fn list_transactions(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: ListTransactionsRequest = call.read()?;
        let unknown = request.state_filters.into_iter().filter(|state| !STATES.contains(&state.as_str()));
        let response = ListTransactionsResponse {
            unknown_state_filters: unknown.collect(),
            ..ListTransactionsResponse::default()
        };
        self.answer(&call, &response);
        Ok(())
    }
}

fn told(known: Known) -> ProducerState {
    ProducerState {
        producer_id: known.id,
        producer_epoch: i32::from(known.epoch),
        last_sequence: known.last_sequence.unwrap_or(-1),
        last_timestamp: known.seen_ms,
        ..ProducerState::default()
    }
}
