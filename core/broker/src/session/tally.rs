//! How many sessions and subscriptions a namespace has, counted as they come and go.

use std::sync::atomic::{AtomicU64, Ordering};

use super::share::split_share;

/// Counts of the sessions of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionTally {
    /// Sessions, connected or not.
    pub sessions: u64,
    /// Sessions that a connection holds.
    pub connected: u64,
    /// Sessions that have expired since the start.
    pub expired: u64,
    /// Subscriptions, shared ones among them.
    pub subscriptions: u64,
    /// Shared subscriptions, once for each member.
    pub shared: u64,
    /// Messages in inboxes in the log that are not acknowledged; counted in a round of housekeeping.
    pub queued: u64,
    /// Their stored bytes.
    pub queued_bytes: u64,
}

/// The counts as they are kept.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) connected: AtomicU64,
    pub(super) expired: AtomicU64,
    subscriptions: AtomicU64,
    shared: AtomicU64,
    queued: AtomicU64,
    queued_bytes: AtomicU64,
}

impl Counted {
    /// Counts a subscription that was added.
    pub(super) fn add_filter(&self, text: &[u8]) {
        self.subscriptions.fetch_add(1, Ordering::Relaxed);
        if split_share(text).is_some() {
            self.shared.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a subscription that was removed.
    pub(super) fn remove_filter(&self, text: &[u8]) {
        self.subscriptions.fetch_sub(1, Ordering::Relaxed);
        if split_share(text).is_some() {
            self.shared.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Notes what waits in the inboxes.
    pub(super) fn set_queued(&self, messages: u64, bytes: u64) {
        self.queued.store(messages, Ordering::Relaxed);
        self.queued_bytes.store(bytes, Ordering::Relaxed);
    }

    /// What is counted, beside this many sessions.
    pub(super) fn tally(&self, sessions: usize) -> SessionTally {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        SessionTally {
            sessions: sessions as u64,
            connected: of(&self.connected),
            expired: of(&self.expired),
            subscriptions: of(&self.subscriptions),
            shared: of(&self.shared),
            queued: of(&self.queued),
            queued_bytes: of(&self.queued_bytes),
        }
    }
}
