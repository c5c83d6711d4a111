//! The shared state of a stream: its marks, where its batches are, its tail in memory, and its listeners.
//!
//! Three marks, always `start ≤ high watermark ≤ next`:
//! - `start` is raised when a trim is submitted; nothing below it is read any more;
//! - `next` is raised when a batch is submitted, under the intake lock;
//! - the high watermark is raised when the batch is committed under the policy; nothing above it is read.
//!
//! An idle stream costs a few hundred bytes: nothing here is allocated before it is needed.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::producers::Producers;
use super::runs::Runs;
use super::transactions::Transactions;
use crate::batch::BatchHeader;
use crate::error::{ReadError, SubmitError};
use crate::format::index::Extent;
use crate::ids::{Offset, StreamId};
use crate::read::segments::Segment;
use crate::read::{ReadPath, StoredBatch};

/// See [`StreamInner`].
const NO_TRANSACTION: u64 = u64::MAX;

pub(crate) struct StreamInner {
    pub(crate) id: u64,
    read: Weak<ReadPath>,
    pub(crate) start: AtomicU64,
    /// Written under the intake lock only.
    pub(crate) next: AtomicU64,
    /// Written by the writer only.
    pub(crate) high: AtomicU64,
    pub(crate) last_timestamp: AtomicI64,
    /// The first record of an open transaction, [`NO_TRANSACTION`] without one. Changed under the lock of `state`.
    unstable: AtomicU64,
    pub(crate) deleted: AtomicBool,
    /// The checkpoint round in which it was last listed as changed.
    pub(crate) dirty_round: AtomicU32,
    /// The writer's group in which its listeners were last scheduled for notification.
    pub(crate) notified_group: AtomicU32,
    /// The high watermark, and the bytes of `runs`, above which the log's overflow listener is called once.
    watched_end: AtomicU64,
    watched_bytes: AtomicU64,
    pub(crate) producers: Mutex<Option<Box<Producers>>>,
    pub(crate) state: Mutex<StreamState>,
}

#[derive(Default)]
#[allow(clippy::box_collection, reason = "an idle stream pays a pointer for each, not an empty collection")]
pub(crate) struct StreamState {
    pub(crate) runs: Runs,
    pub(crate) transactions: Option<Box<Transactions>>,
    /// The last batches, without a gap up to the high watermark; as many as fit into the tail cache.
    tail: Option<Box<VecDeque<TailBatch>>>,
    listeners: Option<Box<Vec<Registration>>>,
}

struct TailBatch {
    base: u64,
    span: u32,
    origin: u64,
    bytes: Bytes,
}

#[derive(Clone)]
struct Registration {
    id: u64,
    token: u64,
    listener: Arc<dyn Listener>,
}

/// A callback for moves of a stream's high watermark. Called from the log's writer thread: be quick, never block, do not
/// call back into the log.
pub trait Listener: Send + Sync {
    /// The stream registered under `token` has more to read.
    fn advanced(&self, token: u64);
}

/// A registered listener; dropping this removes it. One more call may arrive during the drop.
pub struct Listening {
    stream: Weak<StreamInner>,
    id: u64,
}

impl StreamInner {
    pub(crate) fn new(read: Weak<ReadPath>, id: u64) -> Self {
        Self {
            id,
            read,
            start: AtomicU64::new(0),
            next: AtomicU64::new(0),
            high: AtomicU64::new(0),
            last_timestamp: AtomicI64::new(-1),
            unstable: AtomicU64::new(NO_TRANSACTION),
            deleted: AtomicBool::new(false),
            dirty_round: AtomicU32::new(0),
            notified_group: AtomicU32::new(0),
            watched_end: AtomicU64::new(u64::MAX),
            watched_bytes: AtomicU64::new(u64::MAX),
            producers: Mutex::new(None),
            state: Mutex::new(StreamState::default()),
        }
    }

    /// The read path of its log, unless the log was closed.
    pub(super) fn read_path(&self) -> Result<Arc<ReadPath>, ReadError> {
        self.read.upgrade().ok_or(ReadError::Deleted)
    }

    /// Whether there is anything at or above `from`; an error if `from` is out of range.
    pub(super) fn check(&self, from: Offset) -> Result<bool, ReadError> {
        if self.deleted.load(Ordering::Acquire) {
            return Err(ReadError::Deleted);
        }
        let start = Offset(self.start.load(Ordering::Acquire));
        let end = Offset(self.high.load(Ordering::Acquire));
        // The start may be above the high watermark when a trim overtook a commit.
        if from < start || from > end.max(start) {
            return Err(ReadError::OutOfRange { start, end });
        }
        Ok(from < end)
    }

    /// Makes a committed batch visible and keeps it for tailing readers. Whether the stream grew above what is watched.
    pub(crate) fn commit(&self, segment: &Arc<Segment>, extent: Extent, bytes: Bytes) -> bool {
        let mut state = self.state.lock();
        if self.deleted.load(Ordering::Acquire) {
            return false;
        }
        if state.runs.append(segment, extent) {
            segment.touched.lock().push(self.id);
        }
        let batch = TailBatch { base: extent.base, span: extent.span, origin: extent.origin, bytes };
        state.tail.get_or_insert_default().push_back(batch);
        self.last_timestamp.fetch_max(extent.max_timestamp, Ordering::AcqRel);
        self.high.store(extent.end(), Ordering::Release);
        // Both are changed under the lock only.
        let is_over = extent.end() > self.watched_end.load(Ordering::Relaxed)
            || state.runs.bytes() > self.watched_bytes.load(Ordering::Relaxed);
        if is_over {
            self.watched_end.store(u64::MAX, Ordering::Relaxed);
            self.watched_bytes.store(u64::MAX, Ordering::Relaxed);
        }
        is_over
    }

    /// See [`Stream::watch`](super::Stream::watch).
    pub(super) fn watch(&self, from: Offset, messages_max: u64, bytes_max: u64) -> bool {
        let state = self.state.lock();
        let high = self.high.load(Ordering::Acquire);
        let end = from.0.saturating_add(messages_max);
        let bytes = state.runs.bytes_from(from.0, high.max(from.0));
        if high > end || bytes > bytes_max {
            return false;
        }
        self.watched_end.store(end, Ordering::Relaxed);
        self.watched_bytes.store(state.runs.bytes().saturating_add(bytes_max - bytes), Ordering::Relaxed);
        true
    }

    /// Drops the batch with this base offset, which the tail cache evicted, if it is still in the tail.
    pub(crate) fn evict(&self, base: u64) {
        let mut state = self.state.lock();
        if let Some(tail) = &mut state.tail {
            if tail.front().is_some_and(|front| front.base <= base) {
                tail.pop_front();
            }
            if tail.is_empty() {
                state.tail = None;
            }
        }
    }

    /// Raises the start and releases data wholly below it.
    pub(crate) fn trim(&self, to: u64) {
        let mut state = self.state.lock();
        let start = self.start.fetch_max(to, Ordering::AcqRel).max(to);
        state.drop_tail_below(start);
        let high = self.high.load(Ordering::Acquire);
        state.runs.release_below(start, high);
        state.change_transactions(|transactions| transactions.trim(start));
    }

    /// The end of what is stable below `end`, which must have been read before: no open transaction has a record below it.
    pub(super) fn stable_below(&self, end: u64) -> u64 {
        // A transaction is noted before its first record is committed.
        let unstable = self.unstable.load(Ordering::Acquire);
        end.min(unstable.max(self.start.load(Ordering::Acquire)))
    }

    /// See [`Transactions::check`].
    pub(crate) fn check_transaction(
        &self,
        header: &BatchHeader,
        transactions_max: usize,
    ) -> Result<(), SubmitError> {
        match &self.state.lock().transactions {
            Some(transactions) => transactions.check(header, transactions_max),
            None => Ok(()),
        }
    }

    /// Refuses a batch outside of a transaction of a producer that has one open.
    pub(crate) fn check_outside(&self, header: &BatchHeader) -> Result<(), SubmitError> {
        if self.unstable.load(Ordering::Acquire) == NO_TRANSACTION {
            return Ok(());
        }
        match &self.state.lock().transactions {
            Some(transactions) if transactions.is_open(header.producer_id) => {
                Err(SubmitError::TransactionOpen)
            }
            _ => Ok(()),
        }
    }

    /// See [`Transactions::note`].
    pub(crate) fn note_transaction(
        &self,
        header: &BatchHeader,
        base: u64,
        commits: Option<bool>,
        now_ms: i64,
    ) -> bool {
        let mut state = self.state.lock();
        let transactions = state.transactions.get_or_insert_default();
        let is_new = transactions.note(header, base, commits, now_ms);
        self.unstable.store(transactions.unstable(), Ordering::Release);
        is_new
    }

    /// Ends the transactions whose markers are submitted. For recovery, where all is committed.
    pub(crate) fn end_transactions(&self) {
        self.end_transactions_below(u64::MAX);
    }

    fn end_transactions_below(&self, end: u64) {
        if let Some(transactions) = &mut self.state.lock().transactions {
            transactions.end_below(end);
            transactions.trim(self.start.load(Ordering::Acquire));
            self.unstable.store(transactions.unstable(), Ordering::Release);
        }
    }

    /// Ends the transactions whose markers are committed.
    pub(crate) fn marker_committed(&self) {
        self.end_transactions_below(self.high.load(Ordering::Acquire));
    }

    /// Sets what a checkpoint knew of transactions.
    pub(crate) fn restore_transactions(&self, transactions: Option<Box<Transactions>>) {
        self.unstable
            .store(transactions.as_ref().map_or(NO_TRANSACTION, |t| t.unstable()), Ordering::Release);
        self.state.lock().transactions = transactions;
    }

    /// Drops uncompacted batches below `to` from the tail, after compaction rewrote them.
    pub(crate) fn compacted(&self, to: u64) {
        self.state.lock().drop_tail_below(to);
    }

    /// Marks the stream as deleted and releases all data.
    pub(crate) fn delete(&self) {
        let mut state = self.state.lock();
        self.deleted.store(true, Ordering::Release);
        state.tail = None;
        state.runs.release_all();
    }

    /// Registers a listener.
    pub(super) fn listen(self: &Arc<Self>, listener: Arc<dyn Listener>, token: u64) -> Listening {
        let mut state = self.state.lock();
        let listeners = state.listeners.get_or_insert_default();
        let id = listeners.last().map_or(0, |last| last.id + 1);
        listeners.push(Registration { id, token, listener });
        Listening { stream: Arc::downgrade(self), id }
    }

    /// Calls the listeners.
    pub(crate) fn notify(&self) {
        // Called without the lock: a listener may hold locks under which others register.
        let listeners: SmallVec<[Registration; 4]> = match &self.state.lock().listeners {
            Some(listeners) => listeners.iter().cloned().collect(),
            None => return,
        };
        for registration in &listeners {
            registration.listener.advanced(registration.token);
        }
    }
}

impl StreamState {
    fn change_transactions(&mut self, change: impl FnOnce(&mut Transactions)) {
        if let Some(transactions) = &mut self.transactions {
            change(transactions);
        }
    }

    /// Drops the tail's batches that are wholly below an offset.
    fn drop_tail_below(&mut self, to: u64) {
        if let Some(tail) = &mut self.tail {
            while tail.front().is_some_and(|front| front.end() <= to) {
                tail.pop_front();
            }
            if tail.is_empty() {
                self.tail = None;
            }
        }
    }

    /// Batches from the tail; `None` when it does not reach down to `from`.
    pub(super) fn read_tail(&self, from: u64, bytes_max: usize) -> Option<Vec<StoredBatch>> {
        let tail = self.tail.as_ref()?;
        if tail.front()?.base > from {
            return None;
        }
        let first = tail.partition_point(|batch| batch.end() <= from);
        let mut bytes = 0usize;
        let mut batches = Vec::new();
        for batch in tail.range(first..) {
            bytes = bytes.saturating_add(batch.bytes.len());
            if bytes > bytes_max && !batches.is_empty() {
                break;
            }
            batches.push(StoredBatch {
                base_offset: Offset(batch.base),
                origin: StreamId(batch.origin),
                bytes: batch.bytes.clone(),
            });
        }
        Some(batches)
    }
}

impl TailBatch {
    fn end(&self) -> u64 {
        self.base + u64::from(self.span)
    }
}

/// The index entry of a batch.
pub(crate) fn extent_of(header: &BatchHeader, origin: u64, base: u64, position: u32) -> Extent {
    Extent {
        base,
        max_timestamp: header.max_timestamp,
        position,
        length: header.total_bytes() as u32,
        span: u32::try_from(header.offset_span()).unwrap_or(u32::MAX),
        origin,
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let Some(stream) = self.stream.upgrade() else { return };
        let mut state = stream.state.lock();
        if let Some(listeners) = &mut state.listeners {
            listeners.retain(|registration| registration.id != self.id);
            if listeners.is_empty() {
                state.listeners = None;
            }
        }
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listening({})", self.id)
    }
}

impl fmt::Debug for StreamInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.id)
    }
}
