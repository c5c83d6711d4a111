//! Joining, and the rebalance that it brings about.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    Effects, Group, GroupLimits, Joined, Member, MemberProtocol, Rebalance, State, Synced, said_bytes,
};
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;

/// A request to join.
#[derive(Debug)]
pub struct Join<W> {
    /// Who waits for the answer.
    pub waiter: W,
    /// Empty if the client has none yet.
    pub member_id: Str,
    /// An id for it if it has none yet.
    pub fresh_id: Str,
    /// Set by static members.
    pub instance_id: Option<Str>,
    /// The client understands MEMBER_ID_REQUIRED (version 4 on).
    pub learns_id_first: bool,
    /// The client understands that a leader need not assign (version 9 on).
    pub skips_assignment: bool,
    /// What its client calls itself.
    pub client_id: Str,
    /// Where it comes from.
    pub client_host: Str,
    /// As asked for.
    pub session_timeout: Duration,
    /// As asked for.
    pub rebalance_timeout: Duration,
    /// `consumer`, `connect`, …
    pub protocol_type: Str,
    /// What it can do, best liked first.
    pub protocols: Vec<MemberProtocol>,
}

impl<W> Join<W> {
    fn refuse(self, error: ErrorCode, effects: &mut Effects<W>) {
        effects.joined.push((self.waiter, Joined::refused(self.member_id, error)));
    }
}

impl<W> Group<W> {
    /// A member comes, or comes again.
    pub fn join(&mut self, join: Join<W>, limits: &GroupLimits, now: Instant, effects: &mut Effects<W>) {
        if self.state == State::Dead {
            return join.refuse(ErrorCode::COORDINATOR_NOT_AVAILABLE, effects);
        }
        let allowed = limits.session_timeout_min..=limits.session_timeout_max;
        if !allowed.contains(&join.session_timeout) {
            return join.refuse(ErrorCode::INVALID_SESSION_TIMEOUT, effects);
        }
        if join.protocols.len() > limits.protocols_max {
            return join.refuse(ErrorCode::INVALID_REQUEST, effects);
        }
        if self.bytes() + said_bytes(&join.protocols) > limits.bytes_max {
            return join.refuse(ErrorCode::GROUP_MAX_SIZE_REACHED, effects);
        }
        if !self.supports(&join.protocol_type, &join.protocols) {
            return join.refuse(ErrorCode::INCONSISTENT_GROUP_PROTOCOL, effects);
        }
        match join.member_id.is_empty() {
            true => self.newcomer(join, limits, now, effects),
            false => self.known(join, limits, now, effects),
        }
    }

    fn newcomer(&mut self, mut join: Join<W>, limits: &GroupLimits, now: Instant, effects: &mut Effects<W>) {
        let known_instance = join.instance_id.as_ref().and_then(|id| self.instances.get(id)).cloned();
        if let Some(old) = known_instance {
            return self.replace_static(&old, join, limits, now, effects);
        }
        if self.members.len() + self.pending.len() >= limits.members_max {
            return join.refuse(ErrorCode::GROUP_MAX_SIZE_REACHED, effects);
        }
        join.member_id = join.fresh_id.clone();
        if join.learns_id_first && join.instance_id.is_none() {
            // It is to come back with its id: a client that never hears an answer then leaves no ghost (KIP-394).
            let until = now + join.session_timeout;
            self.pending.insert(join.member_id.clone(), until);
            self.wake_by(until);
            return join.refuse(ErrorCode::MEMBER_ID_REQUIRED, effects);
        }
        let nameless = join.instance_id.is_none();
        self.admit(join, nameless, limits, now, effects);
    }

    fn known(&mut self, join: Join<W>, limits: &GroupLimits, now: Instant, effects: &mut Effects<W>) {
        if join.instance_id.is_none() && self.pending.remove(&join.member_id).is_some() {
            return self.admit(join, false, limits, now, effects);
        }
        if let Err(error) = self.validate(&join.member_id, join.instance_id.as_ref()) {
            return join.refuse(error, effects);
        }
        let same = self.members.get(&join.member_id).is_some_and(|member| member.protocols == join.protocols);
        let answer_again = match self.state {
            // It did not hear the answer.
            State::Completing => same,
            // A leader that comes again wants a rebalance: the work itself may have changed.
            State::Stable => same && !self.is_leader(&join.member_id),
            State::Empty | State::Dead => return join.refuse(ErrorCode::UNKNOWN_MEMBER_ID, effects),
            State::Preparing => false,
        };
        if answer_again {
            if let Some(member) = self.members.get_mut(&join.member_id) {
                member.touch(now);
            }
            let joined = self.joined(&join.member_id);
            effects.joined.push((join.waiter, joined));
            return;
        }
        self.update(join, now, effects);
        self.rebalance_if_possible(limits, now, effects);
        self.complete_join_if_all_there(now, effects);
    }

    /// A new member is taken in; everyone is to join again.
    fn admit(
        &mut self,
        join: Join<W>,
        nameless: bool,
        limits: &GroupLimits,
        now: Instant,
        effects: &mut Effects<W>,
    ) {
        if self.members.len() >= limits.members_max {
            return join.refuse(ErrorCode::GROUP_MAX_SIZE_REACHED, effects);
        }
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type);
        }
        if let Some(rebalance) = &mut self.rebalance {
            rebalance.newcomer = true;
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
            owes_sync: false,
            nameless,
            new: true,
            deadline: now + limits.new_member_timeout_max,
        });
        self.await_join(&id, join.waiter, effects);
        self.rebalance_if_possible(limits, now, effects);
        self.complete_join_if_all_there(now, effects);
    }

    /// A member that is known says anew what it can do, and waits.
    fn update(&mut self, join: Join<W>, now: Instant, effects: &mut Effects<W>) {
        let Some(member) = self.members.get_mut(&join.member_id) else { return };
        let before = std::mem::replace(&mut member.protocols, join.protocols.clone());
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        member.touch(now);
        let deadline = member.deadline;
        self.uncount(&before);
        self.count(&join.protocols);
        self.wake_by(deadline);
        self.await_join(&join.member_id, join.waiter, effects);
    }

    /// A static member came back without its id: a restarted process. It takes the place of its former self.
    fn replace_static(
        &mut self,
        old: &Str,
        join: Join<W>,
        limits: &GroupLimits,
        now: Instant,
        effects: &mut Effects<W>,
    ) {
        let place = self.order.iter().position(|id| id == old);
        let leader_before = self.leader.clone();
        let Some(mut member) = self.take_out(old, ErrorCode::FENCED_INSTANCE_ID, effects) else { return };
        self.assigned_bytes += member.assignment.len();
        member.id = join.fresh_id.clone();
        member.protocols = join.protocols;
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        member.touch(now);
        let led = leader_before.as_ref() == Some(old);
        let id = member.id.clone();
        self.insert(member);
        if let (Some(place), Some(id)) = (place, self.order.pop()) {
            self.order.insert(place, id);
        }
        if led {
            self.leader = Some(id.clone());
        }
        if self.state == State::Stable && self.elect_protocol() == self.protocol {
            // Nothing changes for the others, so nobody is disturbed (KIP-345).
            effects.changed = true;
            let mut joined = self.joined(&id);
            if led && join.skips_assignment {
                joined.skip_assignment = true;
            } else if led {
                // An older client would assign anew, believing itself the leader: let it believe that another is.
                joined.leader = leader_before.unwrap_or_default();
                joined.members = Vec::new();
            }
            effects.joined.push((join.waiter, joined));
            return;
        }
        self.await_join(&id, join.waiter, effects);
        self.rebalance_if_possible(limits, now, effects);
        self.complete_join_if_all_there(now, effects);
    }

    /// The answer to a join, as of now.
    fn joined(&self, member_id: &Str) -> Joined {
        Joined {
            error: ErrorCode::NONE,
            member_id: member_id.clone(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            members: if self.is_leader(member_id) { self.roll() } else { Vec::new() },
        }
    }

    /// Starts a rebalance unless one is being prepared.
    pub(super) fn rebalance_if_possible(
        &mut self,
        limits: &GroupLimits,
        now: Instant,
        effects: &mut Effects<W>,
    ) {
        let initial = match self.state {
            State::Preparing | State::Dead => return,
            State::Empty => true,
            State::Completing | State::Stable => false,
        };
        self.sync_deadline = None;
        self.assigned_bytes = 0;
        for member in self.members.values_mut() {
            member.owes_sync = false;
            member.assignment = Bytes::new();
            if let Some(waiter) = member.syncing.take() {
                effects.synced.push((waiter, Synced::refused(ErrorCode::REBALANCE_IN_PROGRESS)));
            }
        }
        let timeout = self.rebalance_timeout();
        self.rebalance = Some(match initial {
            true => {
                let delay = limits.initial_delay.min(timeout);
                Rebalance { deadline: now + delay, initial: Some(timeout - delay), newcomer: false }
            }
            false => Rebalance { deadline: now + timeout, initial: None, newcomer: false },
        });
        self.state = State::Preparing;
        if let Some(rebalance) = self.rebalance {
            self.wake_by(rebalance.deadline);
        }
    }

    pub(super) fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    /// Ends the preparation as soon as nobody is missing.
    pub(super) fn complete_join_if_all_there(&mut self, now: Instant, effects: &mut Effects<W>) {
        let Some(rebalance) = self.rebalance else { return };
        let waits = rebalance.initial.is_some() && !self.members.is_empty();
        let missing = !self.pending.is_empty() || self.joining < self.members.len();
        if self.state == State::Preparing && !waits && !missing {
            self.complete_join(now, effects);
        }
    }

    /// The preparation is over: those who are there form the next generation.
    pub(super) fn complete_join(&mut self, now: Instant, effects: &mut Effects<W>) {
        let absent: Vec<Str> = self
            .members()
            .filter(|member| member.joining.is_none() && member.instance_id.is_none())
            .map(|member| member.id.clone())
            .collect();
        for id in &absent {
            self.take_out(id, ErrorCode::UNKNOWN_MEMBER_ID, effects);
        }
        let leader_is_there = self
            .leader
            .as_ref()
            .and_then(|id| self.members.get(id))
            .is_some_and(|leader| leader.joining.is_some());
        if !leader_is_there {
            let elected =
                self.members().find(|member| member.joining.is_some()).map(|member| member.id.clone());
            if elected.is_none() && !self.members.is_empty() {
                // Only static members, and none of them is back: they keep their places until their sessions end.
                let deadline = now + self.rebalance_timeout().max(Duration::from_secs(1));
                self.rebalance = Some(Rebalance { deadline, initial: None, newcomer: false });
                self.wake_by(deadline);
                return;
            }
            self.leader = elected;
        }
        self.rebalance = None;
        self.generation = self.generation.checked_add(1).unwrap_or(1);
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
        self.wake_by(deadline);
        for id in self.order.clone() {
            let joined = self.joined(&id);
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.owes_sync = true;
            let Some(waiter) = member.joining.take() else { continue };
            self.joining -= 1;
            (member.new, member.nameless) = (false, false);
            member.touch(now);
            let deadline = member.deadline;
            self.wake_by(deadline);
            effects.joined.push((waiter, joined));
        }
    }
}
