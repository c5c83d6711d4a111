//! Events that wait to be written or published: a bounded number of them. One that finds no place is counted and
//! dropped, so that who causes it never waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::counter;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The queue.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    max: usize,
    /// The metric of those that are dropped.
    dropped_total: &'static str,
    events: Mutex<VecDeque<T>>,
    added: Notify,
    dropped: AtomicU64,
}

impl<T> Waiting<T> {
    pub(crate) fn new(max: usize, dropped_total: &'static str) -> Waiting<T> {
        let (events, dropped) = (Mutex::default(), AtomicU64::new(0));
        Waiting { max, dropped_total, events, added: Notify::new(), dropped }
    }

    pub(crate) fn push(&self, event: impl FnOnce() -> T) {
        let mut events = self.events.lock();
        if events.len() >= self.max {
            drop(events);
            self.count_dropped(1);
            return;
        }
        events.push_back(event());
        drop(events);
        self.added.notify_one();
    }

    /// Whether the next one finds no place.
    pub(crate) fn is_full(&self) -> bool {
        self.events.lock().len() >= self.max
    }

    /// Counts events that got nowhere.
    pub(crate) fn count_dropped(&self, events: u64) {
        self.dropped.fetch_add(events, Ordering::Relaxed);
        counter!(self.dropped_total).increment(events);
    }

    /// The events dropped since the last call.
    pub(crate) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    /// Takes the oldest events, at most `max`.
    pub(crate) fn take(&self, max: usize) -> Vec<T> {
        let mut events = self.events.lock();
        let count = events.len().min(max);
        events.drain(..count).collect()
    }

    /// The number of events that wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.events.lock().len()
    }

    /// Returns when an event was added since the last call.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }
}
