//! The stored form of a group, from which a restart continues the generation of its members.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "the macro declares structures for a public codec; these are for this module only"
)]

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::member::{Member, MemberProtocol};
use super::seeded_bugs::{Bug, is_seeded};
use super::state::{Group, State};
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::coordinator::row::{RowError, decode, encode};

messages! {
    /// The row of a group, in the encoding of Kafka's flexible messages, after a byte with the row's version.
    pub struct GroupRow {
        generation: i32 [1..],
        protocol_type: Option<Str> [1..; null 1..],
        protocol: Option<Str> [1..; null 1..],
        leader: Option<Str> [1..; null 1..],
        members: Vec<MemberRow> [1..],
    } tagged {
        0 emptied_ms: i64 [1..; default -1],
    }

    /// A member of a group.
    pub struct MemberRow {
        id: Str [1..],
        instance_id: Option<Str> [1..; null 1..],
        client_id: Str [1..],
        client_host: Str [1..],
        session_timeout_ms: i64 [1..],
        rebalance_timeout_ms: i64 [1..],
        protocols: Vec<ProtocolRow> [1..],
        assignment: Bytes [1..],
    }

    /// A protocol that a member supports.
    pub struct ProtocolRow {
        name: Str [1..],
        metadata: Bytes [1..],
    }
}

impl<J, S> Group<J, S> {
    /// The row of the group. It leaves out a rebalance in progress: after a restart, the members rejoin.
    pub(crate) fn snapshot(&self) -> Bytes {
        let members = self.members().map(|member| MemberRow {
            id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            session_timeout_ms: millis(member.session_timeout),
            rebalance_timeout_ms: millis(member.rebalance_timeout),
            protocols: (member.protocols.iter())
                .map(|own| ProtocolRow { name: own.name.clone(), metadata: own.metadata.clone() })
                .collect(),
            assignment: member.assignment.clone(),
        });
        encode(&GroupRow {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: members.collect(),
            emptied_ms: self.emptied_ms.unwrap_or(-1),
        })
    }

    /// The group in a row. The sessions of its members start now.
    pub(crate) fn restore(id: Str, row: Bytes, now: Instant) -> Result<Group<J, S>, RowError> {
        let row: GroupRow = decode(row)?;
        let mut group = Group::new(id);
        group.generation = row.generation;
        group.protocol_type = row.protocol_type;
        group.protocol = row.protocol;
        group.emptied_ms = (row.emptied_ms >= 0).then_some(row.emptied_ms);
        for member in row.members {
            let session_timeout = duration(member.session_timeout_ms);
            group.insert(Member {
                id: member.id,
                instance_id: member.instance_id,
                client_id: member.client_id,
                client_host: member.client_host,
                session_timeout,
                rebalance_timeout: duration(member.rebalance_timeout_ms),
                protocols: (member.protocols.into_iter())
                    .map(|own| MemberProtocol { name: own.name, metadata: own.metadata })
                    .collect(),
                assignment: Bytes::new(),
                joining: None,
                syncing: None,
                pending_sync: false,
                unaware_of_id: false,
                new: false,
                deadline: now + session_timeout,
            });
            if !is_seeded(Bug::ForgetAssignments) {
                group.set_assignment(member.assignment);
            }
        }
        group.leader = row.leader;
        if !group.members.is_empty() {
            group.state = State::Stable;
        }
        Ok(group)
    }

    /// Sets the assignment of the member inserted last.
    fn set_assignment(&mut self, assignment: Bytes) {
        let last = self.order.last().and_then(|id| self.members.get_mut(id));
        if let Some(member) = last {
            self.assigned_bytes += assignment.len();
            member.assignment = assignment;
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn duration(ms: i64) -> Duration {
    Duration::from_millis(ms.clamp(0, i64::from(i32::MAX)).unsigned_abs())
}
