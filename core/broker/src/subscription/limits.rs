//! Expiry, length limits and the delivery limit of a queue, enforced lazily: on a pull, on a depth query and by the
//! periodic check.
//!
//! Until then an expired message only waits, which nobody can tell. One round drops a bounded number; the caller
//! repeats it. Where dropped messages are sent is the dead-letterer's.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use inver_storage::Lsn;
use inver_storage::batch::Record;

use super::owner::{DropSink, Dropped, Owner, Recheck};
use super::pull::value_bytes;
use super::slots::RESERVATION_MS_MAX;
use super::state::{Load, State};
use super::{Delivery, DeliveryId, Depth, Subscription};
use crate::message::{Message, expires_ms};
use crate::spec::{DropReason, Overflow, QueueLimits};

/// Messages that one round drops.
const ROUND_MESSAGES_MAX: usize = 1024;

/// Bytes read from a stream to peek at its head: one batch, however small this is.
const PEEK_BYTES: usize = 1;

/// An expired message that was never delivered is kept this long where a consumer waits, because it is about to be
/// delivered; in milliseconds.
const GRACE_MS: i64 = RESERVATION_MS_MAX;

/// The limits of a queue as of the current round, and the messages that it dropped.
#[derive(Default)]
pub(super) struct LimitState {
    pub(super) now_ms: i64,
    /// A consumer waits for messages, or pulls now.
    pub(super) in_grace: bool,
    /// The last round found a first message without an expiry.
    pub(super) head_never_expires: bool,
    ttl_ms: Option<u64>,
    deliveries_max: Option<u32>,
    /// Dropped messages that are dead-lettered or acknowledged outside the lock.
    dropped: Vec<Dropped>,
    pub(super) bytes: ByteCounter,
}

/// The bytes that wait in a queue with a byte limit: added by publishers, subtracted as messages are taken. The bytes
/// of messages from before the process started are estimated once, from the first of them.
#[derive(Clone, Default)]
pub(super) struct ByteCounter {
    bytes: Option<Arc<AtomicI64>>,
    /// Messages that were not counted.
    uncounted: u64,
}

impl ByteCounter {
    /// Starts counting.
    pub(super) fn start(&mut self, uncounted: u64) -> Arc<AtomicI64> {
        self.uncounted = uncounted;
        self.bytes.get_or_insert_default().clone()
    }

    pub(super) fn add(&self, value_bytes: u32) {
        self.change(i64::from(value_bytes));
    }

    pub(super) fn subtract(&self, value_bytes: u32) {
        self.change(-i64::from(value_bytes));
    }

    pub(super) fn clear(&mut self) {
        self.uncounted = 0;
        if let Some(bytes) = &self.bytes {
            bytes.store(0, Ordering::Relaxed);
        }
    }

    fn change(&self, by: i64) {
        if let Some(bytes) = &self.bytes {
            bytes.fetch_add(by, Ordering::Relaxed);
        }
    }

    fn get(&self) -> u64 {
        self.bytes.as_ref().map_or(0, |b| u64::try_from(b.load(Ordering::Relaxed)).unwrap_or(0))
    }
}

impl LimitState {
    /// Whether this round dropped as many as it may.
    pub(super) fn is_round_full(&self) -> bool {
        self.dropped.len() >= ROUND_MESSAGES_MAX
    }

    pub(super) fn drop_reason(&self, delivery: &Delivery) -> Option<DropReason> {
        if self.deliveries_max.is_some_and(|max| delivery.redelivered > max) {
            return Some(DropReason::DeliveryLimit);
        }
        let grace = if self.in_grace && delivery.redelivered == 0 { GRACE_MS } else { 0 };
        let expired = self.expires_ms(&delivery.record)?.saturating_add(grace) <= self.now_ms;
        expired.then_some(DropReason::Expired)
    }

    /// When a message expires: by the queue's TTL or its own, whichever is earlier.
    fn expires_ms(&self, record: &Record) -> Option<i64> {
        let by_queue = self.ttl_ms.map(|ttl| record.timestamp_ms.saturating_add_unsigned(ttl));
        match (by_queue, expires_ms(record)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(super) fn drop_message(&mut self, id: DeliveryId, record: Record, reason: DropReason) {
        self.dropped.push(Dropped { id, record, reason });
    }
}

/// When a queue whose messages can expire is to be checked next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextCheck {
    /// Its first message expires at this time.
    At(i64),
    /// Its first message is not visible yet.
    Soon,
    /// Its first message never expires; those behind it may.
    Later,
    /// It is empty.
    Never,
}

impl Subscription {
    /// Counts the value of a message that is about to be enqueued.
    pub(crate) fn add_bytes(&self, value_bytes: usize) {
        if let Some(bytes) = self.bytes.get() {
            bytes.fetch_add(value_bytes as i64, Ordering::Relaxed);
        }
    }

    /// Takes back what [`add_bytes`](Self::add_bytes) counted for messages that were not enqueued.
    pub(crate) fn subtract_bytes(&self, value_bytes: usize) {
        if let Some(bytes) = self.bytes.get() {
            bytes.fetch_sub(value_bytes as i64, Ordering::Relaxed);
        }
    }

    /// Sets the queue that it belongs to; once.
    pub(crate) fn set_owner(&self, limits: &QueueLimits, sink: Arc<dyn DropSink>, queue: Weak<dyn Recheck>) {
        if limits.bytes_max.is_some() {
            let mut state = self.state.lock();
            let uncounted = state.submitted();
            let _ = self.bytes.set(state.limits.bytes.start(uncounted));
        }
        // A second call would be a defect of the caller; the first one holds.
        let limits = (!limits.is_unlimited()).then(|| limits.clone());
        let _ = self.owner.set(Box::new(Owner { limits, sink, queue }));
    }

    pub(crate) fn limits(&self) -> Option<&QueueLimits> {
        self.owner.get()?.limits.as_ref()
    }

    /// Drops what is over a limit at this time, whether or not a consumer pulls.
    pub(crate) fn age(self: &Arc<Self>, now_ms: i64) -> (Depth, NextCheck) {
        self.check_limits(now_ms, true)
    }

    /// Drops what is over the length limits and, if `expire`, what expired.
    pub(super) fn check_limits(self: &Arc<Self>, now_ms: i64, expire: bool) -> (Depth, NextCheck) {
        loop {
            let mut loads = Vec::new();
            let (depth, next, dropped) = self.locked(|state| {
                state.begin_round(now_ms, self.limits(), &mut loads);
                let next = if expire { state.expire_head(&mut loads) } else { NextCheck::Never };
                (state.depth(), next, state.take_dropped())
            });
            self.settle_dropped(&dropped);
            loads.into_iter().for_each(|load: Load| load.spawn(self));
            if dropped.len() < ROUND_MESSAGES_MAX {
                return (depth, next);
            }
        }
    }

    /// Sends dropped messages to the dead-letterer. Returns the position to wait for before they are promised there.
    pub(super) fn settle_dropped(self: &Arc<Self>, dropped: &[Dropped]) -> Option<Lsn> {
        if dropped.is_empty() {
            return None;
        }
        match self.owner.get() {
            Some(owner) => owner.sink.dropped(self, dropped),
            None => {
                self.context.counters.dropped.increment(dropped.len() as u64);
                self.ack_dropped(dropped.iter().map(|d| d.id).collect())
            }
        }
    }

    /// Schedules a check because the head may have changed to a message that expired.
    pub(super) fn schedule_check(&self) {
        if let Some(queue) = self.owner.get().and_then(|owner| owner.queue.upgrade()) {
            queue.recheck_soon();
        }
    }

    /// Dead-letters a message that the full queue refused.
    pub(crate) fn refuse(&self, message: &Message<'_>) {
        if let Some(owner) = self.owner.get() {
            owner.sink.refused(self, message);
        }
    }
}

impl State {
    /// Begins a round: sets the time and the limits, and drops what is over the length limits.
    pub(super) fn begin_round(&mut self, now_ms: i64, limits: Option<&QueueLimits>, loads: &mut Vec<Load>) {
        self.limits.now_ms = now_ms;
        let Some(limits) = limits else { return };
        self.limits.ttl_ms = limits.message_ttl_ms;
        self.limits.deliveries_max = limits.deliveries_max;
        if limits.bytes_max.is_some() {
            self.estimate_bytes(loads);
        }
        if limits.overflow != Overflow::DropHead || !limits.bounds_length() {
            return;
        }
        let over = |state: &State| {
            let ready = state.ready();
            ready > 0
                && (limits.messages_max.is_some_and(|max| ready > max)
                    || limits.bytes_max.is_some_and(|max| state.limits.bytes.get() > max))
        };
        while over(self) && !self.limits.is_round_full() {
            let Some((Delivery { id, record, .. }, reason)) = self.next_unchecked(PEEK_BYTES, loads) else {
                return;
            };
            self.limits.drop_message(id, record, reason.unwrap_or(DropReason::MaxLength));
        }
    }

    /// Estimates the bytes of messages that were not counted, from the size of the first.
    fn estimate_bytes(&mut self, loads: &mut Vec<Load>) {
        if self.submitted() == 0 {
            self.limits.bytes.clear();
        }
        if self.limits.bytes.uncounted == 0 {
            return;
        }
        if let Some((head, reason)) = self.next_unchecked(PEEK_BYTES, loads) {
            let uncounted = std::mem::take(&mut self.limits.bytes.uncounted);
            let value_bytes = i64::from(value_bytes(&head.record));
            self.limits.bytes.change(value_bytes.saturating_mul(uncounted as i64));
            match reason {
                None => self.put_peeked(head),
                Some(reason) => self.limits.drop_message(head.id, head.record, reason),
            }
        }
    }

    /// Drops expired messages at the head. Returns when to check again.
    pub(super) fn expire_head(&mut self, loads: &mut Vec<Load>) -> NextCheck {
        self.limits.in_grace = self.is_awaited(self.limits.now_ms);
        let Some(head) = self.next_within_limits(PEEK_BYTES, loads) else {
            return if self.submitted() > 0 { NextCheck::Soon } else { NextCheck::Never };
        };
        let expires_ms = self.limits.expires_ms(&head.record);
        self.put_peeked(head);
        self.wake_waiting();
        match expires_ms {
            Some(at) if at <= self.limits.now_ms => NextCheck::At(at.saturating_add(GRACE_MS)),
            Some(at) => NextCheck::At(at),
            None => {
                self.limits.head_never_expires = true;
                NextCheck::Later
            }
        }
    }

    pub(super) fn take_dropped(&mut self) -> Vec<Dropped> {
        std::mem::take(&mut self.limits.dropped)
    }

    /// Messages that wait, uncommitted ones included, and their bytes if they are counted.
    pub(super) fn submitted_and_bytes(&self) -> (u64, u64) {
        (self.submitted(), self.limits.bytes.get())
    }
}
