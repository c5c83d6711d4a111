//! JoinGroup: a member enters a group.

use bytes::Bytes;

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-9, flexible 6+.
    pub struct JoinGroupRequest {
        group_id: Str [0..],
        session_timeout_ms: i32 [0..],
        rebalance_timeout_ms: i32 [1..; default -1],
        member_id: Str [0..],
        group_instance_id: Option<Str> [5..; null 5..],
        protocol_type: Str [0..],
        protocols: Vec<JoinGroupRequestProtocol> [0..],
        reason: Option<Str> [8..; null 8..],
    }

    /// The list of protocols that the member supports.
    pub struct JoinGroupRequestProtocol {
        name: Str [0..],
        metadata: Bytes [0..],
    }

    /// Versions 0-9, flexible 6+.
    pub struct JoinGroupResponse {
        throttle_time_ms: i32 [2..],
        error_code: ErrorCode [0..],
        generation_id: i32 [0..; default -1],
        protocol_type: Option<Str> [7..; null 7..],
        protocol_name: Option<Str> [0..; null 7..],
        leader: Str [0..],
        skip_assignment: bool [9..],
        member_id: Str [0..],
        members: Vec<JoinGroupResponseMember> [0..],
    }

    /// The group members.
    pub struct JoinGroupResponseMember {
        member_id: Str [0..],
        group_instance_id: Option<Str> [5..; null 5..],
        metadata: Bytes [0..],
    }
}
