//! How many records of a partition the members of a group hold, all together.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use inver_broker::Mailbox;
use parking_lot::Mutex;

use crate::codec::text::Str;

/// The records of a topic that the members of a group hold, by partition.
#[derive(Default)]
pub(crate) struct RecordLocks {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    taken: HashMap<u32, u32>,
    /// Members that wait for places, each once.
    waiting: Vec<(Weak<Mailbox>, u64)>,
}

impl RecordLocks {
    /// Takes places for up to `wanted` records of a partition, of which there are `max`. Returns for how many.
    pub(crate) fn take(&self, partition: u32, wanted: u32, max: u32) -> u32 {
        let mut inner = self.inner.lock();
        let of_partition = inner.taken.entry(partition).or_default();
        let granted = wanted.min(max.saturating_sub(*of_partition));
        *of_partition += granted;
        granted
    }

    /// Returns places that were not used.
    pub(crate) fn give_back(&self, partition: u32, places: u32) {
        if places > 0 {
            self.inner.lock().give_back(partition, places);
        }
    }

    /// Returns places of records that are not held any more, and wakes those that wait for some.
    pub(crate) fn release(&self, partition: u32, places: u32) {
        if places == 0 {
            return;
        }
        let waiting = {
            let mut inner = self.inner.lock();
            inner.give_back(partition, places);
            std::mem::take(&mut inner.waiting)
        };
        for (mailbox, token) in waiting {
            if let Some(mailbox) = mailbox.upgrade() {
                mailbox.post(token);
            }
        }
    }

    /// Wakes a member when places are released.
    pub(crate) fn wait(&self, mailbox: &Arc<Mailbox>, token: u64) {
        let mut inner = self.inner.lock();
        let own = Arc::downgrade(mailbox);
        inner.waiting.retain(|(of, _)| of.strong_count() > 0);
        let waits = inner.waiting.iter().any(|(of, its)| *its == token && of.ptr_eq(&own));
        if !waits {
            inner.waiting.push((own, token));
        }
    }
}

impl Inner {
    fn give_back(&mut self, partition: u32, places: u32) {
        let left = self.taken.get(&partition).map_or(0, |taken| taken.saturating_sub(places));
        match left {
            0 => drop(self.taken.remove(&partition)),
            left => drop(self.taken.insert(partition, left)),
        }
    }
}

/// The locks of all groups: of a group and a topic, for as long as a member uses them.
#[derive(Default)]
pub(crate) struct LockRegistry {
    used: Mutex<HashMap<(Str, u128), Weak<RecordLocks>>>,
}

impl LockRegistry {
    /// Those of a group and a topic.
    pub(crate) fn of(&self, group: &Str, topic: u128) -> Arc<RecordLocks> {
        let mut used = self.used.lock();
        let key = (group.detached(), topic);
        if let Some(known) = used.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        if used.len() == used.capacity() {
            used.retain(|_, locks| locks.strong_count() > 0);
        }
        let locks = Arc::new(RecordLocks::default());
        used.insert(key, Arc::downgrade(&locks));
        locks
    }
}
