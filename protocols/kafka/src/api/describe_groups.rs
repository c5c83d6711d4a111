//! DescribeGroups: the state and the members of groups.

use std::ops::RangeInclusive;

use bytes::Bytes;
use inver_access::Operation;

use super::authorized_operations;
use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Reply, message};
use crate::access;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::coordinator::group::{Group, State};

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

/// The DescribeGroups API.
pub struct DescribeGroups;

/// First version in which an unknown group is an error instead of a dead group.
const NOT_FOUND_SINCE: i16 = 6;

impl Handler for DescribeGroups {
    const KEY: i16 = 15;
    const VERSIONS: RangeInclusive<i16> = 0..=6;
    const FLEXIBLE_FROM: i16 = 5;

    const LENGTH: Length = Length::Long;

    type Request = DescribeGroupsRequest;
    type Response = DescribeGroupsResponse;

    fn handle(cx: &mut RequestContext<'_>, request: DescribeGroupsRequest) -> Reply<DescribeGroupsResponse> {
        let includes = request.include_authorized_operations;
        let groups = request.groups.into_iter().map(|group_id| {
            if let Err(error_code) = cx.access.check_group(&group_id, Operation::Describe) {
                let error_message = message(access::text(error_code));
                return DescribedGroup { error_code, error_message, group_id, ..DescribedGroup::default() };
            }
            let authorized_operations = authorized_operations::group(cx.access, includes, &group_id);
            let group = match cx.coordinator().with_group(&group_id, describe) {
                Some(group) => group,
                None if cx.coordinator().has_consumer_group(&group_id)
                    || cx.coordinator().has_share_group(&group_id) =>
                {
                    unknown(format!("Group {group_id} is not a classic group."), cx.version())
                }
                None if cx.coordinator().has_committed_offsets(&group_id) => {
                    DescribedGroup { group_state: State::Empty.name().into(), ..DescribedGroup::default() }
                }
                None => unknown(format!("Group {group_id} not found."), cx.version()),
            };
            DescribedGroup { group_id, authorized_operations, ..group }
        });
        let groups = groups.collect();
        Reply::now(DescribeGroupsResponse { throttle_time_ms: 0, groups })
    }
}

fn unknown(text: String, version: i16) -> DescribedGroup {
    let not_found = version >= NOT_FOUND_SINCE;
    DescribedGroup {
        error_code: if not_found { ErrorCode::GROUP_ID_NOT_FOUND } else { ErrorCode::NONE },
        error_message: message(text).filter(|_| not_found),
        group_state: State::Dead.name().into(),
        ..DescribedGroup::default()
    }
}

/// Metadata and assignments are those of a stable group only: in other states they are about to change.
fn describe<J, S>(group: &Group<J, S>) -> DescribedGroup {
    let stable = group.state() == State::Stable;
    let protocol = group.protocol().filter(|_| stable).cloned().unwrap_or_default();
    let members = group.members().map(|member| DescribedGroupMember {
        member_id: member.id.clone(),
        group_instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        member_metadata: if stable { member.metadata(&protocol) } else { Bytes::new() },
        member_assignment: if stable { member.assignment.clone() } else { Bytes::new() },
    });
    DescribedGroup {
        group_state: group.state().name().into(),
        protocol_type: group.protocol_type().cloned().unwrap_or_default(),
        protocol_data: protocol.clone(),
        members: members.collect(),
        ..DescribedGroup::default()
    }
}
