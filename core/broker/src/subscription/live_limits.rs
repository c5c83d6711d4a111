//! The limits of a queue as they are now: what it was declared with, and what policies make of it.
//!
//! They are read for every message, without a lock: each of them is an atomic, and a version around them tells a reader that
//! they changed meanwhile, so that it reads again: a mixture of old and new ones might drop what neither drops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};

use parking_lot::RwLock;

use crate::spec::{DeadLetter, Overflow, QueueBounds, QueueLimits};

/// See the module.
#[derive(Default)]
pub(super) struct LiveLimits {
    is_limited: AtomicBool,
    /// Odd while they change.
    version: AtomicU64,
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

    /// Changes them; one thread at a time.
    pub(super) fn set(&self, limits: &QueueLimits) {
        let exchange = limits.dead_letter.clone().map(Arc::new);
        let mut dead_letter = self.dead_letter.write();
        self.version.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::Release);
        let put = |to: &AtomicU64, limit: Option<u64>| {
            to.store(limit.map_or(0, |limit| limit.saturating_add(1)), Ordering::Relaxed);
        };
        put(&self.message_ttl_ms, limits.message_ttl_ms);
        put(&self.expires_after_ms, limits.expires_after_ms);
        put(&self.messages_max, limits.messages_max);
        put(&self.bytes_max, limits.bytes_max);
        put(&self.deliveries_max, limits.deliveries_max.map(u64::from));
        self.overflow.store(limits.overflow as u8, Ordering::Relaxed);
        self.dead_letters.store(exchange.is_some(), Ordering::Relaxed);
        if *dead_letter != exchange {
            *dead_letter = exchange;
        }
        self.version.fetch_add(1, Ordering::Release);
        self.is_limited.store(limits.bounds() != QueueBounds::default(), Ordering::Release);
    }

    /// The limits; none without any.
    pub(super) fn bounds(&self) -> Option<QueueBounds> {
        if !self.is_limited.load(Ordering::Acquire) {
            return None;
        }
        loop {
            let version = self.version.load(Ordering::Acquire);
            let bounds = self.read();
            fence(Ordering::Acquire);
            if version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version {
                return Some(bounds);
            }
            std::hint::spin_loop();
        }
    }

    fn read(&self) -> QueueBounds {
        let get = |of: &AtomicU64| of.load(Ordering::Relaxed).checked_sub(1);
        QueueBounds {
            message_ttl_ms: get(&self.message_ttl_ms),
            expires_after_ms: get(&self.expires_after_ms),
            messages_max: get(&self.messages_max),
            bytes_max: get(&self.bytes_max),
            overflow: Overflow::numbered(self.overflow.load(Ordering::Relaxed)),
            deliveries_max: get(&self.deliveries_max).map(|max| u32::try_from(max).unwrap_or(u32::MAX)),
            dead_letters: self.dead_letters.load(Ordering::Relaxed),
        }
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
    fn a_reader_sees_no_mixture() {
        let dead_letter = Some(DeadLetter { exchange: "x".into(), routing_key: None });
        let one = QueueLimits { messages_max: Some(10), dead_letter, ..QueueLimits::default() };
        let overflow = Overflow::RejectPublish;
        let other = QueueLimits { messages_max: Some(20), overflow, ..QueueLimits::default() };
        let live = LiveLimits::new(&one);
        let allowed = [Some(one.bounds()), Some(other.bounds())];
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| (0..100_000).all(|_| allowed.contains(&live.bounds())));
            while !reader.is_finished() {
                live.set(&other);
                live.set(&one);
            }
            assert!(reader.join().unwrap());
        });
    }

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
