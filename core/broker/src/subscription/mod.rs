//! Subscription: a named position on a topic (or on a queue in memory) with acknowledgements, and the consumers that
//! share it.
//!
//! It owns delivery, acknowledgement, redelivery, expiry and length limits. It does not own the meaning of a message,
//! the protocols' acknowledgement methods, or the place where dropped messages are sent.
//!
//! Consumers *pull*. A consumer that found nothing waits, and is woken through its connection's mailbox when messages
//! arrive, so a connection with a thousand idle consumers costs nothing, and a write batch wakes each connection once.
//!
//! Invariants:
//! - A message is unacknowledged at one consumer at a time, until it is acknowledged or requeued, or the consumer is
//!   dropped.
//! - Requeued messages are delivered before newer ones, in their old order, with their delivery count raised.
//! - Acknowledgements reach the log's cursor; once committed, the message is never delivered again.
//! - The lock is never held over I/O or an await: records that are not in memory are loaded outside it.
//! - The log's writer never waits for the lock: see `locking`.

mod check;
mod consumer;
mod damage;
mod drops;
mod flagged_lock;
mod inspect;
mod keys;
mod limits;
mod live_limits;
mod locking;
mod next;
mod owner;
mod priorities;
mod pull;
mod returned;
mod rooms;
mod settle;
mod sizes;
mod slots;
mod source;
mod state;
mod terms;
#[cfg(test)]
mod tests;
mod undelivered;
mod waiting;
mod withdraw;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use inver_storage::batch::Batch;
use inver_storage::{Cursor, CursorId, Entry, Listener, Lsn, Offset, Share, Stream, SubmitError};

use crate::completion::Completion;
use crate::context::{Context, Timed};
use crate::reclaim::Trimmable;
use crate::spec::{Delivery, DeliveryId, Depth, Mode, QueueBounds};

pub use consumer::Consumer;
pub use damage::SkipError;
pub use inspect::{Member, Position, QueueMemory};
pub use source::{LiveBatch, MemoryBounds, WhenFull};
pub use terms::{AttachError, ConsumerSpec, Pull};

pub(crate) use check::Checked as LimitsChecked;
pub(crate) use drops::Dropped;
pub(crate) use limits::NextCheck;
pub(crate) use owner::{DropSink, Recheck};
pub(crate) use withdraw::Withdrawn;

use limits::Scope;
use locking::StateLock;
use owner::Owner;
use source::memory::spill_ended;
use state::{Host, State};

/// A batch of more bytes is counted once for all queues that have it. One of less takes less than its places in them.
const OWN_BYTES_MAX: usize = 512;

/// Whether acknowledged messages are trimmed from the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trim {
    /// Yes: no other subscription reads the streams.
    Acknowledged,
    /// No: others read the streams too.
    Never,
}

/// A subscription, shared by its consumers and its publishers.
pub struct Subscription {
    /// Unique within the process; orders receivers of a route.
    id: u64,
    name: Box<str>,
    durable: bool,
    context: Arc<Context>,
    state: StateLock,
    /// A durable position moved since the last [`take_moved`](Trimmable::take_moved).
    dirty: AtomicBool,
    /// Acknowledged messages are trimmed.
    trims: bool,
    /// See [`has_other_addresses`](Self::has_other_addresses).
    other_addresses: AtomicBool,
    /// See [`limit_deliveries`](Self::limit_deliveries); one more than the limit, so that 0 stands for none.
    deliveries_max: AtomicU32,
    /// The queue that it belongs to, if any.
    owner: OnceLock<Box<Owner>>,
    /// The bytes that wait in a queue with a byte limit.
    bytes: OnceLock<Arc<AtomicI64>>,
    /// The log position at which its creation is committed.
    made: OnceLock<Lsn>,
    last_detach: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// When it was created, or its last consumer left (milliseconds since 1970).
    used_ms: AtomicI64,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Subscription {
    /// A subscription over streams, each with its start; a durable position has a cursor for each stream.
    pub(crate) fn over_streams(
        context: &Arc<Context>,
        name: &str,
        mode: Mode,
        streams: Vec<(Stream, Option<Cursor>, Offset)>,
        trim: Trim,
    ) -> Arc<Subscription> {
        let durable = streams.iter().any(|(_, cursor, _)| cursor.is_some());
        let trims = trim == Trim::Acknowledged;
        let subscription = Subscription::new(context, name, mode, durable, trims, streams.len());
        subscription.locked(|state| {
            for (stream, cursor, from) in streams {
                state.add_stream(&subscription, stream, cursor, from);
            }
        });
        if trims {
            context.reclaim.register(&subscription);
        }
        subscription
    }

    /// Lets a consumer of a higher priority follow the active one as soon as that has nothing unacknowledged.
    pub(crate) fn hand_over_by_priority(&self) {
        self.locked(|state| state.hands_over = true);
    }

    /// Gives messages out by their priorities, up to `max`: those of the highest first. Called before any is taken.
    pub(crate) fn order_by_priority(&self, max: u8) {
        self.locked(|state| state.order_by_priority(max));
    }

    /// Orders messages by when they expire: they are due then. Called before any is taken.
    pub(crate) fn order_by_due(&self) {
        self.locked(State::order_by_due);
    }

    /// Whether its messages wait until they are due.
    pub(crate) fn holds_delayed(&self) -> bool {
        self.locked(|state| state.holds_delayed())
    }

    /// Keeps dead letters that have no receiver.
    pub(crate) fn keep_undelivered(&self) {
        self.locked(|state| state.keeps_undelivered = true);
    }

    /// Leaves it to its user to know what was delivered before a restart.
    pub(crate) fn forgo_delivered(&self) {
        self.locked(State::forgo_delivered);
    }

    /// Deletes what the log knows of its deliveries, with its cursors.
    pub(crate) fn delete_delivered(&self, entry: &mut Entry) {
        self.locked(|state| state.delete_delivered(entry));
    }

    /// The cursors of whose deliveries the log has a row.
    pub(crate) fn delivered_rows(&self) -> Vec<Bytes> {
        self.locked(|state| state.delivered_rows())
    }

    /// A subscription over a queue in memory.
    pub(crate) fn in_memory(
        context: &Arc<Context>,
        name: &str,
        mode: Mode,
        bounds: MemoryBounds,
    ) -> Arc<Subscription> {
        let subscription = Subscription::new(context, name, mode, false, false, 1);
        subscription.locked(|state| state.add_memory(bounds, context.log.memory().holder(Share::Queues)));
        subscription
    }

    fn new(
        context: &Arc<Context>,
        name: &str,
        mode: Mode,
        durable: bool,
        trims: bool,
        sources: usize,
    ) -> Arc<Subscription> {
        Arc::new_cyclic(|this| Subscription {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            durable,
            context: context.clone(),
            state: StateLock::new(this.clone(), State::new(mode, sources, context.clock.clone())),
            dirty: AtomicBool::new(false),
            trims,
            other_addresses: AtomicBool::new(false),
            deliveries_max: AtomicU32::new(0),
            owner: OnceLock::new(),
            bytes: OnceLock::new(),
            made: OnceLock::new(),
            last_detach: OnceLock::new(),
            used_ms: AtomicI64::new(context.clock.steady_ms()),
        })
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Unique within the process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether its position survives a restart.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// The way its consumers share it.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.locked(|state| state.mode)
    }

    /// Changes the mode, which succeeds while no consumer is attached or if it is the present one. The error is the
    /// present mode.
    pub fn ask_mode(&self, mode: Mode) -> Result<(), Mode> {
        self.locked(|state| state.ask_mode(mode))
    }

    /// The position to wait for before its creation is promised; none if it is not durable, or was restored.
    #[must_use]
    pub fn made(&self) -> Completion {
        self.made.get().copied().into()
    }

    pub(crate) fn set_made(&self, lsn: Lsn) {
        // A second call would be a defect of the caller; the first one holds.
        let _ = self.made.set(lsn);
    }

    /// Its depth, after dropping messages that are over the length limits.
    #[must_use]
    pub fn depth(self: &Arc<Self>) -> Depth {
        self.enforce(self.context.clock.steady_ms(), Scope::Depth, usize::MAX).depth
    }

    /// Its depth as it is, without enforcing limits.
    pub(crate) fn counts(&self) -> Depth {
        self.locked(|state| state.depth())
    }

    /// Messages that wait, uncommitted ones included, and their bytes if they are counted.
    pub(crate) fn submitted(&self) -> (u64, u64) {
        self.locked(|state| state.submitted_and_bytes())
    }

    /// Adds a consumer.
    pub fn attach(self: &Arc<Self>, spec: ConsumerSpec) -> Result<Consumer, AttachError> {
        let slot = self.locked(|state| state.attach(spec.clone()))?;
        Ok(Consumer::new(self.clone(), slot, spec))
    }

    /// As [`attach`](Self::attach), for a subscription with a single user: if refused, the consumer is cancelled.
    pub(crate) fn attach_held(self: &Arc<Self>, spec: ConsumerSpec) -> Consumer {
        let slot = self.locked(|state| state.attach(spec.clone())).unwrap_or(u64::MAX);
        Consumer::new(self.clone(), slot, spec)
    }

    /// Sets a function that runs each time the last consumer leaves; once.
    pub(crate) fn on_last_detach(&self, act: impl Fn() + Send + Sync + 'static) {
        // A second call would be a defect of the caller; the first one holds.
        let _ = self.last_detach.set(Box::new(act));
    }

    /// Restarts its idle time.
    pub(crate) fn touch(&self) {
        self.used_ms.store(self.context.clock.steady_ms(), Ordering::Relaxed);
    }

    /// Since when it has no consumer; none while it has one.
    pub(crate) fn idle_since_ms(&self) -> Option<i64> {
        (self.counts().consumers == 0).then(|| self.used_ms.load(Ordering::Relaxed))
    }

    /// When it was created, or its last consumer left.
    pub(crate) fn last_left_ms(&self) -> i64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    fn last_detached(&self) {
        self.touch();
        if let Some(act) = self.last_detach.get() {
            act();
        }
    }

    /// Adds a stream, from its beginning.
    pub(crate) fn extend(self: &Arc<Self>, stream: Stream, cursor: Option<Cursor>) {
        self.locked(|state| state.add_stream(self, stream, cursor, Offset(0)));
    }

    /// Its cursors, one a stream.
    pub(crate) fn cursors(&self) -> Vec<CursorId> {
        self.locked(|state| state.cursors())
    }

    pub(crate) fn first_cursor(&self) -> Option<CursorId> {
        self.cursors().first().copied()
    }

    fn trim(&self, stream: &Stream, to: Offset) {
        let mut entry = Entry::new();
        entry.trim(stream, to);
        if let Err(error) = self.context.log.submit(entry) {
            tracing::debug!(subscription = %self.name, %error, "failed to write trim");
        }
    }

    /// Removes all waiting messages; unacknowledged ones stay. Returns how many.
    pub fn purge(self: &Arc<Self>) -> Result<(u64, Completion), SubmitError> {
        let (count, acked) = self.locked(State::purge);
        Ok((count, self.commit_acks(acked)?))
    }

    /// Ends it: pulls report [`Pull::cancelled`] from now on.
    pub fn close(self: &Arc<Self>) {
        let spilled = self.locked(State::close);
        if let Some(stream) = spilled
            && let Err(error) = self.context.log.submit(spill_ended(stream.id()))
        {
            tracing::debug!(subscription = %self.name, %error, "failed to delete spilled messages");
        }
    }

    /// Enqueues a batch in a queue in memory.
    #[cfg(test)]
    pub(crate) fn push(self: &Arc<Self>, batch: &Batch, topic: Option<&Arc<str>>) {
        self.locked(|state| state.push(self, batch, batch, topic, false));
    }

    /// Enqueues a batch in several queues in memory, which keep it `plain`: decompressed. One that is full writes it to the
    /// log as it was `stored`. Together they count what is not small once.
    pub(crate) fn push_to_all(
        receivers: &[Arc<Self>],
        stored: &Batch,
        plain: &Batch,
        topic: Option<&Arc<str>>,
    ) {
        match Self::counted_once(receivers, plain) {
            Some(counted) => Self::push_to_each(receivers, stored, &counted, topic, true),
            None => Self::push_to_each(receivers, stored, plain, topic, false),
        }
    }

    /// A batch that several queues in memory count once, if it is not small.
    pub(crate) fn counted_once(receivers: &[Arc<Self>], plain: &Batch) -> Option<Batch> {
        match receivers {
            [first, _, ..] if plain.bytes().len() > OWN_BYTES_MAX => {
                Some(plain.charged(first.context.log.memory(), Share::Queues))
            }
            _ => None,
        }
    }

    /// Enqueues a batch in queues in memory; `is_shared` if they count it once.
    pub(crate) fn push_to_each(
        receivers: &[Arc<Self>],
        stored: &Batch,
        plain: &Batch,
        topic: Option<&Arc<str>>,
        is_shared: bool,
    ) {
        receivers.iter().for_each(|it| it.locked(|s| s.push(it, stored, plain, topic, is_shared)));
    }

    /// Whether it was ever given a message that may name another address than it was routed from: a dead letter, or one
    /// with several routing keys.
    pub(crate) fn has_other_addresses(&self) -> bool {
        self.other_addresses.load(Ordering::Acquire)
    }

    /// Notes that it is about to be given such a message.
    pub(crate) fn note_other_addresses(&self) {
        self.other_addresses.store(true, Ordering::Release);
    }

    /// How many messages a bounded queue in memory refused.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.locked(|state| state.dropped())
    }

    /// Notes that a durable position moved, or is about to.
    pub(crate) fn note_moved(&self) {
        if !self.dirty.swap(true, Ordering::AcqRel) && self.trims {
            self.context.reclaim.note(self.id);
        }
    }
}

impl Host for Subscription {
    fn name(&self) -> &str {
        &self.name
    }

    fn context(&self) -> &Arc<Context> {
        &self.context
    }

    fn limits(&self) -> Option<QueueBounds> {
        Subscription::limits(self)
    }

    fn listener(of: &Arc<Self>) -> Arc<dyn Listener> {
        Arc::new(WeakListener(Arc::downgrade(of)))
    }
}

/// A listener that does not keep its subscription alive.
struct WeakListener(Weak<Subscription>);

impl Listener for WeakListener {
    fn advanced(&self, _token: u64) {
        if let Some(subscription) = self.0.upgrade() {
            subscription.advanced();
        }
    }
}

impl Timed for Subscription {
    fn order(&self) -> u64 {
        self.id
    }

    /// Wakes consumers that wait behind reservations which were not used in time.
    fn due(self: Arc<Self>, _at_ms: i64, now_ms: i64) {
        self.locked(|state| state.check_waiting(now_ms));
    }
}

impl Trimmable for Subscription {
    fn id(&self) -> u64 {
        self.id
    }

    fn take_moved(&self) -> Vec<(Stream, Offset)> {
        self.dirty.store(false, Ordering::Release);
        self.locked(|state| state.positions())
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("name", &self.name).field("durable", &self.durable).finish()
    }
}
