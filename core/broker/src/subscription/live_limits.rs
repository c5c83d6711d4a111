//! The limits of a queue as they are now: what it was declared with, and what policies make of it.
//!
//! They are read for every message, without a lock: each of them is an atomic. Who reads while they change may see some of
//! the new ones and some of the old ones, as if the message had come a moment earlier or later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::spec::{DeadLetter, Overflow, QueueBounds, QueueLimits};

/// See the module.
#[derive(Default)]
pub(super) struct LiveLimits {
    is_limited: AtomicBool,
    dead_letters: AtomicBool,
    overflow: AtomicU8,
    /// One more than the limit, so that 0 stands for none.
    message_ttl_ms: AtomicU64,
    expires_after_ms: AtomicU64,
    messages_max: AtomicU64,
    bytes_max: AtomicU64,
    deliveries_max: AtomicU64,
    dead_letter: RwLock<Option<Arc<DeadLetter>>>,
}

impl LiveLimits {
    pub(super) fn new(limits: &QueueLimits) -> LiveLimits {
        let live = LiveLimits::default();
        live.set(limits);
        live
    }

    /// Changes them.
    pub(super) fn set(&self, limits: &QueueLimits) {
        let put = |to: &AtomicU64, limit: Option<u64>| {
            to.store(limit.map_or(0, |limit| limit.saturating_add(1)), Ordering::Relaxed);
        };
        put(&self.message_ttl_ms, limits.message_ttl_ms);
        put(&self.expires_after_ms, limits.expires_after_ms);
        put(&self.messages_max, limits.messages_max);
        put(&self.bytes_max, limits.bytes_max);
        put(&self.deliveries_max, limits.deliveries_max.map(u64::from));
        self.overflow.store(limits.overflow as u8, Ordering::Relaxed);
        // Before the flag: who reads that finds the exchange.
        let mut dead_letter = self.dead_letter.write();
        if dead_letter.as_deref() != limits.dead_letter.as_ref() {
            *dead_letter = limits.dead_letter.clone().map(Arc::new);
        }
        drop(dead_letter);
        self.dead_letters.store(limits.dead_letter.is_some(), Ordering::Release);
        self.is_limited.store(limits.bounds() != QueueBounds::default(), Ordering::Release);
    }

    /// The limits; none without any.
    pub(super) fn bounds(&self) -> Option<QueueBounds> {
        if !self.is_limited.load(Ordering::Acquire) {
            return None;
        }
        let get = |of: &AtomicU64| of.load(Ordering::Relaxed).checked_sub(1);
        Some(QueueBounds {
            message_ttl_ms: get(&self.message_ttl_ms),
            expires_after_ms: get(&self.expires_after_ms),
            messages_max: get(&self.messages_max),
            bytes_max: get(&self.bytes_max),
            overflow: Overflow::numbered(self.overflow.load(Ordering::Relaxed)),
            deliveries_max: get(&self.deliveries_max).map(|max| u32::try_from(max).unwrap_or(u32::MAX)),
            dead_letters: self.dead_letters.load(Ordering::Acquire),
        })
    }

    /// Whether there are any.
    pub(super) fn is_limited(&self) -> bool {
        self.is_limited.load(Ordering::Acquire)
    }

    /// Where dropped messages are published.
    pub(super) fn dead_letter(&self) -> Option<Arc<DeadLetter>> {
        self.dead_letter.read().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_they_were_set() {
        let dead_letter = Some(DeadLetter { exchange: "x".into(), routing_key: None });
        let all = QueueLimits {
            message_ttl_ms: Some(0),
            expires_after_ms: Some(1),
            messages_max: Some(0),
            bytes_max: Some(u64::MAX),
            overflow: Overflow::RejectPublishDeadLetter,
            dead_letter: dead_letter.clone(),
            deliveries_max: Some(u32::MAX),
        };
        let live = LiveLimits::new(&all);
        let bounds = live.bounds().unwrap();
        assert_eq!(bounds, QueueBounds { bytes_max: Some(u64::MAX - 1), ..all.bounds() });
        assert_eq!(live.dead_letter().as_deref(), dead_letter.as_ref());
        let rejecting = QueueLimits { overflow: Overflow::RejectPublish, ..QueueLimits::default() };
        live.set(&rejecting);
        assert_eq!((live.bounds(), live.dead_letter()), (Some(rejecting.bounds()), None));
        live.set(&QueueLimits::default());
        assert_eq!((live.bounds(), live.is_limited()), (None, false));
    }
}
