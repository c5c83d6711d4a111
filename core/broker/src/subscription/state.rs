//! The state of a subscription under its lock: sources, consumers, unacknowledged and requeued messages.
//!
//! It owns the bookkeeping. Pulling is in `pull`, the choice of the next message in `next`, acknowledging and
//! requeueing in `settle`, waking in `waiting`, expiry and length limits in `limits`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use inver_storage::batch::Batch;
use inver_storage::{Cursor, CursorId, Entry, Held, Listener, Offset, StoredBatch, Stream};
use rustc_hash::FxHashMap;

use super::keys::KeyOwners;
use super::limits::LimitState;
use super::priorities::Priorities;
use super::rooms::Rooms;
use super::slots::{Assigned, Slot, SlotId, Slots, Wakeups};
use super::source::memory::{Pushed, spill_made};
use super::source::{MemoryBounds, MemorySource, Source, StreamSource, delivered_key};
use super::terms::{AttachError, ConsumerSpec};
use super::undelivered::Undelivered;
use crate::clock::Clock;
use crate::context::Context;
use crate::seeded_bugs::{Bug, is_seeded};
use crate::spec::{Delivery, DeliveryId, Depth, DropReason, Mode, QueueBounds};

/// What the state needs of its subscription.
pub(super) trait Host {
    fn name(&self) -> &str;
    fn context(&self) -> &Arc<Context>;
    fn limits(&self) -> Option<QueueBounds>;

    /// A listener that does not keep the subscription alive.
    fn listener(of: &Arc<Self>) -> Arc<dyn Listener>;
}

pub(super) struct State {
    pub(super) mode: Mode,
    pub(super) sources: Vec<Source>,
    /// The source that is asked next.
    pub(super) next_source: usize,
    /// Messages that were requeued, without their records: delivered before all others.
    pub(super) requeued: BTreeMap<DeliveryId, Requeued>,
    /// A message that was taken from its source and not delivered. It is delivered in its order, as requeued ones.
    pub(super) peeked: Option<Box<Delivery>>,
    /// The order of a queue whose messages have priorities; then nothing is in `requeued` and `peeked`.
    pub(super) priorities: Option<Box<Priorities>>,
    /// Dead letters without a receiver, which wait for one.
    pub(super) undelivered: Option<Box<Undelivered>>,
    /// Messages of consumers that left, being put in order outside the lock: until they wait again, none is taken.
    pub(super) returning: u64,
    /// Unacknowledged messages, also of consumers that stopped.
    pub(super) in_flight_by_consumer: FxHashMap<SlotId, InFlight>,
    pub(super) unacked: u64,
    pub(super) slots: Slots,
    next_slot: SlotId,
    /// Passive consumers that pulled during a load: woken at its end.
    pub(super) passive_waiting: Vec<ConsumerSpec>,
    pub(super) keys: KeyOwners,
    /// See [`active`](State::active).
    pub(super) active: Option<SlotId>,
    /// Failover: a consumer of a higher priority follows the active one without waiting for its end.
    pub(super) hands_over: bool,
    /// Dead letters without a receiver stay.
    pub(super) keeps_undelivered: bool,
    pub(super) closed: bool,
    /// The next messages cannot be read, and consumers are to learn it.
    pub(super) unreadable: bool,
    pub(super) limits: LimitState,
    /// The pull under way takes from some streams only.
    pub(super) rooms: Option<Box<Rooms>>,
    pub(super) wakeups: Wakeups,
    pub(super) clock: Clock,
}

/// The unacknowledged messages of one consumer.
#[derive(Default)]
pub(super) struct InFlight {
    pub(super) unacked: FxHashMap<DeliveryId, UnackedMessage>,
    /// Bytes of records that stay in memory for it.
    pub(super) bytes: usize,
}

/// A delivered and unacknowledged message. Its record is not here: a stream is read again, a queue in memory keeps it.
pub(super) struct UnackedMessage {
    /// KeyShared: its key. With priorities: its rank.
    pub(super) key: u64,
    pub(super) redelivered: u32,
    pub(super) value_bytes: u32,
}

/// A message that was delivered, or assigned, and waits again.
#[derive(Clone, Copy)]
pub(super) struct Requeued {
    pub(super) redelivered: u32,
    pub(super) value_bytes: u32,
    /// Its rank among priorities; 0 in other queues.
    pub(super) rank: u8,
    /// The reason to drop it as soon as its record is read, if any.
    pub(super) drop_reason: Option<DropReason>,
}

/// A read from the disk to be run outside the lock: for which source, and whether for requeued messages.
pub(super) struct Load {
    pub(super) source: usize,
    pub(super) again: bool,
    pub(super) read: inver_storage::ColdRead,
}

impl Load {
    /// The message that it reads first, as a stream's messages are numbered.
    pub(super) fn id(&self) -> DeliveryId {
        DeliveryId { partition: self.source as u32, offset: self.read.from().0 }
    }
}

impl State {
    pub(super) fn new(mode: Mode, sources: usize, clock: Clock) -> State {
        State {
            mode,
            sources: Vec::with_capacity(sources),
            next_source: 0,
            requeued: BTreeMap::new(),
            peeked: None,
            priorities: None,
            undelivered: None,
            returning: 0,
            in_flight_by_consumer: FxHashMap::default(),
            unacked: 0,
            slots: Slots::default(),
            next_slot: 0,
            passive_waiting: Vec::new(),
            keys: KeyOwners::default(),
            active: None,
            hands_over: false,
            keeps_undelivered: false,
            closed: false,
            unreadable: false,
            limits: LimitState::default(),
            rooms: None,
            wakeups: Wakeups::new(),
            clock,
        }
    }

    pub(super) fn add_stream<H: Host>(
        &mut self,
        of: &Arc<H>,
        stream: Stream,
        cursor: Option<Cursor>,
        from: Offset,
    ) {
        let source = listening(of, stream, cursor, from);
        self.sources.push(Source::Stream(source));
    }

    pub(super) fn add_memory(&mut self, bounds: MemoryBounds, held: Held) {
        self.sources.push(Source::Memory(MemorySource::new(bounds, held)));
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

    // ---- depth

    pub(super) fn depth(&self) -> Depth {
        Depth { ready: self.kept(), unacked: self.unacked, consumers: self.slots.len() }
    }

    /// Messages that were taken from their source and wait all the same.
    fn waiting_outside_sources(&self) -> u64 {
        let by_priority = self.priorities.as_ref().map_or(0, |priorities| priorities.len());
        by_priority
            + self.requeued.len() as u64
            + u64::from(self.peeked.is_some())
            + self.keys.assigned as u64
    }

    /// Messages that wait and can be delivered.
    pub(super) fn ready(&self) -> u64 {
        self.sources.iter().map(Source::ready).sum::<u64>() + self.waiting_outside_sources()
    }

    /// Messages that wait, uncommitted ones included.
    pub(super) fn submitted(&self) -> u64 {
        self.sources.iter().map(Source::submitted).sum::<u64>() + self.waiting_outside_sources()
    }

    /// The same with dead letters without a receiver, which no consumer gets.
    pub(super) fn kept(&self) -> u64 {
        self.submitted() + self.undelivered.as_ref().map_or(0, |undelivered| undelivered.len())
    }

    /// Whether no message waits that is read again.
    pub(super) fn reads_nothing_again(&self) -> bool {
        self.requeued.is_empty()
            && self.priorities.as_ref().is_none_or(|priorities| priorities.len() == 0)
            && !self.is_retrying()
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
        let beyond = u64::from(is_seeded(Bug::TrimTooFar));
        let position = |s: &Source| match s {
            Source::Stream(s) => {
                s.cursor.as_ref().map(|c| (s.stream.clone(), Offset(c.position().0 + beyond)))
            }
            Source::Memory(_) => None,
        };
        self.sources.iter().filter_map(position).collect()
    }

    pub(super) fn forgo_delivered(&mut self) {
        self.streams_mut().for_each(StreamSource::forgo_delivered);
    }

    pub(super) fn delete_delivered(&self, entry: &mut Entry) {
        self.streams().for_each(|source| source.delete_delivered(entry));
    }

    pub(super) fn delivered_rows(&self) -> Vec<Bytes> {
        let stored = self.streams().filter(|source| source.has_row());
        stored.filter_map(|source| Some(delivered_key(source.cursor.as_ref()?.id()))).collect()
    }

    fn streams(&self) -> impl Iterator<Item = &StreamSource> {
        self.sources.iter().filter_map(|source| match source {
            Source::Stream(stream) => Some(stream),
            Source::Memory(_) => None,
        })
    }

    pub(super) fn streams_mut(&mut self) -> impl Iterator<Item = &mut StreamSource> {
        self.sources.iter_mut().filter_map(|source| match source {
            Source::Stream(stream) => Some(stream),
            Source::Memory(_) => None,
        })
    }

    pub(super) fn cursors(&self) -> Vec<CursorId> {
        self.sources.iter().filter_map(|s| s.cursor().map(Cursor::id)).collect()
    }

    // ---- consumers attach and leave

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
            if self.mode == Mode::Failover {
                self.choose_active();
            }
            if self.mode == Mode::KeyShared {
                self.keys.join(id);
            }
        }
        self.next_slot += 1;
        if self.unreadable {
            // The others that wait try again with it.
            self.try_again();
        }
        Ok(id)
    }

    /// Ends a consumer's deliveries; its unacknowledged messages stay its own. True if it was the last consumer.
    pub(super) fn stop(&mut self, slot: SlotId) -> bool {
        let was_active = self.active() == Some(slot);
        let Some(stopped) = self.slots.remove(slot) else { return false };
        self.keys.leave(slot);
        self.unassign(slot, stopped.assigned);
        if is_seeded(Bug::SilentLeave) {
            return self.slots.is_empty();
        }
        if self.mode == Mode::Failover && was_active && !self.closed {
            self.choose_active();
            // The new active consumer may not be waiting.
            if let Some(active) = self.active() {
                self.wake(active);
            }
        }
        self.wake_waiting();
        self.slots.is_empty()
    }

    /// KeyShared: makes messages that were assigned to a consumer available to all.
    pub(super) fn unassign(&mut self, slot: SlotId, assigned: impl IntoIterator<Item = Assigned>) {
        for Assigned { id, key, redelivered, value_bytes, .. } in assigned {
            self.keys.assigned -= 1;
            self.keys.release(key, slot);
            self.put_back(id, Requeued { redelivered, value_bytes, rank: 0, drop_reason: None });
        }
    }

    /// Ends everything. Returns the stream of a memory source's spilled part, which the caller deletes.
    pub(super) fn close(&mut self) -> Option<Stream> {
        self.closed = true;
        let spilled = self.memory().and_then(|m| m.spilled_stream().cloned());
        for slot in self.slots.take_all() {
            slot.wake(&mut self.wakeups);
        }
        self.wake_passive();
        self.keys = KeyOwners::default();
        self.sources.clear();
        self.requeued.clear();
        self.peeked = None;
        self.priorities = None;
        self.undelivered = None;
        self.in_flight_by_consumer.clear();
        self.unacked = 0;
        spilled
    }

    // ---- messages arrive

    /// Keeps a batch `plain`, or writes it to the log as it was `stored`.
    pub(super) fn push<H: Host>(
        &mut self,
        of: &Arc<H>,
        stored: &Batch,
        plain: &Batch,
        topic: Option<&Arc<str>>,
        is_shared: bool,
    ) {
        if self.closed {
            return;
        }
        let Some(Source::Memory(memory)) = self.sources.first_mut() else { return };
        if self.slots.is_empty() && memory.drops() {
            // Best effort, and no consumer is attached.
            memory.count_dropped(u64::from(plain.record_count()));
            of.context().counters.dropped.increment(u64::from(plain.record_count()));
            return;
        }
        match memory.push(plain, topic, is_shared) {
            Pushed::Kept => {}
            Pushed::Refused => of.context().counters.dropped.increment(u64::from(plain.record_count())),
            Pushed::ToSpill => spill(memory, of, stored, topic),
        }
        if let Some(limits) = of.limits() {
            self.drop_unread(&limits);
        }
        self.wake_waiting();
    }

    /// Whether the first requeued message must be dropped.
    pub(super) fn drops_requeued(&self) -> bool {
        let first = match &self.priorities {
            Some(priorities) => priorities.first_requeued(),
            None => self.requeued.first_key_value().map(|(_, requeued)| requeued),
        };
        first.is_some_and(|requeued| requeued.drop_reason.is_some())
    }

    /// Handles a stream's new high watermark. Whether messages are over the length limits now.
    pub(super) fn advanced(&mut self, limits: Option<&QueueBounds>) -> bool {
        let is_over = limits.is_some_and(|limits| self.drop_unread(limits));
        if is_seeded(Bug::MissAdvance) {
            return is_over;
        }
        self.wake_waiting();
        self.wake_passive();
        is_over
    }

    pub(super) fn wake_passive(&mut self) {
        self.wakeups.extend(self.passive_waiting.drain(..).map(|spec| (spec.mailbox, spec.token)));
    }

    /// Handles the end of a load. Whether a check waited for it.
    pub(super) fn loaded(&mut self, source: usize, again: bool, batches: Vec<StoredBatch>) -> bool {
        let is_useful = self.sources.get_mut(source).is_some_and(|s| s.loaded(again, batches));
        if is_useful {
            self.wake_waiting();
        }
        self.wake_passive();
        std::mem::take(&mut self.limits.awaits_load) && is_useful
    }
}

/// Writes a batch to the spilled part of a queue in memory, which is made for the first one.
fn spill<H: Host>(memory: &mut MemorySource, of: &Arc<H>, batch: &Batch, topic: Option<&Arc<str>>) {
    let log = &of.context().log;
    if !memory.has_spill() {
        let id = log.allocate_stream();
        if let Some(stream) = log.submit(spill_made(id)).ok().and_then(|_| log.stream(id)) {
            memory.begin_spill(listening(of, stream, None, Offset(0)));
        }
    }
    if let Err(error) = memory.spill(of.context(), batch, topic) {
        let messages = batch.record_count();
        tracing::error!(queue = of.name(), messages, %error, "messages lost: failed to spill to the log");
    }
}

/// A source over a stream that notifies the subscription.
fn listening<H: Host>(of: &Arc<H>, stream: Stream, cursor: Option<Cursor>, from: Offset) -> StreamSource {
    let listening = stream.listen(H::listener(of), 0);
    let mut source = StreamSource::new(stream, cursor, from, of.context());
    source.listen(listening);
    source
}
