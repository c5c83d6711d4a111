//! The next message: requeued ones first, then the peeked one, then what the sources hold, in this order of ids.
//!
//! Messages over a limit are dropped on the way. KeyShared assigns messages of other owners' keys to these.

use std::ops::RangeInclusive;
use std::sync::Arc;

use inver_storage::batch::Record;

use super::keys::{self, ASSIGNED_MESSAGES_MAX, key_of};
use super::sizes::value_bytes;
use super::slots::{Assigned, SlotId};
use super::source::{Offer, READ_BYTES, Taken};
use super::state::{Load, Requeued, State};
use super::terms::ConsumerSpec;
use super::{Delivery, DeliveryId, Mode};
use crate::seeded_bugs::{Bug, is_seeded};
use crate::spec::DropReason;

impl State {
    /// The next message for a consumer.
    pub(super) fn next_for(
        &mut self,
        slot: SlotId,
        spec: &ConsumerSpec,
        loads: &mut Vec<Load>,
    ) -> Option<Delivery> {
        if self.mode != Mode::KeyShared || spec.passive {
            return self.next_within_limits(READ_BYTES, loads);
        }
        loop {
            if let Some(first) = self.slots.get_mut(slot)?.assigned.front_mut() {
                let (id, copy) = (first.id, first.copy.take());
                let mut gone = false;
                let taken = match copy {
                    Some(copy) => Some(*copy),
                    None => self.read_again(id, READ_BYTES, loads, &mut gone),
                };
                if taken.is_none() && !gone {
                    return None;
                }
                let Assigned { key, redelivered, .. } = self.slots.get_mut(slot)?.assigned.pop_front()?;
                self.keys.assigned -= 1;
                self.keys.release(key, slot);
                match taken {
                    Some((record, topic)) => return Some(Delivery { id, record, redelivered, topic }),
                    None => continue,
                }
            }
            if self.keys.assigned >= ASSIGNED_MESSAGES_MAX {
                return None;
            }
            let delivery = self.next_within_limits(READ_BYTES, loads)?;
            let owner = self.owner_of(key_of(&delivery.record));
            match owner.filter(|owner| *owner != slot) {
                Some(owner) => self.assign(owner, &delivery),
                None => return Some(delivery),
            }
        }
    }

    /// KeyShared: the consumer that has messages of this key, else the one that its hash elects.
    fn owner_of(&self, key: u64) -> Option<SlotId> {
        if is_seeded(Bug::SplitKeys) {
            return None;
        }
        let present = self.keys.owner(key).filter(|slot| self.slots.contains(*slot));
        present.or_else(|| self.keys.elect(key))
    }

    /// KeyShared: keeps a message for its owner.
    fn assign(&mut self, owner: SlotId, delivery: &Delivery) {
        let (id, key, redelivered) = (delivery.id, key_of(&delivery.record), delivery.redelivered);
        let mut copy = None;
        if let Some(source) = self.sources.get_mut(id.partition as usize) {
            source.keep(delivery);
            if source.searches() {
                copy =
                    keys::copy_of(&delivery.record).map(|record| Box::new((record, delivery.topic.clone())));
            }
        }
        let Some(slot) = self.slots.get_mut(owner) else { return };
        let value_bytes = value_bytes(&delivery.record);
        slot.assigned.push_back(Assigned { id, key, redelivered, value_bytes, copy });
        self.keys.assigned += 1;
        self.keys.claim(key, owner);
        self.slots.wake(owner, self.limits.now_ms, &mut self.wakeups);
    }

    /// The next message that no limit drops; those before it are dropped.
    pub(super) fn next_within_limits(
        &mut self,
        read_bytes: usize,
        loads: &mut Vec<Load>,
    ) -> Option<Delivery> {
        while !self.limits.is_round_full() {
            if self.has_only_new() {
                // The common case, in few moves of the message.
                let delivery = self.next_of_sources(read_bytes, loads)?;
                self.limits.bytes.subtract(value_bytes(&delivery.record));
                let Some(reason) = self.over_limit(&delivery) else { return Some(delivery) };
                self.limits.drop_message(delivery.id, delivery.record, reason);
                continue;
            }
            let (delivery, reason) = self.next_unchecked(read_bytes, loads)?;
            match reason.or_else(|| self.over_limit(&delivery)) {
                None => return Some(delivery),
                Some(reason) => self.limits.drop_message(delivery.id, delivery.record, reason),
            }
        }
        None
    }

    /// Whether the next message is the sources': none waits that was taken before.
    fn has_only_new(&self) -> bool {
        self.requeued.is_empty() && self.peeked.is_none() && self.priorities.is_none()
    }

    #[inline]
    fn over_limit(&self, delivery: &Delivery) -> Option<DropReason> {
        self.limits.drop_reason(delivery).filter(|_| !self.is_undelivered_full())
    }

    /// The next message, and the reason to drop it if one was set before.
    pub(super) fn next_unchecked(
        &mut self,
        read_bytes: usize,
        loads: &mut Vec<Load>,
    ) -> Option<(Delivery, Option<DropReason>)> {
        if self.priorities.is_some() {
            return self.next_by_priority(read_bytes, loads);
        }
        let next = loop {
            if is_seeded(Bug::RequeuedLast)
                && let Some(newer) = self.next_of_sources(read_bytes, loads)
            {
                break (newer, None);
            }
            let first = self.first_requeued();
            let rooms = self.rooms.as_deref();
            let is_next = |peeked: &mut Box<Delivery>| {
                rooms.is_none_or(|rooms| rooms.has(peeked.id.partition))
                    && first.is_none_or(|(id, _)| peeked.id < id)
            };
            if let Some(peeked) = self.peeked.take_if(is_next) {
                break (*peeked, None);
            }
            let Some((id, Requeued { redelivered, drop_reason, .. })) = first else {
                break (self.next_of_sources(read_bytes, loads)?, None);
            };
            let mut gone = false;
            let taken = self.read_again(id, read_bytes, loads, &mut gone);
            if taken.is_none() && !gone {
                return None;
            }
            let requeued = self.requeued.remove(&id);
            match taken {
                Some((record, topic)) => break (Delivery { id, record, redelivered, topic }, drop_reason),
                None => self.limits.bytes.subtract(requeued.map_or(0, |r| r.value_bytes)),
            }
        };
        self.limits.bytes.subtract(value_bytes(&next.0.record));
        Some(next)
    }

    /// The record of a message that was taken before. None while it is being loaded, and when it no longer exists:
    /// then `gone` is set.
    pub(super) fn read_again(
        &mut self,
        id: DeliveryId,
        read_bytes: usize,
        loads: &mut Vec<Load>,
        gone: &mut bool,
    ) -> Option<(Record, Option<Arc<str>>)> {
        let source = id.partition as usize;
        match self.sources.get_mut(source).map(|s| s.again(id.offset, read_bytes)) {
            Some(Offer::Taken(Taken { record, topic, .. })) => return Some((record, topic)),
            Some(Offer::Load(read)) => loads.push(Load { source, again: true, read }),
            Some(Offer::Empty) => {}
            Some(Offer::Gone) | None => *gone = true,
        }
        None
    }

    #[inline]
    fn next_of_sources(&mut self, read_bytes: usize, loads: &mut Vec<Load>) -> Option<Delivery> {
        for _ in 0..self.sources.len() {
            let at = self.next_source;
            if self.rooms.as_ref().is_some_and(|rooms| !rooms.has(at as u32)) {
                self.next_source = (at + 1) % self.sources.len();
                continue;
            }
            match self.sources.get_mut(at)?.take(read_bytes) {
                Offer::Taken(Taken { offset, record, topic, redelivered }) => {
                    let id = DeliveryId { partition: at as u32, offset };
                    return Some(Delivery { id, record, redelivered, topic });
                }
                Offer::Load(read) => loads.push(Load { source: at, again: false, read }),
                Offer::Empty | Offer::Gone => {}
            }
            self.next_source = (at + 1) % self.sources.len();
        }
        None
    }

    /// Makes a message wait in its old place.
    pub(super) fn put_back(&mut self, id: DeliveryId, requeued: Requeued) {
        self.limits.bytes.add(requeued.value_bytes);
        match &mut self.priorities {
            Some(priorities) => priorities.put_back(id, requeued),
            None => drop(self.requeued.insert(id, requeued)),
        }
    }

    /// Keeps a message that was taken from its source and not delivered.
    pub(super) fn put_peeked(&mut self, delivery: Delivery) {
        if self.priorities.is_some() {
            return self.put_first(&delivery);
        }
        self.limits.bytes.add(value_bytes(&delivery.record));
        // A requeued message took the place of the one peeked before, which is requeued now. Its bytes are already
        // counted.
        if let Some(behind) = self.peeked.replace(Box::new(delivery)) {
            if let Some(source) = self.sources.get_mut(behind.id.partition as usize) {
                source.keep(&behind);
            }
            let value_bytes = value_bytes(&behind.record);
            let requeued =
                Requeued { redelivered: behind.redelivered, value_bytes, rank: 0, drop_reason: None };
            self.requeued.insert(behind.id, requeued);
        }
    }
}

impl State {
    /// The first requeued message that the pull under way may take.
    pub(super) fn first_requeued(&self) -> Option<(DeliveryId, Requeued)> {
        let Some(rooms) = &self.rooms else {
            return self.requeued.first_key_value().map(|(id, requeued)| (*id, *requeued));
        };
        let of_stream = |(stream, room): (u32, u32)| {
            let first = self.requeued.range(ids_of(stream)).next().filter(|_| room > 0);
            first.map(|(id, requeued)| (*id, *requeued))
        };
        rooms.iter().find_map(of_stream)
    }

    /// Whether messages wait that the pull under way has no room for.
    pub(super) fn leaves_messages(&self) -> bool {
        let Some(rooms) = &self.rooms else { return false };
        let waits = |stream: usize| {
            self.sources.get(stream).is_some_and(|source| source.ready() > 0)
                || self.requeued.range(ids_of(stream as u32)).next().is_some()
        };
        (0..self.sources.len()).any(|stream| !rooms.has(stream as u32) && waits(stream))
    }
}

/// The ids that messages of a stream have.
fn ids_of(partition: u32) -> RangeInclusive<DeliveryId> {
    DeliveryId { partition, offset: 0 }..=DeliveryId { partition, offset: u64::MAX }
}
