//! The share session of one member: its epoch, its partitions, and the records that it holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use inver_access::Operation;
use inver_broker::{Completion, Consumer, ConsumerSpec, Delivery, DeliveryId, Mailbox, Topic, TopicId};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::acquired::Acquired;
use super::message::AcknowledgementBatch;
use super::running::Running;
use crate::access::Access;
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::coordinator::group_settings::ShareSettings;
use crate::coordinator::share::RecordLocks;
use crate::map::partition::partition_index;

/// Pulls of one topic in a turn, as far as each brings messages.
const PULLS_MAX: usize = 64;

/// Bytes that a topic takes beside its own: its place, its partitions' first node, and its locks with their name.
const TOPIC_OVERHEAD: usize = 512;

/// A share session.
pub(super) struct ShareSession {
    group: Str,
    /// Epoch of the next request.
    pub(super) epoch: i32,
    topics: BTreeMap<Uuid, SharedTopic>,
    /// Partitions of all topics.
    partitions: usize,
    /// The next fetch begins with the topic of this id or the one after it.
    first: Uuid,
    /// Its place among the sessions of all connections.
    _place: OwnedSemaphorePermit,
}

/// A topic of a session.
struct SharedTopic {
    id: Uuid,
    topic: Option<Arc<Topic>>,
    /// The partitions that the member wants.
    partitions: BTreeSet<u32>,
    consumer: Option<Consumer>,
    /// What all members of the group hold.
    locks: Arc<RecordLocks>,
    /// What this one holds.
    acquired: Acquired,
    /// Token by which its consumer is woken.
    token: u64,
}

/// What a round of pulls left to be done.
#[derive(Default)]
pub(super) struct AfterPulls {
    /// More can be pulled in the next turn.
    pub(super) more: bool,
    /// Messages wait that the group may not hold now: nobody wakes the session when it may.
    pub(super) left: bool,
}

impl ShareSession {
    pub(super) fn new(group: Str, place: OwnedSemaphorePermit) -> ShareSession {
        ShareSession {
            group,
            epoch: 1,
            topics: BTreeMap::new(),
            partitions: 0,
            first: Uuid::default(),
            _place: place,
        }
    }

    /// Goes on to the next epoch.
    pub(super) fn next_epoch(&mut self) {
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
    }

    /// Partitions that the member wants.
    pub(super) fn partition_count(&self) -> usize {
        self.partitions
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        let held: usize = self.topics.values().map(|topic| topic.acquired.len()).sum();
        let topics = self.topics.len() * (size_of::<SharedTopic>() + TOPIC_OVERHEAD);
        topics + self.partitions * size_of::<u32>() + held * (size_of::<DeliveryId>() + size_of::<Instant>())
    }

    /// Adds a partition, whether there is one or not: that is told with each fetch.
    pub(super) fn add(&mut self, access: &Access, topic: Uuid, partition: i32, token: &mut u64) {
        let Some(index) = partition_index(partition) else { return };
        let of_session = self.topics.entry(topic).or_insert_with(|| {
            *token += 1;
            SharedTopic {
                id: topic,
                topic: None,
                partitions: BTreeSet::new(),
                consumer: None,
                locks: access.node.coordinator.record_locks(&self.group, topic.0),
                acquired: Acquired::default(),
                token: *token,
            }
        });
        self.partitions += usize::from(of_session.partitions.insert(index));
    }

    /// Removes a partition. What the member holds of it stays its own.
    pub(super) fn forget(&mut self, topic: Uuid, partition: i32) {
        if let (Some(of_session), Some(index)) = (self.topics.get_mut(&topic), partition_index(partition)) {
            self.partitions -= usize::from(of_session.partitions.remove(&index));
        }
    }

    /// Leaves topics that the member does not want any more, once it holds nothing of them.
    fn drop_forgotten(&mut self) {
        self.topics.retain(|_, topic| !topic.partitions.is_empty() || !topic.acquired.is_empty());
    }

    /// Whether the member holds a record.
    pub(super) fn holds(&self, topic: Uuid, id: DeliveryId) -> bool {
        self.topics.get(&topic).is_some_and(|topic| topic.acquired.holds(id))
    }

    /// Acknowledges records of a partition.
    pub(super) fn acknowledge(
        &mut self,
        topic: Uuid,
        partition: i32,
        batches: &[AcknowledgementBatch],
        renews: bool,
        until: Instant,
    ) -> Result<Completion, ErrorCode> {
        // Of a topic that it does not know, it holds nothing.
        let topic = self.topics.get_mut(&topic).ok_or(ErrorCode::INVALID_RECORD_STATE)?;
        let partition = partition_index(partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let done = topic.acquired.acknowledge(partition, batches, renews, until)?;
        let settled = done.accepted.len() + done.released.len() + done.rejected.len();
        topic.locks.release(partition, u32::try_from(settled).unwrap_or(u32::MAX));
        let Some(consumer) = &topic.consumer else { return Ok(Completion::Now) };
        let mut completion = Completion::Now;
        type Settle = fn(&Consumer, &[DeliveryId]) -> Result<Completion, inver_storage::SubmitError>;
        let all: [(Settle, &[DeliveryId]); 3] = [
            (Consumer::ack, &done.accepted),
            (Consumer::requeue, &done.released),
            (Consumer::reject, &done.rejected),
        ];
        for (settle, ids) in all.into_iter().filter(|(_, ids)| !ids.is_empty()) {
            let settled = settle(consumer, ids).map_err(|error| {
                tracing::error!(group = %self.group, %error, "failed to store acknowledgements");
                ErrorCode::KAFKA_STORAGE_ERROR
            })?;
            completion = completion.and(settled);
        }
        Ok(completion)
    }

    /// Gives others the records that were held for too long.
    pub(super) fn end_holds(&mut self, now: Instant) {
        for topic in self.topics.values_mut() {
            let ended = topic.acquired.take_ended(now);
            if ended.is_empty() {
                continue;
            }
            topic.release(&ended);
            let Some(consumer) = &topic.consumer else { continue };
            if let Err(error) = consumer.requeue(&ended) {
                tracing::error!(group = %self.group, %error, "failed to count records that were not acknowledged");
            }
        }
    }

    /// When to call [`ShareSession::end_holds`] next.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.topics.values().filter_map(|topic| topic.acquired.next_end()).min()
    }

    /// Lets other consumers have what this one was woken for: no fetch waits.
    pub(super) fn let_pass(&mut self, tokens: Option<&[u64]>) {
        let is_meant = |topic: &SharedTopic| tokens.is_none_or(|tokens| tokens.contains(&topic.token));
        for topic in self.topics.values_mut().filter(|topic| is_meant(topic)) {
            if let Some(consumer) = &mut topic.consumer {
                consumer.pull(0, 0, &mut Vec::new());
            }
        }
    }

    /// Acquires records for a fetch, as far as there are any and it has room.
    pub(super) fn pull(
        &mut self,
        access: &Access,
        mailbox: &Arc<Mailbox>,
        settings: &ShareSettings,
        running: &mut Running,
        now: Instant,
    ) -> AfterPulls {
        let mut after = AfterPulls::default();
        self.drop_forgotten();
        let in_turn = self.topics.range(self.first..).chain(self.topics.range(..self.first));
        let in_turn: Vec<Uuid> = in_turn.map(|(id, _)| *id).collect();
        self.first = in_turn.get(1).copied().unwrap_or_default();
        for id in in_turn {
            let Some(topic) = self.topics.get_mut(&id) else { break };
            if !running.has_room() {
                break;
            }
            if topic.partitions.is_empty() {
                continue;
            }
            if let Err(error) = topic.attach(access, &self.group, mailbox) {
                running.failed.extend(topic.partitions.iter().map(|index| (topic.id, *index as i32, error)));
                running.is_done = true;
                continue;
            }
            let missing =
                topic.missing().map(|index| (topic.id, index as i32, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
            let failed = running.failed.len();
            running.failed.extend(missing);
            running.is_done |= running.failed.len() > failed;
            topic.pull(mailbox, settings, running, now + settings.lock_duration, &mut after);
        }
        after
    }
}

impl SharedTopic {
    /// Returns the places of records that are not held any more.
    fn release(&self, ids: &[DeliveryId]) {
        let mut counts: HashMap<u32, u32> = HashMap::new();
        ids.iter().for_each(|id| *counts.entry(id.partition).or_default() += 1);
        counts.into_iter().for_each(|(partition, count)| self.locks.release(partition, count));
    }

    /// Joins the subscription by which the group shares the topic, if that is not done. The coordinator made it when the member
    /// subscribed.
    fn attach(&mut self, access: &Access, group: &Str, mailbox: &Arc<Mailbox>) -> Result<(), ErrorCode> {
        let topic = match (&self.topic, &self.consumer) {
            (Some(topic), Some(_)) => topic.clone(),
            _ => {
                let found = access.node.namespace.topic_by_id(TopicId(self.id.0));
                found.ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?
            }
        };
        access.check_topic(topic.name(), Operation::Read)?;
        if self.consumer.is_some() {
            return Ok(());
        }
        let shared = access.node.coordinator.share_of(group, &topic);
        let shared = shared.ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let spec = ConsumerSpec::new(mailbox.clone(), self.token);
        let consumer = shared.attach(spec).map_err(|_| ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        (self.topic, self.consumer) = (Some(topic), Some(consumer));
        Ok(())
    }

    /// The partitions that the member wants and that there are not.
    fn missing(&self) -> impl Iterator<Item = u32> {
        let count = self.topic.as_ref().map_or(0, |topic| topic.partition_count());
        self.partitions.range(count..).copied()
    }

    fn pull(
        &mut self,
        mailbox: &Arc<Mailbox>,
        settings: &ShareSettings,
        running: &mut Running,
        until: Instant,
        after: &mut AfterPulls,
    ) {
        for _ in 0..PULLS_MAX {
            let Some(consumer) = &mut self.consumer else { return };
            let wanted = u32::try_from(running.records_left).unwrap_or(u32::MAX);
            let mut rooms: Vec<(u32, u32)> = self
                .partitions
                .iter()
                .map(|index| (*index, self.locks.take(*index, wanted, settings.locks_max)))
                .collect();
            let mut found: Vec<Delivery> = Vec::new();
            let pull = consumer.pull_within(
                rooms.iter().copied(),
                running.records_left,
                running.bytes_left,
                &mut found,
            );
            for delivery in &found {
                if let Ok(at) = rooms.binary_search_by_key(&delivery.id.partition, |(index, _)| *index)
                    && let Some((_, room)) = rooms.get_mut(at)
                {
                    *room = room.saturating_sub(1);
                }
                self.acquired.hold(delivery.id, until);
            }
            rooms.into_iter().for_each(|(index, room)| self.locks.give_back(index, room));
            let found_any = !found.is_empty();
            running.add(self.id, found);
            if pull.left {
                after.left = true;
                self.locks.wait(mailbox, self.token);
            }
            if pull.cancelled || pull.unreadable {
                // The subscription is gone, or what is next in it cannot be read: told as Kafka tells it of a partition.
                let error = match pull.cancelled {
                    true => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    false => ErrorCode::KAFKA_STORAGE_ERROR,
                };
                running.failed.extend(self.partitions.iter().map(|index| (self.id, *index as i32, error)));
                running.is_done = true;
                self.end_consumer();
                return;
            }
            if !pull.more || !running.has_room() {
                return;
            }
            if !found_any {
                after.more = true;
                return;
            }
        }
        after.more = true;
    }

    /// Leaves the subscription: what the member holds is given to others.
    fn end_consumer(&mut self) {
        self.consumer = None;
        let held = std::mem::take(&mut self.acquired);
        let ids: Vec<DeliveryId> = held.into_ids();
        self.release(&ids);
    }
}

impl Drop for SharedTopic {
    fn drop(&mut self) {
        self.end_consumer();
    }
}
