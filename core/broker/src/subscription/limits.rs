//! Limits of a queue: expiry, length and delivery limits, and the bookkeeping of what they drop.
//!
//! Owns the decision whether a message is dropped, and the messages dropped but not yet dead-lettered. When limits are
//! enforced is in `check`; dead-lettering is the owner's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use inver_storage::batch::Record;

use super::drops::{AckBatch, Dropped};
use super::sizes::size;
use super::slots::RESERVATION_MS_MAX;
use super::source::READ_BYTES;
use super::{Delivery, DeliveryId};
use crate::message::expires_ms;
use crate::seeded_bugs::{Bug, is_seeded};
use crate::spec::{DropReason, Overflow, QueueBounds};

/// Messages that one round drops after reading them, or out of those that were requeued.
pub(super) const ROUND_MESSAGES_MAX: usize = 1024;

/// Bytes of messages that one round drops for dead-lettering; the last message may exceed it.
const ROUND_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes read from a stream to peek at its head: one batch, however small this is.
const PEEK_BYTES: usize = 1;

/// The first read behind a head that was dropped; each further one is larger by this factor, up to [`READ_BYTES`].
const READ_AGAIN_BYTES: usize = 16 * 1024;
const READ_GROWTH: usize = 4;

/// An expired message that was never delivered is kept this long where a consumer waits, because it is about to be
/// delivered; in milliseconds.
pub(super) const GRACE_MS: i64 = RESERVATION_MS_MAX;

/// The limits of a queue as of the current round, and what is being dropped.
#[derive(Default)]
pub(super) struct LimitState {
    pub(super) now_ms: i64,
    /// A consumer waits for messages, or pulls now.
    pub(super) in_grace: bool,
    /// The last round found a first message without an expiry.
    pub(super) head_never_expires: bool,
    /// A check needs records that are being loaded, and is repeated at the end of the load.
    pub(super) awaits_load: bool,
    dead_letters: bool,
    ttl_ms: Option<u64>,
    deliveries_max: Option<u32>,
    /// Boxed: it exists only while messages are dropped.
    drops: Option<Box<Drops>>,
    pub(super) bytes: ByteCounter,
}

/// Messages that were dropped and not yet dead-lettered or acknowledged.
#[derive(Default)]
struct Drops {
    /// To be dead-lettered.
    dropped: Vec<Dropped>,
    dropped_bytes: usize,
    /// A thread is dead-lettering what it took before; it takes these next, so that their order holds.
    is_dead_lettering: bool,
    /// To be acknowledged only.
    removed: Vec<DeliveryId>,
    /// Acknowledgements of messages that were skipped, and how many.
    skipped: AckBatch,
    skipped_messages: u64,
    /// Bytes of the next read; 0 before the first of this pass.
    read_bytes: usize,
}

/// The bytes that wait in a queue with a byte limit: added by publishers, subtracted as messages are taken. The bytes
/// of messages from before the process started are estimated once, from the first of them.
#[derive(Clone, Default)]
pub(super) struct ByteCounter {
    bytes: Option<Arc<AtomicI64>>,
    /// Messages that were not counted.
    uncounted: u64,
    /// The bytes of some were estimated: the sum is corrected once the queue is empty.
    is_estimate: bool,
}

impl ByteCounter {
    /// Starts counting, also again. In use: messages may be on their way that were not counted.
    pub(super) fn start(&mut self, uncounted: u64, in_use: bool) -> Arc<AtomicI64> {
        let bytes = self.bytes.get_or_insert_default().clone();
        bytes.store(0, Ordering::Relaxed);
        self.uncounted = uncounted;
        self.is_estimate = in_use;
        bytes
    }

    pub(super) fn is_counting(&self) -> bool {
        self.bytes.is_some()
    }

    pub(super) fn add(&self, value_bytes: u32) {
        self.change(i64::from(value_bytes));
    }

    pub(super) fn subtract(&self, value_bytes: u32) {
        self.change(-i64::from(value_bytes));
    }

    /// Whether there are messages that were not counted.
    pub(super) fn wants_estimate(&self) -> bool {
        self.uncounted > 0
    }

    /// Counts all uncounted messages with the size of one.
    pub(super) fn estimate(&mut self, value_bytes: u32) {
        let uncounted = i64::try_from(std::mem::take(&mut self.uncounted)).unwrap_or(i64::MAX);
        self.change(i64::from(value_bytes).saturating_mul(uncounted));
        self.is_estimate = true;
    }

    /// Notes that messages were removed whose bytes are not known.
    pub(super) fn lose_count(&mut self) {
        self.is_estimate = true;
    }

    /// Corrects the sum of an empty queue. Only after an estimate: publishers count messages before they enqueue them.
    pub(super) fn correct_empty(&mut self) {
        if self.uncounted > 0 || self.is_estimate {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.uncounted = 0;
        self.is_estimate = false;
        if let Some(bytes) = &self.bytes {
            bytes.store(0, Ordering::Relaxed);
        }
    }

    /// Adds a number of bytes, or subtracts it.
    pub(super) fn change(&self, by: i64) {
        if let Some(bytes) = &self.bytes {
            bytes.fetch_add(by, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self) -> u64 {
        self.bytes.as_ref().map_or(0, |b| u64::try_from(b.load(Ordering::Relaxed)).unwrap_or(0))
    }
}

impl LimitState {
    pub(super) fn set(&mut self, limits: &QueueBounds) {
        self.ttl_ms = limits.message_ttl_ms;
        self.deliveries_max = limits.deliveries_max;
        self.dead_letters = limits.dead_letters;
    }

    pub(super) fn drop_reason(&self, delivery: &Delivery) -> Option<DropReason> {
        if self.deliveries_max.is_some_and(|max| is_beyond(delivery.redelivered, max)) {
            return Some(DropReason::DeliveryLimit);
        }
        let grace = if self.in_grace && delivery.redelivered == 0 { GRACE_MS } else { 0 };
        let expired = self.expires_ms(&delivery.record)?.saturating_add(grace) <= self.now_ms;
        expired.then_some(DropReason::Expired)
    }

    /// When a message expires: by the queue's TTL or its own, whichever is earlier.
    pub(super) fn expires_ms(&self, record: &Record) -> Option<i64> {
        let parts = 1 + u64::from(is_seeded(Bug::ExpireEarly));
        let by_queue = self.ttl_ms.map(|ttl| ttl / parts);
        let by_queue = by_queue.map(|ttl| record.timestamp_ms.saturating_add_unsigned(ttl));
        let own = expires_ms(record).map(|at| match is_seeded(Bug::ExpireMessageEarly) {
            true => at.midpoint(record.timestamp_ms),
            false => at,
        });
        match (by_queue, own) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Messages with timestamps below this expired by the queue's TTL; none if they must be read to be dropped.
    pub(super) fn expired_below_ms(&self) -> Option<i64> {
        let grace = if self.in_grace { GRACE_MS } else { 0 };
        let ttl_ms = self.ttl_ms.filter(|_| !self.dead_letters && !self.bytes.is_counting())?;
        Some(self.now_ms.saturating_sub_unsigned(ttl_ms).saturating_sub(grace).saturating_add(1))
    }

    // ---- dropping

    /// Whether this round dropped as many as it may.
    pub(super) fn is_round_full(&self) -> bool {
        self.drops.as_ref().is_some_and(|drops| {
            drops.dropped.len() >= ROUND_MESSAGES_MAX
                || drops.removed.len() >= ROUND_MESSAGES_MAX
                || drops.dropped_bytes >= ROUND_BYTES_MAX
        })
    }

    pub(super) fn drop_message(&mut self, id: DeliveryId, record: Record, reason: DropReason) {
        if !self.dead_letters {
            return self.remove(id);
        }
        let drops = self.drops.get_or_insert_default();
        drops.dropped_bytes += size(&record);
        drops.dropped.push(Dropped { id, record, reason });
    }

    /// Drops a message whose record is not needed.
    pub(super) fn remove(&mut self, id: DeliveryId) {
        self.drops.get_or_insert_default().removed.push(id);
    }

    /// Drops messages that were skipped without being read.
    pub(super) fn skip(&mut self, messages: u64, acks: AckBatch) {
        let drops = self.drops.get_or_insert_default();
        drops.skipped_messages += messages;
        drops.skipped.extend(acks);
    }

    /// The messages to be dead-lettered, unless another thread is doing that: it takes them when it is done.
    pub(super) fn take_dropped(&mut self) -> Vec<Dropped> {
        match &mut self.drops {
            Some(drops) if !drops.is_dead_lettering && !drops.dropped.is_empty() => {
                drops.is_dead_lettering = true;
                drops.take_dropped()
            }
            _ => Vec::new(),
        }
    }

    /// The messages that were dropped while this thread was dead-lettering others; with none, it is done.
    pub(super) fn next_dropped(&mut self) -> Vec<Dropped> {
        let Some(drops) = &mut self.drops else { return Vec::new() };
        drops.is_dead_lettering = !drops.dropped.is_empty();
        drops.take_dropped()
    }

    /// The messages to be acknowledged only: those that were read, and the others with their number.
    pub(super) fn take_removed(&mut self) -> (Vec<DeliveryId>, AckBatch, u64) {
        let Some(drops) = &mut self.drops else { return Default::default() };
        let skipped_messages = std::mem::take(&mut drops.skipped_messages);
        (std::mem::take(&mut drops.removed), std::mem::take(&mut drops.skipped), skipped_messages)
    }

    // ---- reading

    /// The size of the next read: one batch to peek at the head, more once a pass dropped what it peeked at.
    pub(super) fn read_bytes(&self) -> usize {
        self.drops.as_ref().map_or(PEEK_BYTES, |drops| drops.read_bytes.max(PEEK_BYTES))
    }

    /// Whether this pass reads from the disk beyond the head.
    pub(super) fn reads_on(&self) -> bool {
        self.drops.as_ref().is_some_and(|drops| drops.read_bytes > 0)
    }

    /// Makes the next read of this pass larger.
    pub(super) fn grow_reads(&mut self) {
        let drops = self.drops.get_or_insert_default();
        drops.read_bytes = (drops.read_bytes * READ_GROWTH).clamp(READ_AGAIN_BYTES, READ_BYTES);
    }

    /// Ends a pass: the head stays, or nothing waits.
    pub(super) fn end_pass(&mut self) {
        self.awaits_load = false;
        if let Some(drops) = &mut self.drops {
            drops.read_bytes = 0;
            if drops.is_idle() {
                self.drops = None;
            }
        }
    }
}

/// Whether a message was returned more often than its queue allows.
fn is_beyond(redelivered: u32, max: u32) -> bool {
    if is_seeded(Bug::DropEarly) {
        return redelivered >= max;
    }
    redelivered > max && !is_seeded(Bug::DeliverForever)
}

impl Drops {
    fn take_dropped(&mut self) -> Vec<Dropped> {
        self.dropped_bytes = 0;
        std::mem::take(&mut self.dropped)
    }

    fn is_idle(&self) -> bool {
        !self.is_dead_lettering
            && self.dropped.is_empty()
            && self.removed.is_empty()
            && self.skipped.is_empty()
            && self.skipped_messages == 0
    }
}

impl QueueBounds {
    /// The length limit, if the oldest messages beyond it are dropped without being read.
    pub(super) fn messages_max_unread(&self) -> Option<u64> {
        let reads = self.overflow != Overflow::DropHead || self.bytes_max.is_some() || self.dead_letters;
        self.messages_max.filter(|_| !reads)
    }

    pub(super) fn drops_head(&self) -> bool {
        self.overflow == Overflow::DropHead && self.bounds_length()
    }
}

/// What is enforced, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Length limits, for a depth query.
    Depth,
    /// Length limits, by the periodic check.
    Length,
    /// Length limits and expiry, by the periodic check.
    All,
}

/// The time of the next check of a queue whose messages can expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextCheck {
    /// Now: more messages can be dropped.
    Now,
    /// At this time its first message expires.
    At(i64),
    /// Its first message is not readable yet.
    Soon,
    /// Its first message does not expire; those behind it may.
    Later,
    /// It is empty.
    Never,
}
