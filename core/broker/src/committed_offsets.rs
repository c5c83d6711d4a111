//! Committed offsets of consumer groups: the next offset to consume of each partition, as the group's members commit
//! it.
//!
//! Owns the table in memory and its rows in the log, which agree: both change under one lock. Does not own group
//! membership, nor the choice of what expires.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};

use inver_storage::{Entry, Held, Log, Lsn, Share, SubmitError};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::completion::Completion;
use crate::limits::{self, LimitReached};
use crate::rows;
use crate::seeded_bugs::{Bug, is_seeded};

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedOffset {
    /// The next offset to consume.
    pub offset: i64,
    /// The leader epoch that the client saw, or -1.
    pub leader_epoch: i32,
    /// Text that the client keeps with the offset.
    pub metadata: Option<String>,
    /// When it was committed, milliseconds since 1970.
    pub committed_ms: i64,
}

fn text_bytes(offset: &CommittedOffset) -> usize {
    offset.metadata.as_ref().map_or(0, String::len)
}

type Partitions = BTreeMap<(String, u32), CommittedOffset>;

/// Committed offsets by group, and which groups have some of a topic.
#[derive(Default)]
struct Table {
    groups: BTreeMap<String, Partitions>,
    /// Bytes of the texts with them.
    text_bytes: usize,
    /// By topic and group: how many. Deleting one of many topics does not walk over the offsets of all.
    by_topic: HashMap<String, HashMap<String, usize>>,
}

impl Table {
    /// Whether it is a new one.
    fn set(&mut self, group: &str, topic: &str, partition: u32, offset: CommittedOffset) -> bool {
        let of_group = self.groups.entry(group.to_owned()).or_default();
        self.text_bytes += text_bytes(&offset);
        let old = of_group.insert((topic.to_owned(), partition), offset);
        self.text_bytes -= old.as_ref().map_or(0, text_bytes);
        let is_new = old.is_none();
        if is_new {
            let groups = self.by_topic.entry(topic.to_owned()).or_default();
            *groups.entry(group.to_owned()).or_default() += 1;
        }
        is_new
    }

    /// Whether there was one.
    fn remove(&mut self, group: &str, topic: &str, partition: u32) -> bool {
        let Some(of_group) = self.groups.get_mut(group) else { return false };
        let Some(old) = of_group.remove(&(topic.to_owned(), partition)) else { return false };
        self.text_bytes -= text_bytes(&old);
        if of_group.is_empty() {
            self.groups.remove(group);
        }
        if let Some(groups) = self.by_topic.get_mut(topic) {
            if let Some(count) = groups.get_mut(group) {
                *count -= 1;
                if *count == 0 {
                    groups.remove(group);
                }
            }
            if groups.is_empty() {
                self.by_topic.remove(topic);
            }
        }
        true
    }

    /// The groups and partitions of a topic that have an offset. Looks at no others.
    fn of_topic(&self, topic: &str) -> Vec<(String, u32)> {
        let all = (topic.to_owned(), 0)..=(topic.to_owned(), u32::MAX);
        let groups = self.by_topic.get(topic).into_iter().flat_map(HashMap::keys);
        let partitions = groups.filter_map(|group| Some((group, self.groups.get(group)?)));
        let offsets = partitions.flat_map(|(group, partitions)| {
            partitions.range(all.clone()).map(|((_, partition), _)| (group.clone(), *partition))
        });
        offsets.collect()
    }
}

/// All committed offsets of a namespace, by group.
pub struct CommittedOffsets {
    namespace: u32,
    committed_offsets_max: AtomicUsize,
    table: RwLock<Table>,
    /// Committed offsets in all groups.
    count: AtomicUsize,
    /// The memory that their texts hold, from the first commit on.
    held: Mutex<Option<Held>>,
}

impl CommittedOffsets {
    pub(crate) fn new(namespace: u32, committed_offsets_max: usize) -> CommittedOffsets {
        CommittedOffsets {
            namespace,
            committed_offsets_max: AtomicUsize::new(committed_offsets_max),
            table: RwLock::default(),
            count: AtomicUsize::new(0),
            held: Mutex::default(),
        }
    }

    fn max(&self) -> usize {
        self.committed_offsets_max.load(Ordering::Relaxed)
    }

    /// Changes the bound.
    pub(crate) fn set_max(&self, committed_offsets_max: usize) {
        self.committed_offsets_max.store(committed_offsets_max, Ordering::Relaxed);
    }

    /// Checks the bound before a commit; offsets that a group has already can always be committed again.
    pub fn room_for(
        &self,
        group: &str,
        offsets: &[(&str, u32, CommittedOffset)],
    ) -> Result<(), LimitReached> {
        if self.len() + offsets.len() <= self.max() {
            return Ok(());
        }
        let table = self.table.read();
        let present = table.groups.get(group);
        let is_new = |(topic, partition, _): &&(&str, u32, CommittedOffset)| {
            present.is_none_or(|of_group| !of_group.contains_key(&((*topic).to_owned(), *partition)))
        };
        match offsets.iter().filter(is_new).count() {
            0 => Ok(()),
            new => limits::check("committed offsets", self.len() + new - 1, self.max()),
        }
    }

    /// The number of committed offsets, in all groups.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn recover(&self, group: &str, topic: &str, partition: u32, offset: CommittedOffset) {
        self.set(&mut self.table.write(), group, topic, partition, offset);
    }

    fn set(&self, table: &mut Table, group: &str, topic: &str, partition: u32, offset: CommittedOffset) {
        let is_new = table.set(group, topic, partition, offset);
        self.count.fetch_add(usize::from(is_new), Ordering::AcqRel);
    }

    fn key(&self, group: &str, topic: &str, partition: u32) -> bytes::Bytes {
        let parts: [&[u8]; 5] = [group.as_bytes(), &[0], topic.as_bytes(), &[0], &partition.to_be_bytes()];
        rows::key(self.namespace, &parts)
    }

    /// Commits offsets of a group, all of them or none.
    pub fn commit(
        &self,
        log: &Log,
        group: &str,
        offsets: &[(&str, u32, CommittedOffset)],
    ) -> Result<Lsn, SubmitError> {
        let mut table = self.table.write();
        let mut entry = Entry::new();
        for (topic, partition, offset) in offsets {
            let partition = *partition + u32::from(is_seeded(Bug::WrongPartition));
            entry.put(rows::COMMITTED_OFFSETS, self.key(group, topic, partition), rows::encode(offset));
        }
        // Submitted under the lock, so that memory and log agree on the order of two commits.
        let submitted = log.submit(entry)?;
        for (topic, partition, offset) in offsets {
            self.set(&mut table, group, topic, *partition, offset.clone());
        }
        self.account(log, &table);
        Ok(submitted.lsn)
    }

    /// Commits offsets of several groups, in partitions that exist, in one entry with its other parts: nothing changes unless
    /// `submit` succeeds.
    pub(crate) fn commit_with<T, E>(
        &self,
        log: &Log,
        mut entry: Entry,
        mut offsets: Vec<(&str, &str, u32, &CommittedOffset)>,
        exists: impl Fn(&str, u32) -> bool,
        submit: impl FnOnce(Entry) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut table = self.table.write();
        // Asked under the lock, under which a topic is deleted with its offsets.
        offsets.retain(|(_, topic, partition, _)| exists(topic, *partition));
        for (group, topic, partition, offset) in &offsets {
            entry.put(rows::COMMITTED_OFFSETS, self.key(group, topic, *partition), rows::encode(*offset));
        }
        let submitted = submit(entry)?;
        for (group, topic, partition, offset) in offsets {
            self.set(&mut table, group, topic, partition, offset.clone());
        }
        self.account(log, &table);
        Ok(submitted)
    }

    /// Accounts for the memory of the texts.
    fn account(&self, log: &Log, table: &Table) {
        let mut held = self.held.lock();
        held.get_or_insert_with(|| log.memory().holder(Share::Offsets)).force(table.text_bytes);
    }

    /// The committed offset of a group in a partition.
    #[must_use]
    pub fn get(&self, group: &str, topic: &str, partition: u32) -> Option<CommittedOffset> {
        self.table.read().groups.get(group)?.get(&(topic.to_owned(), partition)).cloned()
    }

    /// All committed offsets of a group, by topic and partition.
    #[must_use]
    pub fn of_group(&self, group: &str) -> Vec<(String, u32, CommittedOffset)> {
        let table = self.table.read();
        let Some(partitions) = table.groups.get(group) else { return Vec::new() };
        partitions.iter().map(|((t, p), offset)| (t.clone(), *p, offset.clone())).collect()
    }

    /// Whether a group has a committed offset.
    #[must_use]
    pub fn has_group(&self, group: &str) -> bool {
        self.table.read().groups.contains_key(group)
    }

    /// The groups that have a committed offset.
    #[must_use]
    pub fn groups(&self) -> Vec<String> {
        self.table.read().groups.keys().cloned().collect()
    }

    /// Up to `max` groups that have a committed offset, in the order of their ids behind `after`.
    #[must_use]
    pub fn groups_following(&self, after: Option<&str>, max: usize) -> Vec<String> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let table = self.table.read();
        let following = table.groups.range::<str, _>((from, Bound::Unbounded));
        following.take(max).map(|(group, _)| group.clone()).collect()
    }

    /// Whether a group has a committed offset in a topic.
    #[must_use]
    pub fn has_topic(&self, group: &str, topic: &str) -> bool {
        let table = self.table.read();
        table.by_topic.get(topic).is_some_and(|groups| groups.contains_key(group))
    }

    /// Deletes the committed offsets of a group that `delete` selects by topic and partition.
    pub fn delete(
        &self,
        log: &Log,
        group: &str,
        mut delete: impl FnMut(&str, u32) -> bool,
    ) -> Result<Completion, SubmitError> {
        self.delete_selected(log, group, |topic, partition, _| delete(topic, partition))
    }

    /// Deletes the offsets that a group committed before `before_ms` (milliseconds since 1970).
    pub fn expire(&self, log: &Log, group: &str, before_ms: i64) -> Result<Completion, SubmitError> {
        self.delete_selected(log, group, |_, _, offset| offset.committed_ms < before_ms)
    }

    fn delete_selected(
        &self,
        log: &Log,
        group: &str,
        mut delete: impl FnMut(&str, u32, &CommittedOffset) -> bool,
    ) -> Result<Completion, SubmitError> {
        let mut table = self.table.write();
        let Some(partitions) = table.groups.get(group) else { return Ok(Completion::Now) };
        let selected =
            partitions.iter().filter(|((topic, partition), offset)| delete(topic, *partition, offset));
        let selected: Vec<(String, u32)> = selected.map(|(key, _)| key.clone()).collect();
        if selected.is_empty() {
            return Ok(Completion::Now);
        }
        let mut entry = Entry::new();
        for (topic, partition) in &selected {
            entry.delete(rows::COMMITTED_OFFSETS, self.key(group, topic, *partition));
        }
        let submitted = log.submit(entry)?;
        for (topic, partition) in &selected {
            table.remove(group, topic, *partition);
        }
        self.count.fetch_sub(selected.len(), Ordering::AcqRel);
        self.account(log, &table);
        Ok(Completion::At(submitted.lsn))
    }

    /// Forgets all of them; the keys of their rows, which the caller deletes.
    pub(crate) fn take_keys(&self) -> Vec<bytes::Bytes> {
        let table = std::mem::take(&mut *self.table.write());
        *self.held.lock() = None;
        self.count.store(0, Ordering::Release);
        let keys = table.groups.iter().flat_map(|(group, partitions)| {
            partitions.keys().map(|(topic, partition)| self.key(group, topic, *partition))
        });
        keys.collect()
    }

    /// Deletes a topic's committed offsets in every group, in one entry with its other parts: nothing changes unless
    /// `submit` succeeds.
    pub(crate) fn delete_topic<T, E>(
        &self,
        topic: &str,
        mut entry: Entry,
        submit: impl FnOnce(Entry) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut table = self.table.write();
        let offsets = table.of_topic(topic);
        for (group, partition) in &offsets {
            entry.delete(rows::COMMITTED_OFFSETS, self.key(group, topic, *partition));
        }
        let submitted = submit(entry)?;
        for (group, partition) in &offsets {
            table.remove(group, topic, *partition);
        }
        self.count.fetch_sub(offsets.len(), Ordering::AcqRel);
        Ok(submitted)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const OFFSET: CommittedOffset =
        CommittedOffset { offset: 1, leader_epoch: -1, metadata: None, committed_ms: 0 };

    proptest! {
        #[test]
        fn the_index_by_topic_agrees_with_the_groups(
            acts in prop::collection::vec((0..3u8, 0..3u8, 0..4u8, 0..3u32), 0..120),
        ) {
            let (mut table, mut plain) = (Table::default(), BTreeSet::new());
            for (act, group, topic, partition) in acts {
                let (group, topic) = (format!("g{group}"), format!("t{topic}"));
                let key = (group.clone(), topic.clone(), partition);
                match act {
                    0 => prop_assert_eq!(table.remove(&group, &topic, partition), plain.remove(&key)),
                    _ => prop_assert_eq!(table.set(&group, &topic, partition, OFFSET), plain.insert(key)),
                }
                let mut of_topic = table.of_topic(&topic);
                of_topic.sort();
                let wanted = plain.iter().filter(|(_, of, _)| *of == topic);
                let wanted: Vec<_> = wanted.map(|(group, _, partition)| (group.clone(), *partition)).collect();
                prop_assert_eq!(of_topic, wanted);
            }
            let counted: usize = table.by_topic.values().flat_map(HashMap::values).sum();
            prop_assert_eq!(counted, plain.len());
            for (group, topic, partition) in &plain {
                prop_assert!(table.remove(group, topic, *partition));
            }
            prop_assert!(table.groups.is_empty() && table.by_topic.is_empty());
        }
    }
}
