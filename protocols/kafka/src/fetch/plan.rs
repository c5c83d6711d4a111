//! The partitions that a client fetches, with offsets and limits; kept between requests in a fetch session (KIP-227).
//!
//! A [`Slot`] is a partition of the plan. Its key in the slab is also the token with which its stream wakes the
//! connection.

use std::collections::HashMap;
use std::sync::Arc;

use inver_broker::Mailbox;
use slab::Slab;

use super::ahead::Ahead;
use super::message::{FetchPartition, FetchRequest, FetchTopic};
use super::slot::{Slot, TopicKey};
use crate::access::Access;
use crate::codec::error_code::ErrorCode;

/// Plans of up to this many partitions listen to them only while a fetch waits. For larger plans, registering again
/// for each fetch would cost more than an occasional needless wake-up.
const LISTEN_WHILE_WAITING_MAX: usize = 16;

/// A client's plan.
#[derive(Default)]
pub(super) struct FetchPlan {
    slots: Slab<Slot>,
    places: HashMap<(TopicKey, i32), usize>,
    /// Keys of the slots, in the order in which they are read.
    order: Vec<usize>,
    /// The versions of the namespace and of the permissions that the slots were looked up with.
    versions: (u64, u64),
}

impl FetchPlan {
    /// Partitions in the plan.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Bytes that it takes, without records.
    pub(super) fn bytes(&self) -> usize {
        let of_each = size_of::<Slot>() + size_of::<((TopicKey, i32), usize)>() + size_of::<usize>();
        self.order.len() * of_each
    }

    /// The slot with this key.
    pub(super) fn slot(&mut self, place: usize) -> Option<&mut Slot> {
        self.slots.get_mut(place)
    }

    /// Keys of the slots, in order.
    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }

    /// The slots, in order.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.order.iter().filter_map(|place| self.slots.get(*place))
    }

    /// Makes the plan what a request names, in its order. Slots named again keep their state.
    pub(super) fn replace(&mut self, version: i16, topics: &[FetchTopic]) {
        let before = std::mem::take(&mut self.order);
        for place in &before {
            if let Some(slot) = self.slots.get_mut(*place) {
                slot.named = false;
            }
        }
        each(version, topics, |key, wanted| {
            let place = self.put(key, wanted);
            if let Some(slot) = self.slots.get_mut(place)
                && !slot.named
            {
                slot.named = true;
                self.order.push(place);
            }
        });
        for place in before {
            if self.slots.get(place).is_some_and(|slot| !slot.named) {
                self.remove(place);
            }
        }
    }

    /// Adds, changes and removes what an incremental request names.
    pub(super) fn update(&mut self, version: i16, request: &FetchRequest) {
        each(version, &request.topics, |key, wanted| {
            let known = self.places.contains_key(&(key.clone(), wanted.partition));
            let place = self.put(key, wanted);
            if !known {
                self.order.push(place);
            }
        });
        let mut removed = false;
        for topic in &request.forgotten_topics_data {
            let key = TopicKey::of(version, &topic.topic, topic.topic_id);
            for index in &topic.partitions {
                if let Some(place) = self.places.get(&(key.clone(), *index)).copied() {
                    self.remove(place);
                    removed = true;
                }
            }
        }
        if removed {
            let slots = &self.slots;
            self.order.retain(|place| slots.contains(*place));
        }
    }

    fn put(&mut self, key: TopicKey, wanted: &FetchPartition) -> usize {
        let full_key = (key.clone(), wanted.partition);
        if let Some(place) = self.places.get(&full_key).copied()
            && let Some(slot) = self.slots.get_mut(place)
        {
            slot.update(wanted);
            return place;
        }
        let place = self.slots.insert(Slot::new(key, wanted));
        self.places.insert(full_key, place);
        place
    }

    fn remove(&mut self, place: usize) {
        if let Some(slot) = self.slots.try_remove(place) {
            self.places.remove(&(slot.topic, slot.index));
        }
    }

    /// Begins a fetch, of what is committed or of everything. Looks up partitions that were not found before, or all if topology or permissions have changed.
    pub(super) fn begin(&mut self, access: &Access, committed: bool) {
        let versions = (access.node.namespace.version(), access.permissions.version());
        let changed = versions != self.versions;
        self.versions = versions;
        for (_, slot) in &mut self.slots {
            if changed || slot.partition.is_none() {
                slot.resolve(access);
            }
            slot.isolate(committed);
            slot.begin();
        }
    }

    /// Answers all partitions of the fetch with an error.
    pub(super) fn fail(&mut self, error: ErrorCode) {
        self.slots.iter_mut().for_each(|(_, slot)| slot.error = error);
    }

    /// Stops to read partitions that the client may not read any more; returns whether there are such.
    pub(super) fn recheck(&mut self, access: &Access) -> bool {
        let version = access.permissions.version();
        if version == self.versions.1 {
            return false;
        }
        self.versions.1 = version;
        let mut any = false;
        for (_, slot) in &mut self.slots {
            any |= slot.recheck(access);
        }
        any
    }

    /// Drops the batches found; the fetch begins again.
    pub(super) fn restart(&mut self) {
        self.slots.iter_mut().for_each(|(_, slot)| slot.begin());
    }

    /// Drops batches read ahead, unless a fetch waits for them.
    pub(super) fn drop_ahead(&mut self) {
        let slots = self.slots.iter_mut().map(|(_, slot)| slot);
        slots.filter(|slot| slot.granted.is_none()).for_each(|slot| slot.ahead = Ahead::Nothing);
    }

    /// Listens to the streams: they wake the mailbox when they have more.
    pub(super) fn listen(&mut self, mailbox: &Arc<Mailbox>) {
        for (place, slot) in &mut self.slots {
            if let (Some(partition), None) = (&slot.partition, &slot.listening) {
                slot.listening = Some(partition.stream().listen(mailbox.clone(), place as u64));
            }
        }
    }

    /// Ends a fetch. In a session, the bounds reported are remembered, and partitions that had records move to the
    /// back, so that the next response begins with the others.
    pub(super) fn end(&mut self, session: bool) {
        let few = self.len() <= LISTEN_WHILE_WAITING_MAX;
        let mut any_had_records = false;
        for (_, slot) in &mut self.slots {
            slot.had_records = !slot.found.is_empty();
            any_had_records |= slot.had_records;
            slot.clear_found();
            if few {
                slot.listening = None;
            }
            if session {
                slot.reported = slot.bounds();
            }
        }
        if session && any_had_records {
            let slots = &self.slots;
            self.order.sort_by_key(|place| slots.get(*place).is_some_and(|slot| slot.had_records));
        }
    }

    /// The slots that a response includes, in order, grouped into runs of one topic.
    pub(super) fn reported(&self, incremental: bool) -> Vec<(&TopicKey, Vec<&Slot>)> {
        let mut runs: Vec<(&TopicKey, Vec<&Slot>)> = Vec::new();
        for slot in self.slots().filter(|slot| !incremental || slot.has_changed()) {
            match runs.last_mut() {
                Some((topic, run)) if **topic == slot.topic => run.push(slot),
                _ => runs.push((&slot.topic, vec![slot])),
            }
        }
        runs
    }
}

/// Calls `each` for every partition that a request names.
fn each(version: i16, topics: &[FetchTopic], mut each: impl FnMut(TopicKey, &FetchPartition)) {
    for topic in topics {
        let key = TopicKey::of(version, &topic.topic, topic.topic_id);
        topic.partitions.iter().for_each(|partition| each(key.clone(), partition));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::wire::Uuid;
    use crate::fetch::message::ForgottenTopic;

    fn topic(name: &str, partitions: &[(i32, i64)]) -> FetchTopic {
        let partition = |(partition, fetch_offset): &(i32, i64)| FetchPartition {
            partition: *partition,
            fetch_offset: *fetch_offset,
            ..FetchPartition::default()
        };
        FetchTopic {
            topic: name.into(),
            topic_id: Uuid::ZERO,
            partitions: partitions.iter().map(partition).collect(),
        }
    }

    fn places(plan: &FetchPlan) -> Vec<(String, i32, i64)> {
        let name = |slot: &Slot| match &slot.topic {
            TopicKey::Name(name) => name.to_string(),
            TopicKey::Id(id) => format!("{:?}", id.0),
        };
        plan.slots().map(|slot| (name(slot), slot.index, slot.fetch_offset)).collect()
    }

    #[test]
    fn a_full_request_replaces_the_plan() {
        let mut plan = FetchPlan::default();
        plan.replace(12, &[topic("a", &[(0, 1), (1, 2)]), topic("b", &[(0, 3)])]);
        plan.replace(12, &[topic("b", &[(0, 4), (1, 5)]), topic("a", &[(1, 6), (1, 7)])]);
        assert_eq!(places(&plan), [("b".into(), 0, 4), ("b".into(), 1, 5), ("a".into(), 1, 7)]);
        plan.replace(12, &[]);
        assert_eq!((plan.len(), plan.places.len()), (0, 0));
        // Freed keys are used again.
        plan.replace(12, &[topic("c", &[(0, 1), (1, 1)])]);
        assert!(plan.order.iter().all(|place| *place < 4), "{:?}", plan.order);
    }

    #[test]
    fn an_incremental_request_changes_the_plan() {
        let mut plan = FetchPlan::default();
        plan.replace(12, &[topic("a", &[(0, 1), (1, 2)])]);
        let request = FetchRequest {
            topics: vec![topic("a", &[(1, 9)]), topic("c", &[(0, 3)])],
            forgotten_topics_data: vec![ForgottenTopic {
                topic: "a".into(),
                topic_id: Uuid::ZERO,
                partitions: vec![0, 7],
            }],
            ..FetchRequest::default()
        };
        plan.update(12, &request);
        assert_eq!(places(&plan), [("a".into(), 1, 9), ("c".into(), 0, 3)]);
    }

    #[test]
    fn newer_versions_name_topics_by_id() {
        let mut plan = FetchPlan::default();
        let by_id = |id| FetchTopic { topic_id: Uuid(id), ..topic("", &[(0, 0)]) };
        plan.replace(13, &[by_id(7), by_id(8)]);
        assert_eq!(places(&plan).len(), 2);
    }
}
