//! DeleteGroups: groups are forgotten.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-3, flexible 2+.
    pub struct DeleteGroupsRequest {
        groups_names: Vec<Str> [0..],
    }

    /// Versions 0-3, flexible 2+.
    pub struct DeleteGroupsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<DeletableGroupResult> [0..],
    }

    /// The deletion results.
    pub struct DeletableGroupResult {
        group_id: Str [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [3..; null 3..],
    }
}
