//! SaslHandshake: the choice of a SASL mechanism (KIP-43): PLAIN, SCRAM where users have keys for it (KIP-84),
//! OAUTHBEARER where tokens are accepted (KIP-255). A client may choose again before its credential expires (KIP-368).

use std::ops::RangeInclusive;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::sasl::Mechanism;

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

impl Handler for SaslHandshake {
    const KEY: i16 = 17;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const FLEXIBLE_FROM: i16 = 2;
    const BEFORE_AUTHENTICATION: bool = true;

    const LENGTH: Length = Length::Turn;

    type Request = SaslHandshakeRequest;
    type Response = SaslHandshakeResponse;

    fn handle(cx: &mut RequestContext<'_>, request: SaslHandshakeRequest) -> Reply<SaslHandshakeResponse> {
        let broker = &cx.node.broker;
        let error_code = match Mechanism::named(&request.mechanism, broker) {
            _ if cx.sasl.is_finished() => ErrorCode::ILLEGAL_SASL_STATE,
            None => ErrorCode::UNSUPPORTED_SASL_MECHANISM,
            // As Kafka: no other mechanism the second time.
            Some(mechanism) if !cx.sasl.may_choose(mechanism) => ErrorCode::ILLEGAL_SASL_STATE,
            Some(mechanism) => {
                // After version 0 of the handshake, tokens follow without a request around them.
                cx.sasl.choose(mechanism, cx.header.version.number == 0);
                ErrorCode::NONE
            }
        };
        let mechanisms = Mechanism::offered(broker).map(|mechanism| Str::from_static(mechanism.name()));
        Reply::now(SaslHandshakeResponse { error_code, mechanisms: mechanisms.collect() })
    }
}
