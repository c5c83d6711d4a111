//! DescribeGroups: a group and its members.

use bytes::Bytes;

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-6, flexible 5+.
    pub struct DescribeGroupsRequest {
        groups: Vec<Str> [0..],
        include_authorized_operations: bool [3..],
    }

    /// Versions 0-6, flexible 5+.
    pub struct DescribeGroupsResponse {
        throttle_time_ms: i32 [1..],
        groups: Vec<DescribedGroup> [0..],
    }

    /// Each described group.
    pub struct DescribedGroup {
        error_code: ErrorCode [0..],
        error_message: Option<Str> [6..; null 6..],
        group_id: Str [0..],
        group_state: Str [0..],
        protocol_type: Str [0..],
        protocol_data: Str [0..],
        members: Vec<DescribedGroupMember> [0..],
        authorized_operations: i32 [3..; default i32::MIN],
    }

    /// The group members.
    pub struct DescribedGroupMember {
        member_id: Str [0..],
        group_instance_id: Option<Str> [4..; null 4..],
        client_id: Str [0..],
        client_host: Str [0..],
        member_metadata: Bytes [0..],
        member_assignment: Bytes [0..],
    }
}
