//! A stream: an append-only sequence of records with dense offsets.
//!
//! Holds the public handle; the shared state is in [`state`]. Reads from memory never do I/O; reads that need files are
//! returned as values, which the caller runs where blocking is allowed.

pub(crate) mod cold;
pub(crate) mod producers;
mod retention;
pub(crate) mod runs;
pub(crate) mod state;
pub(crate) mod time_lookup;
pub(crate) mod transactions;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use self::cold::ColdRead;
pub use self::producers::ProducerState;
pub use self::retention::Retention;
pub(crate) use self::state::StreamInner;
pub use self::state::{Listener, Listening};
pub use self::time_lookup::{ColdTimeLookup, TimeLookup};
pub use self::transactions::{AbortedTransaction, OpenTransaction};
use crate::error::ReadError;
use crate::ids::{Offset, StreamId};
use crate::read::StoredBatch;

/// A stream's handle. Cheap to clone. Stays valid after the stream was deleted, but then reads nothing.
#[derive(Clone)]
pub struct Stream(pub(crate) Arc<StreamInner>);

/// Result of [`Stream::read`].
#[derive(Debug)]
pub enum Read {
    /// At least one batch.
    Ready(Vec<StoredBatch>),
    /// Nothing at or above the offset yet.
    Empty,
    /// A read that needs the disk.
    Cold(ColdRead),
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

    /// The end of what readers of committed transactions may see: the high watermark, or the first record of an open
    /// transaction.
    #[must_use]
    pub fn stable_offset(&self) -> Offset {
        Offset(self.0.stable_below(self.high_watermark().0))
    }

    /// As [`stable_offset`](Self::stable_offset), records that are not committed by the log included.
    #[must_use]
    pub fn next_stable_offset(&self) -> Offset {
        Offset(self.0.stable_below(self.next_offset().0))
    }

    /// The open transactions, in the order of their first records.
    #[must_use]
    pub fn open_transactions(&self) -> Vec<OpenTransaction> {
        let state = self.0.state.lock();
        let open = state.transactions.iter().flat_map(|transactions| transactions.open());
        let transactions = open.map(|open| OpenTransaction {
            producer_id: open.producer,
            producer_epoch: open.epoch,
            first: Offset(open.first),
            end: Offset(open.end),
            started_ms: open.started_ms,
        });
        transactions.collect()
    }

    /// The aborted transactions with records in a range. Ask after the range was read below
    /// [`stable_offset`](Self::stable_offset).
    #[must_use]
    pub fn aborted_transactions(&self, range: Range<Offset>) -> Vec<AbortedTransaction> {
        let state = self.0.state.lock();
        let Some(transactions) = &state.transactions else { return Vec::new() };
        let aborted = transactions.aborted_in(range.start.0, range.end.0);
        let transactions = aborted.map(|aborted| AbortedTransaction {
            producer_id: aborted.producer,
            first: Offset(aborted.first),
            last: Offset(aborted.last),
        });
        transactions.collect()
    }

    /// Whether a batch of a transaction, below [`stable_offset`](Self::stable_offset), was aborted.
    #[must_use]
    pub fn is_aborted(&self, producer_id: i64, base_offset: Offset) -> bool {
        let state = self.0.state.lock();
        let transactions = state.transactions.as_ref();
        transactions.is_some_and(|transactions| transactions.is_aborted(producer_id, base_offset.0))
    }

    /// The offset of the next record to be submitted.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.0.next.load(Ordering::Acquire))
    }

    /// Bytes of batches kept. Trimmed bytes are subtracted a segment at a time, so this is a little more than can be read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.state.lock().runs.bytes()
    }

    /// Estimate of the bytes of batches from an offset on; see [`readable_bytes`](Self::readable_bytes).
    #[must_use]
    pub fn bytes_from(&self, from: Offset) -> u64 {
        let high = self.high_watermark();
        self.0.state.lock().runs.bytes_from(from.0, high.0.max(from.0))
    }

    /// Lets the log's overflow listener (see [`Log::on_overflow`](crate::Log::on_overflow)) be called once, when more than
    /// `messages_max` records or `bytes_max` bytes from `from` on are committed. False: there are more already, and nothing
    /// is watched.
    #[must_use]
    pub fn watch(&self, from: Offset, messages_max: u64, bytes_max: u64) -> bool {
        self.0.watch(from, messages_max, bytes_max)
    }

    /// Estimate of the bytes of batches that can be read: trimmed bytes of a segment that is still there are counted by
    /// offsets, as if all its batches were equally long.
    #[must_use]
    pub fn readable_bytes(&self) -> u64 {
        let (start, high) = (self.start(), self.high_watermark());
        self.0.state.lock().runs.bytes_from(start.0, high.0.max(start.0))
    }

    /// The greatest timestamp of a visible record, −1 when there was none.
    #[must_use]
    pub fn last_timestamp(&self) -> i64 {
        self.0.last_timestamp.load(Ordering::Acquire)
    }

    /// Whether the stream was deleted.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.0.deleted.load(Ordering::Acquire)
    }

    /// Batches from the one that contains `from`, below the high watermark: at least one if there is one, then up to
    /// `bytes_max`. Never does I/O.
    pub fn read(&self, from: Offset, bytes_max: usize) -> Result<Read, ReadError> {
        let state = self.0.state.lock();
        if !self.0.check(from)? {
            return Ok(Read::Empty);
        }
        match state.read_tail(from.0, bytes_max) {
            Some(batches) if batches.is_empty() => Ok(Read::Empty),
            Some(batches) => Ok(Read::Ready(batches)),
            None => Ok(Read::Cold(ColdRead::new(self.0.clone(), from, bytes_max))),
        }
    }

    /// A read as [`read`](Self::read) is, wherever the batches are, to be run where blocking is allowed.
    #[must_use]
    pub fn read_later(&self, from: Offset, bytes_max: usize) -> ColdRead {
        ColdRead::new(self.0.clone(), from, bytes_max)
    }

    /// The first record with a timestamp at or after `timestamp_ms`. Never does I/O.
    pub fn offset_for_time(&self, timestamp_ms: i64) -> Result<TimeLookup, ReadError> {
        time_lookup::offset_for_time(&self.0, timestamp_ms)
    }

    /// Offset below which data exceeds the retention; the current start if nothing may be trimmed. Blocks on I/O, if the
    /// retention ends within a sealed segment.
    #[must_use]
    pub fn retention_point(&self, keep: &Retention) -> Offset {
        retention::point(&self.0, keep)
    }

    /// Offset up to which every batch from `from` on has a greatest timestamp below `timestamp_ms` (ms since the epoch);
    /// `from` if the first batch is not older. Never does I/O: stops at a sealed segment of which only a part is older.
    #[must_use]
    pub fn older_until(&self, from: Offset, timestamp_ms: i64) -> Offset {
        let state = self.0.state.lock();
        let (from, high) = (from.max(self.start()), self.high_watermark());
        if self.is_deleted() || from >= high {
            return from;
        }
        Offset(state.runs.older_until(from.0, timestamp_ms, high.0))
    }

    /// Calls `listener.advanced(token)` whenever the high watermark has moved, at most once per commit group. Register,
    /// then read: commits before the registration are not reported.
    #[must_use]
    pub fn listen(&self, listener: Arc<dyn Listener>, token: u64) -> Listening {
        self.0.listen(listener, token)
    }

    /// The epoch of an idempotent producer, if it is remembered.
    #[must_use]
    pub fn producer_epoch(&self, producer_id: i64) -> Option<i16> {
        Some(self.0.producers.lock().as_ref()?.by_id.get(&producer_id)?.epoch)
    }

    /// The idempotent producers remembered, by id.
    #[must_use]
    pub fn producers(&self) -> Vec<ProducerState> {
        self.0.producers.lock().as_ref().map(|producers| producers.states()).unwrap_or_default()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({}: {}..{})", self.id(), self.start(), self.next_offset())
    }
}
