//! Pulling: the messages that a consumer gets, their number, and the outcome it is given.

use super::keys::{ASSIGNED_MESSAGES_MAX, key_of};
use super::sizes::{size, value_bytes};
use super::slots::{SlotId, YIELD_MS_MAX};
use super::source::{LiveBatch, Source};
use super::state::{Load, State, UnackedMessage};
use super::terms::{ConsumerSpec, Pull};
use super::{Delivery, DeliveryId, Mode};
use crate::seeded_bugs::{Bug, is_seeded};

/// Unacknowledged messages of one consumer, whatever its protocol allows.
pub(super) const UNACKED_MESSAGES_MAX: usize = 1_000_000;

/// Bytes of keys, values and headers of unacknowledged messages of one consumer that stay in memory.
const UNACKED_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The same of a queue in memory, while the memory of all queues is used up.
const UNACKED_BYTES_SHORT: usize = 64 * 1024;

/// Work that a pull leaves for after the lock.
#[derive(Default)]
pub(super) struct AfterPull {
    /// Messages that were acknowledged by being pulled.
    pub(super) acked: Vec<DeliveryId>,
    pub(super) loads: Vec<Load>,
}

impl State {
    pub(super) fn pull(
        &mut self,
        slot: SlotId,
        spec: &ConsumerSpec,
        messages_max: usize,
        bytes_max: usize,
        into: &mut Vec<Delivery>,
        after: &mut AfterPull,
    ) -> Pull {
        if self.closed || !(spec.passive || self.slots.contains(slot)) {
            return Pull { cancelled: true, ..Pull::default() };
        }
        if self.unreadable && messages_max > 0 {
            return self.pull_unreadable(slot);
        }
        if self.returning > 0 {
            // Older messages than those of the sources come back first.
            self.slots.wait(slot);
            if spec.passive {
                self.passive_waiting.push(spec.clone());
            }
            return Pull { pending: spec.passive, ..Pull::default() };
        }
        let now_ms = self.limits.now_ms;
        if self.mode == Mode::Shared && messages_max > 0 && self.slots.must_yield(slot, now_ms) {
            self.slots.end_wait(slot, now_ms);
            self.slots.wait(slot);
            self.slots.request_check(now_ms + YIELD_MS_MAX);
            return Pull::default();
        }
        let was_starved = self.slots.end_wait(slot, now_ms);
        if !self.may_take(slot, spec) {
            self.slots.wait(slot);
            self.wake_waiting();
            return Pull::default();
        }
        if messages_max == 0 || bytes_max == 0 {
            // It was woken and has no room: another is woken in its place.
            self.slots.let_pass(slot);
            self.wake_waiting();
            return Pull { more: true, ..Pull::default() };
        }
        let Some((messages_left, bytes_left)) = self.room(slot, spec) else {
            self.wake_waiting();
            return Pull::default();
        };
        self.limits.in_grace = was_starved || self.is_awaited(now_ms);
        let assigned_full = self.keys.assigned >= ASSIGNED_MESSAGES_MAX;
        let (messages_max, bytes_max) = (messages_max.min(messages_left), bytes_max.min(bytes_left));
        let share = self.share(slot, spec);
        if share == 0 {
            // It is the others' turn.
            let ready = self.ready();
            self.slots.wake_in_turn(slot, ready, now_ms, &mut self.wakeups);
            self.slots.wait(slot);
            self.slots.request_check(now_ms + YIELD_MS_MAX);
            return Pull::default();
        }
        let limit = messages_max.min(share);
        let (mut count, mut bytes) = (0, 0);
        let mut dry = false;
        while count < limit && bytes < bytes_max {
            let Some(delivery) = self.next_for(slot, spec, &mut after.loads) else {
                dry = true;
                break;
            };
            count += 1;
            bytes += size(&delivery.record);
            self.rooms.iter_mut().for_each(|rooms| rooms.take(delivery.id.partition));
            if spec.auto_ack {
                after.acked.push(delivery.id);
            } else {
                self.track_unacked(slot, &delivery);
            }
            into.push(delivery);
        }
        self.slots.give(slot, count as u64);
        if self.reads_nothing_again() {
            self.sources.iter_mut().for_each(Source::close_again);
        }
        let satisfied = count == messages_max || bytes >= bytes_max;
        let pull = self.finish_pull(slot, dry, satisfied);
        if assigned_full && self.keys.assigned < ASSIGNED_MESSAGES_MAX || !dry {
            self.wake_waiting();
        }
        if pull.pending && spec.passive {
            self.passive_waiting.push(spec.clone());
        }
        pull
    }

    /// True unless a consumer with precedence is waiting: the active one, one of a higher priority, or, for a passive
    /// consumer, any other.
    fn may_take(&mut self, slot: SlotId, spec: &ConsumerSpec) -> bool {
        let now_ms = self.limits.now_ms;
        match self.mode {
            _ if spec.passive => !self.is_awaited(now_ms),
            Mode::Failover if is_seeded(Bug::AllActive) => true,
            Mode::Failover => self.active() == Some(slot) && !self.is_handing_over(),
            Mode::Shared => !self.slots.any_starved_above(spec.priority, now_ms),
            Mode::Exclusive | Mode::KeyShared => true,
        }
    }

    /// Takes whole batches from a queue in memory, up to about `bytes_max`: for the only consumer of a queue without
    /// limits, which acknowledges by pulling. Returns the number of messages.
    pub(super) fn pull_batches(
        &mut self,
        slot: SlotId,
        bytes_max: usize,
        into: &mut Vec<LiveBatch>,
    ) -> (u64, Pull) {
        if self.closed || !self.slots.contains(slot) {
            return (0, Pull { cancelled: true, ..Pull::default() });
        }
        self.slots.end_wait(slot, self.limits.now_ms);
        let (mut messages, mut bytes) = (0, 0);
        while bytes < bytes_max {
            let Some(Source::Memory(memory)) = self.sources.first_mut() else { break };
            let Some(batch) = memory.take_batch() else {
                return (messages, self.finish_pull(slot, true, false));
            };
            messages += batch.messages;
            bytes += batch.bytes.len();
            into.push(batch);
        }
        (messages, self.finish_pull(slot, false, true))
    }

    /// Decides whether a consumer pulls again by itself or waits to be woken.
    fn finish_pull(&mut self, slot: SlotId, dry: bool, satisfied: bool) -> Pull {
        if dry && (self.limits.is_round_full() || self.is_indexing()) {
            return Pull { more: true, ..Pull::default() };
        }
        if !dry {
            // It got its share and would take more: the rest is reserved for it. One that has no room left must not
            // hold up others that have.
            if !satisfied {
                self.slots.announce(slot, self.limits.now_ms);
            }
            return Pull { more: true, ..Pull::default() };
        }
        if self.leaves_messages() {
            // What waits is not for this pull: it must not hold up others, nor be woken for that.
            self.slots.let_pass(slot);
            self.wake_waiting();
            return Pull { left: true, ..Pull::default() };
        }
        self.slots.wait(slot);
        // A passive consumer has no slot to wait in: it is woken at the end of a commit or a load.
        let uncommitted = !self.slots.contains(slot) && self.submitted() > 0;
        Pull { pending: uncommitted || self.sources.iter().any(|s| s.is_loading()), ..Pull::default() }
    }

    /// A fair share of what waits, among consumers of the same priority; zero while others are to be given theirs first.
    fn share(&mut self, slot: SlotId, spec: &ConsumerSpec) -> usize {
        let peers = self.slots.peers(spec.priority);
        if peers <= 1 {
            return usize::MAX;
        }
        let ready = self.ready();
        if self.mode == Mode::Shared
            && !spec.passive
            && let Some(share) = self.slots.round_robin(slot, ready, self.limits.now_ms)
            && ready > 0
        {
            return usize::try_from(share).unwrap_or(usize::MAX);
        }
        (ready as usize).div_ceil(peers).max(1)
    }

    /// How many more messages and bytes a consumer can hold unacknowledged; none at the bound: then it is woken when
    /// it acknowledges or requeues something.
    fn room(&mut self, slot: SlotId, spec: &ConsumerSpec) -> Option<(usize, usize)> {
        let in_flight = self.in_flight_by_consumer.get(&slot);
        let (messages, bytes) =
            in_flight.map_or((0, 0), |in_flight| (in_flight.unacked.len(), in_flight.bytes));
        let is_short = bytes >= UNACKED_BYTES_SHORT && self.sources.iter().any(Source::is_short);
        let bytes_max = if is_short { bytes } else { UNACKED_BYTES_MAX };
        let full = !spec.auto_ack && (messages >= UNACKED_MESSAGES_MAX || bytes >= bytes_max);
        if let Some(s) = self.slots.get_mut(slot) {
            s.full = full;
        }
        match full {
            _ if spec.auto_ack => Some((usize::MAX, usize::MAX)),
            true => None,
            false => Some((UNACKED_MESSAGES_MAX - messages, bytes_max - bytes)),
        }
    }

    /// Records a delivery as unacknowledged.
    fn track_unacked(&mut self, slot: SlotId, delivery: &Delivery) {
        let Delivery { id, record, redelivered, .. } = delivery;
        let key = match &self.priorities {
            Some(priorities) => priorities.key_of(record),
            None if self.mode == Mode::KeyShared => key_of(record),
            None => 0,
        };
        if self.mode == Mode::KeyShared {
            self.keys.claim(key, slot);
        }
        let in_flight = self.in_flight_by_consumer.entry(slot).or_default();
        if let Some(source) = self.sources.get_mut(id.partition as usize) {
            in_flight.bytes += source.keep(delivery);
            source.deliver(id.offset, self.limits.now_ms);
        }
        let unacked = UnackedMessage { key, redelivered: *redelivered, value_bytes: value_bytes(record) };
        in_flight.unacked.insert(*id, unacked);
        self.unacked += 1;
    }
}
