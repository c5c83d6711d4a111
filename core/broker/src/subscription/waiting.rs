//! Which consumer is woken, and which may take a message.
//!
//! A consumer waits from the pull that found nothing until it is woken or pulls again. One whose pull ended because
//! it has no room does not wait: a wake-up spent on it would be lost to the others.

use super::Mode;
use super::slots::SlotId;
use super::state::State;

impl State {
    /// Failover: the longest attached consumer of the highest priority.
    pub(super) fn active(&self) -> Option<SlotId> {
        self.slots.first()
    }

    /// Wakes a consumer, whether it waits or not.
    pub(super) fn wake(&mut self, slot: SlotId) {
        if !self.slots.wake(slot, self.clock.now_ms(), &mut self.wakeups) {
            self.slots.get(slot).into_iter().for_each(|s| s.wake(&mut self.wakeups));
        }
    }

    /// Wakes those that wait behind reservations which were not used in time.
    pub(super) fn check_waiting(&mut self, now_ms: i64) {
        if !self.slots.take_due_check(now_ms) || !self.slots.any_waiting() {
            return;
        }
        let ready = self.ready();
        if ready > 0 {
            self.slots.wake_beyond_reserved(ready, now_ms, &mut self.wakeups);
        }
    }

    /// Wakes as many waiting consumers as there are messages, in their turn.
    pub(super) fn wake_waiting(&mut self) {
        if !self.slots.any_waiting() {
            return;
        }
        let ready = self.ready();
        if ready == 0 {
            return;
        }
        if self.mode == Mode::Failover {
            if let Some(active) = self.active() {
                self.slots.wake(active, self.clock.now_ms(), &mut self.wakeups);
            }
            return;
        }
        self.slots.wake_for(ready, self.clock.now_ms(), &mut self.wakeups);
    }

    /// Whether an attached consumer that is not passive would take a message now.
    pub(super) fn is_awaited(&mut self, now_ms: i64) -> bool {
        match self.mode {
            Mode::Failover => self.active().is_some_and(|active| self.slots.is_starved(active, now_ms)),
            _ => self.slots.any_starved(now_ms),
        }
    }
}
