//! JoinGroup: a member joins a group, or rejoins it for a rebalance. The response waits for the rebalance.

use std::ops::RangeInclusive;
use std::time::Duration;

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
use crate::coordinator::group::{Join, Joined, MemberProtocol};
use crate::coordinator::{Waiter, refuse_join};
use crate::response::encode;

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

/// The JoinGroup API.
pub struct JoinGroup;

impl Handler for JoinGroup {
    const KEY: i16 = 11;
    const VERSIONS: RangeInclusive<i16> = 0..=9;
    const FLEXIBLE_FROM: i16 = 6;

    const LENGTH: Length = Length::Turn;

    type Request = JoinGroupRequest;
    type Response = JoinGroupResponse;

    fn handle(cx: &mut RequestContext<'_>, request: JoinGroupRequest) -> Reply<JoinGroupResponse> {
        let version = cx.version();
        let client_id = cx.client_id.as_ref().map(Str::detached).unwrap_or_default();
        let unique = uuid::Uuid::new_v4();
        let new_member_id = match &request.group_instance_id {
            Some(instance_id) => format!("{instance_id}-{unique}"),
            None => format!("{client_id}-{unique}"),
        };
        let session_timeout = milliseconds(request.session_timeout_ms);
        let (ticket, claim) = cx.defer();
        let join = Join {
            waiter: Waiter::new(ticket, cx.header, response),
            member_id: request.member_id.detached(),
            new_member_id: new_member_id.into(),
            instance_id: request.group_instance_id.map(|id| id.detached()),
            requires_known_member_id: version >= 4,
            supports_skip_assignment: version >= 9,
            client_id,
            client_host: format!("/{}", cx.endpoints.peer.ip().to_canonical()).into(),
            session_timeout,
            rebalance_timeout: match version {
                0 => session_timeout,
                _ => milliseconds(request.rebalance_timeout_ms),
            },
            protocol_type: request.protocol_type.detached(),
            protocols: (request.protocols.iter())
                .map(|protocol| MemberProtocol {
                    name: protocol.name.detached(),
                    metadata: Bytes::copy_from_slice(&protocol.metadata),
                })
                .collect(),
        };
        let member_id = match join.member_id.is_empty() {
            true => join.new_member_id.clone(),
            false => join.member_id.clone(),
        };
        let group = request.group_id.detached();
        match cx.access.check_group(&group, Operation::Read) {
            Ok(()) => cx.coordinator().join(&group, join),
            Err(code) => refuse_join(join, code),
        }
        Reply::Member { claim, group, member_id }
    }
}

fn milliseconds(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn response(arena: &mut BytesMut, header: ResponseHeader, joined: Joined) -> Frame {
    let member = |(member_id, group_instance_id, metadata): (Str, Option<Str>, Bytes)| {
        JoinGroupResponseMember { member_id, group_instance_id, metadata }
    };
    let response = JoinGroupResponse {
        throttle_time_ms: 0,
        error_code: joined.error,
        generation_id: joined.generation,
        protocol_type: joined.protocol_type,
        // Before version 7 the name cannot be null; Kafka sends an empty one.
        protocol_name: joined.protocol.or_else(|| (header.version.number < 7).then(Str::default)),
        leader: joined.leader,
        skip_assignment: joined.skip_assignment,
        member_id: joined.member_id,
        members: joined.members.into_iter().map(member).collect(),
    };
    encode(arena, header, &response)
}
