//! Who waits for messages, and who is woken.
//!
//! A consumer waits from the pull that found nothing until it is woken or pulls again. One whose pull ended
//! because it wanted no more does not wait: it has no room, and a wake-up spent on it would be lost to others.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::Mode;
use super::state::{SlotId, State};

/// A turn: higher priorities first, then who waits the longest.
pub(super) type Turn = (Reverse<i32>, u64);

/// The consumers that wait, by their turn.
#[derive(Default)]
pub(super) struct Waiting {
    line: BTreeMap<Turn, SlotId>,
    turns: u64,
}

impl Waiting {
    fn enter(&mut self, slot: SlotId, priority: i32) -> Turn {
        self.turns += 1;
        let turn = (Reverse(priority), self.turns);
        self.line.insert(turn, slot);
        turn
    }

    pub(super) fn leave(&mut self, turn: Option<Turn>) {
        if let Some(turn) = turn {
            self.line.remove(&turn);
        }
    }
}

impl State {
    /// Failover: the one of the highest priority that came first.
    pub(super) fn active(&self) -> Option<SlotId> {
        let mut best: Option<(SlotId, i32)> = None;
        for (id, slot) in &self.slots {
            if best.is_none_or(|(_, p)| slot.spec.priority > p) {
                best = Some((*id, slot.spec.priority));
            }
        }
        best.map(|(id, _)| id)
    }

    /// Wakes a consumer, whether it waits or not.
    pub(super) fn post(&mut self, slot: SlotId) {
        self.wait_no_more(slot);
        if let Some(s) = self.slots.get(&slot) {
            s.spec.mailbox.post(s.spec.token);
        }
    }

    /// Wakes as many waiting consumers as there are messages, in their turn.
    pub(super) fn wake_waiting(&mut self) {
        if self.waiting.line.is_empty() {
            return;
        }
        let mut ready = self.ready();
        if self.mode == Mode::Failover {
            let active = self.active().filter(|_| ready > 0);
            if let Some(active) = active
                && self.slots.get(&active).is_some_and(|s| s.turn.is_some())
            {
                self.post(active);
            }
            return;
        }
        while ready > 0 {
            let Some((_, slot)) = self.waiting.line.pop_first() else { return };
            self.post(slot);
            ready -= 1;
        }
    }

    pub(super) fn wait(&mut self, slot: SlotId) {
        if let Some(s) = self.slots.get_mut(&slot)
            && s.turn.is_none()
        {
            s.turn = Some(self.waiting.enter(slot, s.spec.priority));
        }
    }

    pub(super) fn wait_no_more(&mut self, slot: SlotId) {
        if let Some(s) = self.slots.get_mut(&slot) {
            self.waiting.leave(s.turn.take());
        }
    }
}
