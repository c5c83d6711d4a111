//! Enforcing limits: on a pull, on a depth query, when messages arrive, and by the periodic check.
//!
//! An expired message may wait until one of these: nobody can tell. A *round* runs under the lock and drops a bounded
//! number of messages; a *pass* is a sequence of rounds until the first message that stays. A pass that needs records
//! from the disk ends its thread's work, and a check is scheduled at the end of the load; the next load runs while the
//! messages of this one are dead-lettered. Where nothing needs the records, messages are dropped by offset (length) or
//! by the timestamps of their batches (TTL) without being read.
//!
//! Dropped messages reach the dead-letterer in their order: while a thread is dead-lettering, it also takes what others
//! drop.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::drops::{AckBatch, Dropped};
use super::limits::{GRACE_MS, NextCheck, Scope};
use super::live_limits::LiveLimits;
use super::owner::{DropSink, Owner, Recheck};
use super::sizes::value_bytes;
use super::source::{MemorySource, READ_BYTES, Skipped, Source};
use super::state::{Load, State};
use super::{Delivery, Depth, Subscription};
use crate::completion::Completion;
use crate::message::Message;
use crate::seeded_bugs::{Bug, is_seeded};
use crate::spec::{DeadLetter, DropReason, QueueBounds, QueueLimits};

/// Rounds of one periodic check; other queues are checked before it continues.
const CHECK_ROUNDS_MAX: usize = 64;

/// The outcome of a check.
pub(crate) struct Checked {
    pub(crate) depth: Depth,
    /// When to check again.
    pub(crate) next: NextCheck,
    /// When dead letters without a receiver are published again, if there are any.
    pub(crate) retry_ms: Option<i64>,
    /// Messages dropped.
    pub(crate) dropped: u64,
}

/// The outcome of a round, to be settled outside the lock.
pub(super) struct Round {
    depth: Depth,
    next: NextCheck,
    retry_ms: Option<i64>,
    drops: RoundDrops,
    loads: Vec<Load>,
    is_full: bool,
    /// More of what arrived has to be read for the order.
    is_indexing: bool,
}

/// The messages that were dropped under the lock.
pub(super) struct RoundDrops {
    /// To be dead-lettered.
    dropped: Vec<Dropped>,
    /// Acknowledgements of all others, and their number.
    acks: AckBatch,
    removed: u64,
}

impl Subscription {
    /// Sets the queue that it belongs to; once.
    pub(crate) fn set_owner(&self, limits: &QueueLimits, sink: Arc<dyn DropSink>, queue: Weak<dyn Recheck>) {
        if limits.bytes_max.is_some() {
            self.count_bytes(false);
        }
        // A second call would be a defect of the caller; the first one holds.
        let _ = self.owner.set(Box::new(Owner { limits: LiveLimits::new(limits), sink, queue }));
    }

    /// Changes the limits of the queue that it belongs to. They hold for what is in it already, from its next check on.
    pub(crate) fn set_limits(&self, limits: &QueueLimits) {
        let Some(owner) = self.owner.get() else { return };
        let counted = owner.limits.bounds().is_some_and(|had| had.bytes_max.is_some());
        if limits.bytes_max.is_some() && !counted {
            self.count_bytes(true);
        }
        owner.limits.set(limits);
    }

    fn count_bytes(&self, in_use: bool) {
        let bytes = self.locked(|state| {
            let uncounted = state.submitted();
            state.limits.bytes.start(uncounted, in_use)
        });
        // Counted already: the same counter.
        let _ = self.bytes.set(bytes);
    }

    /// Drops messages that were returned more often than this, as far as it belongs to no queue, whose limits would hold.
    /// They are dropped when they would be delivered next.
    pub fn limit_deliveries(&self, max: Option<u32>) {
        self.deliveries_max.store(max.map_or(0, |max| max.saturating_add(1)), Ordering::Relaxed);
    }

    /// The limits of the queue that it belongs to, or those of its own; none without any.
    pub(crate) fn limits(&self) -> Option<QueueBounds> {
        match self.owner.get() {
            Some(owner) => owner.limits.bounds(),
            None => {
                let deliveries_max = self.deliveries_max.load(Ordering::Relaxed).checked_sub(1)?;
                Some(QueueBounds { deliveries_max: Some(deliveries_max), ..QueueBounds::default() })
            }
        }
    }

    /// Whether the queue that it belongs to has limits.
    pub(crate) fn is_limited(&self) -> bool {
        self.owner.get().is_some_and(|owner| owner.limits.is_limited())
    }

    /// Where the queue that it belongs to publishes what it drops.
    pub(crate) fn dead_letter_to(&self) -> Option<Arc<DeadLetter>> {
        self.owner.get()?.limits.dead_letter()
    }

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

    /// Drops what is over a limit, whether or not a consumer pulls; expired messages only if `expire`.
    pub(crate) fn check(self: &Arc<Self>, now_ms: i64, expire: bool) -> Checked {
        self.enforce(now_ms, if expire { Scope::All } else { Scope::Length }, CHECK_ROUNDS_MAX)
    }

    /// Drops messages over the length limits, as many as one round does.
    pub(crate) fn drop_over_length(self: &Arc<Self>) {
        self.enforce(self.context.clock.steady_ms(), Scope::Depth, 1);
    }

    pub(super) fn enforce(self: &Arc<Self>, now_ms: i64, scope: Scope, rounds_max: usize) -> Checked {
        let mut dropped = 0;
        for _ in 0..rounds_max {
            // A policy may change them between rounds.
            let limits = self.limits();
            if limits.is_some_and(|limits| limits.dead_letters) && !self.context.log.has_room() {
                // Dead letters would pile up in memory before the log.
                let (depth, retry_ms) = self.locked(|state| (state.depth(), state.retry_ms(now_ms)));
                return Checked { depth, next: NextCheck::Soon, retry_ms, dropped };
            }
            let round = self.locked(|state| state.check_round(now_ms, limits.as_ref(), scope));
            round.loads.into_iter().for_each(|load| load.spawn(self));
            let progress = self.settle_drops(round.drops);
            dropped += progress;
            let Round { depth, retry_ms, .. } = round;
            if round.is_indexing {
                continue;
            }
            if !round.is_full {
                return Checked { depth, next: round.next, retry_ms, dropped };
            }
            if progress == 0 {
                // Another thread is dead-lettering as many as one round drops.
                return Checked { depth, next: NextCheck::Soon, retry_ms, dropped };
            }
        }
        Checked { depth: self.counts(), next: NextCheck::Now, retry_ms: None, dropped }
    }

    /// Acknowledges and dead-letters what was dropped under the lock. Returns how many messages that were.
    pub(super) fn settle_drops(self: &Arc<Self>, drops: RoundDrops) -> u64 {
        let RoundDrops { mut dropped, acks, removed } = drops;
        if removed > 0 {
            self.context.counters.dropped.increment(removed);
        }
        self.commit_acks_unattended(acks);
        let mut count = removed;
        while !dropped.is_empty() {
            count += dropped.len() as u64;
            // No client waits for this: what the log rejects is logged.
            if let Err(error) = self.dead_letter(&dropped) {
                tracing::warn!(queue = %self.name, %error, "failed to write dropped messages");
            }
            dropped = self.locked(|state| state.limits.next_dropped());
        }
        count
    }

    /// Schedules a check because the head may have changed to a message that expired.
    pub(super) fn schedule_check(&self) {
        if let Some(queue) = self.owner.get().and_then(|owner| owner.queue.upgrade()) {
            queue.recheck_if_expiring();
        }
    }

    /// Schedules a check because messages can be dropped now that could not before.
    pub(super) fn recheck(&self) {
        if let Some(queue) = self.owner.get().and_then(|owner| owner.queue.upgrade()) {
            queue.recheck();
        }
    }

    /// Dead-letters a message that the full queue refused. None if no receiver has it then.
    /// `left` counts the dead letters that may be published within each other; none is with 0.
    pub(crate) fn refuse(&self, message: &Message<'_>, left: &mut u8) -> Option<Completion> {
        self.owner.get()?.sink.refused(self, message, left)
    }
}

impl State {
    pub(super) fn check_round(&mut self, now_ms: i64, limits: Option<&QueueBounds>, scope: Scope) -> Round {
        let mut loads = Vec::new();
        let is_within_length = self.begin_round(now_ms, limits, &mut loads);
        let retry_ms = if scope == Scope::Depth { None } else { self.retry_undelivered(&mut loads) };
        let next = match scope {
            _ if !is_within_length => None,
            Scope::Depth => None,
            Scope::Length => Some(NextCheck::Soon),
            Scope::All => self.expire_head(&mut loads),
        };
        let is_full = self.limits.is_round_full();
        let is_empty = self.kept() == 0;
        if next.is_some() || is_empty {
            self.end_pass();
        } else if scope != Scope::Depth || !is_within_length {
            self.read_on(&mut loads);
        }
        if self.is_retrying() {
            // The retry goes on at the end of its load, whatever the pass does.
            self.limits.awaits_load = self.sources.iter().any(Source::is_loading);
        }
        self.release_copies();
        let next = if is_empty { NextCheck::Never } else { next.unwrap_or(NextCheck::Soon) };
        let (depth, is_indexing) = (self.depth(), self.is_indexing());
        Round { depth, next, retry_ms, drops: self.take_drops(), loads, is_full, is_indexing }
    }

    /// Begins a round: sets the time and the limits, and drops what is over the length limits. Whether no message is
    /// over them any more, as far as messages are committed.
    pub(super) fn begin_round(
        &mut self,
        now_ms: i64,
        limits: Option<&QueueBounds>,
        loads: &mut Vec<Load>,
    ) -> bool {
        self.limits.now_ms = now_ms;
        self.index(loads);
        self.limits.set(limits.unwrap_or(&QueueBounds::default()));
        let Some(limits) = limits else { return true };
        if limits.bytes_max.is_some() && !self.estimate_bytes(loads) {
            return false;
        }
        if limits.messages_max_unread().is_some() && self.priorities.is_none() {
            self.drop_unread(limits);
            return !self.limits.is_round_full();
        }
        while limits.drops_head() && self.is_over(limits) {
            if self.limits.is_round_full() {
                return false;
            }
            let Some((Delivery { id, record, .. }, reason)) =
                self.next_unchecked(self.limits.read_bytes(), loads)
            else {
                return false;
            };
            self.limits.drop_message(id, record, reason.unwrap_or(DropReason::MaxLength));
        }
        true
    }

    /// Whether a consumer waits for what a queue that keeps nothing is given: it never is in the queue.
    fn is_passed_on(&mut self, limits: &QueueBounds) -> bool {
        limits.messages_max == Some(0) && self.is_awaited(self.clock.steady_ms())
    }

    /// Whether readable messages are over the length limits.
    fn is_over(&mut self, limits: &QueueBounds) -> bool {
        let kept = if is_seeded(Bug::KeepTooMany) { 2 } else { 1 };
        let ready = self.ready().div_ceil(kept);
        ready > 0
            && !self.is_passed_on(limits)
            && (limits.messages_max.is_some_and(|max| ready > max)
                || limits.bytes_max.is_some_and(|max| self.limits.bytes.get() > max))
    }

    /// Drops the oldest messages over the length limit, if that needs no records. Whether messages are over the limits
    /// that have to be read.
    pub(super) fn drop_unread(&mut self, limits: &QueueBounds) -> bool {
        if self.is_passed_on(limits) {
            return false;
        }
        let Some(max) = limits.messages_max_unread().filter(|_| self.priorities.is_none()) else {
            return limits.drops_head() && self.is_over(limits);
        };
        let mut over = self.ready().saturating_sub(max);
        while over > 0 && !self.limits.is_round_full() {
            let requeued = self.requeued.first_key_value().map(|(id, _)| *id);
            let id = match (requeued, self.peeked.as_ref().map(|peeked| peeked.id)) {
                (Some(requeued), peeked) if peeked.is_none_or(|peeked| requeued < peeked) => {
                    self.requeued.remove(&requeued);
                    requeued
                }
                (_, Some(peeked)) => {
                    self.peeked = None;
                    peeked
                }
                _ => break,
            };
            self.limits.remove(id);
            over -= 1;
        }
        if over > 0 && self.requeued.is_empty() && self.peeked.is_none() {
            self.skip(|source| {
                let skipped = source.skip(over);
                over -= skipped.messages;
                skipped
            });
        }
        false
    }

    /// Drops expired messages by the timestamps of their batches, if that needs no records.
    fn skip_expired(&mut self) {
        let is_in_order = self.requeued.is_empty() && self.priorities.is_none();
        let Some(below_ms) = self.limits.expired_below_ms().filter(|_| is_in_order) else { return };
        if let Some(peeked) = self.peeked.take() {
            if self.limits.drop_reason(&peeked).is_none() {
                self.peeked = Some(peeked);
                return;
            }
            self.limits.remove(peeked.id);
        }
        self.skip(|source| source.skip_older(below_ms));
    }

    fn skip(&mut self, mut skip: impl FnMut(&mut Source) -> Skipped) {
        for source in &mut self.sources {
            let Skipped { messages, offsets } = skip(source);
            let cursor = source.cursor().filter(|_| !offsets.is_empty()).cloned();
            if messages > 0 || cursor.is_some() {
                let acks = cursor.map(|cursor| (cursor, vec![offsets.start.into()..offsets.end.into()]));
                self.limits.skip(messages, acks.into_iter().collect());
            }
        }
    }

    /// Estimates the bytes of messages that were not counted, from the size of the first. False while that is loaded.
    fn estimate_bytes(&mut self, loads: &mut Vec<Load>) -> bool {
        if self.kept() == 0 {
            self.limits.bytes.correct_empty();
        }
        if !self.limits.bytes.wants_estimate() {
            return true;
        }
        let Some((head, reason)) = self.next_unchecked(self.limits.read_bytes(), loads) else { return false };
        self.limits.bytes.estimate(value_bytes(&head.record));
        match reason {
            None => self.put_peeked(head),
            Some(reason) => self.limits.drop_message(head.id, head.record, reason),
        }
        true
    }

    /// Drops expired messages at the head. Returns when to check again, once it found a message that stays.
    fn expire_head(&mut self, loads: &mut Vec<Load>) -> Option<NextCheck> {
        if let Some(due_ms) = self.first_due().filter(|due_ms| *due_ms > self.limits.now_ms) {
            return Some(NextCheck::At(due_ms));
        }
        self.limits.in_grace = self.is_awaited(self.limits.now_ms);
        self.skip_expired();
        let head = self.next_within_limits(self.limits.read_bytes(), loads)?;
        let expires_ms = self.limits.expires_ms(&head.record);
        self.put_peeked(head);
        self.wake_waiting();
        Some(match expires_ms {
            // It stays because its dead letter could not be kept.
            Some(at) if at <= self.limits.now_ms && self.is_undelivered_full() => NextCheck::Later,
            Some(at) if at <= self.limits.now_ms => NextCheck::At(at.saturating_add(GRACE_MS)),
            Some(at) => NextCheck::At(at),
            None => {
                self.limits.head_never_expires = true;
                NextCheck::Later
            }
        })
    }

    /// Continues a pass: the check is repeated at the end of a load, and the next read is started.
    fn read_on(&mut self, loads: &mut Vec<Load>) {
        if !loads.is_empty() {
            self.limits.grow_reads();
        } else if self.limits.reads_on() {
            for (at, source) in self.sources.iter_mut().enumerate() {
                let read = source.read_ahead(READ_BYTES);
                loads.extend(read.map(|read| Load { source: at, again: false, read }));
            }
        }
        self.limits.awaits_load = self.sources.iter().any(Source::is_loading);
    }

    fn end_pass(&mut self) {
        self.limits.end_pass();
        if self.reads_nothing_again() {
            self.sources.iter_mut().for_each(Source::close_again);
        }
        if self.slots.is_empty() {
            self.sources.iter_mut().for_each(Source::release_buffered);
        }
    }

    /// Takes what was dropped, to be settled outside the lock.
    pub(super) fn take_drops(&mut self) -> RoundDrops {
        let (ids, mut acks, skipped) = self.limits.take_removed();
        let removed = ids.len() as u64 + skipped;
        if !ids.is_empty() {
            acks.extend(self.settle(ids));
        }
        RoundDrops { dropped: self.limits.take_dropped(), acks, removed }
    }

    /// The consumed part of spilled messages, to be trimmed.
    pub(super) fn spill_consumed(&self) -> Option<(inver_storage::Stream, inver_storage::Offset)> {
        self.memory().and_then(MemorySource::spill_consumed)
    }

    /// Messages that are kept, uncommitted ones included, and their bytes if they are counted.
    pub(super) fn submitted_and_bytes(&self) -> (u64, u64) {
        (self.kept(), self.limits.bytes.get())
    }
}
