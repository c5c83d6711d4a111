//! Events that wait to be written to the audit topic: a bounded number of them. One that finds no place is counted and
//! dropped, so that who causes it never waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use metrics::counter;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::telemetry::AUDIT_DROPPED;

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) time_ms: i64,
    pub(crate) json: Bytes,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct AuditQueue {
    max: usize,
    events: Mutex<VecDeque<Queued>>,
    added: Notify,
    dropped: AtomicU64,
}

impl AuditQueue {
    pub(super) fn new(max: usize) -> AuditQueue {
        AuditQueue { max, events: Mutex::default(), added: Notify::new(), dropped: AtomicU64::new(0) }
    }

    pub(super) fn push(&self, time_ms: i64, json: impl FnOnce() -> Bytes) {
        let mut events = self.events.lock();
        if events.len() >= self.max {
            drop(events);
            self.count_dropped(1);
            return;
        }
        events.push_back(Queued { time_ms, json: json() });
        drop(events);
        self.added.notify_one();
    }

    /// Counts events that are not in the topic.
    pub(crate) fn count_dropped(&self, events: u64) {
        self.dropped.fetch_add(events, Ordering::Relaxed);
        counter!(AUDIT_DROPPED).increment(events);
    }

    /// The events dropped since the last call.
    pub(crate) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    /// Takes the oldest events, at most `max`.
    pub(crate) fn take(&self, max: usize) -> Vec<Queued> {
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
