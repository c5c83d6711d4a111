//! FindCoordinator: which node looks after a group.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-6, flexible 3+.
    pub struct FindCoordinatorRequest {
        key: Str [0..=3],
        key_type: i8 [1..],
        coordinator_keys: Vec<Str> [4..],
    }

    /// Versions 0-6, flexible 3+.
    pub struct FindCoordinatorResponse {
        throttle_time_ms: i32 [1..],
        error_code: ErrorCode [0..=3],
        error_message: Option<Str> [1..=3; null 1..=3],
        node_id: i32 [0..=3],
        host: Str [0..=3],
        port: i32 [0..=3],
        coordinators: Vec<Coordinator> [4..],
    }

    /// Each coordinator result in the response.
    pub struct Coordinator {
        key: Str [4..],
        node_id: i32 [4..],
        host: Str [4..],
        port: i32 [4..],
        error_code: ErrorCode [4..],
        error_message: Option<Str> [4..; null 4..],
    }
}
