//! Heartbeat: keeps a member's session alive, and tells it of a rebalance.

use std::ops::RangeInclusive;

use inver_access::Operation;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-4, flexible 4+.
    pub struct HeartbeatRequest {
        group_id: Str [0..],
        generation_id: i32 [0..],
        member_id: Str [0..],
        group_instance_id: Option<Str> [3..; null 3..],
    }

    /// Versions 0-4, flexible 4+.
    pub struct HeartbeatResponse {
        throttle_time_ms: i32 [1..],
        error_code: ErrorCode [0..],
    }
}

/// The Heartbeat API.
pub struct Heartbeat;

impl Handler for Heartbeat {
    const KEY: i16 = 12;
    const VERSIONS: RangeInclusive<i16> = 0..=4;
    const FLEXIBLE_FROM: i16 = 4;

    const LENGTH: Length = Length::Turn;

    type Request = HeartbeatRequest;
    type Response = HeartbeatResponse;

    fn handle(cx: &mut RequestContext<'_>, request: HeartbeatRequest) -> Reply<HeartbeatResponse> {
        if let Err(error_code) = cx.access.check_group(&request.group_id, Operation::Read) {
            return Reply::now(HeartbeatResponse { throttle_time_ms: 0, error_code });
        }
        let error_code = cx.coordinator().heartbeat(
            &request.group_id,
            &request.member_id,
            request.group_instance_id.as_ref(),
            request.generation_id,
        );
        Reply::now(HeartbeatResponse { throttle_time_ms: 0, error_code })
    }
}
