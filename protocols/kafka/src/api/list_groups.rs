//! ListGroups: the groups, by state and type (KIP-518, KIP-848).

use std::ops::RangeInclusive;

use inver_access::Operation;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::coordinator::Listed;

messages! {
    /// Versions 0-5, flexible 3+.
    pub struct ListGroupsRequest {
        states_filter: Vec<Str> [4..],
        types_filter: Vec<Str> [5..],
    }

    /// Versions 0-5, flexible 3+.
    pub struct ListGroupsResponse {
        throttle_time_ms: i32 [1..],
        error_code: ErrorCode [0..],
        groups: Vec<ListedGroup> [0..],
    }

    /// Each group in the response.
    pub struct ListedGroup {
        group_id: Str [0..],
        protocol_type: Str [0..],
        group_state: Str [4..],
        group_type: Str [5..],
    }
}

/// The ListGroups API.
pub struct ListGroups;

impl Handler for ListGroups {
    const KEY: i16 = 16;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const FLEXIBLE_FROM: i16 = 3;

    const LENGTH: Length = Length::Long;

    type Request = ListGroupsRequest;
    type Response = ListGroupsResponse;

    fn handle(cx: &mut RequestContext<'_>, request: ListGroupsRequest) -> Reply<ListGroupsResponse> {
        let type_of = |group: &Listed| group.kind.name();
        let all = cx.access.may_cluster(Operation::Describe);
        let listed = cx.coordinator().list().into_iter();
        let wanted = listed
            .filter(|group| allows(&request.types_filter, type_of(group)))
            .filter(|group| allows(&request.states_filter, group.state))
            .filter(|group| all || cx.access.may_group(&group.id, Operation::Describe));
        let groups = wanted.map(|group| ListedGroup {
            group_type: type_of(&group).into(),
            group_id: group.id,
            protocol_type: group.protocol_type,
            group_state: group.state.into(),
        });
        let groups = groups.collect();
        Reply::now(ListGroupsResponse { throttle_time_ms: 0, error_code: ErrorCode::NONE, groups })
    }
}

/// Whether a filter admits a value. An empty one admits every value.
fn allows(filter: &[Str], value: &str) -> bool {
    filter.is_empty() || filter.iter().any(|allowed| allowed.eq_ignore_ascii_case(value))
}
