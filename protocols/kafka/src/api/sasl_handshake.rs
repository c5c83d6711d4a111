//! SaslHandshake: the choice of a SASL mechanism (KIP-43). PLAIN is the only one.

use std::ops::RangeInclusive;

use super::context::RequestContext;
use super::handler::Handler;
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-1, flexible none.
    pub struct SaslHandshakeRequest {
        mechanism: Str [0..],
    }

    /// Versions 0-1, flexible none.
    pub struct SaslHandshakeResponse {
        error_code: ErrorCode [0..],
        mechanisms: Vec<Str> [0..],
    }
}

/// The SaslHandshake API.
pub struct SaslHandshake;

const PLAIN: Str = Str::from_static("PLAIN");

impl Handler for SaslHandshake {
    const KEY: i16 = 17;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const FLEXIBLE_FROM: i16 = 2;
    const BEFORE_AUTHENTICATION: bool = true;

    type Request = SaslHandshakeRequest;
    type Response = SaslHandshakeResponse;

    fn handle(cx: &mut RequestContext<'_>, request: SaslHandshakeRequest) -> Reply<SaslHandshakeResponse> {
        let error_code = match request.mechanism == PLAIN {
            _ if cx.sasl.is_finished() => ErrorCode::ILLEGAL_SASL_STATE,
            false => ErrorCode::UNSUPPORTED_SASL_MECHANISM,
            true => {
                // After version 0 of the handshake, the token follows without a request around it.
                cx.sasl.choose_mechanism(cx.header.version.number == 0);
                ErrorCode::NONE
            }
        };
        Reply::now(SaslHandshakeResponse { error_code, mechanisms: vec![PLAIN] })
    }
}
