//! Dead letters without a receiver, in a queue that keeps them: they count as waiting, no consumer gets them, and they are
//! published again from time to time.
//!
//! Nothing of this is in the log, where such a message is one that was not acknowledged: after a restart it is in the queue
//! as any other.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::drops::Dropped;
use super::sizes::value_bytes;
use super::source::READ_BYTES;
use super::state::{Load, State};
use super::{DeliveryId, Subscription};
use crate::spec::DropReason;

/// The first and the longest pause before they are published again, milliseconds.
const PAUSE_MS: (i64, i64) = (250, 30_000);

/// Dead letters that wait for a receiver.
#[derive(Default)]
pub(super) struct Undelivered {
    /// Why each was dropped, and the bytes of its value.
    messages: BTreeMap<DeliveryId, (DropReason, u32)>,
    /// The last one that was tried: the others are tried first.
    tried: Option<DeliveryId>,
    retry_ms: i64,
    pause_ms: i64,
}

impl Undelivered {
    pub(super) fn len(&self) -> u64 {
        self.messages.len() as u64
    }

    pub(super) fn into_ids(self) -> impl Iterator<Item = DeliveryId> {
        self.messages.into_keys()
    }

    /// The next one to try.
    fn next(&self) -> Option<(DeliveryId, DropReason, u32)> {
        let behind = self.tried.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.messages.range((behind, Bound::Unbounded)).next();
        let (id, (reason, value_bytes)) = next.or_else(|| self.messages.first_key_value())?;
        Some((*id, *reason, *value_bytes))
    }
}

impl Subscription {
    /// Whether dead letters without a receiver stay in the queue.
    pub(crate) fn keeps_undelivered(&self) -> bool {
        self.locked(|state| state.keeps_undelivered)
    }

    /// Keeps dead letters without a receiver.
    pub(crate) fn hold(self: &Arc<Self>, dropped: &[&Dropped]) {
        if dropped.is_empty() {
            return;
        }
        let now_ms = self.context().clock.steady_ms();
        self.locked(|state| state.hold(dropped, now_ms));
        self.recheck();
    }
}

impl State {
    fn hold(&mut self, dropped: &[&Dropped], now_ms: i64) {
        if self.closed {
            return;
        }
        let undelivered = self.undelivered.get_or_insert_default();
        for Dropped { id, record, reason } in dropped {
            let value_bytes = value_bytes(record);
            undelivered.messages.insert(*id, (*reason, value_bytes));
            self.limits.bytes.add(value_bytes);
        }
        if undelivered.retry_ms <= now_ms {
            undelivered.pause_ms = (undelivered.pause_ms * 2).clamp(PAUSE_MS.0, PAUSE_MS.1);
            undelivered.retry_ms = now_ms + undelivered.pause_ms;
        }
    }

    /// Drops them again, as many as one round does, once it is time. Returns when that is, while there are any.
    pub(super) fn retry_undelivered(&mut self, loads: &mut Vec<Load>) -> Option<i64> {
        let now_ms = self.limits.now_ms;
        let due = self.undelivered.as_ref()?.retry_ms;
        if now_ms < due {
            return Some(due);
        }
        let mut left = self.undelivered.as_ref()?.messages.len();
        while left > 0 && !self.limits.is_round_full() {
            left -= 1;
            let (id, reason, value_bytes) = self.undelivered.as_ref()?.next()?;
            let mut gone = false;
            let taken = self.read_again(id, READ_BYTES, loads, &mut gone);
            if taken.is_none() && !gone {
                // The check is repeated at the end of the load.
                self.limits.awaits_load = true;
                return Some(now_ms + PAUSE_MS.0);
            }
            let undelivered = self.undelivered.as_mut()?;
            undelivered.messages.remove(&id);
            undelivered.tried = Some(id);
            self.limits.bytes.subtract(value_bytes);
            if let Some((record, _)) = taken {
                self.limits.drop_message(id, record, reason);
            }
        }
        Some(now_ms + PAUSE_MS.0)
    }
}
