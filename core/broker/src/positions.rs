//! Positions: where a group stands in a topic's partitions, as the group's members commit it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use inver_storage::{Entry, Log, Lsn, SubmitError};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::catalog;
use crate::limits::{self, LimitReached};

/// A committed position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The next offset to consume.
    pub offset: i64,
    /// The leader epoch that the client saw, or -1.
    pub leader_epoch: i32,
    /// Whatever the client wants kept beside.
    pub metadata: Option<String>,
    /// When it was committed, milliseconds since 1970.
    pub committed_ms: i64,
}

type Partitions = BTreeMap<(String, u32), Position>;

/// All positions of a namespace, by group.
pub struct Positions {
    namespace: u32,
    positions_max: usize,
    groups: RwLock<BTreeMap<String, Partitions>>,
    /// Positions in all groups.
    count: AtomicUsize,
}

impl Positions {
    pub(crate) fn new(namespace: u32, positions_max: usize) -> Positions {
        Positions { namespace, positions_max, groups: RwLock::default(), count: AtomicUsize::new(0) }
    }

    /// Whether these can be committed. To be asked before a commit; those that a group has can be set again always.
    pub fn room_for(&self, group: &str, positions: &[(&str, u32, Position)]) -> Result<(), LimitReached> {
        if self.len() + positions.len() <= self.positions_max {
            return Ok(());
        }
        let groups = self.groups.read();
        let present = groups.get(group);
        let is_new = |(topic, partition, _): &&(&str, u32, Position)| {
            present.is_none_or(|of_group| !of_group.contains_key(&((*topic).to_owned(), *partition)))
        };
        match positions.iter().filter(is_new).count() {
            0 => Ok(()),
            new => limits::room("positions", self.len() + new - 1, self.positions_max),
        }
    }

    /// How many there are, in all groups.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn recover(&self, group: &str, topic: &str, partition: u32, position: Position) {
        let mut groups = self.groups.write();
        self.set(groups.entry(group.to_owned()).or_default(), topic, partition, position);
    }

    fn set(&self, of_group: &mut Partitions, topic: &str, partition: u32, position: Position) {
        let new = of_group.insert((topic.to_owned(), partition), position).is_none();
        self.count.fetch_add(usize::from(new), Ordering::AcqRel);
    }

    fn key(&self, group: &str, topic: &str, partition: u32) -> bytes::Bytes {
        let parts: [&[u8]; 5] = [group.as_bytes(), &[0], topic.as_bytes(), &[0], &partition.to_be_bytes()];
        catalog::key(self.namespace, &parts)
    }

    /// Sets positions of a group, all of them or none. They hold when the log has committed the result.
    pub fn commit(
        &self,
        log: &Log,
        group: &str,
        positions: &[(&str, u32, Position)],
    ) -> Result<Lsn, SubmitError> {
        let mut groups = self.groups.write();
        let mut entry = Entry::new();
        for (topic, partition, position) in positions {
            entry.put(catalog::POSITIONS, self.key(group, topic, *partition), catalog::encode(position));
        }
        // Under the lock, so that memory and log agree on which of two commits was the last.
        let submitted = log.submit(entry)?;
        let of_group = groups.entry(group.to_owned()).or_default();
        for (topic, partition, position) in positions {
            self.set(of_group, topic, *partition, position.clone());
        }
        Ok(submitted.lsn)
    }

    /// The position of a group in a partition.
    #[must_use]
    pub fn get(&self, group: &str, topic: &str, partition: u32) -> Option<Position> {
        self.groups.read().get(group)?.get(&(topic.to_owned(), partition)).cloned()
    }

    /// All positions of a group, by topic and partition.
    #[must_use]
    pub fn of_group(&self, group: &str) -> Vec<(String, u32, Position)> {
        let groups = self.groups.read();
        let Some(partitions) = groups.get(group) else { return Vec::new() };
        partitions.iter().map(|((t, p), position)| (t.clone(), *p, position.clone())).collect()
    }

    /// Whether a group has a position.
    #[must_use]
    pub fn has_group(&self, group: &str) -> bool {
        self.groups.read().contains_key(group)
    }

    /// The groups that have a position.
    #[must_use]
    pub fn groups(&self) -> Vec<String> {
        self.groups.read().keys().cloned().collect()
    }

    /// Forgets positions of a group for which `gone` says yes.
    pub fn delete(
        &self,
        log: &Log,
        group: &str,
        mut gone: impl FnMut(&str, u32) -> bool,
    ) -> Result<Option<Lsn>, SubmitError> {
        self.delete_those(log, group, |topic, partition, _| gone(topic, partition))
    }

    /// Forgets the positions that a group committed before `before_ms`.
    pub fn expire(&self, log: &Log, group: &str, before_ms: i64) -> Result<Option<Lsn>, SubmitError> {
        self.delete_those(log, group, |_, _, position| position.committed_ms < before_ms)
    }

    fn delete_those(
        &self,
        log: &Log,
        group: &str,
        mut gone: impl FnMut(&str, u32, &Position) -> bool,
    ) -> Result<Option<Lsn>, SubmitError> {
        let mut groups = self.groups.write();
        let Some(partitions) = groups.get_mut(group) else { return Ok(None) };
        let all = partitions.iter();
        let doomed = all.filter(|((topic, partition), position)| gone(topic, *partition, position));
        let doomed: Vec<(String, u32)> = doomed.map(|(key, _)| key.clone()).collect();
        if doomed.is_empty() {
            return Ok(None);
        }
        let mut entry = Entry::new();
        for (topic, partition) in &doomed {
            entry.delete(catalog::POSITIONS, self.key(group, topic, *partition));
        }
        let submitted = log.submit(entry)?;
        for key in &doomed {
            partitions.remove(key);
        }
        self.count.fetch_sub(doomed.len(), Ordering::AcqRel);
        if partitions.is_empty() {
            groups.remove(group);
        }
        Ok(Some(submitted.lsn))
    }

    /// Forgets a deleted topic's positions in every group.
    pub(crate) fn forget_topic(&self, topic: &str, entry: &mut Entry) {
        let mut groups = self.groups.write();
        for (group, partitions) in groups.iter_mut() {
            partitions.retain(|(t, p), _| {
                let keep = t != topic;
                if !keep {
                    self.count.fetch_sub(1, Ordering::AcqRel);
                    entry.delete(catalog::POSITIONS, self.key(group, t, *p));
                }
                keep
            });
        }
        groups.retain(|_, partitions| !partitions.is_empty());
    }
}
