//! ListGroups: the names of the groups.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

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
