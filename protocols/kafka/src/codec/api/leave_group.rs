//! LeaveGroup: members leave.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-5, flexible 4+.
    pub struct LeaveGroupRequest {
        group_id: Str [0..],
        member_id: Str [0..=2],
        members: Vec<MemberIdentity> [3..],
    }

    /// List of leaving member identities.
    pub struct MemberIdentity {
        member_id: Str [3..],
        group_instance_id: Option<Str> [3..; null 3..],
        reason: Option<Str> [5..; null 5..],
    }

    /// Versions 0-5, flexible 4+.
    pub struct LeaveGroupResponse {
        throttle_time_ms: i32 [1..],
        error_code: ErrorCode [0..],
        members: Vec<MemberResponse> [3..],
    }

    /// List of leaving member responses.
    pub struct MemberResponse {
        member_id: Str [3..],
        group_instance_id: Option<Str> [3..; null 3..],
        error_code: ErrorCode [3..],
    }
}
