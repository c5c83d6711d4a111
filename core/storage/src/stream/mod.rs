//! A stream: an append-only sequence of records with dense offsets.
//!
//! Its three marks, always `start ≤ high watermark ≤ next`:
//! - `start` moves up when a trim is submitted; below it nothing is read any more;
//! - `next` moves up when a batch is submitted, under the log's one intake lock;
//! - the high watermark moves up when the batch is committed under the policy: only below it anything is read.
//!
//! An idle stream costs a few hundred bytes: nothing here is allocated before it is needed.

pub(crate) mod cold;
pub(crate) mod producers;
pub(crate) mod runs;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;

pub use self::cold::{ColdRead, ColdTimeLookup, TimeLookup};
pub use self::producers::ProducerState;
use self::producers::Producers;
use self::runs::Runs;
use crate::batch;
use crate::error::ReadError;
use crate::format::index::Extent;
use crate::ids::{Offset, StreamId};
use crate::inner::Inner;
use crate::segments::Segment;

/// A stream's handle. Cheap to clone. Stays valid after the stream was deleted, but reads nothing then.
#[derive(Clone)]
pub struct Stream(pub(crate) Arc<StreamInner>);

pub(crate) struct StreamInner {
    pub(crate) id: u64,
    log: Weak<Inner>,
    pub(crate) start: AtomicU64,
    /// Written under the intake lock only.
    pub(crate) next: AtomicU64,
    /// Written by the writer only.
    pub(crate) high: AtomicU64,
    pub(crate) last_timestamp: AtomicI64,
    pub(crate) deleted: AtomicBool,
    /// The checkpoint round in which it was last listed as changed.
    pub(crate) dirty_round: AtomicU32,
    /// The writer's group in which it was last listed for its listeners.
    pub(crate) told_group: AtomicU32,
    pub(crate) producers: Mutex<Option<Box<Producers>>>,
    pub(crate) state: Mutex<StreamState>,
}

#[derive(Default)]
#[allow(clippy::box_collection, reason = "an idle stream pays a pointer for each, not an empty collection")]
pub(crate) struct StreamState {
    pub(crate) runs: Runs,
    /// The last batches, without a gap up to the high watermark; as many as the tail cache has room for.
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

/// A batch as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// Offset that its first record has, or had, in this stream. The next batch starts `offset_span` offsets on or
    /// later: compaction removes records and whole batches, and leaves the offsets of the others as they are.
    pub base_offset: Offset,
    /// The first of the streams that the batch was submitted for: this one, or the one that it was meant for
    /// while this one received it too.
    pub origin: StreamId,
    /// The batch as submitted. Its own base offset (the first 8 bytes) is not authoritative: several
    /// destinations share the bytes. Who needs it writes `base_offset` and then `bytes[8..]`.
    pub bytes: Bytes,
}

/// What [`Stream::read`] found.
#[derive(Debug)]
pub enum Read {
    /// At least one batch.
    Ready(Vec<StoredBatch>),
    /// Nothing at or above the offset yet.
    Empty,
    /// On the disk only.
    Cold(ColdRead),
}

/// Told when a stream's high watermark has moved. Called from the log's writer thread: be quick, never block,
/// do not call back into the log.
pub trait Listener: Send + Sync {
    /// The stream registered under `token` has more to read.
    fn advanced(&self, token: u64);
}

/// A registration; dropping it ends it. One more call may come while it is being dropped.
pub struct Listening {
    stream: Weak<StreamInner>,
    id: u64,
}

/// What of a stream is kept, for [`Stream::retention_point`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Data is dropped while more than this many bytes would be left.
    pub bytes_max: Option<u64>,
    /// Data whose greatest timestamp is older than this (ms since the epoch) is dropped.
    pub oldest_ms: Option<i64>,
}

impl Stream {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> StreamId {
        StreamId(self.0.id)
    }

    /// The first offset kept.
    #[must_use]
    pub fn start(&self) -> Offset {
        Offset(self.0.start.load(Ordering::Acquire))
    }

    /// The next visible offset: everything below is committed under the policy.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        Offset(self.0.high.load(Ordering::Acquire))
    }

    /// The next offset to be given: everything below was submitted.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.0.next.load(Ordering::Acquire))
    }

    /// Bytes of batches kept. Room comes back a segment at a time, so a little more than what can be read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.state.lock().runs.bytes()
    }

    /// The greatest timestamp of a visible record, −1 when there was none.
    #[must_use]
    pub fn last_timestamp(&self) -> i64 {
        self.0.last_timestamp.load(Ordering::Acquire)
    }

    /// The stream was deleted; handles stay valid but read nothing.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.0.deleted.load(Ordering::Acquire)
    }

    /// Batches from the one that holds `from` on, below the high watermark: at least one if there is one, then
    /// up to `bytes_max`. Never does I/O.
    pub fn read(&self, from: Offset, bytes_max: usize) -> Result<Read, ReadError> {
        let state = self.0.state.lock();
        match self.check(from)? {
            true => {}
            false => return Ok(Read::Empty),
        }
        match state.read_tail(from.0, bytes_max) {
            Some(batches) if batches.is_empty() => Ok(Read::Empty),
            Some(batches) => Ok(Read::Ready(batches)),
            None => Ok(Read::Cold(ColdRead::new(self.clone(), from, bytes_max))),
        }
    }

    /// Whether there is anything at or above `from`.
    fn check(&self, from: Offset) -> Result<bool, ReadError> {
        if self.is_deleted() {
            return Err(ReadError::Deleted);
        }
        let (start, end) = (self.start(), self.high_watermark());
        // The start may be above the high watermark when a trim overtook a commit.
        if from < start || from > end.max(start) {
            return Err(ReadError::OutOfRange { start, end });
        }
        Ok(from < end)
    }

    /// The first record with a timestamp at or after `timestamp_ms`. Never does I/O.
    pub fn offset_for_time(&self, timestamp_ms: i64) -> Result<TimeLookup, ReadError> {
        cold::offset_for_time(self, timestamp_ms)
    }

    /// The offset up to which the stream may be trimmed so that no more is kept than is to be kept; its start when
    /// nothing may go. Looks at whole segments: what is newest always stays until its segment is closed.
    #[must_use]
    pub fn retention_point(&self, keep: &Retention) -> Offset {
        let state = self.0.state.lock();
        let high = self.high_watermark().0;
        let mut point = self.start().0;
        let mut bytes = state.runs.bytes();
        let mut runs = state.runs.iter().peekable();
        while let Some(run) = runs.next() {
            let too_much = keep.bytes_max.is_some_and(|bytes_max| bytes - run.bytes >= bytes_max);
            let too_old = keep.oldest_ms.is_some_and(|oldest_ms| run.max_timestamp < oldest_ms);
            if !(too_much || too_old) || !run.segment.is_sealed() {
                break;
            }
            bytes -= run.bytes;
            point = point.max(runs.peek().map_or(high, |next| next.first));
        }
        Offset(point)
    }

    /// The offset up to which every batch from `from` on has a greatest timestamp below `timestamp_ms` (ms since the
    /// epoch); `from` if the first has not. Never does I/O: it stops at a sealed segment of which only a part is older.
    #[must_use]
    pub fn older_until(&self, from: Offset, timestamp_ms: i64) -> Offset {
        let state = self.0.state.lock();
        let (from, high) = (from.max(self.start()), self.high_watermark());
        if self.is_deleted() || from >= high {
            return from;
        }
        Offset(state.runs.older_until(from.0, timestamp_ms, high.0))
    }

    /// Calls `listener.advanced(token)` whenever the high watermark has moved, once a commit at most.
    /// Register, then read: what was committed before the registration is not told.
    #[must_use]
    pub fn listen(&self, listener: Arc<dyn Listener>, token: u64) -> Listening {
        let mut state = self.0.state.lock();
        let listeners = state.listeners.get_or_insert_default();
        let id = listeners.last().map_or(0, |last| last.id + 1);
        listeners.push(Registration { id, token, listener });
        Listening { stream: Arc::downgrade(&self.0), id }
    }
}

impl StreamInner {
    pub(crate) fn new(log: Weak<Inner>, id: u64) -> Self {
        Self {
            id,
            log,
            start: AtomicU64::new(0),
            next: AtomicU64::new(0),
            high: AtomicU64::new(0),
            last_timestamp: AtomicI64::new(-1),
            deleted: AtomicBool::new(false),
            dirty_round: AtomicU32::new(0),
            told_group: AtomicU32::new(0),
            producers: Mutex::new(None),
            state: Mutex::new(StreamState::default()),
        }
    }

    /// A batch is committed: makes it visible and keeps it for tailing readers.
    pub(crate) fn commit(self: &Arc<Self>, segment: &Arc<Segment>, extent: Extent, bytes: Bytes) {
        let mut state = self.state.lock();
        if self.deleted.load(Ordering::Acquire) {
            return;
        }
        if state.runs.append(segment, extent) {
            segment.touched.lock().push(self.clone());
        }
        let batch = TailBatch { base: extent.base, span: extent.span, origin: extent.origin, bytes };
        state.tail.get_or_insert_default().push_back(batch);
        self.last_timestamp.fetch_max(extent.max_timestamp, Ordering::AcqRel);
        self.high.store(extent.end(), Ordering::Release);
    }

    /// Drops a batch from the tail that the tail cache has no room for any more.
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

    /// Moves the start up; what lies wholly below it is let go.
    pub(crate) fn trim(&self, to: u64) {
        let mut state = self.state.lock();
        let start = self.start.fetch_max(to, Ordering::AcqRel).max(to);
        state.drop_tail_below(start);
        let high = self.high.load(Ordering::Acquire);
        state.runs.release_below(start, high);
    }

    /// What lies wholly below `to` was compacted: readers are not served the uncompacted batches any more.
    pub(crate) fn compacted(&self, to: u64) {
        self.state.lock().drop_tail_below(to);
    }

    /// Reads nothing from now on; lets everything go.
    pub(crate) fn delete(&self) {
        let mut state = self.state.lock();
        self.deleted.store(true, Ordering::Release);
        state.tail = None;
        state.runs.release_all();
    }

    /// Calls those who listen.
    pub(crate) fn tell(&self) {
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
    /// Lets go of the tail's batches that lie wholly below an offset.
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
    fn read_tail(&self, from: u64, bytes_max: usize) -> Option<Vec<StoredBatch>> {
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

/// What the writer needs to know of a batch to index it.
pub(crate) fn extent_of(header: &batch::BatchHeader, origin: u64, base: u64, position: u32) -> Extent {
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

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({}: {}..{})", self.id(), self.start(), self.next_offset())
    }
}

impl fmt::Debug for StreamInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.id)
    }
}
