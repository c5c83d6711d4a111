//! EndTxn: commits or aborts a producer's transaction (KIP-98). From version 5 on the producer gets a new epoch with it
//! (KIP-890).

use std::ops::RangeInclusive;

use inver_access::Operation;
use inver_broker::{Ended, TransactionEnd, TransactionError};

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::transactions::{error_code, fenced, new_producer, producer};

messages! {
    /// Versions 0-5, flexible 3+.
    pub struct EndTxnRequest {
        transactional_id: Str [0..],
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        committed: bool [0..],
    }

    /// Versions 0-5, flexible 3+.
    pub struct EndTxnResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [0..],
        producer_id: i64 [5..; default -1],
        producer_epoch: i16 [5..; default -1],
    }
}

/// The EndTxn API.
pub struct EndTxn;

/// First version of transactions in which every one has an epoch of its own.
const BUMPS_SINCE: i16 = 5;
/// First version with PRODUCER_FENCED (KIP-588).
const FENCED_SINCE: i16 = 2;

impl Handler for EndTxn {
    const KEY: i16 = 26;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const FLEXIBLE_FROM: i16 = 3;
    const LENGTH: Length = Length::Turn;

    type Request = EndTxnRequest;
    type Response = EndTxnResponse;

    /// Records for subscribers in the hub may have to be read from the disk.
    fn is_long(cx: &RequestContext<'_>, request: &EndTxnRequest) -> bool {
        request.committed && cx.namespace().relays_transaction(&request.transactional_id)
    }

    fn handle(cx: &mut RequestContext<'_>, request: EndTxnRequest) -> Reply<EndTxnResponse> {
        if let Err(error_code) = cx.access.check_transaction(&request.transactional_id, Operation::Write) {
            return Reply::now(EndTxnResponse { error_code, ..EndTxnResponse::default() });
        }
        let version = cx.version();
        match end(cx, &request) {
            Ok(ended) => Reply::Response(response(ended), ended.completion),
            Err(error) => Reply::now(failure(version, &error)),
        }
    }
}

fn end(cx: &RequestContext<'_>, request: &EndTxnRequest) -> Result<Ended, TransactionError> {
    let access = cx.access;
    let producer = producer(request.producer_id, request.producer_epoch);
    let end = TransactionEnd {
        is_commit: request.committed,
        bumps: cx.version() >= BUMPS_SINCE,
        may_block: cx.is_detached,
    };
    let new = || new_producer(access);
    cx.namespace().end_transaction(Some(&access.permissions), &request.transactional_id, producer, end, new)
}

fn response(ended: Ended) -> EndTxnResponse {
    EndTxnResponse {
        producer_id: ended.producer.id,
        producer_epoch: ended.producer.epoch,
        ..EndTxnResponse::default()
    }
}

fn failure(version: i16, error: &TransactionError) -> EndTxnResponse {
    let error_code = error_code(error, fenced(version, FENCED_SINCE));
    EndTxnResponse { error_code, ..EndTxnResponse::default() }
}
