//! What a subscription knows under its lock: its sources, its consumers, who holds what, what came back.
//!
//! Handing out is in `hand_out`, taking back in `settle`, waking in `waiting`, death in `mortality`.

use std::collections::BTreeMap;
use std::sync::Arc;

use inver_storage::batch::Batch;
use inver_storage::{Cursor, CursorId, Offset, StoredBatch, Stream};
use rustc_hash::FxHashMap;

use super::consumer::{AttachError, ConsumerSpec};
use super::keys::Keys;
use super::mortality::Mortality;
use super::slots::{Calls, Own, Slot, SlotId, Slots};
use super::source::memory::{Pushed, spill_made};
use super::source::{MemoryBounds, MemorySource, Source, StreamSource};
use super::{Delivery, DeliveryId, Depth, Mode, Subscription};
use crate::spec::DropReason;

pub(super) struct State {
    pub(super) mode: Mode,
    pub(super) sources: Vec<Source>,
    /// Which source is asked next.
    pub(super) turn: usize,
    /// Messages that came back, without their records: handed out before all others.
    pub(super) returned: BTreeMap<DeliveryId, Returned>,
    /// The message that was looked at and not taken. It waits as those that came back do.
    pub(super) head: Option<Box<Delivery>>,
    /// What consumers hold, those that stopped among them.
    pub(super) hands: FxHashMap<SlotId, Hand>,
    pub(super) unacked: u64,
    pub(super) slots: Slots,
    next_slot: SlotId,
    /// Passive consumers that asked while a load was under way: told when it is done.
    pub(super) asking: Vec<ConsumerSpec>,
    pub(super) keys: Keys,
    pub(super) closed: bool,
    pub(super) mortality: Mortality,
    pub(super) calls: Calls,
}

/// What one consumer holds.
#[derive(Default)]
pub(super) struct Hand {
    pub(super) held: FxHashMap<DeliveryId, Held>,
    /// Bytes of records that are kept in memory for it.
    pub(super) bytes: usize,
}

/// A message that a consumer holds. Its record is not here: a stream is read again, a queue in memory keeps it.
pub(super) struct Held {
    /// KeyShared: its key.
    pub(super) key: u64,
    pub(super) redelivered: u32,
    pub(super) value_bytes: u32,
}

/// A message that came back.
#[derive(Clone, Copy)]
pub(super) struct Returned {
    pub(super) redelivered: u32,
    pub(super) value_bytes: u32,
    /// It dies as soon as its record was read.
    pub(super) doomed: Option<DropReason>,
}

/// Reads that must be run beside the lock: which source, for whom, and the read.
pub(super) struct Load {
    pub(super) source: usize,
    /// For messages that came back, else for the next ones.
    pub(super) again: bool,
    pub(super) read: inver_storage::ColdRead,
}

impl State {
    pub(super) fn new(mode: Mode, sources: usize) -> State {
        State {
            mode,
            sources: Vec::with_capacity(sources),
            turn: 0,
            returned: BTreeMap::new(),
            head: None,
            hands: FxHashMap::default(),
            unacked: 0,
            slots: Slots::default(),
            next_slot: 0,
            asking: Vec::new(),
            keys: Keys::default(),
            closed: false,
            mortality: Mortality::default(),
            calls: Calls::new(),
        }
    }

    pub(super) fn add_stream(
        &mut self,
        of: &Arc<Subscription>,
        stream: Stream,
        cursor: Option<Cursor>,
        from: Offset,
    ) {
        let source = listening(of, stream, cursor, from);
        self.sources.push(Source::Stream(source));
    }

    pub(super) fn add_memory(&mut self, bounds: MemoryBounds) {
        self.sources.push(Source::Memory(MemorySource::new(bounds)));
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

    // ---- how full it is

    pub(super) fn depth(&self) -> Depth {
        Depth { ready: self.submitted(), unacked: self.unacked, consumers: self.slots.len() }
    }

    /// Messages taken from their source that wait all the same.
    fn set_aside(&self) -> u64 {
        self.returned.len() as u64 + u64::from(self.head.is_some()) + self.keys.ahead as u64
    }

    /// Messages that wait and can be handed out.
    pub(super) fn ready(&self) -> u64 {
        self.sources.iter().map(Source::ready).sum::<u64>() + self.set_aside()
    }

    /// Messages that wait, those not yet visible included.
    pub(super) fn submitted(&self) -> u64 {
        self.sources.iter().map(Source::submitted).sum::<u64>() + self.set_aside()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.memory().map_or(0, MemorySource::dropped)
    }

    pub(super) fn memory(&self) -> Option<&MemorySource> {
        match self.sources.first()? {
            Source::Memory(memory) => Some(memory),
            Source::Stream(_) => None,
        }
    }

    pub(super) fn positions(&self) -> Vec<(Stream, Offset)> {
        let position = |s: &Source| match s {
            Source::Stream(s) => s.cursor.as_ref().map(|c| (s.stream.clone(), c.position())),
            Source::Memory(_) => None,
        };
        self.sources.iter().filter_map(position).collect()
    }

    pub(super) fn cursors(&self) -> Vec<CursorId> {
        self.sources.iter().filter_map(|s| s.cursor().map(Cursor::id)).collect()
    }

    // ---- consumers come and go

    pub(super) fn attach(&mut self, spec: ConsumerSpec) -> Result<SlotId, AttachError> {
        if self.closed {
            return Err(AttachError::Closed);
        }
        if self.slots.any_exclusive() {
            return Err(AttachError::HeldExclusively);
        }
        let id = self.next_slot;
        if !spec.passive {
            if !self.slots.is_empty() && (spec.exclusive || self.mode == Mode::Exclusive) {
                return Err(AttachError::InUse);
            }
            self.slots.insert(id, Slot::new(spec));
        }
        self.next_slot += 1;
        Ok(id)
    }

    /// A consumer takes no more; what it holds stays its own. True if it was the last one.
    pub(super) fn stop(&mut self, slot: SlotId) -> bool {
        let was_active = self.active() == Some(slot);
        let Some(gone) = self.slots.remove(slot) else { return false };
        self.recall(slot, gone.own);
        if self.mode == Mode::Failover && was_active && !self.closed {
            // Whoever is active now may not be waiting.
            if let Some(active) = self.active() {
                self.post(active);
            }
        }
        self.wake_waiting();
        self.slots.is_empty()
    }

    /// What a consumer holds comes back. Whether that was anything.
    pub(super) fn return_all(&mut self, slot: SlotId) -> bool {
        let Some(hand) = self.hands.get(&slot) else { return false };
        let held: Vec<DeliveryId> = hand.held.keys().copied().collect();
        self.give_back(slot, &held);
        self.hands.remove(&slot);
        !held.is_empty()
    }

    /// KeyShared: messages set aside for a consumer go back to where all can have them.
    pub(super) fn recall(&mut self, slot: SlotId, own: impl IntoIterator<Item = Own>) {
        for Own { id, key, redelivered, value_bytes } in own {
            self.keys.ahead -= 1;
            self.keys.release(key, slot);
            self.put_back(id, Returned { redelivered, value_bytes, doomed: None });
        }
    }

    /// Returns the stream of a memory's part in the log, which is to be deleted.
    pub(super) fn close(&mut self) -> Option<Stream> {
        self.closed = true;
        let spilled = self.memory().and_then(|m| m.spilled_stream().cloned());
        for slot in self.slots.take_all() {
            slot.post(&mut self.calls);
        }
        self.answer_asking();
        self.keys = Keys::default();
        self.sources.clear();
        self.returned.clear();
        self.head = None;
        self.hands.clear();
        self.unacked = 0;
        spilled
    }

    // ---- messages come in

    pub(super) fn push(&mut self, of: &Arc<Subscription>, batch: &Batch, topic: Option<&Arc<str>>) {
        if self.closed {
            return;
        }
        let Some(Source::Memory(memory)) = self.sources.first_mut() else { return };
        if self.slots.is_empty() && memory.drops() {
            // Best effort, and nobody is there.
            memory.count_dropped(u64::from(batch.record_count()));
            of.context.counters.dropped.increment(u64::from(batch.record_count()));
            return;
        }
        match memory.push(batch, topic) {
            Pushed::Held => {}
            Pushed::Refused => of.context.counters.dropped.increment(u64::from(batch.record_count())),
            Pushed::ToSpill => spill(memory, of, batch, topic),
        }
        self.wake_waiting();
    }

    /// Whether the first message that came back is to die.
    pub(super) fn has_doomed(&self) -> bool {
        self.returned.first_key_value().is_some_and(|(_, returned)| returned.doomed.is_some())
    }

    /// There is more to see in a stream.
    fn advanced(&mut self) {
        self.wake_waiting();
        self.answer_asking();
    }

    fn answer_asking(&mut self) {
        self.calls.extend(self.asking.drain(..).map(|spec| (spec.mailbox, spec.token)));
    }

    pub(super) fn loaded(&mut self, source: usize, again: bool, batches: Vec<StoredBatch>) {
        if self.sources.get_mut(source).is_some_and(|s| s.loaded(again, batches)) {
            self.wake_waiting();
        }
        self.answer_asking();
    }
}

/// Puts a batch into a queue's part in the log, which is made with the first.
fn spill(memory: &mut MemorySource, of: &Arc<Subscription>, batch: &Batch, topic: Option<&Arc<str>>) {
    let log = &of.context.log;
    if !memory.has_spill() {
        let id = log.allocate_stream();
        if let Some(stream) = log.submit(spill_made(id)).ok().and_then(|_| log.stream(id)) {
            memory.begin_spill(listening(of, stream, None, Offset(0)));
        }
    }
    if let Err(error) = memory.spill(&of.context, batch, topic) {
        tracing::error!(queue = %of.name, %error, "messages lost: memory is full and the log refuses");
    }
}

/// A stream as a source that wakes the subscription.
fn listening(of: &Arc<Subscription>, stream: Stream, cursor: Option<Cursor>, from: Offset) -> StreamSource {
    let listener = Arc::new(WeakListener(Arc::downgrade(of)));
    let listening = stream.listen(listener, 0);
    let mut source = StreamSource::new(stream, cursor, from, &of.context);
    source.listen(listening);
    source
}

/// The log must not keep a subscription alive.
struct WeakListener(std::sync::Weak<Subscription>);

impl inver_storage::Listener for WeakListener {
    /// A stream has something new to read.
    fn advanced(&self, _token: u64) {
        if let Some(subscription) = self.0.upgrade() {
            subscription.locked(State::advanced);
        }
    }
}
