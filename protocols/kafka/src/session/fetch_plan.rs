//! What a client wants to read: partitions and where in them, kept from one fetch to the next where the client wants
//! that (a fetch session, KIP-227).
//!
//! A slot is a partition of the plan; its number is also the token under which its stream wakes the connection.

use std::collections::HashMap;
use std::sync::Arc;

use inver_broker::{Mailbox, Namespace, Partition, TopicId};
use inver_storage::batch::HEADER_BYTES;
use inver_storage::{Listening, Offset, StoredBatch};

use super::offset;
use crate::codec::api::fetch::{FetchPartition, FetchRequest, FetchTopic};
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;

/// Up to so many partitions are listened to only while a fetch waits; with more, registering them anew each time would
/// cost more than being woken for nothing now and then.
const LISTENED_WHILE_WAITING_MAX: usize = 16;

/// How a client names a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum TopicKey {
    Name(Str),
    Id(Uuid),
}

impl TopicKey {
    /// By identity from version 13 on.
    pub(super) fn of(version: i16, name: &Str, id: Uuid) -> TopicKey {
        if version >= 13 { TopicKey::Id(id) } else { TopicKey::Name(name.detached()) }
    }

    fn unknown(&self) -> ErrorCode {
        match self {
            TopicKey::Name(_) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            TopicKey::Id(_) => ErrorCode::UNKNOWN_TOPIC_ID,
        }
    }
}

/// One partition of a plan, and what the fetch that is under way has found of it.
pub(super) struct Slot {
    pub(super) topic: TopicKey,
    pub(super) index: i32,
    fetch_offset: i64,
    bytes_max: usize,
    leader_epoch: i32,
    partition: Option<Arc<Partition>>,
    unknown: ErrorCode,
    listening: Option<Listening>,
    /// High watermark and start as last told to the client.
    told: Option<(Offset, Offset)>,
    pub(super) error: ErrorCode,
    pub(super) found: Vec<StoredBatch>,
    pub(super) found_bytes: usize,
    /// Where to read on.
    pub(super) next: Offset,
    /// Bytes that a read from the disk, which is under way, may bring.
    pub(super) granted: Option<usize>,
    /// The disk has no more for this fetch.
    pub(super) dry: bool,
}

impl Slot {
    fn new(topic: TopicKey, wanted: &FetchPartition) -> Slot {
        let mut slot = Slot {
            topic,
            index: wanted.partition,
            fetch_offset: 0,
            bytes_max: 0,
            leader_epoch: -1,
            partition: None,
            unknown: ErrorCode::NONE,
            listening: None,
            told: None,
            error: ErrorCode::NONE,
            found: Vec::new(),
            found_bytes: 0,
            next: Offset(0),
            granted: None,
            dry: false,
        };
        slot.update(wanted);
        slot
    }

    fn update(&mut self, wanted: &FetchPartition) {
        self.fetch_offset = wanted.fetch_offset;
        self.bytes_max = usize::try_from(wanted.partition_max_bytes).unwrap_or(0);
        self.leader_epoch = wanted.current_leader_epoch;
    }

    fn resolve(&mut self, namespace: &Namespace) {
        let topic = match &self.topic {
            TopicKey::Name(name) => namespace.topic(name),
            TopicKey::Id(id) => namespace.topic_by_id(TopicId(id.0)),
        };
        self.unknown = match &topic {
            None => self.topic.unknown(),
            Some(_) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        };
        let index = super::partition_index(self.index);
        let partition = topic.zip(index).and_then(|(topic, index)| topic.partition(index));
        let same = match (&partition, &self.partition) {
            (Some(new), Some(old)) => Arc::ptr_eq(new, old),
            _ => false,
        };
        if !same {
            self.listening = None;
            self.told = None;
        }
        self.partition = partition;
    }

    /// Begins a fetch: nothing is found yet, but perhaps that nothing can be.
    pub(super) fn begin(&mut self) {
        self.forget_found();
        self.dry = false;
        self.granted = None;
        self.error = self.check();
        self.next = Offset(u64::try_from(self.fetch_offset).unwrap_or(0));
    }

    pub(super) fn forget_found(&mut self) {
        self.found = Vec::new();
        self.found_bytes = 0;
    }

    fn check(&self) -> ErrorCode {
        let Some(partition) = &self.partition else { return self.unknown };
        if let Err(code) = super::offsets::check_epoch(self.leader_epoch) {
            return code;
        }
        let stream = partition.stream();
        // What is submitted and not committed yet is no error: it will be there soon.
        let kept = offset(stream.start())..=offset(stream.next_offset());
        if kept.contains(&self.fetch_offset) { ErrorCode::NONE } else { ErrorCode::OFFSET_OUT_OF_RANGE }
    }

    pub(super) fn partition(&self) -> Option<&Arc<Partition>> {
        self.partition.as_ref()
    }

    /// Bytes that the client still wants of it.
    pub(super) fn wants(&self) -> usize {
        self.bytes_max.saturating_sub(self.found_bytes)
    }

    /// Whether there is something to read now.
    pub(super) fn has_more(&self) -> bool {
        let visible = self.partition.as_ref().map(|partition| partition.stream().high_watermark());
        self.error.is_none()
            && self.granted.is_none()
            && !self.dry
            && visible.is_some_and(|end| end > self.next)
    }

    /// Batches were found, of which at least the first is to be taken, and the others while `room` lasts.
    pub(super) fn take(&mut self, batches: Vec<StoredBatch>, room: usize, first_at_any_size: bool) -> usize {
        let mut taken = 0;
        for batch in batches {
            let bytes = batch.bytes.len();
            let forced = first_at_any_size && taken == 0;
            if bytes < HEADER_BYTES || (!forced && taken + bytes > room) {
                break;
            }
            taken += bytes;
            self.next = after(&batch);
            self.found.push(batch);
        }
        self.found_bytes += taken;
        taken
    }

    /// Where the partition starts and ends, as it is told to the client.
    pub(super) fn bounds(&self) -> Option<(Offset, Offset)> {
        let stream = self.partition.as_ref()?.stream();
        Some((stream.high_watermark(), stream.start()))
    }

    /// Whether an incremental response has something to say about it.
    fn is_news(&self) -> bool {
        !self.error.is_none() || !self.found.is_empty() || self.bounds() != self.told
    }
}

/// The offset after a batch.
fn after(batch: &StoredBatch) -> Offset {
    const LAST_OFFSET_DELTA: std::ops::Range<usize> = 23..27;
    let field = batch.bytes.get(LAST_OFFSET_DELTA).and_then(|field| field.first_chunk());
    let last = field.map_or(0, |field| u32::from_be_bytes(*field));
    batch.base_offset.plus(u64::from(last) + 1)
}

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
