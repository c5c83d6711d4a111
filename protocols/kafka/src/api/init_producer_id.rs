//! InitProducerId: assigns an id to an idempotent producer (KIP-98), by which retried batches are recognized, or gives a
//! transactional id to a producer, which fences the one before.

use std::ops::RangeInclusive;

use inver_access::{Operation, ResourceKind};
use inver_broker::Completion;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::transactions::{error_code, fenced, new_producer, producer};

messages! {
    /// Versions 0-6, flexible 2+.
    pub struct InitProducerIdRequest {
        transactional_id: Option<Str> [0..; null 0..],
        transaction_timeout_ms: i32 [0..],
        producer_id: i64 [3..; default -1],
        producer_epoch: i16 [3..; default -1],
        enable2_pc: bool [6..],
        keep_prepared_txn: bool [6..],
    }

    /// Versions 0-6, flexible 2+.
    pub struct InitProducerIdResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [0..],
        producer_id: i64 [0..; default -1],
        producer_epoch: i16 [0..],
        ongoing_txn_producer_id: i64 [6..; default -1],
        ongoing_txn_producer_epoch: i16 [6..; default -1],
    }
}

/// The InitProducerId API.
pub struct InitProducerId;

impl Handler for InitProducerId {
    const KEY: i16 = 22;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const FLEXIBLE_FROM: i16 = 2;

    const LENGTH: Length = Length::Turn;

    type Request = InitProducerIdRequest;
    type Response = InitProducerIdResponse;

    fn handle(cx: &mut RequestContext<'_>, request: InitProducerIdRequest) -> Reply<InitProducerIdResponse> {
        let failure = |error_code| {
            Reply::now(InitProducerIdResponse { error_code, ..InitProducerIdResponse::default() })
        };
        match request.transactional_id.as_deref() {
            Some("") => return failure(ErrorCode::INVALID_REQUEST),
            Some(id) => {
                return begin(cx, id, &request).unwrap_or_else(failure);
            }
            None => {}
        }
        if !cx.access.permissions.may_any(ResourceKind::Topic, Operation::Write)
            && let Err(code) = cx.access.check_cluster(Operation::IdempotentWrite)
        {
            return failure(code);
        }
        match cx.access.node.producer_id() {
            Ok((producer_id, lsn)) => {
                let response = InitProducerIdResponse { producer_id, ..InitProducerIdResponse::default() };
                Reply::Response(response, Completion::At(lsn))
            }
            Err(error) => {
                tracing::error!(%error, "failed to reserve producer ids");
                failure(ErrorCode::COORDINATOR_NOT_AVAILABLE)
            }
        }
    }
}

/// First version with PRODUCER_FENCED (KIP-588).
const FENCED_SINCE: i16 = 4;

/// Gives a transactional id to the producer that asks.
fn begin(
    cx: &RequestContext<'_>,
    id: &str,
    request: &InitProducerIdRequest,
) -> Result<Reply<InitProducerIdResponse>, ErrorCode> {
    cx.access.check_transaction(id, Operation::Write)?;
    let timeout_max_ms = cx.config().transactions.timeout_max.as_millis();
    let timeout_ms = request.transaction_timeout_ms;
    if u128::try_from(timeout_ms).map_or(true, |ms| ms == 0 || ms > timeout_max_ms) {
        return Err(ErrorCode::INVALID_TRANSACTION_TIMEOUT);
    }
    // The producer that held it before tells so with both.
    let expected = match (request.producer_id, request.producer_epoch) {
        (-1, -1) => None,
        (-1, _) | (_, -1) => return Err(ErrorCode::INVALID_REQUEST),
        (id, epoch) => Some(producer(id, epoch)),
    };
    let transactions = cx.namespace().transactions();
    let begun = transactions.begin(id, timeout_ms, expected, || new_producer(cx.access));
    let (producer, completion) =
        begun.map_err(|error| error_code(&error, fenced(cx.version(), FENCED_SINCE)))?;
    let response = InitProducerIdResponse {
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        ..InitProducerIdResponse::default()
    };
    Ok(Reply::Response(response, completion))
}
