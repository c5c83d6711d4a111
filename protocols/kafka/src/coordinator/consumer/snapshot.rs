//! The stored form of a group: a row of its own, and one for each member, so that a step of one member costs the same
//! whatever the size of the group. Targets are not stored: a restart begins an epoch.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "the macro declares structures for a public codec; these are for this module only"
)]

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::assignor::Assignor;
use super::changes::Changes;
use super::group::ConsumerGroup;
use super::heartbeat::LEAVE_FOR_NOW;
use super::member::{ConsumerMember, MemberState};
use super::partitions::{Partitions, by_topic, of_topics};
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::coordinator::row::{RowError, decode, encode};

messages! {
    /// The row of a group, in the encoding of Kafka's flexible messages, after a byte with the row's version.
    pub struct ConsumerGroupRow {
        epoch: i32 [1..],
        emptied_ms: i64 [1..],
    }

    /// The row of a member, likewise.
    pub struct ConsumerMemberRow {
        instance_id: Option<Str> [1..; null 1..],
        rack_id: Option<Str> [1..; null 1..],
        client_id: Str [1..],
        client_host: Str [1..],
        rebalance_timeout_ms: i32 [1..],
        names: Vec<Str> [1..],
        pattern: Option<Str> [1..; null 1..],
        matched: Vec<Str> [1..],
        assignor: Option<Str> [1..; null 1..],
        epoch: i32 [1..],
        previous_epoch: i32 [1..],
        is_waiting: bool [1..],
        assigned: Vec<TopicRow> [1..],
        revoking: Vec<TopicRow> [1..],
    }

    /// Partitions of a topic.
    pub struct TopicRow {
        topic: Uuid [1..],
        partitions: Vec<i32> [1..],
    }
}

/// The key of a group's row; the keys of its members' begin with it.
fn key(group: &Str) -> Vec<u8> {
    let mut key = (group.len() as u32).to_be_bytes().to_vec();
    key.extend_from_slice(group.as_bytes());
    key
}

/// Splits a key into the group, and the member if it is one of a member.
pub(crate) fn split_key(key: &Bytes) -> Option<(Str, Option<Str>)> {
    let len = u32::from_be_bytes(*key.first_chunk::<4>()?) as usize;
    let end = len.checked_add(4).filter(|end| *end <= key.len())?;
    let member = key.slice(end..);
    let member = if member.is_empty() { None } else { Some(Str::from_utf8(member)?) };
    Some((Str::from_utf8(key.slice(4..end))?, member))
}

fn topic_rows(partitions: &Partitions) -> Vec<TopicRow> {
    by_topic(partitions).map(|(topic, partitions)| TopicRow { topic: Uuid(topic), partitions }).collect()
}

impl ConsumerGroup {
    /// The key of the group's row.
    pub(crate) fn key(&self) -> Vec<u8> {
        key(&self.id)
    }

    /// The key of a member's row.
    pub(crate) fn member_key(&self, member_id: &str) -> Vec<u8> {
        [&key(&self.id), member_id.as_bytes()].concat()
    }

    /// The group's row.
    pub(crate) fn row(&self) -> Bytes {
        encode(&ConsumerGroupRow { epoch: self.epoch, emptied_ms: self.emptied_ms.unwrap_or(-1) })
    }

    /// The row of a member, if it is there.
    pub(crate) fn member_row(&self, member_id: &str) -> Option<Bytes> {
        let member = self.members.get(member_id)?;
        Some(encode(&ConsumerMemberRow {
            instance_id: member.instance_id.clone(),
            rack_id: member.rack_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: i32::try_from(member.rebalance_timeout.as_millis()).unwrap_or(i32::MAX),
            names: member.names.clone(),
            pattern: member.pattern.clone(),
            matched: member.matched.clone(),
            assignor: member.assignor.map(|assignor| Str::from_static(assignor.name())),
            epoch: member.epoch,
            previous_epoch: member.previous_epoch,
            is_waiting: member.state == MemberState::Waiting,
            assigned: topic_rows(&member.assigned),
            revoking: topic_rows(&member.revoking),
        }))
    }

    /// Restores the group's own state.
    pub(crate) fn restore(&mut self, row: Bytes) -> Result<(), RowError> {
        let row: ConsumerGroupRow = decode(row)?;
        self.epoch = row.epoch;
        self.emptied_ms = (row.emptied_ms >= 0).then_some(row.emptied_ms);
        Ok(())
    }

    /// Restores a member. Its session starts now. Rows come in any order, and more than one may have an instance id or a
    /// partition, where a change could not be stored: one member has it then. What is mended so is in `changes`.
    pub(crate) fn restore_member(
        &mut self,
        id: Str,
        row: Bytes,
        now: Instant,
        changes: &mut Changes,
    ) -> Result<(), RowError> {
        let mut row: ConsumerMemberRow = decode(row)?;
        let has_left = row.epoch == LEAVE_FOR_NOW;
        let of_instance = row.instance_id.as_ref().and_then(|instance_id| self.instances.get(instance_id));
        if let Some(other) = of_instance.filter(|other| **other != id).cloned() {
            if has_left {
                // The other one has taken its place.
                changes.removed.push(id);
                return Ok(());
            }
            self.remove(&other, changes);
        }
        let free = |topics: &[TopicRow]| {
            let mut partitions = of_topics(topics.iter().map(|of| (of.topic.0, &of.partitions[..])));
            partitions.retain(|partition| self.owners.get(partition).is_none_or(|owner| *owner == id));
            partitions
        };
        let (assigned, revoking) = (free(&row.assigned), free(&row.revoking));
        let count = |topics: &[TopicRow]| topics.iter().map(|of| of.partitions.len()).sum::<usize>();
        let is_less = assigned.len() + revoking.len() < count(&row.assigned) + count(&row.revoking);
        if is_less && !has_left {
            // Its client believes that it has more: it is fenced, and joins again.
            (row.epoch, row.previous_epoch) = (0, 0);
            changes.member(&id);
        }
        let rebalance_timeout =
            Duration::from_millis(u64::try_from(row.rebalance_timeout_ms).unwrap_or_default());
        let state = match (revoking.is_empty(), row.is_waiting) {
            (false, _) => MemberState::Revoking,
            (true, true) => MemberState::Waiting,
            (true, false) => MemberState::Stable,
        };
        self.insert(ConsumerMember {
            id,
            instance_id: row.instance_id,
            rack_id: row.rack_id,
            client_id: row.client_id,
            client_host: row.client_host,
            rebalance_timeout,
            names: row.names,
            pattern: row.pattern,
            matched: row.matched,
            matched_at: None,
            assignor: row.assignor.and_then(|name| Assignor::named(&name)),
            epoch: row.epoch,
            previous_epoch: row.previous_epoch,
            state,
            target: assigned.clone(),
            revoke_until: (!revoking.is_empty()).then(|| now + rebalance_timeout),
            assigned,
            revoking,
            deadline: now + self.session_timeout,
        });
        Ok(())
    }
}
