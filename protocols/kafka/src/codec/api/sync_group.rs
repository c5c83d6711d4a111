//! SyncGroup: the leader hands out the work.

use bytes::Bytes;

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-5, flexible 4+.
    pub struct SyncGroupRequest {
        group_id: Str [0..],
        generation_id: i32 [0..],
        member_id: Str [0..],
        group_instance_id: Option<Str> [3..; null 3..],
        protocol_type: Option<Str> [5..; null 5..],
        protocol_name: Option<Str> [5..; null 5..],
        assignments: Vec<SyncGroupRequestAssignment> [0..],
    }

    /// Each assignment.
    pub struct SyncGroupRequestAssignment {
        member_id: Str [0..],
        assignment: Bytes [0..],
    }

    /// Versions 0-5, flexible 4+.
    pub struct SyncGroupResponse {
        throttle_time_ms: i32 [1..],
        error_code: ErrorCode [0..],
        protocol_type: Option<Str> [5..; null 5..],
        protocol_name: Option<Str> [5..; null 5..],
        assignment: Bytes [0..],
    }
}
