//! Which partitions of consumer groups have an offset in an open transaction.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

/// Group, topic and partition, with the number of transactions.
type Table = HashMap<String, HashMap<(String, u32), usize>>;

#[derive(Default)]
pub(super) struct Pending {
    table: RwLock<Table>,
    groups: AtomicUsize,
}

impl Pending {
    pub(super) fn contains(&self, group: &str, topic: &str, partition: u32) -> bool {
        if self.groups.load(Ordering::Acquire) == 0 {
            return false;
        }
        let table = self.table.read();
        table.get(group).is_some_and(|offsets| offsets.contains_key(&(topic.to_owned(), partition)))
    }

    /// Whether a group has an offset in a topic.
    pub(super) fn has_topic(&self, topic: &str) -> bool {
        let table = self.table.read();
        table.values().flat_map(HashMap::keys).any(|(of, _)| of == topic)
    }

    pub(super) fn add(&self, group: &str, topic: &str, partition: u32) {
        let mut table = self.table.write();
        let offsets = table.entry(group.to_owned()).or_default();
        *offsets.entry((topic.to_owned(), partition)).or_default() += 1;
        self.groups.store(table.len(), Ordering::Release);
    }

    pub(super) fn remove(&self, group: &str, topic: &str, partition: u32) {
        let mut table = self.table.write();
        let Some(offsets) = table.get_mut(group) else { return };
        let key = (topic.to_owned(), partition);
        if let Some(count) = offsets.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                offsets.remove(&key);
            }
        }
        if offsets.is_empty() {
            table.remove(group);
        }
        self.groups.store(table.len(), Ordering::Release);
    }
}
