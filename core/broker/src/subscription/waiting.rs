//! Who is woken, and who may take.
//!
//! A consumer waits from the pull that found nothing until it is woken or pulls again. One whose pull ended
//! because it wanted no more does not wait: it has no room, and a wake-up spent on it would be lost to others.

use super::Mode;
use super::slots::SlotId;
use super::state::State;
use crate::clock::now_ms;

impl State {
    /// Failover: the one of the highest priority that came first.
    pub(super) fn active(&self) -> Option<SlotId> {
        self.slots.first()
    }

    /// Wakes a consumer, whether it waits or not.
    pub(super) fn post(&mut self, slot: SlotId) {
        if !self.slots.call(slot, now_ms(), &mut self.calls) {
            self.slots.get(slot).into_iter().for_each(|s| s.post(&mut self.calls));
        }
    }

    /// Those that were called had their time: whoever waits behind them is woken.
    pub(super) fn look_at_line(&mut self, now_ms: i64) {
        if !self.slots.take_look(now_ms) || self.slots.nobody_waits() {
            return;
        }
        let ready = self.ready();
        if ready > 0 {
            self.slots.call_regardless(ready, now_ms, &mut self.calls);
        }
    }

    /// Wakes as many waiting consumers as there are messages, in their turn.
    pub(super) fn wake_waiting(&mut self) {
        if self.slots.nobody_waits() {
            return;
        }
        let ready = self.ready();
        if ready == 0 {
            return;
        }
        if self.mode == Mode::Failover {
            if let Some(active) = self.active() {
                self.slots.call(active, now_ms(), &mut self.calls);
            }
            return;
        }
        self.slots.call_for(ready, now_ms(), &mut self.calls);
    }

    /// Whether somebody who counts as a consumer would take a message now.
    pub(super) fn is_awaited(&mut self, now_ms: i64) -> bool {
        match self.mode {
            Mode::Failover => self.active().is_some_and(|active| self.slots.is_hungry(active, now_ms)),
            _ => self.slots.any_hungry(now_ms),
        }
    }
}
