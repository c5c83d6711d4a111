//! A group: its members, its state, the elected protocol, and what all transitions need.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::effects::{Effects, Joined, Synced};
use super::member::{Member, MemberProtocol, distinct_names, metadata_bytes};
use super::seeded_bugs::{Bug, is_seeded};
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;

/// The state of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// No members.
    Empty,
    /// Waiting for the members to join the next generation.
    Preparing,
    /// All members know the new generation; waiting for the leader's assignment.
    Completing,
    /// Every member has its assignment.
    Stable,
    /// Deleted. Handles to it may still exist.
    Dead,
}

impl State {
    /// Name of the state in Kafka.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Preparing => "PreparingRebalance",
            State::Completing => "CompletingRebalance",
            State::Stable => "Stable",
            State::Dead => "Dead",
        }
    }
}

/// A group. `J` waits for the response to a join, `S` for that to a sync.
#[derive(Debug)]
pub(crate) struct Group<J, S> {
    pub(super) id: Str,
    pub(super) state: State,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<Str>,
    pub(super) protocol: Option<Str>,
    pub(super) leader: Option<Str>,
    pub(super) members: HashMap<Str, Member<J, S>>,
    /// Member ids in the order in which they joined, so that elections and listings are stable.
    pub(super) order: Vec<Str>,
    /// Number of members that support each protocol.
    pub(super) support: HashMap<Str, usize>,
    /// Bytes of the members' protocol names and metadata.
    pub(super) metadata_bytes: usize,
    /// Bytes of the members' assignments.
    pub(super) assigned_bytes: usize,
    /// Members that wait for the rebalance to complete.
    pub(super) joining: usize,
    /// Instance id to member id.
    pub(super) instances: HashMap<Str, Str>,
    /// Member ids assigned but not joined yet (KIP-394), and when they expire.
    pub(super) pending: HashMap<Str, Instant>,
    /// The rebalance being prepared.
    pub(super) rebalance: Option<Rebalance>,
    /// When members that have not synced are removed.
    pub(super) sync_deadline: Option<Instant>,
    /// Not later than the next timeout; may be earlier.
    pub(super) wake_at: Option<Instant>,
    /// When the last member left, in milliseconds since 1970; `None` while there are members, and before the first.
    pub(super) emptied_ms: Option<i64>,
}

/// How long a rebalance still waits for members.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rebalance {
    pub(super) deadline: Instant,
    /// Set for the first rebalance of an empty group, which waits for its whole delay even if all known members have
    /// joined, and longer if more join meanwhile: up to this much.
    pub(super) initial: Option<Duration>,
    /// Whether a new member joined since the delay was last extended.
    pub(super) new_member: bool,
}

impl<J, S> Group<J, S> {
    /// An empty group.
    pub(crate) fn new(id: Str) -> Group<J, S> {
        Group {
            id,
            state: State::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: HashMap::new(),
            order: Vec::new(),
            support: HashMap::new(),
            metadata_bytes: 0,
            assigned_bytes: 0,
            joining: 0,
            instances: HashMap::new(),
            pending: HashMap::new(),
            rebalance: None,
            sync_deadline: None,
            wake_at: None,
            emptied_ms: None,
        }
    }

    /// Id of the group.
    pub(crate) fn id(&self) -> &Str {
        &self.id
    }

    /// State of the group.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Type of the group's protocols, once a member has joined.
    pub(crate) fn protocol_type(&self) -> Option<&Str> {
        self.protocol_type.as_ref()
    }

    /// The protocol elected for this generation.
    pub(crate) fn protocol(&self) -> Option<&Str> {
        self.protocol.as_ref()
    }

    /// The members, in the order in which they joined.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member<J, S>> {
        self.order.iter().filter_map(|id| self.members.get(id))
    }

    /// When the last member left, in milliseconds since 1970, if there was one and none has joined since.
    pub(crate) fn emptied_ms(&self) -> Option<i64> {
        self.emptied_ms
    }

    /// Notes the wall-clock time after a transition.
    pub(crate) fn note_time(&mut self, now_ms: i64) {
        self.emptied_ms = match self.state {
            State::Empty if self.generation > 0 => self.emptied_ms.or(Some(now_ms)),
            // Its members were of the other protocol, if it had any.
            State::Empty => self.emptied_ms,
            _ => None,
        };
    }

    /// Notes when the last member left by another protocol.
    pub(crate) fn note_emptied(&mut self, emptied_ms: Option<i64>) {
        self.emptied_ms = emptied_ms;
    }

    /// Whether the group has neither members nor assigned member ids.
    pub(crate) fn is_vacant(&self) -> bool {
        matches!(self.state, State::Empty | State::Dead) && self.pending.is_empty()
    }

    /// Marks the group as deleted if it is vacant.
    pub(crate) fn delete(&mut self) {
        if self.is_vacant() {
            self.state = State::Dead;
        }
    }

    /// Checks a member id, and the instance id of a static member.
    pub(super) fn validate(&self, member_id: &Str, instance_id: Option<&Str>) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.instances.get(instance_id) {
                None => return Err(ErrorCode::UNKNOWN_MEMBER_ID),
                Some(known) if known != member_id => return Err(ErrorCode::FENCED_INSTANCE_ID),
                Some(_) => {}
            }
        }
        match self.members.contains_key(member_id) {
            true => Ok(()),
            false => Err(ErrorCode::UNKNOWN_MEMBER_ID),
        }
    }

    /// Whether one of `protocols` is supported by every member.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[MemberProtocol]) -> bool {
        if self.members.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|offered| self.is_supported_by_all(&offered.name))
    }

    fn is_supported_by_all(&self, protocol: &Str) -> bool {
        self.support.get(protocol).is_some_and(|count| *count == self.members.len())
    }

    /// Elects a protocol: each member votes for the one it prefers among those that all support; of several with the
    /// most votes the first wins.
    pub(super) fn elect_protocol(&self) -> Option<Str> {
        let first = self.members().next()?;
        let candidates: Vec<&Str> = first
            .protocols
            .iter()
            .map(|own| &own.name)
            .filter(|name| self.is_supported_by_all(name))
            .collect();
        let mut votes = vec![0usize; candidates.len()];
        for member in self.members.values() {
            let preferred =
                member.protocols.iter().find_map(|own| candidates.iter().position(|c| **c == own.name));
            if let Some(vote) = preferred.and_then(|place| votes.get_mut(place)) {
                *vote += 1;
            }
        }
        let most = votes.iter().max()?;
        let place = votes.iter().position(|count| count == most)?;
        candidates.get(place).map(|name| (*name).clone())
    }

    pub(super) fn is_leader(&self, member_id: &Str) -> bool {
        self.leader.as_ref() == Some(member_id)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.metadata_bytes + self.assigned_bytes
    }

    /// Counts a member's protocols. [`Group::uncount`] undoes it before they change.
    pub(super) fn count(&mut self, protocols: &[MemberProtocol]) {
        self.metadata_bytes += metadata_bytes(protocols);
        for name in distinct_names(protocols) {
            *self.support.entry(name.clone()).or_default() += 1;
        }
    }

    pub(super) fn uncount(&mut self, protocols: &[MemberProtocol]) {
        self.metadata_bytes -= metadata_bytes(protocols);
        for name in distinct_names(protocols) {
            if let Some(count) = self.support.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.support.remove(name);
                }
            }
        }
    }

    /// Lets a member wait for the rebalance to complete.
    pub(super) fn await_join(&mut self, member_id: &Str, waiter: J, effects: &mut Effects<J, S>) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        match member.joining.replace(waiter) {
            None => self.joining += 1,
            // Of two requests, only the later is answered with the outcome.
            Some(earlier) => {
                let failed = Joined::failed(member_id.clone(), ErrorCode::REBALANCE_IN_PROGRESS);
                effects.joined.push((earlier, failed));
            }
        }
    }

    /// The members' metadata under the elected protocol, for the leader.
    pub(super) fn metadata_of_members(&self) -> Vec<(Str, Option<Str>, Bytes)> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        self.members().map(|m| (m.id.clone(), m.instance_id.clone(), m.metadata(protocol))).collect()
    }

    pub(super) fn insert(&mut self, member: Member<J, S>) {
        if let Some(instance_id) = &member.instance_id {
            self.instances.insert(instance_id.clone(), member.id.clone());
        }
        self.schedule(member.deadline);
        self.count(&member.protocols);
        self.order.push(member.id.clone());
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        self.members.insert(member.id.clone(), member);
    }

    /// Removes a member, without a rebalance. Its pending join and sync are answered with `error`.
    pub(super) fn take_out(
        &mut self,
        member_id: &Str,
        error: ErrorCode,
        effects: &mut Effects<J, S>,
    ) -> Option<Member<J, S>> {
        let mut member = self.members.remove(member_id)?;
        self.order.retain(|id| id != member_id);
        self.uncount(&member.protocols);
        self.assigned_bytes -= member.assignment.len();
        if let Some(instance_id) = &member.instance_id
            && self.instances.get(instance_id) == Some(member_id)
        {
            self.instances.remove(instance_id);
        }
        if let Some(waiter) = member.joining.take() {
            self.joining -= 1;
            effects.joined.push((waiter, Joined::failed(member.id.clone(), error)));
        }
        if let Some(waiter) = member.syncing.take() {
            effects.synced.push((waiter, Synced::failed(error)));
        }
        if self.is_leader(member_id) && !is_seeded(Bug::KeepLeader) {
            self.leader = self.order.first().cloned();
        }
        Some(member)
    }

    /// When to call [`Group::on_timeout`] next; may be earlier than anything times out.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// Makes sure that [`Group::wake_at`] is not later than `at`.
    pub(super) fn schedule(&mut self, at: Instant) {
        if self.wake_at.is_none_or(|earlier| at < earlier) {
            self.wake_at = Some(at);
        }
    }
}
