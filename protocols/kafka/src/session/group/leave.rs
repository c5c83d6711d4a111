//! Leaving, on purpose or because the connection went away.

use std::time::Instant;

use super::{Effects, Group, GroupLimits, State};
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;

/// Who leaves: a member by its id, or a static one by its instance id (then the member id may be empty, as when an
/// administrator removes it).
#[derive(Debug, Clone)]
pub struct Leave {
    /// The member's id.
    pub member_id: Str,
    /// Its instance id.
    pub instance_id: Option<Str>,
}

impl<W> Group<W> {
    /// A member leaves.
    pub fn leave(
        &mut self,
        leave: &Leave,
        limits: &GroupLimits,
        now: Instant,
        effects: &mut Effects<W>,
    ) -> ErrorCode {
        if self.state == State::Dead {
            return ErrorCode::COORDINATOR_NOT_AVAILABLE;
        }
        let member_id = match &leave.instance_id {
            Some(instance_id) => match self.instances.get(instance_id) {
                None => return ErrorCode::UNKNOWN_MEMBER_ID,
                Some(id) if !leave.member_id.is_empty() && *id != leave.member_id => {
                    return ErrorCode::FENCED_INSTANCE_ID;
                }
                Some(id) => id.clone(),
            },
            None if self.pending.remove(&leave.member_id).is_some() => {
                self.complete_join_if_all_there(now, effects);
                return ErrorCode::NONE;
            }
            None => leave.member_id.clone(),
        };
        match self.remove(&member_id, limits, now, effects) {
            true => ErrorCode::NONE,
            false => ErrorCode::UNKNOWN_MEMBER_ID,
        }
    }

    /// Takes a member out and lets the others rebalance.
    pub(super) fn remove(
        &mut self,
        member_id: &Str,
        limits: &GroupLimits,
        now: Instant,
        effects: &mut Effects<W>,
    ) -> bool {
        if self.take_out(member_id, ErrorCode::UNKNOWN_MEMBER_ID, effects).is_none() {
            return false;
        }
        self.rebalance_if_possible(limits, now, effects);
        self.complete_join_if_all_there(now, effects);
        true
    }

    /// The connection over which a member was waiting is gone, if `is_mine` knows the waiter: another connection may
    /// wait for the same member by now. A client that was never told its id cannot come back under it, so the member
    /// goes at once; others have their session's time.
    pub fn hung_up(
        &mut self,
        member_id: &Str,
        is_mine: impl Fn(&W) -> bool,
        limits: &GroupLimits,
        now: Instant,
        effects: &mut Effects<W>,
    ) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        let joined = member.joining.take_if(|waiter| is_mine(waiter)).is_some();
        let synced = member.syncing.take_if(|waiter| is_mine(waiter)).is_some();
        if !joined && !synced {
            return;
        }
        member.touch(now);
        let (deadline, nameless) = (member.deadline, member.nameless);
        self.joining -= usize::from(joined);
        self.wake_by(deadline);
        if nameless {
            self.remove(member_id, limits, now, effects);
        }
    }
}
