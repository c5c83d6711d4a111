//! What of a subscription's messages has to die: too old, too many, too often returned.
//!
//! Death happens when somebody looks: a consumer that pulls, a question for the depth, the regular look at
//! queues with limits. Until then a dead message only waits, and nobody can tell. One look lets a bounded
//! number die; who looks comes again.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use inver_storage::Lsn;
use inver_storage::batch::Record;

use super::hand_out::value_bytes;
use super::slots::CALL_MS_MAX;
use super::state::{Load, State};
use super::{Delivery, DeliveryId, Depth, Subscription};
use crate::clock::now_ms;
use crate::deadletter::{DeadLetterer, Dropped};
use crate::message::expires_ms;
use crate::namespace::Namespace;
use crate::spec::{DropReason, Overflow, QueueLimits};

/// Messages that die at one look.
const DEATHS_A_LOOK_MAX: usize = 1024;

/// Bytes read from a stream to look at its head: one batch, however small this is.
const LOOK_BYTES: usize = 1;

/// A new message that is too old is spared for so long where a consumer waits: it is on its way there, in milliseconds.
const GRACE_MS: i64 = CALL_MS_MAX;

/// What a look at the queue goes by.
#[derive(Default)]
pub(super) struct Mortality {
    pub(super) now_ms: i64,
    /// A consumer waits for messages, or came for one.
    pub(super) spares: bool,
    /// The last look found a first message that does not die by itself.
    pub(super) is_covered: bool,
    ttl_ms: Option<u64>,
    deliveries_max: Option<u32>,
    /// Messages that died and are to be buried beside the lock.
    dead: Vec<Dropped>,
    pub(super) scale: Scale,
}

/// The bytes that wait in a queue bounded by bytes: added by publishers, taken as messages are handed out.
/// What was there before the process is guessed once, from the first message.
#[derive(Clone, Default)]
pub(super) struct Scale {
    bytes: Option<Arc<AtomicI64>>,
    /// Messages that nobody weighed.
    unknown: u64,
}

impl Scale {
    /// Begins to weigh.
    pub(super) fn begin(&mut self, unknown: u64) -> Arc<AtomicI64> {
        self.unknown = unknown;
        self.bytes.get_or_insert_default().clone()
    }

    pub(super) fn put(&self, value_bytes: u32) {
        self.add(i64::from(value_bytes));
    }

    pub(super) fn take(&self, value_bytes: u32) {
        self.add(-i64::from(value_bytes));
    }

    pub(super) fn clear(&mut self) {
        self.unknown = 0;
        if let Some(scale) = &self.bytes {
            scale.store(0, Ordering::Relaxed);
        }
    }

    fn add(&self, bytes: i64) {
        if let Some(scale) = &self.bytes {
            scale.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes.as_ref().map_or(0, |b| u64::try_from(b.load(Ordering::Relaxed)).unwrap_or(0))
    }
}

impl Mortality {
    /// Enough died for one look.
    pub(super) fn is_busy(&self) -> bool {
        self.dead.len() >= DEATHS_A_LOOK_MAX
    }

    pub(super) fn reason(&self, delivery: &Delivery) -> Option<DropReason> {
        if self.deliveries_max.is_some_and(|max| delivery.redelivered > max) {
            return Some(DropReason::DeliveryLimit);
        }
        let grace = if self.spares && delivery.redelivered == 0 { GRACE_MS } else { 0 };
        (self.due_ms(&delivery.record)?.saturating_add(grace) <= self.now_ms).then_some(DropReason::Expired)
    }

    /// When a message is too old.
    fn due_ms(&self, record: &Record) -> Option<i64> {
        let by_queue = self.ttl_ms.map(|ttl| record.timestamp_ms.saturating_add_unsigned(ttl));
        match (by_queue, expires_ms(record)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(super) fn died(&mut self, id: DeliveryId, record: Record, reason: DropReason) {
        self.dead.push(Dropped { id, record, reason });
    }
}

/// When a queue in which messages can die by their age is to be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Its first message dies then.
    At(i64),
    /// Its first message cannot be seen yet.
    Soon,
    /// Its first message does not die by itself; those behind it may.
    Sometime,
    /// It is empty.
    Nothing,
}

impl Subscription {
    /// A message is on its way into it, with a value of these many bytes.
    pub(crate) fn weigh(&self, value_bytes: usize) {
        if let Some(bytes) = self.bytes.get() {
            bytes.fetch_add(value_bytes as i64, Ordering::Relaxed);
        }
    }

    /// What was weighed does not come.
    pub(crate) fn unweigh(&self, value_bytes: usize) {
        if let Some(bytes) = self.bytes.get() {
            bytes.fetch_sub(value_bytes as i64, Ordering::Relaxed);
        }
    }

    /// Gives it a queue's limits; once.
    pub(crate) fn limit(&self, dead_letterer: DeadLetterer) {
        if dead_letterer.limits.bytes_max.is_some() {
            let mut state = self.state.lock();
            let unknown = state.submitted();
            let _ = self.bytes.set(state.mortality.scale.begin(unknown));
        }
        // A second time would be a defect of the caller; the first stays.
        let _ = self.dead_letterer.set(dead_letterer);
    }

    pub(crate) fn limits(&self) -> Option<&QueueLimits> {
        self.dead_letterer.get().map(|u| &u.limits)
    }

    /// Lets die what has to at this time, whether or not anybody asks for messages.
    pub(crate) fn age(self: &Arc<Self>, now_ms: i64) -> (Depth, Look) {
        self.look(now_ms, true)
    }

    pub(super) fn look(self: &Arc<Self>, now_ms: i64, expire: bool) -> (Depth, Look) {
        loop {
            let mut loads = Vec::new();
            let (depth, next, dead) = self.locked(|state| {
                state.look(now_ms, self.limits(), &mut loads);
                let next = if expire { state.expire_head(&mut loads) } else { Look::Nothing };
                (state.depth(), next, state.take_dead())
            });
            self.dead_letter(&dead);
            loads.into_iter().for_each(|load: Load| load.spawn(self));
            if dead.len() < DEATHS_A_LOOK_MAX {
                return (depth, next);
            }
        }
    }

    /// The position to wait for before the dead are said to be where they go.
    pub(super) fn dead_letter(self: &Arc<Self>, dead: &[Dropped]) -> Option<Lsn> {
        if dead.is_empty() {
            return None;
        }
        self.context.counters.dead.increment(dead.len() as u64);
        match self.dead_letterer.get() {
            Some(dead_letterer) => dead_letterer.dead_letter(self, dead),
            None => self.ack_dead(dead.iter().map(|d| d.id).collect()),
        }
    }

    /// What waits in it changed: those too old may have come to the front.
    pub(super) fn look_soon(&self) {
        if let Some((namespace, queue)) = self.queue.get()
            && let Some(queue) =
                queue.upgrade().filter(|queue| queue.is_mortal() || queue.counts_deliveries())
        {
            self.context.clockwork.look_at(namespace, &queue, now_ms());
        }
    }

    /// What has no room in other queues may have to be here.
    pub(super) fn enforce_length_limits_elsewhere(&self) {
        if let Some(namespace) = self.queue.get().and_then(|(namespace, _)| namespace.upgrade()) {
            Namespace::of(namespace).enforce_length_limits();
        }
    }
}

impl State {
    /// Begins to look at the queue: what time it is, what its limits are, and what has no room dies.
    pub(super) fn look(&mut self, now_ms: i64, limits: Option<&QueueLimits>, loads: &mut Vec<Load>) {
        self.mortality.now_ms = now_ms;
        let Some(limits) = limits else { return };
        self.mortality.ttl_ms = limits.message_ttl_ms;
        self.mortality.deliveries_max = limits.deliveries_max;
        if limits.bytes_max.is_some() {
            self.weigh(loads);
        }
        if limits.overflow != Overflow::DropHead || !limits.bounds_length() {
            return;
        }
        let over = |state: &State| {
            let ready = state.ready();
            ready > 0
                && (limits.messages_max.is_some_and(|max| ready > max)
                    || limits.bytes_max.is_some_and(|max| state.mortality.scale.bytes() > max))
        };
        while over(self) && !self.mortality.is_busy() {
            let Some((Delivery { id, record, .. }, doomed)) = self.next_raw(LOOK_BYTES, loads) else {
                return;
            };
            self.mortality.died(id, record, doomed.unwrap_or(DropReason::MaxLength));
        }
    }

    /// Weighs what nobody weighed: as many as there are of the first message's size.
    fn weigh(&mut self, loads: &mut Vec<Load>) {
        if self.submitted() == 0 {
            self.mortality.scale.clear();
        }
        if self.mortality.scale.unknown == 0 {
            return;
        }
        if let Some((head, doomed)) = self.next_raw(LOOK_BYTES, loads) {
            let unknown = std::mem::take(&mut self.mortality.scale.unknown);
            self.mortality.scale.add(i64::from(value_bytes(&head.record)).saturating_mul(unknown as i64));
            match doomed {
                None => self.put_head(head),
                Some(reason) => self.mortality.died(head.id, head.record, reason),
            }
        }
    }

    /// Lets die what waits at the head and is too old. When to look again.
    pub(super) fn expire_head(&mut self, loads: &mut Vec<Load>) -> Look {
        self.mortality.spares = self.is_awaited(self.mortality.now_ms);
        let Some(head) = self.next_alive(LOOK_BYTES, loads) else {
            return if self.submitted() > 0 { Look::Soon } else { Look::Nothing };
        };
        let due_ms = self.mortality.due_ms(&head.record);
        self.put_head(head);
        self.wake_waiting();
        match due_ms {
            Some(at) if at <= self.mortality.now_ms => Look::At(at.saturating_add(GRACE_MS)),
            Some(at) => Look::At(at),
            None => {
                self.mortality.is_covered = true;
                Look::Sometime
            }
        }
    }

    pub(super) fn take_dead(&mut self) -> Vec<Dropped> {
        std::mem::take(&mut self.mortality.dead)
    }

    /// Messages submitted and not yet handed out, visible or not, and their bytes if they are weighed.
    pub(super) fn submitted_and_bytes(&self) -> (u64, u64) {
        (self.submitted(), self.mortality.scale.bytes())
    }
}
