//! RenewDelegationToken: has a token expire later (KIP-48).

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
    pub struct RenewDelegationTokenRequest {
        hmac: Bytes [0..],
        renew_period_ms: i64 [0..],
    }

    /// Versions 1-2, flexible 2+.
    pub struct RenewDelegationTokenResponse {
        error_code: ErrorCode [0..],
        expiry_timestamp_ms: i64 [0..],
        throttle_time_ms: i32 [0..],
    }
}

/// The RenewDelegationToken API.
pub struct RenewDelegationToken;

impl Handler for RenewDelegationToken {
    const KEY: i16 = 39;
    const VERSIONS: RangeInclusive<i16> = 1..=2;
    const FLEXIBLE_FROM: i16 = 2;

    type Request = RenewDelegationTokenRequest;
    type Response = RenewDelegationTokenResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: RenewDelegationTokenRequest,
    ) -> Reply<RenewDelegationTokenResponse> {
        let access = cx.node.broker.access();
        let renewed = delegation_tokens::requester(cx).and_then(|user| {
            let valid_ms = delegation_tokens::span(request.renew_period_ms);
            let renewed = access.renew_token(&request.hmac, user, valid_ms, cx.node.now_ms());
            renewed.map_err(|error| delegation_tokens::error_code(&error))
        });
        delegation_tokens::reply_with_expiry(cx, renewed, "alter", |error_code, expiry_timestamp_ms| {
            RenewDelegationTokenResponse { error_code, expiry_timestamp_ms, throttle_time_ms: 0 }
        })
    }
}
