//! DeleteGroups: deletes groups without members, with their committed offsets.

use std::ops::RangeInclusive;

use inver_access::Operation;
use inver_broker::{AuditKind, Completion};

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
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

/// The DeleteGroups API.
pub struct DeleteGroups;

impl Handler for DeleteGroups {
    const KEY: i16 = 42;
    const VERSIONS: RangeInclusive<i16> = 0..=3;
    const FLEXIBLE_FROM: i16 = 2;

    const LENGTH: Length = Length::Long;

    type Request = DeleteGroupsRequest;
    type Response = DeleteGroupsResponse;

    fn handle(cx: &mut RequestContext<'_>, request: DeleteGroupsRequest) -> Reply<DeleteGroupsResponse> {
        let mut completion = Completion::Now;
        let mut results = Vec::with_capacity(request.groups_names.len());
        for group_id in request.groups_names {
            let checked = cx.access.check_group(&group_id, Operation::Delete);
            let error_code = match checked.and_then(|()| cx.coordinator().delete(&group_id)) {
                Ok(deleted) => {
                    completion = completion.and(deleted);
                    cx.namespace().audit(AuditKind::Deleted, "delete", "group", &group_id);
                    ErrorCode::NONE
                }
                Err(code) => code,
            };
            results.push(DeletableGroupResult { group_id, error_code, error_message: None });
        }
        Reply::Response(DeleteGroupsResponse { throttle_time_ms: 0, results }, completion)
    }
}
