//! Heartbeat: a member is alive.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-4, flexible 4+.
    pub struct HeartbeatRequest {
        group_id: Str [0..],
        generation_id: i32 [0..],
        member_id: Str [0..],
        group_instance_id: Option<Str> [3..; null 3..],
    }

    /// Versions 0-4, flexible 4+.
    pub struct HeartbeatResponse {
        throttle_time_ms: i32 [1..],
        error_code: ErrorCode [0..],
    }
}
