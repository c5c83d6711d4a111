//! SaslAuthenticate: the client's SASL token (KIP-152).

use std::ops::RangeInclusive;

use bytes::Bytes;
use inver_broker::Identity;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Reply, message};
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::error::ConnectionError;
use crate::sasl::{Step, TokenError};

messages! {
    /// Versions 0-2, flexible 2+.
    pub struct SaslAuthenticateRequest {
        auth_bytes: Bytes [0..],
    }

    /// Versions 0-2, flexible 2+.
    pub struct SaslAuthenticateResponse {
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        auth_bytes: Bytes [0..],
        session_lifetime_ms: i64 [1..],
    }
}

/// The SaslAuthenticate API.
pub struct SaslAuthenticate;

impl Handler for SaslAuthenticate {
    const KEY: i16 = 36;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const FLEXIBLE_FROM: i16 = 2;
    const BEFORE_AUTHENTICATION: bool = true;

    const LENGTH: Length = Length::Turn;

    type Request = SaslAuthenticateRequest;
    type Response = SaslAuthenticateResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: SaslAuthenticateRequest,
    ) -> Reply<SaslAuthenticateResponse> {
        match cx.sasl.token(&cx.node.broker, cx.endpoints.peer.ip(), &request.auth_bytes, Some(cx.header)) {
            Ok(Step::Check(credentials)) => Reply::Authenticate(credentials),
            Ok(Step::Answer(auth_bytes)) => {
                Reply::now(SaslAuthenticateResponse { auth_bytes, ..SaslAuthenticateResponse::default() })
            }
            Ok(Step::Finished(identity, auth_bytes)) => {
                let response = success(&identity, auth_bytes, cx.node.now_ms());
                Reply::Admit(identity, response)
            }
            Err(error) => {
                let code = match error {
                    TokenError::Unexpected => ErrorCode::ILLEGAL_SASL_STATE,
                    _ => ErrorCode::SASL_AUTHENTICATION_FAILED,
                };
                let response = failure(code, &error.to_string());
                Reply::Close(Some(response), ConnectionError::AuthenticationFailed)
            }
        }
    }
}

/// The response to a client that is authenticated, with the time after which it must authenticate again (KIP-368).
pub(crate) fn success(identity: &Identity, auth_bytes: Bytes, now_ms: i64) -> SaslAuthenticateResponse {
    let left_ms = identity.expires_at_ms().map(|at_ms| at_ms.saturating_sub(now_ms).max(1));
    SaslAuthenticateResponse {
        auth_bytes,
        session_lifetime_ms: left_ms.unwrap_or_default(),
        ..SaslAuthenticateResponse::default()
    }
}

/// The response to a client that is not authenticated.
pub(crate) fn failure(error_code: ErrorCode, reason: &str) -> SaslAuthenticateResponse {
    SaslAuthenticateResponse {
        error_code,
        error_message: message(reason),
        ..SaslAuthenticateResponse::default()
    }
}
