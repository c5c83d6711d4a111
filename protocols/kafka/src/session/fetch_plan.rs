//! What a client wants to read: partitions and where in them, kept from one fetch to the next where the client wants
//! that (a fetch session, KIP-227).
//!
//! A slot ([`super::fetch_slot`]) is a partition of the plan; its number is also the token under which its stream wakes the connection.

use std::collections::HashMap;
use std::sync::Arc;

use inver_broker::{Mailbox, Namespace};

use super::fetch_cold::Ahead;
use super::fetch_slot::{Slot, TopicKey};
use crate::codec::api::fetch::{FetchPartition, FetchRequest, FetchTopic};

/// Up to so many partitions are listened to only while a fetch waits; with more, registering them anew each time would
/// cost more than being woken for nothing now and then.
const LISTENED_WHILE_WAITING_MAX: usize = 16;

/// A client's plan.
#[derive(Default)]
pub(super) struct FetchPlan {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    places: HashMap<(TopicKey, i32), usize>,
    /// The slots in the order in which they are read.
    order: Vec<usize>,
    /// The topology that the slots were looked up in.
    version: u64,
}

impl FetchPlan {
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn slot(&mut self, place: usize) -> Option<&mut Slot> {
        self.slots.get_mut(place)?.as_mut()
    }

    /// The places of the slots, in order.
    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.order.iter().filter_map(|place| self.slots.get(*place)?.as_ref())
    }

    /// The plan is exactly what the request names, in its order.
    pub(super) fn replace(&mut self, version: i16, topics: &[FetchTopic]) {
        let before = std::mem::take(&mut self.order);
        let mut named = vec![false; self.slots.len()];
        each(version, topics, |key, wanted| {
            let place = self.put(key, wanted);
            match named.get_mut(place) {
                Some(seen) if *seen => return,
                Some(seen) => *seen = true,
                None => named.resize(place + 1, true),
            }
            self.order.push(place);
        });
        for place in before {
            if named.get(place) == Some(&false) {
                self.drop_slot(place);
            }
        }
    }

    /// Adds and changes what an incremental request names, and forgets what it wants forgotten.
    pub(super) fn update(&mut self, version: i16, request: &FetchRequest) {
        each(version, &request.topics, |key, wanted| {
            let known = self.places.contains_key(&(key.clone(), wanted.partition));
            let place = self.put(key, wanted);
            if !known {
                self.order.push(place);
            }
        });
        let mut forgotten = false;
        for topic in &request.forgotten_topics_data {
            let key = TopicKey::of(version, &topic.topic, topic.topic_id);
            for index in &topic.partitions {
                if let Some(place) = self.places.get(&(key.clone(), *index)).copied() {
                    self.drop_slot(place);
                    forgotten = true;
                }
            }
        }
        if forgotten {
            let slots = &self.slots;
            self.order.retain(|place| slots.get(*place).is_some_and(Option::is_some));
        }
    }

    fn put(&mut self, key: TopicKey, wanted: &FetchPartition) -> usize {
        let full_key = (key.clone(), wanted.partition);
        if let Some(place) = self.places.get(&full_key).copied()
            && let Some(slot) = self.slot(place)
        {
            slot.update(wanted);
            return place;
        }
        let slot = Some(Slot::new(key, wanted));
        let place = match self.free.pop() {
            Some(place) => {
                if let Some(vacant) = self.slots.get_mut(place) {
                    *vacant = slot;
                }
                place
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        self.places.insert(full_key, place);
        place
    }

    fn drop_slot(&mut self, place: usize) {
        if let Some(slot) = self.slots.get_mut(place).and_then(Option::take) {
            self.places.remove(&(slot.topic, slot.index));
            self.free.push(place);
        }
    }

    /// Looks up partitions that were not, or all when the topology has changed; then all slots begin anew.
    pub(super) fn begin(&mut self, namespace: &Namespace) {
        let version = namespace.version();
        let changed = version != self.version;
        self.version = version;
        for slot in self.slots.iter_mut().flatten() {
            if changed || slot.partition.is_none() {
                slot.resolve(namespace);
            }
            slot.begin();
        }
    }

    /// What was found is forgotten; the fetch begins anew.
    pub(super) fn restart(&mut self) {
        self.slots.iter_mut().flatten().for_each(Slot::begin);
    }

    /// What was read before it was asked for is let go, unless a fetch has come to wait for it.
    pub(super) fn forget_ahead(&mut self) {
        let slots = self.slots.iter_mut().flatten();
        slots.filter(|slot| slot.granted.is_none()).for_each(|slot| slot.ahead = Ahead::Nothing);
    }

    /// Hears from the streams from now on.
    pub(super) fn listen(&mut self, mailbox: &Arc<Mailbox>) {
        for (place, slot) in self.slots.iter_mut().enumerate() {
            let Some(slot) = slot else { continue };
            if let (Some(partition), None) = (&slot.partition, &slot.listening) {
                slot.listening = Some(partition.stream().listen(mailbox.clone(), place as u64));
            }
        }
    }

    /// A fetch is over. In a session, what was told is remembered, and those that had records go to the back, so that
    /// the others come first in the next response.
    pub(super) fn end(&mut self, session: bool) {
        let few = self.len() <= LISTENED_WHILE_WAITING_MAX;
        let mut had_records = vec![false; self.slots.len()];
        for (slot, had) in self.slots.iter_mut().zip(&mut had_records) {
            let Some(slot) = slot else { continue };
            *had = !slot.found.is_empty();
            slot.forget_found();
            if few {
                slot.listening = None;
            }
            if session {
                slot.told = slot.bounds();
            }
        }
        if session && had_records.contains(&true) {
            let had = |place: &usize| had_records.get(*place).copied().unwrap_or(false);
            self.order.sort_by_key(had);
        }
    }

    /// The slots that a response has to mention, in order, as runs of one topic.
    pub(super) fn told(&self, incremental: bool) -> Vec<(&TopicKey, Vec<&Slot>)> {
        let mut runs: Vec<(&TopicKey, Vec<&Slot>)> = Vec::new();
        for slot in self.slots().filter(|slot| !incremental || slot.is_news()) {
            match runs.last_mut() {
                Some((topic, run)) if **topic == slot.topic => run.push(slot),
                _ => runs.push((&slot.topic, vec![slot])),
            }
        }
        runs
    }
}

fn each(version: i16, topics: &[FetchTopic], mut each: impl FnMut(TopicKey, &FetchPartition)) {
    for topic in topics {
        let key = TopicKey::of(version, &topic.topic, topic.topic_id);
        topic.partitions.iter().for_each(|partition| each(key.clone(), partition));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::api::fetch::ForgottenTopic;
    use crate::codec::wire::Uuid;

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
    fn a_full_request_is_the_plan() {
        let mut plan = FetchPlan::default();
        plan.replace(12, &[topic("a", &[(0, 1), (1, 2)]), topic("b", &[(0, 3)])]);
        plan.replace(12, &[topic("b", &[(0, 4), (1, 5)]), topic("a", &[(1, 6), (1, 7)])]);
        assert_eq!(places(&plan), [("b".into(), 0, 4), ("b".into(), 1, 5), ("a".into(), 1, 7)]);
        plan.replace(12, &[]);
        assert_eq!((plan.len(), plan.places.len()), (0, 0));
        // Places that became free are used again.
        plan.replace(12, &[topic("c", &[(0, 1), (1, 1)])]);
        assert_eq!(plan.slots.len(), 4);
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
    fn topics_are_named_by_identity_in_newer_versions() {
        let mut plan = FetchPlan::default();
        let by_id = |id| FetchTopic { topic_id: Uuid(id), ..topic("", &[(0, 0)]) };
        plan.replace(13, &[by_id(7), by_id(8)]);
        assert_eq!(places(&plan).len(), 2);
    }
}
