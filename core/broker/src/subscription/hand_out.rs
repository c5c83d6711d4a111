//! Handing out: what a pull takes, from where, and to whom it belongs.

use inver_storage::batch::Record;

use super::consumer::{ConsumerSpec, Pull};
use super::keys::{self, AHEAD_MESSAGES_MAX, key_of};
use super::source::{LiveBatch, Offer, Source, Taken};
use super::state::{Held, Load, SlotId, State};
use super::{Delivery, DeliveryId, Mode};

/// Bytes asked of a stream at a time.
const READ_BYTES: usize = 256 * 1024;

/// Messages that one consumer can hold unacknowledged, whatever its protocol allows.
pub(super) const HELD_MESSAGES_MAX: usize = 1_000_000;

/// Bytes of keys, values and headers that one consumer can hold unacknowledged.
const HELD_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What a pull leaves to be done beside the lock.
#[derive(Default)]
pub(super) struct Aside {
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
        aside: &mut Aside,
    ) -> Pull {
        if self.closed || !(spec.passive || self.slots.contains_key(&slot)) {
            return Pull { cancelled: true, ..Pull::default() };
        }
        self.wait_no_more(slot);
        if self.mode == Mode::Failover && !spec.passive && self.active() != Some(slot) {
            self.wait(slot);
            return Pull::default();
        }
        if messages_max == 0 || bytes_max == 0 {
            // It was woken and has no room: another takes its turn.
            self.wake_waiting();
            return Pull { more: true, ..Pull::default() };
        }
        let Some((messages_left, bytes_left)) = self.room(slot, spec) else {
            self.wake_waiting();
            return Pull::default();
        };
        let was_ahead = self.keys.ahead >= AHEAD_MESSAGES_MAX;
        let (messages_max, bytes_max) = (messages_max.min(messages_left), bytes_max.min(bytes_left));
        let limit = messages_max.min(self.share());
        let (mut count, mut bytes) = (0, 0);
        let mut dry = false;
        while count < limit && bytes < bytes_max {
            let Some(delivery) = self.next_for(slot, spec, &mut aside.loads) else {
                dry = true;
                break;
            };
            count += 1;
            bytes += size(&delivery.record);
            if spec.auto_ack {
                aside.acked.push(delivery.id);
            } else {
                self.hold(slot, &delivery);
            }
            into.push(delivery);
        }
        if was_ahead && self.keys.ahead < AHEAD_MESSAGES_MAX {
            self.wake_waiting();
        }
        let pull = self.after_pull(slot, dry, count == messages_max || bytes >= bytes_max);
        if pull.pending && spec.passive {
            self.asking.push(spec.clone());
        }
        pull
    }

    /// Takes whole batches out of a queue in memory, until they are about so many bytes. For the only consumer of a
    /// queue without limits, which acknowledges by pulling; messages, and what a pull says.
    pub(super) fn pull_batches(
        &mut self,
        slot: SlotId,
        bytes_max: usize,
        into: &mut Vec<LiveBatch>,
    ) -> (u64, Pull) {
        if self.closed || !self.slots.contains_key(&slot) {
            return (0, Pull { cancelled: true, ..Pull::default() });
        }
        self.wait_no_more(slot);
        let (mut messages, mut bytes) = (0, 0);
        while bytes < bytes_max {
            let Some(Source::Memory(memory)) = self.sources.first_mut() else { break };
            let Some(batch) = memory.take_batch() else {
                return (messages, self.after_pull(slot, true, false));
            };
            messages += batch.messages;
            bytes += batch.bytes.len();
            into.push(batch);
        }
        (messages, self.after_pull(slot, false, true))
    }

    /// What a consumer is told after its pull: whether to come again by itself, or to wait.
    fn after_pull(&mut self, slot: SlotId, dry: bool, satisfied: bool) -> Pull {
        if dry && self.mortality.is_busy() {
            return Pull { more: true, ..Pull::default() };
        }
        // One that has no room left must not stand in the way of others who have.
        if !dry && (self.ready() > 0 || (satisfied && self.slots.len() > 1)) {
            return Pull { more: true, ..Pull::default() };
        }
        self.wait(slot);
        Pull { pending: dry && self.sources.iter().any(|s| s.is_loading()), ..Pull::default() }
    }

    /// A fair share of what waits.
    fn share(&self) -> usize {
        match self.slots.len() {
            0 | 1 => usize::MAX,
            n => (self.ready() as usize).div_ceil(n).max(1),
        }
    }

    /// How much more a consumer can hold; none at the bound, and then it is woken when it let go of something.
    fn room(&mut self, slot: SlotId, spec: &ConsumerSpec) -> Option<(usize, usize)> {
        let Some(s) = self.slots.get_mut(&slot).filter(|_| !spec.auto_ack) else {
            return Some((usize::MAX, usize::MAX));
        };
        let (messages, bytes) = s.holds;
        s.full = messages >= HELD_MESSAGES_MAX || bytes >= HELD_BYTES_MAX;
        (!s.full).then(|| (HELD_MESSAGES_MAX - messages, HELD_BYTES_MAX - bytes))
    }

    fn hold(&mut self, slot: SlotId, delivery: &Delivery) {
        if self.mode == Mode::KeyShared {
            self.keys.claim(key_of(&delivery.record), slot);
        }
        if let Some(s) = self.slots.get_mut(&slot) {
            s.holds.0 += 1;
            s.holds.1 += size(&delivery.record);
        }
        self.held.insert(delivery.id, Held { slot, delivery: delivery.clone() });
    }

    fn next_for(&mut self, slot: SlotId, spec: &ConsumerSpec, loads: &mut Vec<Load>) -> Option<Delivery> {
        if self.mode != Mode::KeyShared || spec.passive {
            return self.next_alive(READ_BYTES, loads);
        }
        loop {
            if let Some(own) = self.slots.get_mut(&slot)?.own.pop_front() {
                self.keys.ahead -= 1;
                self.keys.release(key_of(&own.record), slot);
                return Some(own);
            }
            if self.keys.ahead >= AHEAD_MESSAGES_MAX {
                return None;
            }
            let delivery = self.next_alive(READ_BYTES, loads)?;
            let owner = self.owner_of(key_of(&delivery.record));
            match owner.filter(|owner| *owner != slot) {
                Some(owner) => self.set_aside_for(owner, delivery),
                None => return Some(delivery),
            }
        }
    }

    /// KeyShared: who has messages of this key, else whose turn its hash says.
    fn owner_of(&self, key: u64) -> Option<SlotId> {
        let present = self.keys.owner(key).filter(|slot| self.slots.contains_key(slot));
        present.or_else(|| keys::elect(key, self.slots.keys().copied()))
    }

    fn set_aside_for(&mut self, owner: SlotId, delivery: Delivery) {
        let Some(slot) = self.slots.get_mut(&owner) else { return self.put_back(delivery) };
        self.keys.ahead += 1;
        self.keys.claim(key_of(&delivery.record), owner);
        slot.own.push_back(delivery);
        if slot.turn.is_some() {
            self.post(owner);
        }
    }

    /// The next message that is alive; those before it that are not die.
    pub(super) fn next_alive(&mut self, read_bytes: usize, loads: &mut Vec<Load>) -> Option<Delivery> {
        while !self.mortality.is_busy() {
            let delivery = self.next_raw(read_bytes, loads)?;
            match self.mortality.reason(&delivery) {
                None => return Some(delivery),
                Some(reason) => self.mortality.died(delivery.id, delivery.record, reason),
            }
        }
        None
    }

    /// The next message, whether or not it should be dead.
    pub(super) fn next_raw(&mut self, read_bytes: usize, loads: &mut Vec<Load>) -> Option<Delivery> {
        let next = match self.returned.pop_first() {
            Some((_, delivery)) => Some(delivery),
            None => self.next_of_sources(read_bytes, loads),
        }?;
        self.mortality.scale.take(&next.record);
        Some(next)
    }

    fn next_of_sources(&mut self, read_bytes: usize, loads: &mut Vec<Load>) -> Option<Delivery> {
        for _ in 0..self.sources.len() {
            let at = self.turn;
            match self.sources.get_mut(at)?.take(read_bytes) {
                Offer::Taken(Taken { offset, record, topic, redelivered }) => {
                    let id = DeliveryId { partition: at as u32, offset };
                    return Some(Delivery { id, record, redelivered, topic });
                }
                Offer::Load(read) => loads.push(Load { source: at, read }),
                Offer::Empty => {}
            }
            self.turn = (at + 1) % self.sources.len();
        }
        None
    }

    /// A message waits again, in its old place.
    pub(super) fn put_back(&mut self, delivery: Delivery) {
        self.mortality.scale.put(&delivery.record);
        self.returned.insert(delivery.id, delivery);
    }
}

/// Bytes of a message as bounds count them.
pub(super) fn size(record: &Record) -> usize {
    let part = |b: &Option<bytes::Bytes>| b.as_ref().map_or(0, bytes::Bytes::len);
    part(&record.key) + part(&record.value) + record.headers.len()
}
