//! One consumer of a subscription, as its connection holds it.

use std::sync::Arc;

use inver_storage::{Entry, Lsn, ReadError};

use super::hand_out::Aside;
use super::slots::SlotId;
use super::state::Load;
use super::{Delivery, DeliveryId, LiveBatch, Subscription};
use crate::Mailbox;
use crate::clock::now_ms;
use crate::deadletter::Dropped;

/// What a consumer wants.
#[derive(Clone)]
pub struct ConsumerSpec {
    /// Woken when there may be something to pull.
    pub mailbox: Arc<Mailbox>,
    /// What it is woken with.
    pub token: u64,
    /// No other consumer beside it.
    pub exclusive: bool,
    /// Higher ones are served first.
    pub priority: i32,
    /// Messages are acknowledged as they are pulled.
    pub auto_ack: bool,
    /// It asks now and then and does not count as a consumer: it takes no turn and is never woken.
    pub passive: bool,
}

impl ConsumerSpec {
    /// A consumer that acknowledges what it gets, of no special rank.
    #[must_use]
    pub fn new(mailbox: Arc<Mailbox>, token: u64) -> ConsumerSpec {
        ConsumerSpec { mailbox, token, exclusive: false, priority: 0, auto_ack: false, passive: false }
    }
}

/// Why a consumer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// It asked to be alone, or the subscription is exclusive, and another consumer is there.
    #[error("another consumer is attached")]
    InUse,
    /// Another consumer asked to be alone.
    #[error("another consumer holds it exclusively")]
    HeldExclusively,
    /// The subscription ended.
    #[error("the subscription was deleted")]
    Closed,
}

/// What a pull left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pull {
    /// There is more, or may be: pull again when there is room. Otherwise a wake-up will come.
    pub more: bool,
    /// Messages are being loaded from the disk; the token will be posted.
    pub pending: bool,
    /// The subscription ended.
    pub cancelled: bool,
}

/// A consumer. When it is dropped, what it holds goes back to the others.
pub struct Consumer {
    subscription: Arc<Subscription>,
    slot: SlotId,
    spec: ConsumerSpec,
    aside: Aside,
}

impl Consumer {
    pub(super) fn new(subscription: Arc<Subscription>, slot: SlotId, spec: ConsumerSpec) -> Consumer {
        Consumer { subscription, slot, spec, aside: Aside::default() }
    }

    /// The subscription it consumes.
    #[must_use]
    pub fn subscription(&self) -> &Arc<Subscription> {
        &self.subscription
    }

    /// Takes messages, in order, at most so many and about so many bytes (the last may go beyond). Never
    /// waits: what is not in memory is loaded beside, and a wake-up follows. Needs a tokio runtime around it.
    ///
    /// One who was woken and has no room pulls with a maximum of 0: then another is woken in its place. Who
    /// holds too much without acknowledging gets nothing until it lets go of something, and is woken then.
    pub fn pull(&mut self, messages_max: usize, bytes_max: usize, into: &mut Vec<Delivery>) -> Pull {
        if self.spec.passive {
            self.subscription.enforce_length_limits_elsewhere();
        }
        let before = into.len();
        let now_ms = now_ms();
        let aside = &mut self.aside;
        let mut uncovered = false;
        let (pull, acks, consumed, dead) = self.subscription.locked(|state| {
            state.look(now_ms, self.subscription.limits(), &mut aside.loads);
            let pull = state.pull(self.slot, &self.spec, messages_max, bytes_max, into, aside);
            let acked = std::mem::take(&mut aside.acked);
            let acks = if acked.is_empty() { Vec::new() } else { state.settle(acked) };
            let consumed = state.memory().and_then(super::source::MemorySource::spill_consumed);
            uncovered = into.len() > before && std::mem::take(&mut state.mortality.is_covered);
            (pull, acks, consumed, state.take_dead())
        });
        if uncovered {
            self.subscription.look_soon();
        }
        if let Some((stream, to)) = consumed {
            self.subscription.trim(&stream, to);
        }
        if !acks.is_empty() {
            self.subscription.commit_acks(acks);
        }
        self.subscription.dead_letter(&dead);
        self.subscription.context.counters.delivered.increment((into.len() - before) as u64);
        for load in self.aside.loads.drain(..) {
            load.spawn(&self.subscription);
        }
        pull
    }

    /// Takes whole batches of a queue in memory, about so many bytes, at least one. For its only consumer, which never
    /// [`pull`](Self::pull)s beside; what it gets is acknowledged.
    pub(crate) fn pull_batches(&mut self, bytes_max: usize, into: &mut Vec<LiveBatch>) -> Pull {
        let (messages, pull) =
            self.subscription.locked(|state| state.pull_batches(self.slot, bytes_max.max(1), into));
        self.subscription.context.counters.delivered.increment(messages);
        pull
    }

    /// Acknowledges. The position to wait for, for those who must answer; none if nothing is durable here.
    pub fn ack(&self, ids: &[DeliveryId]) -> Option<Lsn> {
        self.subscription.context.counters.acknowledged.increment(ids.len() as u64);
        let acks = self.subscription.locked(|state| state.ack(self.slot, ids));
        self.subscription.commit_acks(acks)
    }

    /// Acknowledges as part of an entry: both hold, or neither.
    pub fn ack_in(&self, ids: &[DeliveryId], entry: &mut Entry) {
        self.subscription.context.counters.acknowledged.increment(ids.len() as u64);
        let acks = self.subscription.locked(|state| state.ack(self.slot, ids));
        self.subscription.put_acks(acks, entry);
    }

    /// Lets messages die: they go where the queue's dead letters go, if anywhere. The position to wait for, for
    /// those who must answer; it says nothing of those whose records must be read from the disk first.
    pub fn reject(&self, ids: &[DeliveryId]) -> Option<Lsn> {
        if self.subscription.limits().is_none_or(|l| l.dead_letter.is_none()) {
            return self.ack(ids);
        }
        let mut loads = Vec::new();
        let dead: Vec<Dropped> = self.subscription.locked(|state| state.doom(self.slot, ids, &mut loads));
        loads.into_iter().for_each(|load: Load| load.spawn(&self.subscription));
        self.subscription.dead_letter(&dead)
    }

    /// Gives messages back to be delivered again, to this or another consumer, with their count raised.
    pub fn requeue(&self, ids: &[DeliveryId]) {
        self.subscription.context.counters.returned.increment(ids.len() as u64);
        let told = self.subscription.locked(|state| state.give_back(self.slot, ids));
        self.subscription.look_soon();
        if told.is_empty() {
            return;
        }
        let mut entry = Entry::new();
        for (cursor, offsets) in told {
            entry.returned(&cursor, &offsets);
        }
        if let Err(error) = self.subscription.context.log.submit(entry) {
            tracing::debug!(%error, "delivery counts not written");
        }
    }
}

impl Consumer {
    /// No more deliveries, no longer counted among the consumers; what it holds can still be acknowledged.
    pub fn stop(&mut self) {
        let last = self.subscription.locked(|state| state.stop(self.slot));
        if last {
            self.subscription.last_detached();
        }
    }

    /// Leaves: what it holds goes back to the others, and it gets no more.
    pub(crate) fn detach(&mut self) {
        if self.subscription.locked(|state| state.return_all(self.slot)) {
            self.subscription.look_soon();
        }
        self.stop();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.detach();
    }
}

impl Load {
    /// Reads from the disk on a thread where that may take its time.
    pub(super) fn spawn(self, subscription: &Arc<Subscription>) {
        let subscription = subscription.clone();
        tokio::task::spawn_blocking(move || {
            let batches = self.read.run().unwrap_or_else(|error| {
                match error {
                    // What was to be read is no longer wanted.
                    ReadError::OutOfRange { .. } | ReadError::Deleted => {}
                    error => {
                        let subscription = subscription.name();
                        tracing::error!(subscription, %error, "cannot read from the log");
                    }
                }
                Vec::new()
            });
            let has_doomed = subscription.locked(|state| {
                state.loaded(self.source, self.again, batches);
                state.has_doomed()
            });
            if has_doomed {
                subscription.age(now_ms());
            }
        });
    }
}
