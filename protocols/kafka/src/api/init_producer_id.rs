//! InitProducerId: assigns an id to an idempotent producer (KIP-98), by which retried batches are recognized.

use std::ops::RangeInclusive;

use inver_access::{Operation, ResourceKind};
use inver_broker::Completion;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

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
            Some(_) => return failure(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
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
