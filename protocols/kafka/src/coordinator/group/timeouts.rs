//! Timeouts: of sessions, member ids, rebalances and syncs.

use std::time::Duration;
use tokio::time::Instant;

use super::effects::Effects;
use super::seeded_bugs::{Bug, is_seeded};
use super::state::{Group, State};
use crate::codec::text::Str;
use crate::config::GroupLimits;

impl<J, S> Group<J, S> {
    /// Handles the timeouts due at [`Group::wake_at`]: expires sessions, ends rebalances.
    pub(crate) fn on_timeout(&mut self, limits: &GroupLimits, now: Instant, effects: &mut Effects<J, S>) {
        if self.wake_at.is_none_or(|at| at > now) {
            return;
        }
        self.pending.retain(|_, until| *until > now);
        for member in self.members.values_mut().filter(|member| member.is_waiting() && member.deadline <= now)
        {
            member.renew(now);
        }
        let sync_is_overdue = self.sync_deadline.is_some_and(|at| at <= now);
        let expired: Vec<Str> = self
            .members()
            .filter(|member| member.deadline <= now || (sync_is_overdue && member.pending_sync))
            .filter(|_| !is_seeded(Bug::KeepExpired))
            .map(|member| member.id.clone())
            .collect();
        if sync_is_overdue {
            self.sync_deadline = None;
        }
        for id in &expired {
            self.remove(id, limits, now, effects);
        }
        self.complete_join_if_all_joined(now, effects);
        self.end_rebalance_if_due(limits, now, effects);
        self.wake_at = self.next_timeout();
    }

    fn end_rebalance_if_due(&mut self, limits: &GroupLimits, now: Instant, effects: &mut Effects<J, S>) {
        let Some(rebalance) = &mut self.rebalance else { return };
        if self.state != State::Preparing || rebalance.deadline > now {
            return;
        }
        if let Some(rest) = rebalance.initial.filter(|rest| rebalance.new_member && *rest > Duration::ZERO) {
            // New members still join: extend the delay.
            let more = limits.initial_delay.min(rest);
            rebalance.deadline = now + more;
            rebalance.initial = Some(rest - more);
            rebalance.new_member = false;
            return;
        }
        self.complete_join(now, effects);
    }

    fn next_timeout(&self) -> Option<Instant> {
        let sessions = self.members.values().map(|member| member.deadline);
        let others = [self.rebalance.map(|rebalance| rebalance.deadline), self.sync_deadline];
        sessions.chain(self.pending.values().copied()).chain(others.into_iter().flatten()).min()
    }
}
