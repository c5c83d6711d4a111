//! Joins, and the rebalances that they start.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::effects::{Effects, Joined, Synced};
use super::member::{Member, MemberProtocol, metadata_bytes};
use super::seeded_bugs::{Bug, is_seeded};
use super::state::{Group, Rebalance, State};
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::config::GroupLimits;

/// A request to join.
#[derive(Debug)]
pub(crate) struct Join<J> {
    /// Waits for the response.
    pub(crate) waiter: J,
    /// Member id; empty if the client has none yet.
    pub(crate) member_id: Str,
    /// Member id to assign if the client has none yet.
    pub(crate) new_member_id: Str,
    /// Instance id of a static member.
    pub(crate) instance_id: Option<Str>,
    /// Whether a new member must first get a member id and join again with it (KIP-394, version 4 on).
    pub(crate) requires_known_member_id: bool,
    /// Whether the client supports `skip_assignment` (KIP-814, version 9 on).
    pub(crate) supports_skip_assignment: bool,
    pub(crate) client_id: Str,
    pub(crate) client_host: Str,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    /// `consumer`, `connect`, …
    pub(crate) protocol_type: Str,
    /// Protocols supported, by preference.
    pub(crate) protocols: Vec<MemberProtocol>,
}

impl<J> Join<J> {
    fn fail<S>(self, error: ErrorCode, effects: &mut Effects<J, S>) {
        effects.joined.push((self.waiter, Joined::failed(self.member_id, error)));
    }
}

impl<J, S> Group<J, S> {
    /// Handles a join of a new member, or of a known one.
    pub(crate) fn join(
        &mut self,
        join: Join<J>,
        limits: &GroupLimits,
        now: Instant,
        effects: &mut Effects<J, S>,
    ) {
        if self.state == State::Dead {
            return join.fail(ErrorCode::COORDINATOR_NOT_AVAILABLE, effects);
        }
        let allowed = limits.session_timeout_min..=limits.session_timeout_max;
        if !allowed.contains(&join.session_timeout) {
            return join.fail(ErrorCode::INVALID_SESSION_TIMEOUT, effects);
        }
        if join.protocols.len() > limits.protocols_max {
            return join.fail(ErrorCode::INVALID_REQUEST, effects);
        }
        if self.bytes() + metadata_bytes(&join.protocols) > limits.bytes_max {
            return join.fail(ErrorCode::GROUP_MAX_SIZE_REACHED, effects);
        }
        if !self.supports(&join.protocol_type, &join.protocols) {
            return join.fail(ErrorCode::INCONSISTENT_GROUP_PROTOCOL, effects);
        }
        match join.member_id.is_empty() {
            true => self.join_new(join, limits, now, effects),
            false => self.rejoin(join, limits, now, effects),
        }
    }

    fn join_new(
        &mut self,
        mut join: Join<J>,
        limits: &GroupLimits,
        now: Instant,
        effects: &mut Effects<J, S>,
    ) {
        let known_instance = join.instance_id.as_ref().and_then(|id| self.instances.get(id)).cloned();
        if let Some(old) = known_instance {
            return self.replace_static(&old, join, limits, now, effects);
        }
        if self.members.len() + self.pending.len() >= limits.members_max {
            return join.fail(ErrorCode::GROUP_MAX_SIZE_REACHED, effects);
        }
        join.member_id = join.new_member_id.clone();
        if join.requires_known_member_id && join.instance_id.is_none() {
            // The client joins again with this id. One that never gets a response leaves no member behind (KIP-394).
            let until = now + join.session_timeout;
            self.pending.insert(join.member_id.clone(), until);
            self.schedule(until);
            return join.fail(ErrorCode::MEMBER_ID_REQUIRED, effects);
        }
        let unaware_of_id = join.instance_id.is_none();
        self.admit(join, unaware_of_id, limits, now, effects);
    }

    fn rejoin(&mut self, join: Join<J>, limits: &GroupLimits, now: Instant, effects: &mut Effects<J, S>) {
        if join.instance_id.is_none() && self.pending.remove(&join.member_id).is_some() {
            return self.admit(join, false, limits, now, effects);
        }
        if let Err(error) = self.validate(&join.member_id, join.instance_id.as_ref()) {
            return join.fail(error, effects);
        }
        let same = self.members.get(&join.member_id).is_some_and(|member| member.protocols == join.protocols);
        let repeat_response = match self.state {
            // The response was lost.
            State::Completing => same,
            // A leader rejoins to start a rebalance: the partitions may have changed.
            State::Stable => same && !self.is_leader(&join.member_id),
            State::Empty | State::Dead => return join.fail(ErrorCode::UNKNOWN_MEMBER_ID, effects),
            State::Preparing => false,
        };
        if repeat_response {
            if let Some(member) = self.members.get_mut(&join.member_id) {
                member.renew(now);
            }
            let joined = self.joined(&join.member_id);
            effects.joined.push((join.waiter, joined));
            return;
        }
        self.update(join, now, effects);
        self.rebalance_if_possible(limits, now, effects);
        self.complete_join_if_all_joined(now, effects);
    }

    /// Adds a new member and starts a rebalance.
    fn admit(
        &mut self,
        join: Join<J>,
        unaware_of_id: bool,
        limits: &GroupLimits,
        now: Instant,
        effects: &mut Effects<J, S>,
    ) {
        if self.members.len() >= limits.members_max {
            return join.fail(ErrorCode::GROUP_MAX_SIZE_REACHED, effects);
        }
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type);
        }
        if let Some(rebalance) = &mut self.rebalance {
            rebalance.new_member = true;
        }
        let id = join.member_id;
        self.insert(Member {
            id: id.clone(),
            instance_id: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            protocols: join.protocols,
            assignment: Bytes::new(),
            joining: None,
            syncing: None,
            pending_sync: false,
            unaware_of_id,
            new: true,
            deadline: now + limits.new_member_timeout_max,
        });
        self.await_join(&id, join.waiter, effects);
        self.rebalance_if_possible(limits, now, effects);
        self.complete_join_if_all_joined(now, effects);
    }

    /// Takes the protocols and timeouts of a known member's join, and lets it wait.
    fn update(&mut self, join: Join<J>, now: Instant, effects: &mut Effects<J, S>) {
        let Some(member) = self.members.get_mut(&join.member_id) else { return };
        let before = std::mem::replace(&mut member.protocols, join.protocols.clone());
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        member.renew(now);
        let deadline = member.deadline;
        self.uncount(&before);
        self.count(&join.protocols);
        self.schedule(deadline);
        self.await_join(&join.member_id, join.waiter, effects);
    }

    /// A static member without a member id replaces its former instance: a restarted process (KIP-345).
    fn replace_static(
        &mut self,
        old: &Str,
        join: Join<J>,
        limits: &GroupLimits,
        now: Instant,
        effects: &mut Effects<J, S>,
    ) {
        let place = self.order.iter().position(|id| id == old);
        let leader_before = self.leader.clone();
        let Some(mut member) = self.take_out(old, ErrorCode::FENCED_INSTANCE_ID, effects) else { return };
        self.assigned_bytes += member.assignment.len();
        member.id = join.new_member_id.clone();
        member.protocols = join.protocols;
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        member.renew(now);
        let was_leader = leader_before.as_ref() == Some(old);
        let id = member.id.clone();
        self.insert(member);
        if let (Some(place), Some(id)) = (place, self.order.pop()) {
            self.order.insert(place, id);
        }
        if was_leader {
            self.leader = Some(id.clone());
        }
        if self.state == State::Stable && self.elect_protocol() == self.protocol {
            // Nothing changes for the others, so there is no rebalance (KIP-345).
            effects.changed = true;
            let mut joined = self.joined(&id);
            if was_leader && join.supports_skip_assignment {
                joined.skip_assignment = true;
            } else if was_leader {
                // An older client would assign again if it knew that it leads: name its former member id instead.
                joined.leader = leader_before.unwrap_or_default();
                joined.members = Vec::new();
            }
            effects.joined.push((join.waiter, joined));
            return;
        }
        self.await_join(&id, join.waiter, effects);
        self.rebalance_if_possible(limits, now, effects);
        self.complete_join_if_all_joined(now, effects);
    }

    /// The response to a join in the current generation.
    fn joined(&self, member_id: &Str) -> Joined {
        Joined {
            error: ErrorCode::NONE,
            member_id: member_id.clone(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            members: match self.is_leader(member_id) {
                true => self.metadata_of_members(),
                false => Vec::new(),
            },
        }
    }

    /// Starts a rebalance unless one is being prepared.
    pub(super) fn rebalance_if_possible(
        &mut self,
        limits: &GroupLimits,
        now: Instant,
        effects: &mut Effects<J, S>,
    ) {
        let initial = match self.state {
            State::Preparing | State::Dead => return,
            State::Empty => true,
            State::Completing | State::Stable => false,
        };
        self.sync_deadline = None;
        self.assigned_bytes = 0;
        for member in self.members.values_mut() {
            member.pending_sync = false;
            member.assignment = Bytes::new();
            if let Some(waiter) = member.syncing.take() {
                effects.synced.push((waiter, Synced::failed(ErrorCode::REBALANCE_IN_PROGRESS)));
            }
        }
        let timeout = self.rebalance_timeout();
        self.rebalance = Some(match initial {
            true => {
                let delay = limits.initial_delay.min(timeout);
                Rebalance { deadline: now + delay, initial: Some(timeout - delay), new_member: false }
            }
            false => Rebalance { deadline: now + timeout, initial: None, new_member: false },
        });
        self.state = State::Preparing;
        if let Some(rebalance) = self.rebalance {
            self.schedule(rebalance.deadline);
        }
    }

    pub(super) fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    /// Completes the join phase if every member has joined.
    pub(super) fn complete_join_if_all_joined(&mut self, now: Instant, effects: &mut Effects<J, S>) {
        let Some(rebalance) = self.rebalance else { return };
        let waits = rebalance.initial.is_some() && !self.members.is_empty();
        let missing = !self.pending.is_empty() || self.joining < self.members.len();
        if self.state == State::Preparing && !waits && !missing {
            self.complete_join(now, effects);
        }
    }

    /// Completes the join phase: the members that have joined form the next generation.
    pub(super) fn complete_join(&mut self, now: Instant, effects: &mut Effects<J, S>) {
        let absent: Vec<Str> = self
            .members()
            .filter(|member| member.joining.is_none() && member.instance_id.is_none())
            .map(|member| member.id.clone())
            .collect();
        for id in &absent {
            self.take_out(id, ErrorCode::UNKNOWN_MEMBER_ID, effects);
        }
        let leader_has_joined = self
            .leader
            .as_ref()
            .and_then(|id| self.members.get(id))
            .is_some_and(|leader| leader.joining.is_some());
        let is_kept = is_seeded(Bug::KeepLeader) && self.leader.is_some();
        if !leader_has_joined && !is_kept {
            let elected =
                self.members().find(|member| member.joining.is_some()).map(|member| member.id.clone());
            if elected.is_none() && !self.members.is_empty() {
                // Only static members, none of which has rejoined: they stay until their sessions expire.
                let deadline = now + self.rebalance_timeout().max(Duration::from_secs(1));
                self.rebalance = Some(Rebalance { deadline, initial: None, new_member: false });
                self.schedule(deadline);
                return;
            }
            self.leader = elected;
        }
        self.rebalance = None;
        if !is_seeded(Bug::KeepGeneration) || self.generation == 0 {
            self.generation = self.generation.checked_add(1).unwrap_or(1);
        }
        if self.members.is_empty() {
            self.protocol = None;
            self.state = State::Empty;
            effects.changed = true;
            return;
        }
        self.protocol = self.elect_protocol();
        self.state = State::Completing;
        let deadline = now + self.rebalance_timeout();
        self.sync_deadline = Some(deadline);
        self.schedule(deadline);
        for id in self.order.clone() {
            let joined = self.joined(&id);
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.pending_sync = true;
            let Some(waiter) = member.joining.take() else { continue };
            self.joining -= 1;
            (member.new, member.unaware_of_id) = (false, false);
            member.renew(now);
            let deadline = member.deadline;
            self.schedule(deadline);
            if is_seeded(Bug::ForgetWaiter) && self.order.len() > 1 && self.order.last() == Some(&id) {
                continue;
            }
            effects.joined.push((waiter, joined));
        }
    }
}
