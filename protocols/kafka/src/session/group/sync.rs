//! Handing out the work, signs of life, and the right to commit.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;

use super::{Effects, Group, GroupLimits, State, Synced};
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;

/// A request for the member's work; the leader's brings everyone's.
#[derive(Debug)]
pub struct Sync<W> {
    /// Who waits for the answer.
    pub waiter: W,
    /// Who asks.
    pub member_id: Str,
    /// Set by static members.
    pub instance_id: Option<Str>,
    /// The generation it believes to be in.
    pub generation: i32,
    /// What kind of group it believes to be in (version 5 on).
    pub protocol_type: Option<Str>,
    /// The protocol it believes to be chosen (version 5 on).
    pub protocol: Option<Str>,
    /// From the leader: member id and work.
    pub assignments: Vec<(Str, Bytes)>,
}

impl<W> Group<W> {
    /// A member asks for its work.
    pub fn sync(&mut self, sync: Sync<W>, limits: &GroupLimits, now: Instant, effects: &mut Effects<W>) {
        if let Err(error) = self.check_sync(&sync, limits) {
            effects.synced.push((sync.waiter, Synced::refused(error)));
            return;
        }
        let leads = self.is_leader(&sync.member_id);
        let Some(member) = self.members.get_mut(&sync.member_id) else { return };
        member.owes_sync = false;
        member.touch(now);
        if self.state == State::Completing {
            if let Some(earlier) = member.syncing.replace(sync.waiter) {
                effects.synced.push((earlier, Synced::refused(ErrorCode::REBALANCE_IN_PROGRESS)));
            }
            if leads {
                self.assign(sync.assignments, now, effects);
            }
            return;
        }
        let assignment = member.assignment.clone();
        effects.synced.push((sync.waiter, self.synced(assignment)));
    }

    fn check_sync(&self, sync: &Sync<W>, limits: &GroupLimits) -> Result<(), ErrorCode> {
        if self.state == State::Dead {
            return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE);
        }
        self.validate(&sync.member_id, sync.instance_id.as_ref())?;
        if sync.generation != self.generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        let other = |said: &Option<Str>, is: &Option<Str>| said.is_some() && said != is;
        if other(&sync.protocol_type, &self.protocol_type) || other(&sync.protocol, &self.protocol) {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        let handed_out: usize = sync.assignments.iter().map(|(_, work)| work.len()).sum();
        if self.bytes() + handed_out > limits.bytes_max {
            return Err(ErrorCode::GROUP_MAX_SIZE_REACHED);
        }
        match self.state {
            State::Empty | State::Dead => Err(ErrorCode::UNKNOWN_MEMBER_ID),
            State::Preparing => Err(ErrorCode::REBALANCE_IN_PROGRESS),
            State::Completing | State::Stable => Ok(()),
        }
    }

    /// The leader has spoken: everyone gets its work, those not named none.
    fn assign(&mut self, assignments: Vec<(Str, Bytes)>, now: Instant, effects: &mut Effects<W>) {
        self.state = State::Stable;
        self.assigned_bytes = 0;
        effects.changed = true;
        let mut work: HashMap<Str, Bytes> = assignments.into_iter().collect();
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        for member in self.members.values_mut() {
            member.assignment = work.remove(&member.id).unwrap_or_default();
            self.assigned_bytes += member.assignment.len();
            if let Some(waiter) = member.syncing.take() {
                member.touch(now);
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

    /// A sign of life.
    pub fn heartbeat(
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
            member.touch(now);
        }
        match self.state {
            State::Preparing => ErrorCode::REBALANCE_IN_PROGRESS,
            State::Empty | State::Dead => ErrorCode::UNKNOWN_MEMBER_ID,
            State::Completing | State::Stable => ErrorCode::NONE,
        }
    }

    /// Whether a commit of positions is to be taken. It is a sign of life too.
    pub fn may_commit(
        &mut self,
        member_id: &Str,
        instance_id: Option<&Str>,
        generation: i32,
        now: Instant,
    ) -> Result<(), ErrorCode> {
        match self.state {
            State::Dead => return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE),
            // Positions of those who manage their partitions themselves.
            State::Empty if generation < 0 => return Ok(()),
            State::Empty | State::Preparing | State::Completing | State::Stable => {}
        }
        self.validate(member_id, instance_id)?;
        if generation != self.generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        if let Some(member) = self.members.get_mut(member_id) {
            member.touch(now);
        }
        match self.state {
            // The partitions that it had may be another's by now.
            State::Completing => Err(ErrorCode::REBALANCE_IN_PROGRESS),
            _ => Ok(()),
        }
    }
}
