//! What of a subscription's messages has to die: too old, too many, too often returned.
//!
//! Death happens when somebody looks: a consumer that pulls, a question for the depth, the regular look at
//! queues with limits. Until then a dead message only waits, and nobody can tell.

use inver_storage::batch::Record;

use super::dispatch::{Load, Source, State};
use super::{Delivery, DeliveryId};
use crate::deadletter::{Dead, Reason};
use crate::message::expires_ms;
use crate::queue::{Overflow, QueueLimits};

/// What a look at the queue goes by.
#[derive(Default)]
pub(super) struct Mortality {
    now_ms: i64,
    ttl_ms: Option<u64>,
    deliveries_max: Option<u32>,
    /// Messages that died and are to be buried beside the lock.
    dead: Vec<Dead>,
}

impl Mortality {
    fn reason(&self, delivery: &Delivery) -> Option<Reason> {
        if self.deliveries_max.is_some_and(|max| delivery.redelivered > max) {
            return Some(Reason::DeliveryLimit);
        }
        let by_queue = self.ttl_ms.map(|ttl| delivery.record.timestamp_ms.saturating_add_unsigned(ttl));
        let at = match (by_queue, expires_ms(&delivery.record)) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b)?,
        };
        (at <= self.now_ms).then_some(Reason::Expired)
    }

    fn died(&mut self, id: DeliveryId, record: Record, reason: Reason) {
        self.dead.push(Dead { id, record, reason });
    }
}

impl State {
    /// Begins to look at the queue: what time it is, what its limits are, and what has no room dies.
    pub(super) fn look(&mut self, now_ms: i64, limits: Option<&QueueLimits>, loads: &mut Vec<Load>) {
        self.mortality.now_ms = now_ms;
        let Some(limits) = limits else { return };
        self.mortality.ttl_ms = limits.message_ttl_ms;
        self.mortality.deliveries_max = limits.deliveries_max;
        if limits.overflow != Overflow::DropHead || !limits.bounds_length() {
            return;
        }
        let over = |state: &State| {
            let ready = state.ready();
            ready > 0
                && (limits.messages_max.is_some_and(|max| ready > max)
                    || limits.bytes_max.is_some_and(|max| state.bytes() > max))
        };
        while over(self) {
            let Some(Delivery { id, record, .. }) = self.next_raw(loads) else { return };
            self.mortality.died(id, record, Reason::MaxLength);
        }
    }

    /// Lets die what waits at the head and is too old.
    pub(super) fn expire_head(&mut self, loads: &mut Vec<Load>) {
        if let Some(alive) = self.next_any(loads) {
            self.put_back(alive);
            self.wake_waiting();
        }
    }

    pub(super) fn take_dead(&mut self) -> Vec<Dead> {
        std::mem::take(&mut self.mortality.dead)
    }

    /// The next message that is alive; those before it that are not die.
    pub(super) fn next_any(&mut self, loads: &mut Vec<Load>) -> Option<Delivery> {
        loop {
            let delivery = self.next_raw(loads)?;
            match self.mortality.reason(&delivery) {
                None => return Some(delivery),
                Some(reason) => self.mortality.died(delivery.id, delivery.record, reason),
            }
        }
    }

    /// Messages submitted and not yet handed out, visible or not, and about how many bytes they have.
    pub(super) fn submitted(&self) -> (u64, u64) {
        let ahead = |s: &Source| match s {
            Source::Stream(s) => s.stream.next_offset().0.saturating_sub(s.position()),
            Source::Memory(m) => m.ready(),
        };
        let messages = self.sources().iter().map(ahead).sum::<u64>() + self.set_aside();
        (messages, self.bytes())
    }

    /// About how many bytes wait. Of a stream: its share of the bytes kept.
    fn bytes(&self) -> u64 {
        let waiting = |s: &Source| match s {
            Source::Memory(m) => m.bytes(),
            Source::Stream(s) => {
                let kept = u128::from(s.stream.high_watermark().0.saturating_sub(s.stream.start().0));
                let bytes = u128::from(s.stream.bytes()) * u128::from(s.ready());
                u64::try_from(bytes.checked_div(kept).unwrap_or(0)).unwrap_or(u64::MAX)
            }
        };
        self.sources().iter().map(waiting).sum()
    }
}
