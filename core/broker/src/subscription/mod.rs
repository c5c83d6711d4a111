//! A subscription: a named position on a topic (or on a queue in memory) with acknowledgements, and the
//! consumers that share it.
//!
//! Consumers *pull*. A consumer that found nothing is put on the waiting list and woken through its
//! connection's mailbox when there is something again, so a connection with a thousand idle consumers costs
//! nothing, and a burst wakes each connection once.
//!
//! Invariants:
//! - A message is held by one consumer at a time, until it is acknowledged, returned, or the consumer leaves.
//! - Returned messages come again before newer ones, in their old order, with their count raised.
//! - Acknowledgements reach the log's cursor; once committed, the message never comes again.
//! - The lock is never held over I/O or an await: records that are not in memory are loaded beside it.
//!
//! Deliberately absent: what a message means, and what a protocol calls its acknowledgements.

mod consumer;
mod hand_out;
mod keys;
mod mortality;
mod settle;
mod slots;
mod source;
mod state;
#[cfg(test)]
mod tests;
mod waiting;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use inver_storage::batch::Batch;
use inver_storage::{Cursor, CursorId, Entry, Lsn, Offset, Stream};
use parking_lot::Mutex;

use crate::clock::now_ms;
use crate::context::Context;
use crate::deadletter::DeadLetterer;
use crate::namespace::{Inner, Namespace};
use crate::queue::Queue;
use crate::reclaim::Reclaim;
use crate::spec::{Delivery, DeliveryId, Depth, Mode};

pub use consumer::{AttachError, Consumer, ConsumerSpec, Pull};
pub use source::{LiveBatch, MemoryBounds, WhenFull};

pub(crate) use mortality::Look;

use source::memory::spill_ended;
use state::State;

/// Whether what a subscription acknowledged is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trim {
    /// It is the streams' only one.
    Acknowledged,
    /// The streams are for others too.
    Never,
}

/// See the module's text.
pub struct Subscription {
    /// Unique within the process; orders receivers of a route.
    id: u64,
    name: Box<str>,
    durable: bool,
    context: Arc<Context>,
    state: Mutex<State>,
    /// A durable position moved since the broker last looked; see [`Subscription::take_dirty`].
    dirty: AtomicBool,
    /// Where to say so.
    reclaim: Option<Arc<Reclaim>>,
    dead_letterer: OnceLock<DeadLetterer>,
    /// The bytes that wait, of a queue that is bounded by them.
    bytes: OnceLock<Arc<AtomicI64>>,
    /// The log's position at which it is there for good.
    made: OnceLock<Lsn>,
    last_detach: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// When it was made, or its last consumer left, milliseconds since 1970.
    used_ms: AtomicI64,
    /// The queue that it is of, if it is one's.
    queue: OnceLock<(Weak<Inner>, Weak<Queue>)>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Subscription {
    /// A subscription of these streams; `cursors` are there when its position is durable, one a stream.
    pub(crate) fn over_streams(
        namespace: &Namespace,
        name: &str,
        mode: Mode,
        streams: Vec<(Stream, Option<Cursor>, Offset)>,
        trim: Trim,
    ) -> Arc<Subscription> {
        let durable = streams.iter().any(|(_, cursor, _)| cursor.is_some());
        let reclaim = (trim == Trim::Acknowledged).then(|| namespace.reclaim().clone());
        let subscription = Subscription::new(namespace, name, mode, durable, reclaim, streams.len());
        {
            let mut state = subscription.state.lock();
            for (stream, cursor, from) in streams {
                state.add_stream(&subscription, stream, cursor, from);
            }
        }
        if trim == Trim::Acknowledged {
            namespace.reclaim().register(&subscription);
        }
        subscription
    }

    /// A subscription of a queue that lives in memory.
    pub(crate) fn in_memory(
        namespace: &Namespace,
        name: &str,
        mode: Mode,
        bounds: MemoryBounds,
    ) -> Arc<Subscription> {
        let subscription = Subscription::new(namespace, name, mode, false, None, 1);
        subscription.state.lock().add_memory(bounds);
        subscription
    }

    fn new(
        namespace: &Namespace,
        name: &str,
        mode: Mode,
        durable: bool,
        reclaim: Option<Arc<Reclaim>>,
        sources: usize,
    ) -> Arc<Subscription> {
        Arc::new(Subscription {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            durable,
            context: namespace.context().clone(),
            state: Mutex::new(State::new(mode, sources)),
            dirty: AtomicBool::new(false),
            reclaim,
            dead_letterer: OnceLock::new(),
            bytes: OnceLock::new(),
            made: OnceLock::new(),
            last_detach: OnceLock::new(),
            used_ms: AtomicI64::new(now_ms()),
            queue: OnceLock::new(),
        })
    }

    /// Does something under the lock, and wakes whom it called when the lock was given back.
    fn locked<R>(self: &Arc<Self>, act: impl FnOnce(&mut State) -> R) -> R {
        let (done, calls) = {
            let mut state = self.state.lock();
            let done = act(&mut state);
            if let Some((set_ms, at_ms)) = state.slots.set_look() {
                self.context.clockwork.look_at_line(self, set_ms, at_ms);
            }
            (done, std::mem::take(&mut state.calls))
        };
        calls.into_iter().for_each(|(mailbox, token)| mailbox.post(token));
        done
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

    /// How its consumers share it.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.state.lock().mode
    }

    /// Asks for a mode: granted when it is the present one, or when nobody is attached.
    /// Otherwise the present mode comes back as the error.
    pub fn ask_mode(&self, mode: Mode) -> Result<(), Mode> {
        self.state.lock().ask_mode(mode)
    }

    /// What to wait for before a client is told that it is there; none for what does not survive a restart,
    /// and for what did.
    #[must_use]
    pub fn made(&self) -> Option<Lsn> {
        self.made.get().copied()
    }

    pub(crate) fn set_made(&self, lsn: Lsn) {
        // Made once; a second time would be a defect of the caller, and the first stays.
        let _ = self.made.set(lsn);
    }

    /// How full it is, without what has to die.
    #[must_use]
    pub fn depth(self: &Arc<Self>) -> Depth {
        self.look(now_ms(), false).0
    }

    /// How full it is, whether or not some of it has to die. Quick: nobody is buried.
    pub(crate) fn counts(&self) -> Depth {
        self.state.lock().depth()
    }

    /// Messages that wait, those not yet visible included, and their bytes where they are weighed.
    pub(crate) fn submitted(&self) -> (u64, u64) {
        self.state.lock().submitted_and_bytes()
    }

    /// Adds a consumer.
    pub fn attach(self: &Arc<Self>, spec: ConsumerSpec) -> Result<Consumer, AttachError> {
        let slot = self.locked(|state| state.attach(spec.clone()))?;
        Ok(Consumer::new(self.clone(), slot, spec))
    }

    /// As [`attach`](Self::attach), by the only one who can: refused, it finds the subscription ended.
    pub(crate) fn attach_held(self: &Arc<Self>, spec: ConsumerSpec) -> Consumer {
        let slot = self.locked(|state| state.attach(spec.clone())).unwrap_or(u64::MAX);
        Consumer::new(self.clone(), slot, spec)
    }

    /// What is done each time the last consumer leaves; set once.
    pub(crate) fn on_last_detach(&self, act: impl Fn() + Send + Sync + 'static) {
        // A second one would be a defect of the caller; the first stays.
        let _ = self.last_detach.set(Box::new(act));
    }

    /// It is this queue's; once.
    pub(crate) fn set_queue(&self, namespace: &Weak<Inner>, queue: &Arc<Queue>) {
        // A second time would be a defect of the caller; the first stays.
        let _ = self.queue.set((namespace.clone(), Arc::downgrade(queue)));
    }

    /// Consumers were called some time ago, and others wait behind them.
    pub(crate) fn look_at_line(self: &Arc<Self>, now_ms: i64) {
        self.locked(|state| state.look_at_line(now_ms));
    }

    /// Somebody asked for it: its time without a consumer begins anew.
    pub(crate) fn touch(&self) {
        self.used_ms.store(now_ms(), Ordering::Relaxed);
    }

    /// Since when nobody consumes it; none while somebody does.
    pub(crate) fn idle_since_ms(&self) -> Option<i64> {
        (self.counts().consumers == 0).then(|| self.used_ms.load(Ordering::Relaxed))
    }

    fn last_detached(&self) {
        self.touch();
        if let Some(act) = self.last_detach.get() {
            act();
        }
    }

    /// Adds a stream to what it consumes, from its beginning.
    pub(crate) fn extend(self: &Arc<Self>, stream: Stream, cursor: Option<Cursor>) {
        self.state.lock().add_stream(self, stream, cursor, Offset(0));
    }

    /// Its durable positions, a stream each.
    pub(crate) fn cursors(&self) -> Vec<CursorId> {
        self.state.lock().cursors()
    }

    pub(crate) fn first_cursor(&self) -> Option<CursorId> {
        self.cursors().first().copied()
    }

    fn trim(&self, stream: &Stream, to: Offset) {
        let mut entry = Entry::new();
        entry.trim(stream, to);
        if let Err(error) = self.context.log.submit(entry) {
            tracing::debug!(subscription = %self.name, %error, "trim not written");
        }
    }

    /// Throws away what is waiting; what consumers hold stays theirs. Returns how many, and the position in
    /// the log to wait for before that is promised.
    pub fn purge(self: &Arc<Self>) -> (u64, Option<Lsn>) {
        let (count, acked) = self.locked(State::purge);
        let lsn = self.commit_acks(acked);
        (count, lsn)
    }

    /// Ends it: consumers are told by [`Pull::cancelled`], nothing is delivered any more.
    pub fn close(self: &Arc<Self>) {
        let spilled = self.locked(State::close);
        if let Some(stream) = spilled
            && let Err(error) = self.context.log.submit(spill_ended(stream.id()))
        {
            tracing::debug!(subscription = %self.name, %error, "spilled messages not deleted");
        }
    }

    /// Messages for a queue in memory: a batch's bytes, shared with all other receivers.
    pub(crate) fn push(self: &Arc<Self>, batch: &Batch, topic: Option<&Arc<str>>) {
        self.locked(|state| state.push(self, batch, topic));
    }

    /// How many messages a bounded queue in memory refused.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.state.lock().dropped()
    }

    /// Streams that may have messages below their subscription's position: `(stream, position)`.
    pub(crate) fn take_dirty(&self) -> Vec<(Stream, Offset)> {
        self.dirty.store(false, Ordering::Release);
        self.state.lock().positions()
    }

    /// A durable position moved, or is about to.
    pub(crate) fn note_moved(&self) {
        if let (false, Some(reclaim)) = (self.dirty.swap(true, Ordering::AcqRel), &self.reclaim) {
            reclaim.note(self.id);
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("name", &self.name).field("durable", &self.durable).finish()
    }
}
