//! DescribeTransactions: the state of transactions by their ids (KIP-664).

use std::ops::RangeInclusive;

use inver_access::Operation;
use inver_broker::TransactionInfo;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::transactions::state_name;

messages! {
    /// Versions 0, flexible 0+.
    pub struct DescribeTransactionsRequest {
        transactional_ids: Vec<Str> [0..],
    }

    /// Versions 0, flexible 0+.
    pub struct DescribeTransactionsResponse {
        throttle_time_ms: i32 [0..],
        transaction_states: Vec<TransactionState> [0..],
    }

    /// The current state of the transaction.
    pub struct TransactionState {
        error_code: ErrorCode [0..],
        transactional_id: Str [0..],
        transaction_state: Str [0..],
        transaction_timeout_ms: i32 [0..],
        transaction_start_time_ms: i64 [0..],
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        topics: Vec<TopicData> [0..],
    }

    /// The set of partitions included in the current transaction (if active).
    pub struct TopicData {
        topic: Str [0..],
        partitions: Vec<i32> [0..],
    }
}

/// The DescribeTransactions API.
pub struct DescribeTransactions;

impl Handler for DescribeTransactions {
    const KEY: i16 = 65;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const FLEXIBLE_FROM: i16 = 0;
    const LENGTH: Length = Length::Long;

    type Request = DescribeTransactionsRequest;
    type Response = DescribeTransactionsResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: DescribeTransactionsRequest,
    ) -> Reply<DescribeTransactionsResponse> {
        let states = request.transactional_ids.into_iter().map(|transactional_id| {
            let found = cx.access.check_transaction(&transactional_id, Operation::Describe).and_then(|()| {
                let info = cx.namespace().transactions().info(&transactional_id);
                info.ok_or(ErrorCode::TRANSACTIONAL_ID_NOT_FOUND)
            });
            match found {
                Ok(info) => described(cx, transactional_id, info),
                Err(error_code) => {
                    TransactionState { error_code, transactional_id, ..TransactionState::default() }
                }
            }
        });
        let transaction_states = states.collect();
        Reply::now(DescribeTransactionsResponse { throttle_time_ms: 0, transaction_states })
    }
}

/// A transaction, with the topics that the client may describe.
fn described(cx: &RequestContext<'_>, transactional_id: Str, info: TransactionInfo) -> TransactionState {
    let mut topics: Vec<TopicData> = Vec::new();
    let mut partitions = info.partitions;
    partitions.sort();
    for (topic, index) in partitions {
        if !cx.access.may_topic(&topic, Operation::Describe) {
            continue;
        }
        match topics.last_mut() {
            Some(last) if *last.topic == *topic => last.partitions.push(index as i32),
            _ => topics.push(TopicData { topic: Str::from(&*topic), partitions: vec![index as i32] }),
        }
    }
    TransactionState {
        error_code: ErrorCode::NONE,
        transactional_id,
        transaction_state: Str::from_static(state_name(info.state)),
        transaction_timeout_ms: info.timeout_ms,
        transaction_start_time_ms: info.started_ms.unwrap_or(-1),
        producer_id: info.producer.id,
        producer_epoch: info.producer.epoch,
        topics,
    }
}
