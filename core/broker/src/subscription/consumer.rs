//! A consumer of a subscription, as its connection holds it, and the loads that pulls start.

use std::sync::Arc;

use inver_storage::{Entry, ReadError, StoredBatch, SubmitError};

use super::damage::Place;
use super::drops::Dropped;
use super::pull::AfterPull;
use super::rooms::Rooms;
use super::settle::Counted;
use super::slots::SlotId;
use super::source::decompress_first;
use super::state::Load;
use super::terms::{ConsumerSpec, Pull};
use super::{Delivery, DeliveryId, LiveBatch, Subscription};
use crate::completion::Completion;
use crate::seeded_bugs::{Bug, is_seeded};

/// An attached consumer. Dropping it requeues its unacknowledged messages.
pub struct Consumer {
    subscription: Arc<Subscription>,
    slot: SlotId,
    spec: ConsumerSpec,
    after: AfterPull,
}

impl Consumer {
    pub(super) fn new(subscription: Arc<Subscription>, slot: SlotId, spec: ConsumerSpec) -> Consumer {
        Consumer { subscription, slot, spec, after: AfterPull::default() }
    }

    /// The subscription it consumes.
    #[must_use]
    pub fn subscription(&self) -> &Arc<Subscription> {
        &self.subscription
    }

    /// Takes messages, in order, up to `messages_max` and about `bytes_max` (the last message may exceed it). Never
    /// blocks: records that are not in memory are loaded on another thread, and a wake-up follows. Needs a tokio
    /// runtime around it.
    ///
    /// A consumer that was woken and has no room pulls with a maximum of 0: then another is woken in its place. One
    /// that has too many unacknowledged messages gets none until it acknowledges or requeues some, and is woken then.
    pub fn pull(&mut self, messages_max: usize, bytes_max: usize, into: &mut Vec<Delivery>) -> Pull {
        self.pull_with(messages_max, bytes_max, into, None)
    }

    /// As [`pull`](Self::pull), with as many messages of each stream as there is room for; of those that are not named,
    /// none. Not for subscriptions of the mode [`KeyShared`](crate::Mode::KeyShared), nor for queues.
    pub fn pull_within(
        &mut self,
        rooms: impl IntoIterator<Item = (u32, u32)>,
        messages_max: usize,
        bytes_max: usize,
        into: &mut Vec<Delivery>,
    ) -> Pull {
        let rooms = Box::new(rooms.into_iter().collect());
        self.pull_with(messages_max, bytes_max, into, Some(rooms))
    }

    fn pull_with(
        &mut self,
        messages_max: usize,
        bytes_max: usize,
        into: &mut Vec<Delivery>,
        rooms: Option<Box<Rooms>>,
    ) -> Pull {
        if self.spec.passive {
            // What other queues must drop may be dead-lettered to this one.
            self.subscription.context.over_length.enforce();
        }
        let before = into.len();
        let now_ms = self.subscription.context.clock.steady_ms();
        let limits = self.subscription.limits();
        let after = &mut self.after;
        let mut recheck = false;
        let (pull, acks, consumed, drops) = self.subscription.locked(|state| {
            state.begin_round(now_ms, limits.as_ref(), &mut after.loads);
            state.rooms = rooms;
            let pull = state.pull(self.slot, &self.spec, messages_max, bytes_max, into, after);
            state.rooms = None;
            state.release_copies();
            let acked = std::mem::take(&mut after.acked);
            let acks = if acked.is_empty() { Vec::new() } else { state.settle(acked) };
            let consumed = state.spill_consumed();
            recheck = into.len() > before && std::mem::take(&mut state.limits.head_never_expires);
            if into.len() > before {
                state.write_delivered(&self.subscription.context.log);
            }
            (pull, acks, consumed, state.take_drops())
        });
        if recheck {
            self.subscription.schedule_check();
        }
        if let Some((stream, to)) = consumed {
            self.subscription.trim(&stream, to);
        }
        if !acks.is_empty() {
            self.subscription.commit_acks_unattended(acks);
        }
        self.subscription.settle_drops(drops);
        self.subscription.context.counters.delivered.increment((into.len() - before) as u64);
        for load in self.after.loads.drain(..) {
            load.spawn(&self.subscription);
        }
        pull
    }

    /// Takes whole batches of a queue in memory, about `bytes_max`, at least one. For its only consumer, which never
    /// uses [`pull`](Self::pull); the messages are acknowledged by this.
    pub(crate) fn pull_batches(&mut self, bytes_max: usize, into: &mut Vec<LiveBatch>) -> Pull {
        let (messages, pull) =
            self.subscription.locked(|state| state.pull_batches(self.slot, bytes_max.max(1), into));
        self.subscription.context.counters.delivered.increment(messages);
        pull
    }

    /// Wakes its connection as if messages had arrived.
    pub(crate) fn wake(&self) {
        self.spec.mailbox.post(self.spec.token);
    }

    /// Acknowledges messages.
    pub fn ack(&self, ids: &[DeliveryId]) -> Result<Completion, SubmitError> {
        self.subscription.context.counters.acknowledged.increment(ids.len() as u64);
        let acks = self.subscription.locked(|state| state.ack(self.slot, ids));
        self.subscription.commit_acks(acks)
    }

    /// Acknowledges messages as part of an entry: both hold, or neither.
    pub fn ack_in(&self, ids: &[DeliveryId], entry: &mut Entry) {
        self.subscription.context.counters.acknowledged.increment(ids.len() as u64);
        let acks = self.subscription.locked(|state| state.ack(self.slot, ids));
        self.subscription.put_acks(acks, entry);
    }

    /// Rejects messages: they are dead-lettered if the queue has a dead-letter exchange, else dropped. The
    /// completion does not cover messages whose records must be read from the disk first.
    pub fn reject(&self, ids: &[DeliveryId]) -> Result<Completion, SubmitError> {
        if self.subscription.limits().is_none_or(|limits| !limits.dead_letters)
            || is_seeded(Bug::RejectSilently)
        {
            return self.ack(ids);
        }
        let mut loads = Vec::new();
        let (dropped, late): (Vec<Dropped>, Counted) =
            self.subscription.locked(|state| state.reject(self.slot, ids, &mut loads));
        // Should the broker stop before they are read, they are delivered again.
        let counted = self.count(late);
        // Also after an error: all of them have left the consumer.
        loads.into_iter().for_each(|load: Load| load.spawn(&self.subscription));
        let dead_lettered = self.subscription.dead_letter(&dropped);
        counted.and(dead_lettered)
    }

    /// Requeues messages: they are delivered again, to this or another consumer, with their delivery count raised.
    pub fn requeue(&self, ids: &[DeliveryId]) -> Result<Completion, SubmitError> {
        self.subscription.context.counters.returned.increment(ids.len() as u64);
        let counted = self.subscription.locked(|state| state.requeue(self.slot, ids));
        self.subscription.schedule_check();
        self.count(counted)
    }

    /// Notes in the log that messages were delivered once more.
    fn count(&self, counted: Counted) -> Result<Completion, SubmitError> {
        if counted.is_empty() || is_seeded(Bug::ForgetReturns) {
            return Ok(Completion::Now);
        }
        let mut entry = Entry::new();
        for (cursor, offsets) in counted {
            entry.returned(&cursor, &offsets);
        }
        Ok(Completion::At(self.subscription.context.log.submit(entry)?.lsn))
    }
}

impl Consumer {
    /// Ends deliveries: it no longer counts as a consumer. Its unacknowledged messages can still be acknowledged.
    pub fn stop(&mut self) {
        let last = self.subscription.locked(|state| {
            let last = state.stop(self.slot);
            state.take_back_delivered(&self.subscription.context.log);
            last
        });
        if last {
            self.subscription.last_detached();
        }
    }

    /// Ends deliveries and requeues its unacknowledged messages.
    pub(crate) fn detach(&mut self) {
        self.subscription.return_unacked(self.slot);
        self.stop();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.detach();
    }
}

impl Load {
    /// Reads from the disk on a blocking thread.
    pub(super) fn spawn(self, subscription: &Arc<Subscription>) {
        let blocking = &subscription.context.blocking;
        let subscription = subscription.clone();
        blocking.spawn(move || {
            let (mut is_passed, mut has_failed) = (false, false);
            let mut batches = self.read.run().unwrap_or_else(|error| {
                match error {
                    // It was trimmed or deleted meanwhile.
                    ReadError::OutOfRange { .. } | ReadError::Deleted => {}
                    ReadError::Damaged { .. } | ReadError::Io { .. } => {
                        is_passed = subscription.meet_unreadable(&self, &error);
                        has_failed = !is_passed;
                    }
                }
                Vec::new()
            });
            decompress_first(&mut batches);
            self.end(&subscription, batches, is_passed, has_failed);
        });
    }

    /// Hands over what was read, or that it was stepped over, or that the read failed.
    pub(super) fn end(
        &self,
        subscription: &Arc<Subscription>,
        batches: Vec<StoredBatch>,
        is_passed: bool,
        has_failed: bool,
    ) {
        let (drops_requeued, recheck) = subscription.locked(|state| {
            let recheck = state.loaded(self.source, self.again, batches);
            // It was ahead when the read failed, and what was in front of it has been taken or purged since, while consumers
            // waited for this load: one of them reads on.
            let is_reached = has_failed
                && !state.unreadable
                && matches!(state.place_of(self), Place::Next | Place::Passed);
            if is_passed || is_reached {
                state.wake_waiting();
            }
            // What cannot be read cannot be dropped either: a check would read it again, without end.
            let is_stopped = has_failed && state.unreadable;
            (state.drops_requeued() && !is_stopped, recheck || is_passed || is_reached)
        });
        if drops_requeued {
            subscription.check(subscription.context.clock.steady_ms(), true);
        }
        if recheck {
            subscription.recheck();
        }
    }
}
