//! AddOffsetsToTxn: adds a consumer group to a producer's transaction (KIP-98).

use std::ops::RangeInclusive;

use inver_access::Operation;

use super::context::RequestContext;
use super::handler::Handler;
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::transactions::{error_code, fenced, producer};

messages! {
    /// Versions 0-4, flexible 3+.
    pub struct AddOffsetsToTxnRequest {
        transactional_id: Str [0..],
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        group_id: Str [0..],
    }

    /// Versions 0-4, flexible 3+.
    pub struct AddOffsetsToTxnResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [0..],
    }
}

/// The AddOffsetsToTxn API.
pub struct AddOffsetsToTxn;

/// First version with PRODUCER_FENCED (KIP-588).
const FENCED_SINCE: i16 = 2;

impl Handler for AddOffsetsToTxn {
    const KEY: i16 = 25;
    const VERSIONS: RangeInclusive<i16> = 0..=4;
    const FLEXIBLE_FROM: i16 = 3;

    type Request = AddOffsetsToTxnRequest;
    type Response = AddOffsetsToTxnResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: AddOffsetsToTxnRequest,
    ) -> Reply<AddOffsetsToTxnResponse> {
        let allowed = cx
            .access
            .check_transaction(&request.transactional_id, Operation::Write)
            .and_then(|()| cx.access.check_group(&request.group_id, Operation::Read));
        let failure = |error_code| Reply::now(AddOffsetsToTxnResponse { throttle_time_ms: 0, error_code });
        if let Err(code) = allowed {
            return failure(code);
        }
        let producer = producer(request.producer_id, request.producer_epoch);
        let added =
            cx.namespace().transactions().add_group(&request.transactional_id, producer, &request.group_id);
        match added {
            Ok(completion) => Reply::Response(AddOffsetsToTxnResponse::default(), completion),
            Err(error) => failure(error_code(&error, fenced(cx.version(), FENCED_SINCE))),
        }
    }
}
