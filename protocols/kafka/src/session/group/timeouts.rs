//! What the passing of time brings about.

use std::time::{Duration, Instant};

use super::{Effects, Group, GroupLimits, State};
use crate::codec::text::Str;

impl<W> Group<W> {
    /// To be called when [`Group::wake_at`] has come: sessions end, rebalances stop waiting.
    pub fn tick(&mut self, limits: &GroupLimits, now: Instant, effects: &mut Effects<W>) {
        if self.wake_at.is_none_or(|at| at > now) {
            return;
        }
        self.pending.retain(|_, until| *until > now);
        for member in self.members.values_mut().filter(|member| member.is_waiting() && member.deadline <= now)
        {
            member.touch(now);
        }
        let late_for_sync = self.sync_deadline.is_some_and(|at| at <= now);
        let gone: Vec<Str> = self
            .members()
            .filter(|member| member.deadline <= now || (late_for_sync && member.owes_sync))
            .map(|member| member.id.clone())
            .collect();
        if late_for_sync {
            self.sync_deadline = None;
        }
        for id in &gone {
            self.remove(id, limits, now, effects);
        }
        self.complete_join_if_all_there(now, effects);
        self.end_rebalance_if_due(limits, now, effects);
        self.wake_at = self.next_event();
    }

    fn end_rebalance_if_due(&mut self, limits: &GroupLimits, now: Instant, effects: &mut Effects<W>) {
        let Some(rebalance) = &mut self.rebalance else { return };
        if self.state != State::Preparing || rebalance.deadline > now {
            return;
        }
        if let Some(rest) = rebalance.initial.filter(|rest| rebalance.newcomer && *rest > Duration::ZERO) {
            // Members still arrive: wait once more.
            let more = limits.initial_delay.min(rest);
            rebalance.deadline = now + more;
            rebalance.initial = Some(rest - more);
            rebalance.newcomer = false;
            return;
        }
        self.complete_join(now, effects);
    }

    fn next_event(&self) -> Option<Instant> {
        let sessions = self.members.values().map(|member| member.deadline);
        let others = [self.rebalance.map(|rebalance| rebalance.deadline), self.sync_deadline];
        sessions.chain(self.pending.values().copied()).chain(others.into_iter().flatten()).min()
    }
}
