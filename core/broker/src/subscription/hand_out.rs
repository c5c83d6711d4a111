//! Handing out: what a pull takes, from where, and to whom it belongs.

use inver_storage::batch::Record;

use super::consumer::{ConsumerSpec, Pull};
use super::keys::{self, AHEAD_MESSAGES_MAX, key_of};
use super::slots::{Own, PATIENCE_MS_MAX, SlotId};
use super::source::{LiveBatch, Offer, Source, Taken};
use super::state::{Held, Load, Returned, State};
use super::{Delivery, DeliveryId, Mode};
use crate::spec::DropReason;

/// Bytes asked of a stream at a time.
const READ_BYTES: usize = 256 * 1024;

/// Messages that one consumer can hold unacknowledged, whatever its protocol allows.
pub(super) const HELD_MESSAGES_MAX: usize = 1_000_000;

/// Bytes of keys, values and headers of messages in memory that one consumer can hold unacknowledged.
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
        if self.closed || !(spec.passive || self.slots.contains(slot)) {
            return Pull { cancelled: true, ..Pull::default() };
        }
        let now_ms = self.mortality.now_ms;
        if self.mode == Mode::Shared && messages_max > 0 && self.slots.comes_before_others(slot, now_ms) {
            self.slots.leave(slot, now_ms);
            self.slots.wait(slot);
            self.slots.look_by(now_ms + PATIENCE_MS_MAX);
            return Pull::default();
        }
        let was_hungry = self.slots.leave(slot, now_ms);
        if !self.may_take(slot, spec) {
            self.slots.wait(slot);
            self.wake_waiting();
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
        self.mortality.spares = was_hungry || self.is_awaited(now_ms);
        let was_ahead = self.keys.ahead >= AHEAD_MESSAGES_MAX;
        let (messages_max, bytes_max) = (messages_max.min(messages_left), bytes_max.min(bytes_left));
        let limit = messages_max.min(self.share(spec));
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
        if self.returned.is_empty() {
            self.sources.iter_mut().for_each(Source::close_again);
        }
        let satisfied = count == messages_max || bytes >= bytes_max;
        let pull = self.after_pull(slot, dry, satisfied);
        if was_ahead && self.keys.ahead < AHEAD_MESSAGES_MAX || !dry {
            self.wake_waiting();
        }
        if pull.pending && spec.passive {
            self.asking.push(spec.clone());
        }
        pull
    }

    /// Whether it is not for others to take: for the active one, for one of a higher priority, for any consumer
    /// that waits before one that only asks.
    fn may_take(&mut self, slot: SlotId, spec: &ConsumerSpec) -> bool {
        let now_ms = self.mortality.now_ms;
        match self.mode {
            _ if spec.passive => !self.is_awaited(now_ms),
            Mode::Failover => self.active() == Some(slot),
            Mode::Shared => !self.slots.hungry_above(spec.priority, now_ms),
            Mode::Exclusive | Mode::KeyShared => true,
        }
    }

    /// Takes whole batches out of a queue in memory, until they are about so many bytes. For the only consumer of a
    /// queue without limits, which acknowledges by pulling; messages, and what a pull says.
    pub(super) fn pull_batches(
        &mut self,
        slot: SlotId,
        bytes_max: usize,
        into: &mut Vec<LiveBatch>,
    ) -> (u64, Pull) {
        if self.closed || !self.slots.contains(slot) {
            return (0, Pull { cancelled: true, ..Pull::default() });
        }
        self.slots.leave(slot, self.mortality.now_ms);
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
        if !dry {
            // It had its share, and would take more: the rest is not for those that come after it. One that has no
            // room left must not stand in the way of others who have.
            if !satisfied {
                self.slots.count_on(slot, self.mortality.now_ms);
            }
            return Pull { more: true, ..Pull::default() };
        }
        self.slots.wait(slot);
        // One who only asks does not wait in line, and is told of what is on its way to the disk, or just came there.
        let on_its_way = !self.slots.contains(slot) && self.submitted() > 0;
        Pull { pending: on_its_way || self.sources.iter().any(|s| s.is_loading()), ..Pull::default() }
    }

    /// A fair share of what waits, among those of the same priority.
    fn share(&self, spec: &ConsumerSpec) -> usize {
        match self.slots.peers(spec.priority) {
            0 | 1 => usize::MAX,
            n => (self.ready() as usize).div_ceil(n).max(1),
        }
    }

    /// How much more a consumer can hold; none at the bound, and then it is woken when it let go of something.
    fn room(&mut self, slot: SlotId, spec: &ConsumerSpec) -> Option<(usize, usize)> {
        let holds = self.hands.get(&slot).map_or((0, 0), |hand| (hand.held.len(), hand.bytes));
        let full = !spec.auto_ack && (holds.0 >= HELD_MESSAGES_MAX || holds.1 >= HELD_BYTES_MAX);
        if let Some(s) = self.slots.get_mut(slot) {
            s.full = full;
        }
        match full {
            _ if spec.auto_ack => Some((usize::MAX, usize::MAX)),
            true => None,
            false => Some((HELD_MESSAGES_MAX - holds.0, HELD_BYTES_MAX - holds.1)),
        }
    }

    fn hold(&mut self, slot: SlotId, delivery: &Delivery) {
        let Delivery { id, record, redelivered, .. } = delivery;
        let key = if self.mode == Mode::KeyShared { key_of(record) } else { 0 };
        if self.mode == Mode::KeyShared {
            self.keys.claim(key, slot);
        }
        let hand = self.hands.entry(slot).or_default();
        if let Some(source) = self.sources.get_mut(id.partition as usize) {
            hand.bytes += source.keep(delivery);
        }
        let held = Held { key, redelivered: *redelivered, value_bytes: value_bytes(record) };
        hand.held.insert(*id, held);
        self.unacked += 1;
    }

    fn next_for(&mut self, slot: SlotId, spec: &ConsumerSpec, loads: &mut Vec<Load>) -> Option<Delivery> {
        if self.mode != Mode::KeyShared || spec.passive {
            return self.next_alive(READ_BYTES, loads);
        }
        loop {
            if let Some(own) = self.slots.get(slot)?.own.front().copied() {
                let mut gone = false;
                let taken = self.again(own.id, READ_BYTES, loads, &mut gone);
                if taken.is_none() && !gone {
                    return None;
                }
                self.slots.get_mut(slot)?.own.pop_front();
                self.keys.ahead -= 1;
                self.keys.release(own.key, slot);
                match taken {
                    Some((record, topic)) => {
                        return Some(Delivery { id: own.id, record, redelivered: own.redelivered, topic });
                    }
                    None => continue,
                }
            }
            if self.keys.ahead >= AHEAD_MESSAGES_MAX {
                return None;
            }
            let delivery = self.next_alive(READ_BYTES, loads)?;
            let owner = self.owner_of(key_of(&delivery.record));
            match owner.filter(|owner| *owner != slot) {
                Some(owner) => self.set_aside_for(owner, &delivery),
                None => return Some(delivery),
            }
        }
    }

    /// KeyShared: who has messages of this key, else whose turn its hash says.
    fn owner_of(&self, key: u64) -> Option<SlotId> {
        let present = self.keys.owner(key).filter(|slot| self.slots.contains(*slot));
        present.or_else(|| keys::elect(key, self.slots.ids()))
    }

    fn set_aside_for(&mut self, owner: SlotId, delivery: &Delivery) {
        let (id, key, redelivered) = (delivery.id, key_of(&delivery.record), delivery.redelivered);
        if let Some(source) = self.sources.get_mut(id.partition as usize) {
            source.keep(delivery);
        }
        let Some(slot) = self.slots.get_mut(owner) else { return };
        let value_bytes = value_bytes(&delivery.record);
        slot.own.push_back(Own { id, key, redelivered, value_bytes });
        self.keys.ahead += 1;
        self.keys.claim(key, owner);
        self.slots.call(owner, self.mortality.now_ms, &mut self.calls);
    }

    /// The next message that is alive; those before it that are not die.
    pub(super) fn next_alive(&mut self, read_bytes: usize, loads: &mut Vec<Load>) -> Option<Delivery> {
        while !self.mortality.is_busy() {
            let (delivery, doomed) = self.next_raw(read_bytes, loads)?;
            match doomed.or_else(|| self.mortality.reason(&delivery)) {
                None => return Some(delivery),
                Some(reason) => self.mortality.died(delivery.id, delivery.record, reason),
            }
        }
        None
    }

    /// The next message, whether or not it should be dead, and why it must be.
    pub(super) fn next_raw(
        &mut self,
        read_bytes: usize,
        loads: &mut Vec<Load>,
    ) -> Option<(Delivery, Option<DropReason>)> {
        let next = loop {
            let first = self.returned.first_key_value().map(|(id, returned)| (*id, *returned));
            if let Some(head) = self.head.take_if(|head| first.is_none_or(|(id, _)| head.id < id)) {
                break (*head, None);
            }
            let Some((id, Returned { redelivered, doomed, .. })) = first else {
                break (self.next_of_sources(read_bytes, loads)?, None);
            };
            let mut gone = false;
            let taken = self.again(id, read_bytes, loads, &mut gone);
            if taken.is_none() && !gone {
                return None;
            }
            let returned = self.returned.remove(&id);
            match taken {
                Some((record, topic)) => break (Delivery { id, record, redelivered, topic }, doomed),
                None => self.mortality.scale.take(returned.map_or(0, |r| r.value_bytes)),
            }
        };
        self.mortality.scale.take(value_bytes(&next.0.record));
        Some(next)
    }

    /// A message that was taken before. None: it is being loaded, unless `gone` says that it is no longer there.
    fn again(
        &mut self,
        id: DeliveryId,
        read_bytes: usize,
        loads: &mut Vec<Load>,
        gone: &mut bool,
    ) -> Option<(Record, Option<std::sync::Arc<str>>)> {
        let source = id.partition as usize;
        match self.sources.get_mut(source).map(|s| s.again(id.offset, read_bytes)) {
            Some(Offer::Taken(Taken { record, topic, .. })) => return Some((record, topic)),
            Some(Offer::Load(read)) => loads.push(Load { source, again: true, read }),
            Some(Offer::Empty) => {}
            Some(Offer::Gone) | None => *gone = true,
        }
        None
    }

    fn next_of_sources(&mut self, read_bytes: usize, loads: &mut Vec<Load>) -> Option<Delivery> {
        for _ in 0..self.sources.len() {
            let at = self.turn;
            match self.sources.get_mut(at)?.take(read_bytes) {
                Offer::Taken(Taken { offset, record, topic, redelivered }) => {
                    let id = DeliveryId { partition: at as u32, offset };
                    return Some(Delivery { id, record, redelivered, topic });
                }
                Offer::Load(read) => loads.push(Load { source: at, again: false, read }),
                Offer::Empty | Offer::Gone => {}
            }
            self.turn = (at + 1) % self.sources.len();
        }
        None
    }

    /// A message waits again, in its old place.
    pub(super) fn put_back(&mut self, id: DeliveryId, returned: Returned) {
        self.mortality.scale.put(returned.value_bytes);
        self.returned.insert(id, returned);
    }

    /// A message was only looked at.
    pub(super) fn put_head(&mut self, head: Delivery) {
        self.mortality.scale.put(value_bytes(&head.record));
        // One that came back stood before it: the one behind waits on without its record, weighed already.
        if let Some(behind) = self.head.replace(Box::new(head)) {
            if let Some(source) = self.sources.get_mut(behind.id.partition as usize) {
                source.keep(&behind);
            }
            let value_bytes = value_bytes(&behind.record);
            let returned = Returned { redelivered: behind.redelivered, value_bytes, doomed: None };
            self.returned.insert(behind.id, returned);
        }
    }
}

/// Bytes of a message as bounds count them.
pub(super) fn size(record: &Record) -> usize {
    let part = |b: &Option<bytes::Bytes>| b.as_ref().map_or(0, bytes::Bytes::len);
    part(&record.key) + part(&record.value) + record.headers.len()
}

pub(super) fn value_bytes(record: &Record) -> u32 {
    record.value.as_ref().map_or(0, |v| u32::try_from(v.len()).unwrap_or(u32::MAX))
}
