//! Which consumer is woken, and which may take a message.
//!
//! A consumer waits from the pull that found nothing until it is woken or pulls again. One whose pull ended because
//! it has no room does not wait: a wake-up spent on it would be lost to the others.

use super::Mode;
use super::slots::SlotId;
use super::state::State;

impl State {
    /// Failover: the consumer that gets the messages. It stays active whatever priority others have; when it leaves, the
    /// longest attached one of the highest priority follows. Where the subscription [hands over](State::hands_over), one of
    /// a higher priority follows as soon as the active one has nothing unacknowledged.
    pub(super) fn active(&self) -> Option<SlotId> {
        self.active.filter(|active| self.slots.contains(*active))
    }

    /// Failover: chooses the active consumer, if there is none or it hands over. Whether it changed.
    pub(super) fn choose_active(&mut self) -> bool {
        let chosen = match self.active() {
            Some(active) if !self.is_handing_over() || self.has_unacked(active) => Some(active),
            _ => self.slots.first(),
        };
        std::mem::replace(&mut self.active, chosen) != chosen
    }

    /// Failover: whether a consumer of a higher priority waits for the active one to settle what it has.
    pub(super) fn is_handing_over(&self) -> bool {
        let priority = |slot: Option<SlotId>| Some(self.slots.get(slot?)?.spec.priority);
        self.hands_over && priority(self.slots.first()) > priority(self.active())
    }

    fn has_unacked(&self, slot: SlotId) -> bool {
        self.in_flight_by_consumer.get(&slot).is_some_and(|in_flight| !in_flight.unacked.is_empty())
    }

    /// Failover: hands over to a consumer of a higher priority if that is due.
    pub(super) fn hand_over(&mut self) {
        if self.mode == Mode::Failover
            && self.is_handing_over()
            && self.choose_active()
            && let Some(active) = self.active()
        {
            self.wake(active);
        }
    }

    /// Wakes a consumer, whether it waits or not.
    pub(super) fn wake(&mut self, slot: SlotId) {
        if !self.slots.wake(slot, self.clock.steady_ms(), &mut self.wakeups) {
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
                self.slots.wake(active, self.clock.steady_ms(), &mut self.wakeups);
            }
            return;
        }
        self.slots.wake_for(ready, self.clock.steady_ms(), &mut self.wakeups);
    }

    /// Whether an attached consumer that is not passive would take a message now.
    pub(super) fn is_awaited(&mut self, now_ms: i64) -> bool {
        match self.mode {
            Mode::Failover => self.active().is_some_and(|active| self.slots.is_starved(active, now_ms)),
            _ => self.slots.any_starved(now_ms),
        }
    }
}
