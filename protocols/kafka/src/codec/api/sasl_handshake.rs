//! SaslHandshake: which mechanism.

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
