//! SaslHandshake: which mechanism.

use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::codec::wire::messages;

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
