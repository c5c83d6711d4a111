//! Answers of groups to those who wait for them.

use bytes::{Bytes, BytesMut};

use super::Waiter;
use crate::codec::api::join_group::{JoinGroupResponse, JoinGroupResponseMember};
use crate::codec::api::sync_group::SyncGroupResponse;
use crate::codec::frame::respond;
use crate::codec::text::Str;
use crate::session::group::{Effects, Joined};

/// Tells those who wait.
pub(super) fn deliver(effects: Effects<Waiter>) {
    let mut arena = BytesMut::new();
    for (waiter, joined) in effects.joined {
        let response = join_response(joined, waiter.request.version.number);
        waiter.ticket.fill(respond(&mut arena, &waiter.request, &response));
    }
    for (waiter, synced) in effects.synced {
        let response = SyncGroupResponse {
            throttle_time_ms: 0,
            error_code: synced.error,
            protocol_type: synced.protocol_type,
            protocol_name: synced.protocol,
            assignment: synced.assignment,
        };
        waiter.ticket.fill(respond(&mut arena, &waiter.request, &response));
    }
}

fn join_response(joined: Joined, version: i16) -> JoinGroupResponse {
    let member = |(member_id, group_instance_id, metadata): (Str, Option<Str>, Bytes)| {
        JoinGroupResponseMember { member_id, group_instance_id, metadata }
    };
    JoinGroupResponse {
        throttle_time_ms: 0,
        error_code: joined.error,
        generation_id: joined.generation,
        protocol_type: joined.protocol_type,
        // Before version 7 there is no null; the empty name is what Kafka says then.
        protocol_name: joined.protocol.or_else(|| (version < 7).then(Str::default)),
        leader: joined.leader,
        skip_assignment: joined.skip_assignment,
        member_id: joined.member_id,
        members: joined.members.into_iter().map(member).collect(),
    }
}
