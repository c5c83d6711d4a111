//! Committed offsets of consumer groups: the next offset to consume of each partition, as the group's members commit
//! it.
//!
//! Owns the table in memory and its rows in the log, which agree: both change under one lock. Does not own group
//! membership, nor the choice of what expires.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use inver_storage::{Entry, Log, Lsn, SubmitError};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::completion::Completion;
use crate::limits::{self, LimitReached};
use crate::rows;

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

type Partitions = BTreeMap<(String, u32), CommittedOffset>;

/// All committed offsets of a namespace, by group.
pub struct CommittedOffsets {
    namespace: u32,
    committed_offsets_max: AtomicUsize,
    groups: RwLock<BTreeMap<String, Partitions>>,
    /// Committed offsets in all groups.
    count: AtomicUsize,
}

impl CommittedOffsets {
    pub(crate) fn new(namespace: u32, committed_offsets_max: usize) -> CommittedOffsets {
        CommittedOffsets {
            namespace,
            committed_offsets_max: AtomicUsize::new(committed_offsets_max),
            groups: RwLock::default(),
            count: AtomicUsize::new(0),
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
        let groups = self.groups.read();
        let present = groups.get(group);
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
        let mut groups = self.groups.write();
        self.set(groups.entry(group.to_owned()).or_default(), topic, partition, offset);
    }

    fn set(&self, of_group: &mut Partitions, topic: &str, partition: u32, offset: CommittedOffset) {
        let new = of_group.insert((topic.to_owned(), partition), offset).is_none();
        self.count.fetch_add(usize::from(new), Ordering::AcqRel);
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
        let mut groups = self.groups.write();
        let mut entry = Entry::new();
        for (topic, partition, offset) in offsets {
            entry.put(rows::COMMITTED_OFFSETS, self.key(group, topic, *partition), rows::encode(offset));
        }
        // Submitted under the lock, so that memory and log agree on the order of two commits.
        let submitted = log.submit(entry)?;
        let of_group = groups.entry(group.to_owned()).or_default();
        for (topic, partition, offset) in offsets {
            self.set(of_group, topic, *partition, offset.clone());
        }
        Ok(submitted.lsn)
    }

    /// The committed offset of a group in a partition.
    #[must_use]
    pub fn get(&self, group: &str, topic: &str, partition: u32) -> Option<CommittedOffset> {
        self.groups.read().get(group)?.get(&(topic.to_owned(), partition)).cloned()
    }

    /// All committed offsets of a group, by topic and partition.
    #[must_use]
    pub fn of_group(&self, group: &str) -> Vec<(String, u32, CommittedOffset)> {
        let groups = self.groups.read();
        let Some(partitions) = groups.get(group) else { return Vec::new() };
        partitions.iter().map(|((t, p), offset)| (t.clone(), *p, offset.clone())).collect()
    }

    /// Whether a group has a committed offset.
    #[must_use]
    pub fn has_group(&self, group: &str) -> bool {
        self.groups.read().contains_key(group)
    }

    /// The groups that have a committed offset.
    #[must_use]
    pub fn groups(&self) -> Vec<String> {
        self.groups.read().keys().cloned().collect()
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
        let mut groups = self.groups.write();
        let Some(partitions) = groups.get_mut(group) else { return Ok(Completion::Now) };
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
        for key in &selected {
            partitions.remove(key);
        }
        self.count.fetch_sub(selected.len(), Ordering::AcqRel);
        if partitions.is_empty() {
            groups.remove(group);
        }
        Ok(Completion::At(submitted.lsn))
    }

    /// Forgets all of them; the keys of their rows, which the caller deletes.
    pub(crate) fn take_keys(&self) -> Vec<bytes::Bytes> {
        let groups = std::mem::take(&mut *self.groups.write());
        self.count.store(0, Ordering::Release);
        let keys = groups.iter().flat_map(|(group, partitions)| {
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
        let mut groups = self.groups.write();
        for (group, partitions) in groups.iter() {
            for (_, partition) in partitions.keys().filter(|(t, _)| t == topic) {
                entry.delete(rows::COMMITTED_OFFSETS, self.key(group, topic, *partition));
            }
        }
        let submitted = submit(entry)?;
        for partitions in groups.values_mut() {
            let before = partitions.len();
            partitions.retain(|(t, _), _| t != topic);
            self.count.fetch_sub(before - partitions.len(), Ordering::AcqRel);
        }
        groups.retain(|_, partitions| !partitions.is_empty());
        Ok(submitted)
    }
}
