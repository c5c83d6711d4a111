//! SyncGroup: a member asks for its assignment; the leader's request brings all assignments. The response waits for
//! the leader's.

use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};
use inver_access::Operation;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::frame::Frame;
use crate::codec::header::ResponseHeader;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::coordinator::group::{Sync, Synced};
use crate::coordinator::{Waiter, refuse_sync};
use crate::response::encode;

messages! {
    /// Versions 0-5, flexible 4+.
    pub struct SyncGroupRequest {
        group_id: Str [0..],
        generation_id: i32 [0..],
        member_id: Str [0..],
        group_instance_id: Option<Str> [3..; null 3..],
        protocol_type: Option<Str> [5..; null 5..],
        protocol_name: Option<Str> [5..; null 5..],
        assignments: Vec<SyncGroupRequestAssignment> [0..],
    }

    /// Each assignment.
    pub struct SyncGroupRequestAssignment {
        member_id: Str [0..],
        assignment: Bytes [0..],
    }

    /// Versions 0-5, flexible 4+.
    pub struct SyncGroupResponse {
        throttle_time_ms: i32 [1..],
        error_code: ErrorCode [0..],
        protocol_type: Option<Str> [5..; null 5..],
        protocol_name: Option<Str> [5..; null 5..],
        assignment: Bytes [0..],
    }
}

/// The SyncGroup API.
pub struct SyncGroup;

impl Handler for SyncGroup {
    const KEY: i16 = 14;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const FLEXIBLE_FROM: i16 = 4;

    const LENGTH: Length = Length::Turn;

    type Request = SyncGroupRequest;
    type Response = SyncGroupResponse;

    fn handle(cx: &mut RequestContext<'_>, request: SyncGroupRequest) -> Reply<SyncGroupResponse> {
        let (ticket, claim) = cx.defer();
        let (group, member_id) = (request.group_id.detached(), request.member_id.detached());
        let sync = Sync {
            waiter: Waiter::new(ticket, cx.header, response),
            member_id: request.member_id,
            instance_id: request.group_instance_id,
            generation: request.generation_id,
            protocol_type: request.protocol_type,
            protocol: request.protocol_name,
            assignments: (request.assignments.into_iter())
                .map(|given| (given.member_id, Bytes::copy_from_slice(&given.assignment)))
                .collect(),
        };
        match cx.access.check_group(&group, Operation::Read) {
            Ok(()) => cx.coordinator().sync(&group, sync),
            Err(code) => refuse_sync(sync, code),
        }
        Reply::Member { claim, group, member_id }
    }
}

fn response(arena: &mut BytesMut, header: ResponseHeader, synced: Synced) -> Frame {
    let response = SyncGroupResponse {
        throttle_time_ms: 0,
        error_code: synced.error,
        protocol_type: synced.protocol_type,
        protocol_name: synced.protocol,
        assignment: synced.assignment,
    };
    encode(arena, header, &response)
}
