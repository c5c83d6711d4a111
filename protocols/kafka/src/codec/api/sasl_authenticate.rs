//! SaslAuthenticate: who it is.

use bytes::Bytes;

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

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
