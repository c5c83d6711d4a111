//! Leaves, and lost connections.
use tokio::time::Instant;

use super::effects::Effects;
use super::state::{Group, State};
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::config::GroupLimits;

/// A request to leave: of a member by its id, or of a static one by its instance id (then the member id may be empty,
/// as when an administrator removes it).
#[derive(Debug, Clone)]
pub(crate) struct Leave {
    pub(crate) member_id: Str,
    pub(crate) instance_id: Option<Str>,
}

impl<J, S> Group<J, S> {
    /// Handles a leave.
    pub(crate) fn leave(
        &mut self,
        leave: &Leave,
        limits: &GroupLimits,
        now: Instant,
        effects: &mut Effects<J, S>,
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
                self.complete_join_if_all_joined(now, effects);
                return ErrorCode::NONE;
            }
            None => leave.member_id.clone(),
        };
        match self.remove(&member_id, limits, now, effects) {
            true => ErrorCode::NONE,
            false => ErrorCode::UNKNOWN_MEMBER_ID,
        }
    }

    /// Removes a member and starts a rebalance of the others. Whether there was such a member.
    pub(super) fn remove(
        &mut self,
        member_id: &Str,
        limits: &GroupLimits,
        now: Instant,
        effects: &mut Effects<J, S>,
    ) -> bool {
        if self.take_out(member_id, ErrorCode::UNKNOWN_MEMBER_ID, effects).is_none() {
            return false;
        }
        self.rebalance_if_possible(limits, now, effects);
        self.complete_join_if_all_joined(now, effects);
        true
    }

    /// Handles the loss of a connection on which a member waited. The predicates recognize its waiters:
    /// the member may wait on another connection by now. A client that does not know its member id cannot rejoin, so that its member is
    /// removed at once; others have until their session expires.
    pub(crate) fn disconnected(
        &mut self,
        member_id: &Str,
        is_join_lost: impl Fn(&J) -> bool,
        is_sync_lost: impl Fn(&S) -> bool,
        limits: &GroupLimits,
        now: Instant,
        effects: &mut Effects<J, S>,
    ) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        let joined = member.joining.take_if(|waiter| is_join_lost(waiter)).is_some();
        let synced = member.syncing.take_if(|waiter| is_sync_lost(waiter)).is_some();
        if !joined && !synced {
            return;
        }
        member.renew(now);
        let (deadline, unaware_of_id) = (member.deadline, member.unaware_of_id);
        self.joining -= usize::from(joined);
        self.schedule(deadline);
        if unaware_of_id {
            self.remove(member_id, limits, now, effects);
        }
    }
}
