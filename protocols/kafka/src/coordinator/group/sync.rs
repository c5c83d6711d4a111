//! Syncs, heartbeats, and the check of commits.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::time::Instant;

use super::effects::{Effects, Synced};
use super::seeded_bugs::{Bug, is_seeded};
use super::state::{Group, State};
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::config::GroupLimits;

/// A member's request for its assignment. The leader's brings all assignments.
#[derive(Debug)]
pub(crate) struct Sync<S> {
    /// Waits for the response.
    pub(crate) waiter: S,
    pub(crate) member_id: Str,
    /// Instance id of a static member.
    pub(crate) instance_id: Option<Str>,
    /// Generation that the member knows.
    pub(crate) generation: i32,
    /// Protocol type that the member knows (version 5 on).
    pub(crate) protocol_type: Option<Str>,
    /// Elected protocol that the member knows (version 5 on).
    pub(crate) protocol: Option<Str>,
    /// From the leader: member id and assignment.
    pub(crate) assignments: Vec<(Str, Bytes)>,
}

impl<J, S> Group<J, S> {
    /// Handles a sync.
    pub(crate) fn sync(
        &mut self,
        sync: Sync<S>,
        limits: &GroupLimits,
        now: Instant,
        effects: &mut Effects<J, S>,
    ) {
        if let Err(error) = self.check_sync(&sync, limits) {
            effects.synced.push((sync.waiter, Synced::failed(error)));
            return;
        }
        let leads = self.is_leader(&sync.member_id);
        let Some(member) = self.members.get_mut(&sync.member_id) else { return };
        member.pending_sync = false;
        member.renew(now);
        if self.state == State::Completing {
            if let Some(earlier) = member.syncing.replace(sync.waiter) {
                effects.synced.push((earlier, Synced::failed(ErrorCode::REBALANCE_IN_PROGRESS)));
            }
            if leads {
                self.assign(sync.assignments, now, effects);
            }
            return;
        }
        let assignment = member.assignment.clone();
        effects.synced.push((sync.waiter, self.synced(assignment)));
    }

    fn check_sync(&self, sync: &Sync<S>, limits: &GroupLimits) -> Result<(), ErrorCode> {
        if self.state == State::Dead {
            return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE);
        }
        self.validate(&sync.member_id, sync.instance_id.as_ref())?;
        if sync.generation != self.generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        let differs = |known: &Option<Str>, is: &Option<Str>| known.is_some() && known != is;
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        let assigned: usize = sync.assignments.iter().map(|(_, assignment)| assignment.len()).sum();
        if self.bytes() + assigned > limits.bytes_max {
            return Err(ErrorCode::GROUP_MAX_SIZE_REACHED);
        }
        match self.state {
            State::Empty | State::Dead => Err(ErrorCode::UNKNOWN_MEMBER_ID),
            State::Preparing => Err(ErrorCode::REBALANCE_IN_PROGRESS),
            State::Completing | State::Stable => Ok(()),
        }
    }

    /// Takes the leader's assignments. Members that they leave out get an empty one.
    fn assign(&mut self, assignments: Vec<(Str, Bytes)>, now: Instant, effects: &mut Effects<J, S>) {
        self.state = State::Stable;
        self.assigned_bytes = 0;
        effects.changed = true;
        let mut assignments: HashMap<Str, Bytes> = assignments.into_iter().collect();
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        for member in self.members.values_mut() {
            member.assignment = match is_seeded(Bug::AssignToAll) {
                true => assignments.values().max().cloned().unwrap_or_default(),
                false => assignments.remove(&member.id).unwrap_or_default(),
            };
            self.assigned_bytes += member.assignment.len();
            if let Some(waiter) = member.syncing.take()
                && (!is_seeded(Bug::ForgetSyncs) || self.leader.as_ref() == Some(&member.id))
            {
                member.renew(now);
                let synced = Synced {
                    error: ErrorCode::NONE,
                    protocol_type: protocol_type.clone(),
                    protocol: protocol.clone(),
                    assignment: member.assignment.clone(),
                };
                effects.synced.push((waiter, synced));
            }
        }
    }

    fn synced(&self, assignment: Bytes) -> Synced {
        Synced {
            error: ErrorCode::NONE,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment,
        }
    }

    /// Handles a heartbeat.
    pub(crate) fn heartbeat(
        &mut self,
        member_id: &Str,
        instance_id: Option<&Str>,
        generation: i32,
        now: Instant,
    ) -> ErrorCode {
        if self.state == State::Dead {
            return ErrorCode::COORDINATOR_NOT_AVAILABLE;
        }
        if let Err(error) = self.validate(member_id, instance_id) {
            return error;
        }
        if generation != self.generation {
            return ErrorCode::ILLEGAL_GENERATION;
        }
        if let Some(member) = self.members.get_mut(member_id) {
            member.renew(now);
        }
        match self.state {
            State::Preparing if !is_seeded(Bug::SilentRebalance) => ErrorCode::REBALANCE_IN_PROGRESS,
            State::Empty | State::Dead => ErrorCode::UNKNOWN_MEMBER_ID,
            State::Preparing | State::Completing | State::Stable => ErrorCode::NONE,
        }
    }

    /// Checks whether a member may commit offsets. Renews its session, as a heartbeat does.
    pub(crate) fn check_commit(
        &mut self,
        member_id: &Str,
        instance_id: Option<&Str>,
        generation: i32,
        now: Instant,
    ) -> Result<(), ErrorCode> {
        self.check_commit_in_transaction(member_id, instance_id, generation, now)?;
        match self.state {
            // The member's partitions may belong to another by now.
            State::Completing => Err(ErrorCode::REBALANCE_IN_PROGRESS),
            _ => Ok(()),
        }
    }

    /// As [`check_commit`](Self::check_commit), for offsets in a transaction: its producer does not know of a rebalance that is
    /// being completed, and would not send them again.
    pub(crate) fn check_commit_in_transaction(
        &mut self,
        member_id: &Str,
        instance_id: Option<&Str>,
        generation: i32,
        now: Instant,
    ) -> Result<(), ErrorCode> {
        match self.state {
            State::Dead => return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE),
            // Offsets of a consumer that assigns its partitions itself.
            State::Empty if generation < 0 => return Ok(()),
            State::Empty | State::Preparing | State::Completing | State::Stable => {}
        }
        self.validate(member_id, instance_id)?;
        if generation != self.generation && !is_seeded(Bug::CommitAnyGeneration) {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        if let Some(member) = self.members.get_mut(member_id) {
            member.renew(now);
        }
        Ok(())
    }
}
