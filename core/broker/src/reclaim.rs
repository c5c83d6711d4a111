//! Which queues moved their position since they were last looked at, so that what is acknowledged can be
//! trimmed from the log, a few times a second and not once a message.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use inver_storage::{Entry, Log};
use parking_lot::Mutex;

use crate::subscription::Subscription;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Reclaim {
    queues: Mutex<HashMap<u64, Weak<Subscription>>>,
    moved: Mutex<HashSet<u64>>,
}

impl Reclaim {
    /// This subscription's acknowledged messages may go; those that an earlier process left first.
    pub(crate) fn register(&self, subscription: &Arc<Subscription>) {
        self.queues.lock().insert(subscription.id(), Arc::downgrade(subscription));
        self.note(subscription.id());
    }

    pub(crate) fn forget(&self, subscription: &Subscription) {
        self.queues.lock().remove(&subscription.id());
        self.moved.lock().remove(&subscription.id());
    }

    /// A position moved.
    pub(crate) fn note(&self, subscription: u64) {
        self.moved.lock().insert(subscription);
    }

    /// Trims what was acknowledged since the last call. Nothing waits for it: after a crash it is done again.
    pub(crate) fn trim(&self, log: &Log) {
        let moved = std::mem::take(&mut *self.moved.lock());
        if moved.is_empty() {
            return;
        }
        let subscriptions: Vec<Arc<Subscription>> = {
            let queues = self.queues.lock();
            moved.iter().filter_map(|id| queues.get(id)?.upgrade()).collect()
        };
        let mut entry = Entry::new();
        let mut any = false;
        for subscription in subscriptions {
            for (stream, position) in subscription.take_dirty() {
                if position > stream.start() {
                    entry.trim(&stream, position);
                    any = true;
                }
            }
        }
        if any && let Err(error) = log.submit(entry) {
            tracing::debug!(%error, "trim not written");
        }
    }
}
