//! LeaveGroup: members leave their group.

use std::ops::RangeInclusive;

use inver_access::Operation;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::coordinator::group::Leave;

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

/// The LeaveGroup API.
pub struct LeaveGroup;

impl Handler for LeaveGroup {
    const KEY: i16 = 13;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const FLEXIBLE_FROM: i16 = 4;

    const LENGTH: Length = Length::Turn;

    type Request = LeaveGroupRequest;
    type Response = LeaveGroupResponse;

    fn handle(cx: &mut RequestContext<'_>, request: LeaveGroupRequest) -> Reply<LeaveGroupResponse> {
        let coordinator = cx.coordinator();
        let mut response = LeaveGroupResponse::default();
        if let Err(code) = cx.access.check_group(&request.group_id, Operation::Read) {
            response.error_code = code;
            return Reply::now(response);
        }
        // From version 3 on, one request can name several members (KIP-345).
        if cx.version() < 3 {
            let leave = Leave { member_id: request.member_id, instance_id: None };
            response.error_code = coordinator.leave(&request.group_id, &leave);
            return Reply::now(response);
        }
        for member in request.members {
            let leave = Leave { member_id: member.member_id, instance_id: member.group_instance_id };
            let error_code = coordinator.leave(&request.group_id, &leave);
            response.members.push(MemberResponse {
                member_id: leave.member_id,
                group_instance_id: leave.instance_id,
                error_code,
            });
        }
        Reply::now(response)
    }
}
