//! ExpireDelegationToken: has a token expire at another time, or ends it now (KIP-48).

use std::ops::RangeInclusive;

use bytes::Bytes;

use super::context::RequestContext;
use super::delegation_tokens;
use super::handler::Handler;
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;

messages! {
    /// Versions 1-2, flexible 2+.
    pub struct ExpireDelegationTokenRequest {
        hmac: Bytes [0..],
        expiry_time_period_ms: i64 [0..],
    }

    /// Versions 1-2, flexible 2+.
    pub struct ExpireDelegationTokenResponse {
        error_code: ErrorCode [0..],
        expiry_timestamp_ms: i64 [0..],
        throttle_time_ms: i32 [0..],
    }
}

/// The ExpireDelegationToken API.
pub struct ExpireDelegationToken;

impl Handler for ExpireDelegationToken {
    const KEY: i16 = 40;
    const VERSIONS: RangeInclusive<i16> = 1..=2;
    const FLEXIBLE_FROM: i16 = 2;

    type Request = ExpireDelegationTokenRequest;
    type Response = ExpireDelegationTokenResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: ExpireDelegationTokenRequest,
    ) -> Reply<ExpireDelegationTokenResponse> {
        let access = cx.node.broker.access();
        let after_ms = Some(request.expiry_time_period_ms).filter(|period| *period >= 0);
        let expired = delegation_tokens::requester(cx).and_then(|user| {
            let expired = access.expire_token(&request.hmac, user, after_ms, cx.node.now_ms());
            expired.map_err(|error| delegation_tokens::error_code(&error))
        });
        let operation = if after_ms.is_some() { "alter" } else { "delete" };
        delegation_tokens::reply_with_expiry(cx, expired, operation, |error_code, expiry_timestamp_ms| {
            ExpireDelegationTokenResponse { error_code, expiry_timestamp_ms, throttle_time_ms: 0 }
        })
    }
}
