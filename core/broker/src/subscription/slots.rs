//! The consumers of a subscription: which are attached, which wait for messages, which were woken.
//!
//! Rules:
//! - A consumer is *starved* from a pull that found nothing until its next pull. Waking it does not end that.
//! - A woken consumer holds a *reservation* for [`RESERVATION_MS_MAX`]: the message it was woken for does not wake
//!   another consumer meanwhile. So does a consumer that said it will pull again.
//! - A consumer that pulls without having been woken *yields* to woken consumers of its priority, each for at most
//!   [`YIELD_MS_MAX`] from its wake-up, so that a fast consumer does not take what others were woken for.
//! - While a consumer of a higher priority is starved, none of a lower one is woken.
//! - Of a few consumers of one priority, those that want messages get them in turn, as if each message went to the next
//!   one of them ([`Slots::round_robin`]).
//! - When consumers are left waiting behind reservations, a check is requested for the time when these lapse. One
//!   check serves all wake-ups until then, because no other event may follow.
//!
//! Most subscriptions have one consumer or none, and there are very many of them: one consumer takes a single small
//! allocation; the indexes come with the second.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use inver_storage::batch::Record;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::DeliveryId;
use super::terms::ConsumerSpec;
use crate::mailbox::Mailbox;

/// Identifies a consumer within its subscription.
pub(super) type SlotId = u64;

/// How long a woken consumer's reservation holds, in milliseconds.
pub(super) const RESERVATION_MS_MAX: i64 = 1000;

/// How long a consumer that was not woken yields to one that was, in milliseconds.
pub(super) const YIELD_MS_MAX: i64 = 50;

/// How many reservations are examined to decide whether a consumer yields.
const RESERVATIONS_EXAMINED_MAX: usize = 16;

/// Consumers of one priority up to which messages are dealt out exactly in turn; of more, each takes an equal part of what
/// waits.
const IN_TURN_MAX: usize = 16;

/// Messages that a consumer may be behind others; what it was given less than that it does not catch up on.
const BEHIND_MAX: u64 = 16;

/// The order of waking: higher priorities first, then the longest wait.
type Turn = (Reverse<i32>, u64);

/// One attached consumer.
pub(super) struct Slot {
    pub(super) spec: ConsumerSpec,
    demand: Demand,
    /// KeyShared: messages assigned to this consumer alone.
    pub(super) assigned: VecDeque<Assigned>,
    /// It was refused more because it holds too many unacknowledged messages.
    pub(super) full: bool,
    /// Messages that it was given, and those that it let pass.
    given: u64,
    /// It had no room since it was given something.
    let_pass: bool,
}

/// KeyShared: a message that waits for one consumer, with its key.
pub(super) struct Assigned {
    pub(super) id: DeliveryId,
    pub(super) key: u64,
    pub(super) redelivered: u32,
    pub(super) value_bytes: u32,
    /// A copy of a small record, with its topic, where it would have to be searched in its batch.
    pub(super) copy: Option<Box<(Record, Option<Arc<str>>)>>,
}

/// What a consumer asked for last.
#[derive(Clone, Copy, PartialEq)]
enum Demand {
    /// It pulled and wants no more for now.
    None,
    /// It waits to be woken.
    Waiting(Turn),
    /// It was woken at this time (milliseconds since 1970).
    Woken(Turn, i64),
    /// It announced another pull at this time (milliseconds since 1970).
    Announced(Turn, i64),
}

/// Wake-ups to send once the lock is released, since a woken connection takes the lock at once.
pub(super) type Wakeups = SmallVec<[(Arc<Mailbox>, u64); 2]>;

/// All consumers of one subscription.
#[derive(Default)]
pub(super) struct Slots {
    one: Option<Box<(SlotId, Slot)>>,
    many: Option<Box<Many>>,
    turns: u64,
}

#[derive(Default)]
struct Many {
    slots: FxHashMap<SlotId, Slot>,
    by_priority: BTreeMap<Reverse<i32>, BTreeSet<SlotId>>,
    exclusive: usize,
    waiting: BTreeMap<Turn, SlotId>,
    /// Woken consumers, and those that announced a pull.
    reserved: BTreeMap<Turn, SlotId>,
    /// When the waiting consumers are checked next.
    check_ms: Option<i64>,
    /// An earlier time that was requested and is not scheduled yet.
    check_wanted_ms: Option<i64>,
}

impl Slot {
    pub(super) fn new(spec: ConsumerSpec) -> Slot {
        Slot { spec, demand: Demand::None, assigned: VecDeque::new(), full: false, given: 0, let_pass: true }
    }

    /// Whether it waits, or was woken a short while ago and has not pulled yet.
    fn is_next(&self, now_ms: i64) -> bool {
        match self.demand {
            Demand::None => false,
            Demand::Waiting(_) => true,
            Demand::Woken(_, since) | Demand::Announced(_, since) => now_ms < since + YIELD_MS_MAX,
        }
    }

    /// Adds a wake-up for its connection.
    pub(super) fn wake(&self, wakeups: &mut Wakeups) {
        wakeups.push((self.spec.mailbox.clone(), self.spec.token));
    }

    fn is_waiting(&self) -> bool {
        matches!(self.demand, Demand::Waiting(_))
    }

    fn is_starved(&self, now_ms: i64) -> bool {
        match self.demand {
            Demand::None => false,
            Demand::Waiting(_) => true,
            Demand::Woken(_, since) | Demand::Announced(_, since) => now_ms < since + RESERVATION_MS_MAX,
        }
    }
}

impl Many {
    fn set_demand(&mut self, id: SlotId, demand: Demand) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        match std::mem::replace(&mut slot.demand, demand) {
            Demand::None => {}
            Demand::Waiting(turn) => drop(self.waiting.remove(&turn)),
            Demand::Woken(turn, _) | Demand::Announced(turn, _) => drop(self.reserved.remove(&turn)),
        }
        match demand {
            Demand::None => {}
            Demand::Waiting(turn) => drop(self.waiting.insert(turn, id)),
            Demand::Woken(turn, _) | Demand::Announced(turn, _) => drop(self.reserved.insert(turn, id)),
        }
    }

    fn insert(&mut self, id: SlotId, slot: Slot) {
        self.exclusive += usize::from(slot.spec.exclusive);
        self.by_priority.entry(Reverse(slot.spec.priority)).or_default().insert(id);
        let demand = slot.demand;
        self.slots.insert(id, Slot { demand: Demand::None, ..slot });
        self.set_demand(id, demand);
    }

    fn remove(&mut self, id: SlotId) -> Option<Slot> {
        self.set_demand(id, Demand::None);
        let slot = self.slots.remove(&id)?;
        self.exclusive -= usize::from(slot.spec.exclusive);
        let priority = Reverse(slot.spec.priority);
        if let Some(peers) = self.by_priority.get_mut(&priority) {
            peers.remove(&id);
            if peers.is_empty() {
                self.by_priority.remove(&priority);
            }
        }
        Some(slot)
    }

    fn request_check(&mut self, at_ms: i64) {
        if self.check_wanted_ms.or(self.check_ms).is_none_or(|by| at_ms < by) {
            self.check_wanted_ms = Some(at_ms);
        }
    }

    /// Ends reservations that lapsed.
    fn drop_lapsed(&mut self, now_ms: i64) {
        while let Some((_, id)) = self.reserved.first_key_value().map(|(t, id)| (*t, *id)) {
            if self.slots.get(&id).is_some_and(|s| s.is_starved(now_ms)) {
                return;
            }
            self.set_demand(id, Demand::None);
        }
    }
}

// ---- the registry

impl Slots {
    pub(super) fn len(&self) -> usize {
        usize::from(self.one.is_some()) + self.many.as_ref().map_or(0, |m| m.slots.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn get(&self, id: SlotId) -> Option<&Slot> {
        match (&self.one, &self.many) {
            (Some(one), _) => (one.0 == id).then_some(&one.1),
            (None, many) => many.as_ref()?.slots.get(&id),
        }
    }

    pub(super) fn get_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        match (&mut self.one, &mut self.many) {
            (Some(one), _) => (one.0 == id).then_some(&mut one.1),
            (None, many) => many.as_mut()?.slots.get_mut(&id),
        }
    }

    pub(super) fn contains(&self, id: SlotId) -> bool {
        self.get(id).is_some()
    }

    pub(super) fn insert(&mut self, id: SlotId, slot: Slot) {
        if self.one.is_none() && self.many.is_none() {
            self.one = Some(Box::new((id, slot)));
            return;
        }
        let many = self.many.get_or_insert_default();
        if let Some(one) = self.one.take() {
            many.insert(one.0, one.1);
        }
        many.insert(id, slot);
    }

    pub(super) fn remove(&mut self, id: SlotId) -> Option<Slot> {
        if let Some(one) = self.one.take_if(|one| one.0 == id) {
            return Some(one.1);
        }
        let many = self.many.as_mut()?;
        let removed = many.remove(id);
        if many.slots.is_empty() {
            self.many = None;
        }
        removed
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = SlotId> {
        let many = self.many.iter().flat_map(|m| m.slots.keys().copied());
        self.one.iter().map(|one| one.0).chain(many)
    }

    /// Removes and returns all of them.
    pub(super) fn take_all(&mut self) -> Vec<Slot> {
        let one = self.one.take().map(|one| one.1);
        let many = self.many.take().map(|m| m.slots.into_values()).into_iter().flatten();
        one.into_iter().chain(many).collect()
    }

    /// Whether one of them asked for exclusive use.
    pub(super) fn any_exclusive(&self) -> bool {
        self.one.as_ref().is_some_and(|one| one.1.spec.exclusive)
            || self.many.as_ref().is_some_and(|m| m.exclusive > 0)
    }

    /// The longest attached among those of the highest priority.
    pub(super) fn first(&self) -> Option<SlotId> {
        match (&self.one, &self.many) {
            (Some(one), _) => Some(one.0),
            (None, many) => many.as_ref()?.by_priority.first_key_value()?.1.first().copied(),
        }
    }

    /// How many have this priority.
    pub(super) fn peers(&self, priority: i32) -> usize {
        match &self.many {
            Some(many) => many.by_priority.get(&Reverse(priority)).map_or(0, BTreeSet::len),
            None => self.len(),
        }
    }
}

// ---- dealing out

impl Slots {
    /// How many of the messages that wait a consumer may take now: as many as it would have got had each message gone to
    /// the next consumer of its priority that wants one. None: the consumers are too many for that, or none of the others
    /// wants any.
    pub(super) fn round_robin(&mut self, id: SlotId, ready: u64, now_ms: i64) -> Option<u64> {
        let many = self.many.as_mut()?;
        let slot = many.slots.get(&id)?;
        let peers = many.by_priority.get(&Reverse(slot.spec.priority))?;
        if peers.len() > IN_TURN_MAX {
            return None;
        }
        let others = peers.iter().filter(|other| **other != id).filter_map(|other| many.slots.get(other));
        let next: SmallVec<[u64; IN_TURN_MAX]> =
            others.filter(|other| other.is_next(now_ms)).map(|other| other.given).collect();
        let most = next.iter().max().copied().unwrap_or(slot.given);
        let own = if slot.let_pass { slot.given.max(most) } else { slot.given };
        let least = most.max(own).saturating_sub(BEHIND_MAX);
        let own = own.max(least);
        let total = next.iter().map(|given| (*given).max(least)).sum::<u64>() + own + ready;
        let level = total.div_ceil(next.len() as u64 + 1);
        if let Some(slot) = many.slots.get_mut(&id) {
            (slot.given, slot.let_pass) = (own, false);
        }
        (!next.is_empty()).then(|| level.saturating_sub(own))
    }

    /// Wakes those of a consumer's priority that wait and whose turn it is: who was given the least, as many as there are
    /// messages.
    pub(super) fn wake_in_turn(&mut self, id: SlotId, messages: u64, now_ms: i64, wakeups: &mut Wakeups) {
        let Some(many) = &self.many else { return };
        let Some(peers) = many.slots.get(&id).and_then(|s| many.by_priority.get(&Reverse(s.spec.priority)))
        else {
            return;
        };
        let next = |other: &SlotId| {
            let slot = many.slots.get(other).filter(|slot| *other != id && slot.is_next(now_ms))?;
            Some((slot.given, *other))
        };
        let mut next: SmallVec<[(u64, SlotId); IN_TURN_MAX]> = peers.iter().filter_map(next).collect();
        next.sort_unstable();
        for (_, other) in next.into_iter().take(usize::try_from(messages).unwrap_or(usize::MAX)) {
            self.wake(other, now_ms, wakeups);
        }
    }

    /// A consumer was given so many messages.
    pub(super) fn give(&mut self, id: SlotId, messages: u64) {
        if let Some(slot) = self.many.as_mut().and_then(|many| many.slots.get_mut(&id)) {
            slot.given += messages;
        }
    }

    /// A consumer has no room: what others are given meanwhile is not made up for.
    pub(super) fn let_pass(&mut self, id: SlotId) {
        if let Some(slot) = self.many.as_mut().and_then(|many| many.slots.get_mut(&id)) {
            slot.let_pass = true;
        }
    }
}

// ---- waiting and waking

impl Slots {
    /// Makes a consumer wait to be woken; one that waits already keeps its turn.
    pub(super) fn wait(&mut self, id: SlotId) {
        if self.get(id).is_none_or(Slot::is_waiting) {
            return;
        }
        self.turns += 1;
        let turns = self.turns;
        self.set_demand(id, |priority| Demand::Waiting((Reverse(priority), turns)));
    }

    /// Notes that a consumer will pull again without being woken; it holds a reservation.
    pub(super) fn announce(&mut self, id: SlotId, now_ms: i64) {
        self.turns += 1;
        let turns = self.turns;
        self.set_demand(id, |priority| Demand::Announced((Reverse(priority), turns), now_ms));
    }

    /// Whether a consumer that was not woken yields to one of its priority that was.
    pub(super) fn must_yield(&self, id: SlotId, now_ms: i64) -> bool {
        let Some(many) = &self.many else { return false };
        let Some(slot) = many.slots.get(&id) else { return false };
        if matches!(slot.demand, Demand::Woken(..)) {
            return false;
        }
        many.reserved.iter().take(RESERVATIONS_EXAMINED_MAX).any(|((priority, _), other)| {
            let demand = many.slots.get(other).map(|slot| slot.demand);
            let fresh = matches!(demand, Some(Demand::Woken(_, since)) if now_ms < since + YIELD_MS_MAX);
            fresh && priority.0 == slot.spec.priority && *other != id
        })
    }

    /// Requests a check of the waiting consumers at this time, unless one is due earlier.
    pub(super) fn request_check(&mut self, at_ms: i64) {
        self.many.iter_mut().for_each(|many| many.request_check(at_ms));
    }

    /// A check to be scheduled: the scheduled time that it replaces, and its own.
    pub(super) fn take_check_request(&mut self) -> Option<(Option<i64>, i64)> {
        let many = self.many.as_mut()?;
        let at_ms = many.check_wanted_ms.take()?;
        Some((many.check_ms.replace(at_ms), at_ms))
    }

    /// Whether the scheduled check is due; then it is no longer scheduled.
    pub(super) fn take_due_check(&mut self, now_ms: i64) -> bool {
        self.many.as_mut().is_some_and(|many| many.check_ms.take_if(|at_ms| *at_ms <= now_ms).is_some())
    }

    /// Ends a consumer's wait or reservation; whether it was starved.
    pub(super) fn end_wait(&mut self, id: SlotId, now_ms: i64) -> bool {
        let was_starved = self.is_starved(id, now_ms);
        self.set_demand(id, |_| Demand::None);
        was_starved
    }

    /// Wakes a consumer if it waits; whether it did.
    pub(super) fn wake(&mut self, id: SlotId, now_ms: i64, wakeups: &mut Wakeups) -> bool {
        let Some(Slot { demand: Demand::Waiting(turn), .. }) = self.get(id) else { return false };
        let turn = *turn;
        self.set_demand(id, |_| Demand::Woken(turn, now_ms));
        self.get(id).into_iter().for_each(|slot| slot.wake(wakeups));
        true
    }

    fn set_demand(&mut self, id: SlotId, demand: impl FnOnce(i32) -> Demand) {
        let Some(priority) = self.get(id).map(|s| s.spec.priority) else { return };
        match (&mut self.one, &mut self.many) {
            (Some(one), _) => one.1.demand = demand(priority),
            (None, Some(many)) => many.set_demand(id, demand(priority)),
            (None, None) => {}
        }
    }

    pub(super) fn any_waiting(&self) -> bool {
        match (&self.one, &self.many) {
            (Some(one), _) => one.1.is_waiting(),
            (None, many) => many.as_ref().is_some_and(|m| !m.waiting.is_empty()),
        }
    }

    /// Wakes waiting consumers in their turn, as many as there are messages beyond those reserved. While one of a
    /// higher priority is starved, no lower one is woken. For those left waiting a check is requested.
    pub(super) fn wake_for(&mut self, messages: u64, now_ms: i64, wakeups: &mut Wakeups) {
        if let Some(one) = &self.one {
            let id = one.0;
            if messages > 0 {
                self.wake(id, now_ms, wakeups);
            }
            return;
        }
        let Some(many) = &mut self.many else { return };
        many.drop_lapsed(now_ms);
        let mut left = messages.saturating_sub(many.reserved.len() as u64);
        let top = many.reserved.first_key_value().map(|(turn, _)| turn.0);
        let mut top = top.into_iter().chain(many.waiting.first_key_value().map(|(turn, _)| turn.0)).min();
        while let Some((turn, id)) = many.waiting.first_key_value().map(|(turn, id)| (*turn, *id)) {
            if left == 0 || *top.get_or_insert(turn.0) != turn.0 {
                return many.request_check(now_ms + RESERVATION_MS_MAX);
            }
            many.set_demand(id, Demand::Woken(turn, now_ms));
            many.slots.get(&id).into_iter().for_each(|slot| slot.wake(wakeups));
            left -= 1;
        }
    }

    /// Wakes as many waiting consumers as there are messages, whatever is reserved.
    pub(super) fn wake_beyond_reserved(&mut self, messages: u64, now_ms: i64, wakeups: &mut Wakeups) {
        let reserved = self.many.as_ref().map_or(0, |many| many.reserved.len() as u64);
        self.wake_for(messages.saturating_add(reserved), now_ms, wakeups);
    }

    /// Whether a consumer of a higher priority is starved.
    pub(super) fn any_starved_above(&mut self, priority: i32, now_ms: i64) -> bool {
        let Some(many) = &mut self.many else { return false };
        many.drop_lapsed(now_ms);
        let first = |of: &BTreeMap<Turn, SlotId>| of.first_key_value().map(|(turn, _)| turn.0.0);
        first(&many.waiting).max(first(&many.reserved)).is_some_and(|p| p > priority)
    }

    pub(super) fn is_starved(&self, id: SlotId, now_ms: i64) -> bool {
        self.get(id).is_some_and(|s| s.is_starved(now_ms))
    }

    pub(super) fn any_starved(&mut self, now_ms: i64) -> bool {
        match (&self.one, &mut self.many) {
            (Some(one), _) => one.1.is_starved(now_ms),
            (None, None) => false,
            (None, Some(many)) => {
                many.drop_lapsed(now_ms);
                !(many.waiting.is_empty() && many.reserved.is_empty())
            }
        }
    }
}
