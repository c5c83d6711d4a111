//! The consumers of a subscription: who they are, who waits, who was called.
//!
//! A consumer is *hungry* from the pull that found nothing until its next pull; being woken, or *called*, does not
//! end that, so that what it was called for is not given to others meanwhile. One that was called and does not come
//! for [`CALL_MS_MAX`] is no longer counted on. Who comes by itself lets those go first that were called and did not
//! come yet, for [`PATIENCE_MS_MAX`]: so one that is quick does not take what others were called for. Where others are
//! left in line, it is looked at after such a time, once for all that was called meanwhile: no event may be to come.
//!
//! Most subscriptions have one consumer or none, and there are very many of them: one takes a single small
//! allocation; the indexes come with the second.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::DeliveryId;
use super::consumer::ConsumerSpec;
use crate::Mailbox;

/// A consumer's place in its subscription.
pub(super) type SlotId = u64;

/// How long a consumer that was woken is waited for, in milliseconds.
pub(super) const CALL_MS_MAX: i64 = 1000;

/// How long one that comes by itself waits for those that were called, in milliseconds.
pub(super) const PATIENCE_MS_MAX: i64 = 50;

/// How many of those that were called are looked at, to see whether one of them is to go first.
const CALLED_LOOKED_AT: usize = 16;

/// A turn: higher priorities first, then who waits the longest.
type Turn = (Reverse<i32>, u64);

pub(super) struct Slot {
    pub(super) spec: ConsumerSpec,
    place: Place,
    /// KeyShared: what waits for this consumer alone.
    pub(super) own: VecDeque<Own>,
    /// It was refused more because it holds too much.
    pub(super) full: bool,
}

/// A message that waits for one consumer: which, and its key.
#[derive(Clone, Copy)]
pub(super) struct Own {
    pub(super) id: DeliveryId,
    pub(super) key: u64,
    pub(super) redelivered: u32,
    pub(super) value_bytes: u32,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// It asks by itself, or wants nothing.
    Elsewhere,
    /// It waits to be woken.
    InLine(Turn),
    /// It was woken then, milliseconds since 1970.
    Called(Turn, i64),
    /// It comes by itself, it said then.
    Coming(Turn, i64),
}

/// Wake-ups, sent when the lock was given back: whoever is woken asks for it at once.
pub(super) type Calls = SmallVec<[(Arc<Mailbox>, u64); 2]>;

/// See the module's text.
#[derive(Default)]
pub(super) struct Slots {
    one: Option<Box<(SlotId, Slot)>>,
    many: Option<Box<Many>>,
    turns: u64,
}

#[derive(Default)]
struct Many {
    slots: FxHashMap<SlotId, Slot>,
    ranks: BTreeMap<Reverse<i32>, BTreeSet<SlotId>>,
    exclusive: usize,
    line: BTreeMap<Turn, SlotId>,
    called: BTreeMap<Turn, SlotId>,
    /// When the line is looked at, whether or not anybody comes.
    look_ms: Option<i64>,
    /// When it should be, if that is sooner.
    look_wanted_ms: Option<i64>,
}

impl Slot {
    pub(super) fn new(spec: ConsumerSpec) -> Slot {
        Slot { spec, place: Place::Elsewhere, own: VecDeque::new(), full: false }
    }

    /// Its connection is to be woken.
    pub(super) fn post(&self, calls: &mut Calls) {
        calls.push((self.spec.mailbox.clone(), self.spec.token));
    }

    fn is_in_line(&self) -> bool {
        matches!(self.place, Place::InLine(_))
    }

    fn is_hungry(&self, now_ms: i64) -> bool {
        match self.place {
            Place::Elsewhere => false,
            Place::InLine(_) => true,
            Place::Called(_, since) | Place::Coming(_, since) => now_ms < since + CALL_MS_MAX,
        }
    }
}

impl Many {
    fn place(&mut self, id: SlotId, place: Place) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        match std::mem::replace(&mut slot.place, place) {
            Place::Elsewhere => {}
            Place::InLine(turn) => drop(self.line.remove(&turn)),
            Place::Called(turn, _) | Place::Coming(turn, _) => drop(self.called.remove(&turn)),
        }
        match place {
            Place::Elsewhere => {}
            Place::InLine(turn) => drop(self.line.insert(turn, id)),
            Place::Called(turn, _) | Place::Coming(turn, _) => drop(self.called.insert(turn, id)),
        }
    }

    fn insert(&mut self, id: SlotId, slot: Slot) {
        self.exclusive += usize::from(slot.spec.exclusive);
        self.ranks.entry(Reverse(slot.spec.priority)).or_default().insert(id);
        let place = slot.place;
        self.slots.insert(id, Slot { place: Place::Elsewhere, ..slot });
        self.place(id, place);
    }

    fn remove(&mut self, id: SlotId) -> Option<Slot> {
        self.place(id, Place::Elsewhere);
        let slot = self.slots.remove(&id)?;
        self.exclusive -= usize::from(slot.spec.exclusive);
        let rank = Reverse(slot.spec.priority);
        if let Some(of_rank) = self.ranks.get_mut(&rank) {
            of_rank.remove(&id);
            if of_rank.is_empty() {
                self.ranks.remove(&rank);
            }
        }
        Some(slot)
    }

    fn look_by(&mut self, at_ms: i64) {
        if self.look_wanted_ms.or(self.look_ms).is_none_or(|by| at_ms < by) {
            self.look_wanted_ms = Some(at_ms);
        }
    }

    /// Forgets calls that nobody came for.
    fn drop_calls(&mut self, now_ms: i64) {
        while let Some((_, id)) = self.called.first_key_value().map(|(t, id)| (*t, *id)) {
            if self.slots.get(&id).is_some_and(|s| s.is_hungry(now_ms)) {
                return;
            }
            self.place(id, Place::Elsewhere);
        }
    }
}

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
        let gone = many.remove(id);
        if many.slots.is_empty() {
            self.many = None;
        }
        gone
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = SlotId> {
        let many = self.many.iter().flat_map(|m| m.slots.keys().copied());
        self.one.iter().map(|one| one.0).chain(many)
    }

    /// Takes all of them out.
    pub(super) fn take_all(&mut self) -> Vec<Slot> {
        let one = self.one.take().map(|one| one.1);
        let many = self.many.take().map(|m| m.slots.into_values()).into_iter().flatten();
        one.into_iter().chain(many).collect()
    }

    /// Whether one of them asked to be alone.
    pub(super) fn any_exclusive(&self) -> bool {
        self.one.as_ref().is_some_and(|one| one.1.spec.exclusive)
            || self.many.as_ref().is_some_and(|m| m.exclusive > 0)
    }

    /// The one of the highest priority that came first.
    pub(super) fn first(&self) -> Option<SlotId> {
        match (&self.one, &self.many) {
            (Some(one), _) => Some(one.0),
            (None, many) => many.as_ref()?.ranks.first_key_value()?.1.first().copied(),
        }
    }

    /// How many have this priority.
    pub(super) fn peers(&self, priority: i32) -> usize {
        match &self.many {
            Some(many) => many.ranks.get(&Reverse(priority)).map_or(0, BTreeSet::len),
            None => self.len(),
        }
    }

    /// It waits to be woken; not at the end again if it does already.
    pub(super) fn wait(&mut self, id: SlotId) {
        if self.get(id).is_none_or(Slot::is_in_line) {
            return;
        }
        self.turns += 1;
        let turns = self.turns;
        self.place(id, |priority| Place::InLine((Reverse(priority), turns)));
    }

    /// It will come by itself, and is to be counted on.
    pub(super) fn count_on(&mut self, id: SlotId, now_ms: i64) {
        self.turns += 1;
        let turns = self.turns;
        self.place(id, |priority| Place::Coming((Reverse(priority), turns), now_ms));
    }

    /// Whether it comes by itself while others of its priority were called of late and did not come yet.
    pub(super) fn comes_before_others(&self, id: SlotId, now_ms: i64) -> bool {
        let Some(many) = &self.many else { return false };
        let Some(slot) = many.slots.get(&id) else { return false };
        if matches!(slot.place, Place::Called(..)) {
            return false;
        }
        many.called.iter().take(CALLED_LOOKED_AT).any(|((priority, _), other)| {
            let place = many.slots.get(other).map(|slot| slot.place);
            let fresh = matches!(place, Some(Place::Called(_, since)) if now_ms < since + PATIENCE_MS_MAX);
            fresh && priority.0 == slot.spec.priority && *other != id
        })
    }

    /// The line is to be looked at then, if not before.
    pub(super) fn look_by(&mut self, at_ms: i64) {
        self.many.iter_mut().for_each(|many| many.look_by(at_ms));
    }

    /// A time for a look that is yet to be set, and the one that it takes the place of.
    pub(super) fn set_look(&mut self) -> Option<(Option<i64>, i64)> {
        let many = self.many.as_mut()?;
        let at_ms = many.look_wanted_ms.take()?;
        Some((many.look_ms.replace(at_ms), at_ms))
    }

    /// Whether the line is to be looked at now; then no time is set any more.
    pub(super) fn take_look(&mut self, now_ms: i64) -> bool {
        self.many.as_mut().is_some_and(|many| many.look_ms.take_if(|at_ms| *at_ms <= now_ms).is_some())
    }

    /// Wakes as many of those in line as there are messages, whoever else was called for them.
    pub(super) fn call_regardless(&mut self, messages: u64, now_ms: i64, calls: &mut Calls) {
        let called = self.many.as_ref().map_or(0, |many| many.called.len() as u64);
        self.call_for(messages.saturating_add(called), now_ms, calls);
    }

    /// It came, or wants nothing. Whether it was hungry.
    pub(super) fn leave(&mut self, id: SlotId, now_ms: i64) -> bool {
        let was_hungry = self.get(id).is_some_and(|s| s.is_hungry(now_ms));
        self.place(id, |_| Place::Elsewhere);
        was_hungry
    }

    /// Wakes it if it waits. Whether it did.
    pub(super) fn call(&mut self, id: SlotId, now_ms: i64, calls: &mut Calls) -> bool {
        let Some(Slot { place: Place::InLine(turn), .. }) = self.get(id) else { return false };
        let turn = *turn;
        self.place(id, |_| Place::Called(turn, now_ms));
        self.get(id).into_iter().for_each(|slot| slot.post(calls));
        true
    }

    fn place(&mut self, id: SlotId, place: impl FnOnce(i32) -> Place) {
        let Some(priority) = self.get(id).map(|s| s.spec.priority) else { return };
        match (&mut self.one, &mut self.many) {
            (Some(one), _) => one.1.place = place(priority),
            (None, Some(many)) => many.place(id, place(priority)),
            (None, None) => {}
        }
    }

    pub(super) fn nobody_waits(&self) -> bool {
        match (&self.one, &self.many) {
            (Some(one), _) => !one.1.is_in_line(),
            (None, many) => many.as_ref().is_none_or(|m| m.line.is_empty()),
        }
    }

    /// Wakes those whose turn it is, as many as there are messages less those that were woken for them already.
    /// While one of a higher priority is hungry, no lower one is woken. Whoever is left behind in line is not forgotten
    /// when those who were woken do not come.
    pub(super) fn call_for(&mut self, messages: u64, now_ms: i64, calls: &mut Calls) {
        if let Some(one) = &self.one {
            let id = one.0;
            if messages > 0 {
                self.call(id, now_ms, calls);
            }
            return;
        }
        let Some(many) = &mut self.many else { return };
        many.drop_calls(now_ms);
        let mut left = messages.saturating_sub(many.called.len() as u64);
        let top = many.called.first_key_value().map(|(turn, _)| turn.0);
        let mut top = top.into_iter().chain(many.line.first_key_value().map(|(turn, _)| turn.0)).min();
        while let Some((turn, id)) = many.line.first_key_value().map(|(turn, id)| (*turn, *id)) {
            if left == 0 || *top.get_or_insert(turn.0) != turn.0 {
                return many.look_by(now_ms + CALL_MS_MAX);
            }
            many.place(id, Place::Called(turn, now_ms));
            many.slots.get(&id).into_iter().for_each(|slot| slot.post(calls));
            left -= 1;
        }
    }

    /// Whether one of a higher priority is hungry.
    pub(super) fn hungry_above(&mut self, priority: i32, now_ms: i64) -> bool {
        let Some(many) = &mut self.many else { return false };
        many.drop_calls(now_ms);
        let first = |of: &BTreeMap<Turn, SlotId>| of.first_key_value().map(|(turn, _)| turn.0.0);
        first(&many.line).max(first(&many.called)).is_some_and(|p| p > priority)
    }

    pub(super) fn is_hungry(&self, id: SlotId, now_ms: i64) -> bool {
        self.get(id).is_some_and(|s| s.is_hungry(now_ms))
    }

    /// Whether anybody is hungry.
    pub(super) fn any_hungry(&mut self, now_ms: i64) -> bool {
        match (&self.one, &mut self.many) {
            (Some(one), _) => one.1.is_hungry(now_ms),
            (None, None) => false,
            (None, Some(many)) => {
                many.drop_calls(now_ms);
                !(many.line.is_empty() && many.called.is_empty())
            }
        }
    }
}
