//! What a subscription knows under its lock: its sources, who waits, who holds what, what came back.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use inver_storage::batch::{Batch, Record};
use inver_storage::{Cursor, CursorId, Entry, Offset, Stream};
use rustc_hash::FxHashMap;

use crate::catalog;

use super::consumer::{AttachError, ConsumerSpec, Pull};
use super::mortality::Mortality;
use super::source::{MemoryBounds, MemorySource, Offer, StreamSource, Taken};
use super::{AckBatch, Delivery, DeliveryId, Depth, Mode, Subscription};

/// KeyShared: messages taken out of their order for consumers that did not ask yet.
const KEY_AHEAD_MESSAGES_MAX: usize = 1024;

/// Consumed messages of a spilled queue are trimmed from the log this many at a time.
const SPILL_TRIM_MESSAGES: u64 = 4096;

/// A consumer's place in its subscription.
pub(super) type SlotId = u64;

pub(super) struct State {
    mode: Mode,
    sources: Vec<Source>,
    /// Which source is asked next.
    turn: usize,
    returned: BTreeMap<DeliveryId, Delivery>,
    held: FxHashMap<DeliveryId, Held>,
    slots: BTreeMap<SlotId, Slot>,
    next_slot: SlotId,
    waiting: VecDeque<SlotId>,
    /// KeyShared: messages taken for a consumer that did not ask yet.
    ahead: usize,
    /// KeyShared: who holds unacknowledged messages of a key, and how many.
    keys: FxHashMap<u64, (SlotId, usize)>,
    closed: bool,
    pub(super) mortality: Mortality,
}

pub(super) enum Source {
    Stream(StreamSource),
    Memory(MemorySource),
}

struct Held {
    slot: SlotId,
    delivery: Delivery,
}

struct Slot {
    spec: ConsumerSpec,
    waiting: bool,
    /// KeyShared: what waits for this consumer alone.
    own: VecDeque<Delivery>,
}

/// What a pull leaves to be done beside the lock.
#[derive(Default)]
pub(super) struct Aside {
    /// Messages that were acknowledged by being pulled.
    pub(super) acked: Vec<DeliveryId>,
    pub(super) loads: Vec<Load>,
}

/// A cold read that must be run beside the lock: which source, and the read.
pub(super) struct Load {
    pub(super) source: usize,
    pub(super) read: inver_storage::ColdRead,
}

impl State {
    pub(super) fn new(mode: Mode) -> State {
        State {
            mode,
            sources: Vec::new(),
            turn: 0,
            returned: BTreeMap::new(),
            held: FxHashMap::default(),
            slots: BTreeMap::new(),
            next_slot: 0,
            waiting: VecDeque::new(),
            ahead: 0,
            keys: FxHashMap::default(),
            closed: false,
            mortality: Mortality::default(),
        }
    }

    pub(super) fn add_stream(
        &mut self,
        of: &Arc<Subscription>,
        stream: Stream,
        cursor: Option<Cursor>,
        from: Offset,
    ) {
        let token = self.sources.len() as u64;
        let listener: std::sync::Weak<Subscription> = Arc::downgrade(of);
        let listening = stream.listen(Arc::new(WeakListener(listener)), token);
        let mut source = StreamSource::new(stream, cursor, from, &of.surroundings);
        source.listen(listening);
        self.sources.push(Source::Stream(source));
    }

    pub(super) fn add_memory(&mut self, bounds: MemoryBounds) {
        self.sources.push(Source::Memory(MemorySource::new(bounds)));
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn ask_mode(&mut self, mode: Mode) -> Result<(), Mode> {
        if self.mode != mode {
            if !self.slots.is_empty() {
                return Err(self.mode);
            }
            self.mode = mode;
        }
        Ok(())
    }

    pub(super) fn depth(&self) -> Depth {
        Depth { ready: self.ready(), unacked: self.held.len() as u64, consumers: self.slots.len() }
    }

    pub(super) fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Messages taken from their source that wait all the same.
    pub(super) fn set_aside(&self) -> u64 {
        self.returned.len() as u64 + self.ahead as u64
    }

    /// A message that was taken only to be looked at.
    pub(super) fn put_back(&mut self, delivery: Delivery) {
        self.returned.insert(delivery.id, delivery);
    }

    pub(super) fn ready(&self) -> u64 {
        let sources: u64 = self
            .sources
            .iter()
            .map(|s| match s {
                Source::Stream(s) => s.ready(),
                Source::Memory(m) => m.ready(),
            })
            .sum();
        sources + self.set_aside()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.sources
            .iter()
            .map(|s| match s {
                Source::Memory(m) => m.dropped,
                Source::Stream(_) => 0,
            })
            .sum()
    }

    pub(super) fn positions(&self) -> Vec<(Stream, Offset)> {
        self.sources
            .iter()
            .filter_map(|s| match s {
                Source::Stream(s) => s.cursor.as_ref().map(|c| (s.stream.clone(), c.position())),
                Source::Memory(_) => None,
            })
            .collect()
    }

    // ---- consumers come and go

    pub(super) fn attach(&mut self, spec: ConsumerSpec) -> Result<SlotId, AttachError> {
        if self.closed {
            return Err(AttachError::Closed);
        }
        let alone = self.slots.is_empty();
        if self.slots.values().any(|s| s.spec.exclusive) {
            return Err(AttachError::HeldExclusively);
        }
        if spec.passive {
            self.next_slot += 1;
            return Ok(self.next_slot - 1);
        }
        if !alone && (spec.exclusive || self.mode == Mode::Exclusive) {
            return Err(AttachError::InUse);
        }
        let id = self.next_slot;
        self.next_slot += 1;
        self.slots.insert(id, Slot { spec, waiting: false, own: VecDeque::new() });
        Ok(id)
    }

    /// A consumer takes no more; what it holds stays its own. True if it was the last one.
    pub(super) fn stop(&mut self, slot: SlotId) -> bool {
        let Some(gone) = self.slots.remove(&slot) else { return false };
        self.ahead -= gone.own.len();
        for d in gone.own {
            self.returned.insert(d.id, d);
        }
        self.waiting.retain(|w| *w != slot);
        if self.mode == Mode::Failover {
            // Whoever is active now may not be on the waiting list.
            if let Some(active) = self.active() {
                self.post(active);
            }
        }
        self.wake_waiting();
        self.slots.is_empty()
    }

    /// What a consumer holds comes back.
    pub(super) fn return_all(&mut self, slot: SlotId) {
        let held: Vec<DeliveryId> =
            self.held.iter().filter(|(_, h)| h.slot == slot).map(|(id, _)| *id).collect();
        for id in held {
            if let Some(h) = self.held.remove(&id) {
                self.key_released(&h.delivery.record, slot);
                self.returned.insert(id, again(h.delivery));
            }
        }
        self.wake_waiting();
    }

    /// Returns the stream of the spilled part, which is to be deleted.
    pub(super) fn close(&mut self) -> Option<Stream> {
        self.closed = true;
        let spilled = match self.sources.as_slice() {
            [Source::Memory(_), Source::Stream(s)] => Some(s.stream.clone()),
            _ => None,
        };
        for slot in self.slots.values() {
            slot.spec.mailbox.post(slot.spec.token);
        }
        self.sources.clear();
        self.returned.clear();
        self.held.clear();
        spilled
    }

    pub(super) fn cursors(&self) -> Vec<CursorId> {
        let cursor = |s: &Source| match s {
            Source::Stream(s) => s.cursor.as_ref().map(Cursor::id),
            Source::Memory(_) => None,
        };
        self.sources.iter().filter_map(cursor).collect()
    }

    /// Failover: the one of the highest priority that came first.
    fn active(&self) -> Option<SlotId> {
        let mut best: Option<(SlotId, i32)> = None;
        for (id, slot) in &self.slots {
            if best.is_none_or(|(_, p)| slot.spec.priority > p) {
                best = Some((*id, slot.spec.priority));
            }
        }
        best.map(|(id, _)| id)
    }

    // ---- waking

    fn post(&mut self, slot: SlotId) {
        if let Some(s) = self.slots.get_mut(&slot) {
            s.waiting = false;
            s.spec.mailbox.post(s.spec.token);
        }
    }

    /// Wakes as many waiting consumers as there are messages, in their turn.
    pub(super) fn wake_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let mut ready = self.ready();
        let mut passed_over = VecDeque::new();
        while ready > 0 {
            let Some(slot) = self.next_waiting() else { break };
            if self.mode == Mode::Failover && self.active() != Some(slot) {
                passed_over.push_back(slot);
                continue;
            }
            self.post(slot);
            ready -= 1;
        }
        self.waiting.append(&mut passed_over);
    }

    /// The waiting consumer of the highest priority, the longest waiting first.
    fn next_waiting(&mut self) -> Option<SlotId> {
        let best = self
            .waiting
            .iter()
            .enumerate()
            .max_by_key(|(i, slot)| {
                (self.slots.get(slot).map_or(i32::MIN, |s| s.spec.priority), std::cmp::Reverse(*i))
            })
            .map(|(i, _)| i)?;
        self.waiting.remove(best)
    }

    fn wait(&mut self, slot: SlotId) {
        if let Some(s) = self.slots.get_mut(&slot)
            && !s.waiting
        {
            s.waiting = true;
            self.waiting.push_back(slot);
        }
    }

    // ---- messages in and out

    pub(super) fn push(&mut self, of: &Arc<Subscription>, batch: &Batch, topic: Option<&Arc<str>>) {
        if self.closed {
            return;
        }
        let messages = u64::from(batch.record_count());
        let spill = match self.sources.as_mut_slice() {
            [Source::Memory(memory)] => memory.spills() && memory.is_full_for(batch.bytes(), messages),
            // Until the log's part is consumed, everything goes behind it.
            [Source::Memory(memory), Source::Stream(spilled)] => {
                !spilled.is_drained() || memory.is_full_for(batch.bytes(), messages)
            }
            _ => false,
        };
        if spill {
            self.spill(of, batch);
        } else if let Some(Source::Memory(memory)) = self.sources.first_mut()
            && !memory.push(batch.bytes(), messages, topic)
        {
            of.surroundings.counters.dropped.increment(messages);
        }
        self.wake_waiting();
    }

    /// Puts a batch into the queue's stream in the log, which is made with the first and swept at a restart.
    fn spill(&mut self, of: &Arc<Subscription>, batch: &Batch) {
        if self.sources.len() == 1 {
            let id = of.surroundings.log.allocate_stream();
            let mut entry = Entry::new();
            entry.create_stream(id);
            entry.put(catalog::SPILLS, Bytes::copy_from_slice(&id.0.to_be_bytes()), Bytes::new());
            match of.surroundings.log.submit(entry).ok().and_then(|_| of.surroundings.log.stream(id)) {
                Some(stream) => self.add_stream(of, stream, None, Offset(0)),
                None => return,
            }
        }
        let Some(Source::Stream(spilled)) = self.sources.get_mut(1) else { return };
        spilled.is_spill = true;
        let mut entry = Entry::new();
        entry.batch(std::slice::from_ref(&spilled.stream), batch.clone());
        of.surroundings.counters.spilled.increment(u64::from(batch.record_count()));
        if let Err(error) = of.surroundings.log.submit(entry) {
            tracing::error!(queue = %of.name, %error, "messages lost: memory is full and the log refuses");
        }
    }

    /// What of the spilled part was consumed and can be trimmed.
    pub(super) fn spill_consumed(&mut self) -> Option<(Stream, Offset)> {
        match self.sources.as_slice() {
            [Source::Memory(_), Source::Stream(s)]
                if s.position() >= s.stream.start().0 + SPILL_TRIM_MESSAGES =>
            {
                Some((s.stream.clone(), Offset(s.position())))
            }
            _ => None,
        }
    }

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
        if self.mode == Mode::Failover && !spec.passive && self.active() != Some(slot) {
            self.wait(slot);
            return Pull::default();
        }
        let share = match self.slots.len() {
            0 | 1 => usize::MAX,
            n => (self.ready() as usize).div_ceil(n).max(1),
        };
        let limit = messages_max.min(share);
        let (mut count, mut bytes) = (0, 0);
        while count < limit && bytes < bytes_max {
            let Some(delivery) = self.next_for(slot, &mut aside.loads) else {
                self.wait(slot);
                return Pull { pending: self.is_loading(), ..Pull::default() };
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
        if self.ready() > 0 {
            return Pull { more: true, ..Pull::default() };
        }
        self.wait(slot);
        Pull::default()
    }

    fn is_loading(&self) -> bool {
        self.sources.iter().any(|s| matches!(s, Source::Stream(s) if s.loading))
    }

    fn hold(&mut self, slot: SlotId, delivery: &Delivery) {
        if self.mode == Mode::KeyShared {
            let entry = self.keys.entry(key_hash(&delivery.record)).or_insert((slot, 0));
            entry.1 += 1;
        }
        let held = Held { slot, delivery: delivery.clone() };
        self.held.insert(delivery.id, held);
    }

    fn next_for(&mut self, slot: SlotId, loads: &mut Vec<Load>) -> Option<Delivery> {
        if self.mode != Mode::KeyShared {
            return self.next_any(loads);
        }
        loop {
            let me = self.slots.get_mut(&slot)?;
            if let Some(own) = me.own.pop_front() {
                self.ahead -= 1;
                return Some(own);
            }
            if self.ahead >= KEY_AHEAD_MESSAGES_MAX {
                return None;
            }
            let delivery = self.next_any(loads)?;
            let owner = self.owner_of(key_hash(&delivery.record));
            if owner == slot {
                return Some(delivery);
            }
            let Some(other) = self.slots.get_mut(&owner) else { return Some(delivery) };
            other.own.push_back(delivery);
            let wake = other.waiting;
            self.ahead += 1;
            if wake {
                self.waiting.retain(|w| *w != owner);
                self.post(owner);
            }
        }
    }

    /// The next message, whether or not it should be dead.
    pub(super) fn next_raw(&mut self, loads: &mut Vec<Load>) -> Option<Delivery> {
        if let Some((_, delivery)) = self.returned.pop_first() {
            return Some(delivery);
        }
        for _ in 0..self.sources.len() {
            let at = self.turn;
            let offer = match self.sources.get_mut(at)? {
                Source::Stream(s) => s.take(),
                Source::Memory(m) => m.take().map_or(Offer::Empty, Offer::Taken),
            };
            match offer {
                Offer::Taken(Taken { offset, record, topic }) => {
                    let redelivered = match &self.sources[at] {
                        Source::Stream(s) => {
                            s.cursor.as_ref().map_or(0, |c| c.delivery_count(Offset(offset)))
                        }
                        Source::Memory(_) => 0,
                    };
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

    pub(super) fn loaded(&mut self, source: usize, batches: Vec<inver_storage::StoredBatch>) {
        if let Some(Source::Stream(s)) = self.sources.get_mut(source) {
            s.loaded(batches);
        }
        self.wake_waiting();
    }

    /// KeyShared: who holds messages of this key, else whose turn its hash says.
    fn owner_of(&self, key: u64) -> SlotId {
        if let Some((slot, _)) = self.keys.get(&key)
            && self.slots.contains_key(slot)
        {
            return *slot;
        }
        // Rendezvous hashing: a consumer that comes or goes moves only its own keys.
        let weight = |slot: &SlotId| {
            (key ^ slot.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93)
        };
        self.slots.keys().copied().max_by_key(|slot| weight(slot).rotate_left(32)).unwrap_or_default()
    }

    fn key_released(&mut self, record: &Record, slot: SlotId) {
        if self.mode != Mode::KeyShared {
            return;
        }
        let key = key_hash(record);
        if let Some(entry) = self.keys.get_mut(&key)
            && entry.0 == slot
        {
            entry.1 = entry.1.saturating_sub(1);
            if entry.1 == 0 {
                self.keys.remove(&key);
            }
        }
    }

    // ---- acknowledgements

    /// Takes messages out of a consumer's hands. What it does not hold is passed over.
    pub(super) fn release(&mut self, slot: SlotId, ids: &[DeliveryId]) -> Vec<Delivery> {
        let mut released = Vec::with_capacity(ids.len());
        for id in ids {
            if self.held.get(id).is_some_and(|h| h.slot == slot)
                && let Some(h) = self.held.remove(id)
            {
                self.key_released(&h.delivery.record, slot);
                released.push(h.delivery);
            }
        }
        released
    }

    /// Acknowledges, and says what the log must be told.
    pub(super) fn ack(&mut self, slot: SlotId, ids: &[DeliveryId]) -> AckBatch {
        let mut mine: Vec<DeliveryId> = Vec::with_capacity(ids.len());
        for id in ids {
            match self.held.get(id) {
                Some(h) if h.slot == slot => {}
                _ => continue,
            }
            if let Some(h) = self.held.remove(id) {
                self.key_released(&h.delivery.record, slot);
                mine.push(*id);
            }
        }
        self.ranges(mine)
    }

    /// The ranges of these ids by cursor.
    pub(super) fn ranges(&self, mut ids: Vec<DeliveryId>) -> AckBatch {
        if ids.is_empty() {
            return Vec::new();
        }
        ids.sort_unstable();
        let mut batch: AckBatch = Vec::new();
        let mut at: Option<u32> = None;
        for id in ids {
            let Some(cursor) = self.cursor(id.partition) else { continue };
            if at != Some(id.partition) {
                batch.push((cursor.clone(), Vec::new()));
                at = Some(id.partition);
            }
            let Some((_, ranges)) = batch.last_mut() else { continue };
            extend(ranges, id.offset);
        }
        batch
    }

    fn cursor(&self, partition: u32) -> Option<&Cursor> {
        match self.sources.get(partition as usize)? {
            Source::Stream(s) => s.cursor.as_ref(),
            Source::Memory(_) => None,
        }
    }

    /// Gives messages back. They come again, in their old order.
    pub(super) fn give_back(
        &mut self,
        slot: SlotId,
        ids: &[DeliveryId],
        counted: bool,
    ) -> Vec<(Cursor, Vec<Offset>)> {
        let mut told: Vec<(u32, Vec<Offset>)> = Vec::new();
        for delivery in self.release(slot, ids) {
            let id = delivery.id;
            self.returned.insert(id, again(delivery));
            match told.iter_mut().find(|(p, _)| *p == id.partition) {
                Some((_, offsets)) => offsets.push(Offset(id.offset)),
                None => told.push((id.partition, vec![Offset(id.offset)])),
            }
        }
        self.wake_waiting();
        if !counted {
            return Vec::new();
        }
        told.into_iter().filter_map(|(p, o)| self.cursor(p).map(|c| (c.clone(), o))).collect()
    }

    pub(super) fn purge(&mut self) -> (u64, AckBatch) {
        let mut count = self.returned.len() as u64 + self.ahead as u64;
        let mut ids: Vec<DeliveryId> = std::mem::take(&mut self.returned).into_keys().collect();
        for slot in self.slots.values_mut() {
            ids.extend(slot.own.drain(..).map(|d| d.id));
        }
        self.ahead = 0;
        let mut batch = self.ranges(ids);
        for source in &mut self.sources {
            match source {
                Source::Memory(m) => count += m.skip_all(),
                Source::Stream(s) => {
                    count += s.ready();
                    let skipped = s.skip_all();
                    if let (Some(cursor), false) = (&s.cursor, skipped.is_empty()) {
                        batch.push((cursor.clone(), vec![Offset(skipped.start)..Offset(skipped.end)]));
                    }
                }
            }
        }
        (count, batch)
    }
}

fn size(record: &Record) -> usize {
    let part = |b: &Option<Bytes>| b.as_ref().map_or(0, Bytes::len);
    part(&record.key) + part(&record.value) + record.headers.len()
}

/// A message that comes again.
fn again(delivery: Delivery) -> Delivery {
    Delivery { redelivered: delivery.redelivered + 1, ..delivery }
}

fn extend(ranges: &mut Vec<Range<Offset>>, offset: u64) {
    match ranges.last_mut() {
        Some(last) if last.end.0 == offset => last.end = Offset(offset + 1),
        _ => ranges.push(Offset(offset)..Offset(offset + 1)),
    }
}

fn key_hash(record: &Record) -> u64 {
    use std::hash::{BuildHasher, BuildHasherDefault};
    let hasher = BuildHasherDefault::<rustc_hash::FxHasher>::default();
    hasher.hash_one(record.key.as_deref().unwrap_or_default())
}

/// The log must not keep a subscription alive.
struct WeakListener(std::sync::Weak<Subscription>);

impl inver_storage::Listener for WeakListener {
    fn advanced(&self, token: u64) {
        if let Some(subscription) = self.0.upgrade() {
            subscription.advanced(token);
        }
    }
}
