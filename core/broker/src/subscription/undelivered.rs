//! Dead letters without a receiver, in a queue that keeps them: they count as waiting, no consumer gets them, and they are
//! published again from time to time.
//!
//! Where there are as many as there may be, messages neither expire nor are dropped for their deliveries, and a rejected one
//! waits again for consumers: no message is lost, and no memory taken for it.
//!
//! Nothing of this is in the log, where such a message is one that was not acknowledged: after a restart it is in the queue
//! as any other.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Arc;

use inver_storage::Offset;

use super::drops::Dropped;
use super::sizes::value_bytes;
use super::source::{READ_BYTES, Source};
use super::state::{Load, Requeued, State};
use super::{DeliveryId, Subscription};
use crate::spec::DropReason;

/// The first and the longest pause before they are published again, milliseconds.
const PAUSE_MS: (i64, i64) = (250, 30_000);

/// Dead letters that wait for a receiver.
#[derive(Default)]
pub(super) struct Undelivered {
    /// Why each was dropped, and the bytes of its value.
    messages: BTreeMap<DeliveryId, (DropReason, u32)>,
    /// How many there may be.
    messages_max: usize,
    /// The last one that was tried: the others are tried first.
    tried: Option<DeliveryId>,
    retry_ms: i64,
    pause_ms: i64,
    /// A retry goes on once the next one is read.
    is_reading: bool,
    /// The last one that could not be read.
    unreadable: Option<DeliveryId>,
}

impl Undelivered {
    pub(super) fn len(&self) -> u64 {
        self.messages.len() as u64
    }

    pub(super) fn into_ids(self) -> impl Iterator<Item = DeliveryId> {
        self.messages.into_keys()
    }

    pub(super) fn has(&self, id: DeliveryId) -> bool {
        self.messages.contains_key(&id)
    }

    /// Takes those of a range out. Their ids, and the bytes of their values.
    pub(super) fn take_range(&mut self, range: Range<DeliveryId>) -> (Vec<DeliveryId>, i64) {
        let ids: Vec<DeliveryId> = self.messages.range(range).map(|(id, _)| *id).collect();
        let taken = ids.iter().filter_map(|id| self.messages.remove(id));
        let value_bytes = taken.map(|(_, value_bytes)| i64::from(value_bytes)).sum();
        (ids, value_bytes)
    }

    fn is_full(&self) -> bool {
        self.messages.len() >= self.messages_max
    }

    /// The next one to try.
    pub(super) fn next(&self) -> Option<(DeliveryId, DropReason, u32)> {
        let behind = self.tried.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.messages.range((behind, Bound::Unbounded)).next();
        let (id, (reason, value_bytes)) = next.or_else(|| self.messages.first_key_value())?;
        Some((*id, *reason, *value_bytes))
    }

    /// The one that an operator's request to skip damage looks at: the last one that could not be read, else the next one.
    pub(super) fn to_skip(&self) -> Option<DeliveryId> {
        let unreadable = self.unreadable.filter(|id| self.has(*id));
        unreadable.or_else(|| self.next().map(|(id, ..)| id))
    }
}

impl Subscription {
    /// Whether dead letters without a receiver stay in the queue.
    pub(crate) fn keeps_undelivered(&self) -> bool {
        self.locked(|state| state.keeps_undelivered)
    }

    /// Keeps dead letters without a receiver, `messages_max` at most; those beyond wait for consumers again.
    pub(crate) fn hold(self: &Arc<Self>, dropped: &[&Dropped], messages_max: usize) {
        if dropped.is_empty() {
            return;
        }
        let now_ms = self.context().clock.steady_ms();
        self.locked(|state| state.hold(dropped, messages_max, now_ms));
        self.recheck();
    }
}

impl State {
    fn hold(&mut self, dropped: &[&Dropped], messages_max: usize, now_ms: i64) {
        if self.closed {
            return;
        }
        let mut undelivered = self.undelivered.take().unwrap_or_default();
        undelivered.messages_max = messages_max;
        for Dropped { id, record, reason } in dropped {
            let value_bytes = value_bytes(record);
            if undelivered.is_full() {
                self.wait_again(*id, value_bytes, *reason);
                continue;
            }
            undelivered.messages.insert(*id, (*reason, value_bytes));
            self.limits.bytes.add(value_bytes);
        }
        if undelivered.retry_ms <= now_ms {
            undelivered.pause_ms = (undelivered.pause_ms * 2).clamp(PAUSE_MS.0, PAUSE_MS.1);
            undelivered.retry_ms = now_ms + undelivered.pause_ms;
            undelivered.is_reading = false;
        }
        self.undelivered = Some(undelivered);
        self.wake_waiting();
    }

    /// Makes a dropped message wait in its old place.
    fn wait_again(&mut self, id: DeliveryId, value_bytes: u32, reason: DropReason) {
        let cursor = self.sources.get(id.partition as usize).and_then(Source::cursor);
        let counted = cursor.map_or(0, |cursor| cursor.delivery_count(Offset(id.offset)));
        let redelivered = counted + u32::from(reason == DropReason::Rejected);
        self.put_back(id, Requeued { redelivered, value_bytes, rank: 0, drop_reason: None });
    }

    /// Whether no more dead letters without a receiver can be kept.
    pub(super) fn is_undelivered_full(&self) -> bool {
        self.undelivered.as_ref().is_some_and(|undelivered| undelivered.is_full())
    }

    /// Whether a retry goes on once it has read the next message.
    pub(super) fn is_retrying(&self) -> bool {
        self.undelivered.as_ref().is_some_and(|undelivered| undelivered.is_reading)
    }

    /// Tries them again after the longest pause, this one last, because it cannot be read. False if it could not be before.
    pub(super) fn put_off_undelivered(&mut self, id: DeliveryId) -> bool {
        let retry_ms = self.clock.steady_ms() + PAUSE_MS.1;
        let Some(undelivered) = &mut self.undelivered else { return false };
        undelivered.retry_ms = retry_ms;
        undelivered.is_reading = false;
        undelivered.tried = Some(id);
        undelivered.unreadable.replace(id) != Some(id)
    }

    /// When they are tried next, if that cannot be now.
    pub(super) fn retry_ms(&self, now_ms: i64) -> Option<i64> {
        Some(self.undelivered.as_ref()?.retry_ms.max(now_ms + PAUSE_MS.0))
    }

    /// Drops them again, as many as one round does, once it is time. Returns when that is, while there are any.
    pub(super) fn retry_undelivered(&mut self, loads: &mut Vec<Load>) -> Option<i64> {
        let now_ms = self.limits.now_ms;
        let undelivered = self.undelivered.as_ref()?;
        if undelivered.retry_ms > now_ms {
            return Some(undelivered.retry_ms);
        }
        let mut left = undelivered.messages.len();
        if left == 0 {
            // None of those that were tried came back. Until now it knew the pause.
            self.undelivered = None;
            return None;
        }
        while left > 0 && !self.limits.is_round_full() {
            left -= 1;
            let (id, reason, value_bytes) = self.undelivered.as_ref()?.next()?;
            let mut gone = false;
            let taken = self.read_again(id, READ_BYTES, loads, &mut gone);
            let undelivered = self.undelivered.as_mut()?;
            undelivered.is_reading = taken.is_none() && !gone;
            if undelivered.is_reading {
                break;
            }
            undelivered.messages.remove(&id);
            undelivered.tried = Some(id);
            self.limits.bytes.subtract(value_bytes);
            if let Some((record, _)) = taken {
                self.limits.drop_message(id, record, reason);
            }
        }
        self.retry_ms(now_ms)
    }
}
