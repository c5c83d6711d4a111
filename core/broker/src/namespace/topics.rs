//! Topics of a namespace: creating, changing, deleting, and retention.

use std::sync::Arc;

use inver_storage::{Entry, Lsn, Offset, Retention, Stream, StreamId};

use super::{Namespace, compaction};
use crate::audit::AuditKind;
use crate::batch_format::BatchFormat;
use crate::capture;
use crate::limits;
use crate::queue::Queue;
use crate::rows::{self, TopicRow};
use crate::spec::{
    HubMode, PARTITIONS_MAX, TopicConfig, TopicError, TopicId, TopicKind, TopicSpec, check_hub, check_name,
};
use crate::topic::Topic;

/// A stream is trimmed when its oldest batch is this share of its retention beyond it, so that a busy one is not trimmed batch
/// by batch; at most [`RETENTION_TOLERANCE_MS_MAX`].
const RETENTION_TOLERANCE_SHARE: i64 = 100;
const RETENTION_TOLERANCE_MS_MAX: i64 = 4 * 60_000;
/// Trims that retention writes in one entry, but for those of the last topic.
const TRIMS_MAX: usize = 1000;

impl Namespace {
    /// The topic of this name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.0.topics.get(name).map(|t| t.clone())
    }

    /// The topic of this identity.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.0.topics_by_id.get(&id).map(|t| t.clone())
    }

    /// All topics, in the order of their names.
    #[must_use]
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.0.topics_by_name.all()
    }

    /// The number of topics, queues with a topic included; costs nothing per topic.
    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.0.topics.len()
    }

    /// Creates a log topic. It exists at once, and is durable once the log has committed the returned position.
    pub fn create_topic(&self, name: &str, spec: &TopicSpec) -> Result<(Arc<Topic>, Lsn), TopicError> {
        check_name(name)?;
        check_partitions(spec.partitions)?;
        Namespace::check_config(name, &spec.config)?;
        self.check_capture(None, &spec.config)?;
        let _topology = self.topology();
        if self.0.topics.contains_key(name) {
            return Err(TopicError::Exists(name.to_owned()));
        }
        limits::check("topics", self.0.topics.len(), self.topics_max())?;
        let mut entry = Entry::new();
        let ids: Vec<StreamId> = (0..spec.partitions).map(|_| self.log().allocate_stream()).collect();
        ids.iter().for_each(|id| entry.create_stream(*id));
        compaction::put(&mut entry, ids.iter().copied(), None, &spec.config);
        let id = self.0.config.topic_ids.next();
        let row = TopicRow {
            id: id.0,
            kind: TopicKind::Log,
            streams: ids.iter().map(|i| i.0).collect(),
            config: spec.config.clone(),
            queue: None,
        };
        self.put_topic_row(&mut entry, name, &row);
        let lsn = self.submit_topology(entry)?;
        let topic = self.topic_of(id, name, TopicKind::Log, self.streams(&ids), spec.config.clone());
        self.enter_topic(&topic);
        self.changed();
        self.audit(AuditKind::Topology, "create", "topic", name);
        Ok((topic, lsn))
    }

    /// Deletes a log topic with its subscriptions and committed offsets.
    pub fn delete_topic(&self, name: &str) -> Result<Lsn, TopicError> {
        let _topology = self.topology();
        let topic = self.log_topic(name)?;
        let mut entry = Entry::new();
        for partition in topic.partitions() {
            entry.delete_stream(partition.stream().id());
        }
        entry.delete(rows::TOPICS, rows::key(self.0.id, &[name.as_bytes()]));
        let subscriptions = self.delete_subscription_rows(&topic, &mut entry);
        let offsets = &self.0.committed_offsets;
        let lsn = offsets.delete_topic(name, entry, |entry| self.submit_topology(entry))?;
        for partition in topic.partitions() {
            self.forget_sequences(partition.stream().id());
        }
        self.remove_subscriptions(&topic, subscriptions);
        self.remove_topic(&topic);
        self.0.transactions.forget_topic(name);
        self.changed();
        self.audit(AuditKind::Deleted, "delete", "topic", name);
        Ok(lsn)
    }

    /// Checks the settings of a topic of this name: that numeric ones are numbers, and the settings of the hub, of captures and of batch formats.
    pub fn check_config(name: &str, config: &TopicConfig) -> Result<(), TopicError> {
        for setting in ["retention.ms", "retention.bytes", "max.message.bytes"] {
            if let Some(value) = config.get(setting)
                && !value.parse::<i64>().is_ok_and(|v| v >= -1)
            {
                return Err(TopicError::BadConfig(format!(
                    "{setting} is a number from -1 on, not '{value}'"
                )));
            }
        }
        check_hub(name, config)?;
        capture::check(config)?;
        BatchFormat::check(config)
    }

    /// Adds partitions to a log topic, to `count` in all.
    pub fn add_partitions(&self, name: &str, count: u32) -> Result<Lsn, TopicError> {
        check_partitions(count)?;
        let _topology = self.topology();
        let topic = self.log_topic(name)?;
        let present = topic.partition_count();
        if count <= present {
            let reason = format!("topic '{name}' has {present} partitions; partitions can only be added");
            return Err(TopicError::BadPartitions(reason));
        }
        let mut entry = Entry::new();
        let ids: Vec<StreamId> = (present..count).map(|_| self.log().allocate_stream()).collect();
        ids.iter().for_each(|id| entry.create_stream(*id));
        compaction::put(&mut entry, ids.iter().copied(), None, &topic.config());
        let mut row = self.topic_row(&topic);
        row.streams.extend(ids.iter().map(|i| i.0));
        self.put_topic_row(&mut entry, name, &row);
        let lsn = self.submit_topology(entry)?;
        topic.add_partitions(self.streams(&ids));
        self.name_streams(&topic);
        self.extend_subscriptions(&topic, present);
        self.topics_changed();
        self.changed();
        self.audit(AuditKind::Topology, "add-partitions", "topic", name);
        Ok(lsn)
    }

    /// Replaces a topic's settings.
    pub fn alter_config(&self, name: &str, config: TopicConfig) -> Result<Lsn, TopicError> {
        Namespace::check_config(name, &config)?;
        let _topology = self.topology();
        let topic = self.topic(name).ok_or_else(|| TopicError::Unknown(name.to_owned()))?;
        self.check_capture(Some(&topic.config()), &config)?;
        let mut row = self.topic_row(&topic);
        row.config.clone_from(&config);
        let mut entry = Entry::new();
        let streams = row.streams.iter().map(|id| StreamId(*id));
        if topic.kind() == TopicKind::Log {
            compaction::put(&mut entry, streams, Some(&topic.config()), &config);
        }
        self.put_topic_row(&mut entry, name, &row);
        let lsn = self.submit_topology(entry)?;
        if topic.kind() == TopicKind::Log {
            self.0.captures.set_topic(name, Some(&topic.config()), Some(&config));
        }
        topic.set_config(config);
        self.changed();
        self.audit(AuditKind::Topology, "alter", "topic", name);
        Ok(lsn)
    }

    /// Deletes the records before an offset of a partition.
    pub fn delete_records(&self, topic: &Topic, partition: u32, before: Offset) -> Result<Lsn, TopicError> {
        let unknown = || TopicError::Unknown(topic.name().to_owned());
        let partition = topic.partition(partition).ok_or_else(unknown)?;
        let mut entry = Entry::new();
        entry.trim(partition.stream(), before);
        let lsn = self.submit_topology(entry)?;
        self.audit(AuditKind::Deleted, "delete-records", "topic", topic.name());
        Ok(lsn)
    }

    pub(super) fn enter_topic(&self, topic: &Arc<Topic>) {
        self.0.topics.insert(topic.name().into(), topic.clone());
        self.0.topics_by_name.insert(topic);
        self.0.topics_by_id.insert(topic.id(), topic.clone());
        if topic.kind() == TopicKind::Log {
            self.0.captures.set_topic(topic.name(), None, Some(&topic.config()));
        }
        self.name_streams(topic);
        self.topics_changed();
    }

    pub(super) fn remove_topic(&self, topic: &Topic) {
        self.0.topics.remove(topic.name());
        self.0.topics_by_name.remove(topic.name());
        if topic.kind() == TopicKind::Log {
            self.0.captures.set_topic(topic.name(), Some(&topic.config()), None);
        }
        self.0.topics_by_id.remove(&topic.id());
        topic.for_each_partition(|p| {
            self.0.context.stream_names.remove(p.stream().id());
            self.0.listener_cache.remove(p.stream().id());
        });
        self.topics_changed();
    }

    fn name_streams(&self, topic: &Topic) {
        topic
            .for_each_partition(|p| self.0.context.stream_names.insert(p.stream().id(), topic.shared_name()));
    }

    fn log_topic(&self, name: &str) -> Result<Arc<Topic>, TopicError> {
        match self.topic(name) {
            None => Err(TopicError::Unknown(name.to_owned())),
            Some(t) if self.queue_of(&t).is_some() => Err(TopicError::IsQueue(name.to_owned())),
            Some(t) => Ok(t),
        }
    }

    /// The queue that a topic belongs to.
    fn queue_of(&self, topic: &Topic) -> Option<Arc<Queue>> {
        let queue = self.0.queues.get(topic.name())?;
        queue.topic().is_some_and(|of_queue| of_queue.id() == topic.id()).then(|| queue.clone())
    }

    fn topic_row(&self, topic: &Topic) -> TopicRow {
        let queue = self.queue_of(topic);
        TopicRow {
            id: topic.id().0,
            kind: topic.kind(),
            streams: topic.partitions().iter().map(|p| p.stream().id().0).collect(),
            config: (*topic.config()).clone(),
            queue: queue.and_then(|q| Some((q.spec().clone(), q.subscription().first_cursor()?.0))),
        }
    }

    pub(super) fn put_topic_row(&self, entry: &mut Entry, name: &str, row: &TopicRow) {
        entry.put(rows::TOPICS, rows::key(self.0.id, &[name.as_bytes()]), rows::encode(row));
    }

    /// Handles of streams that were just created.
    pub(super) fn streams(&self, ids: &[StreamId]) -> Vec<Stream> {
        ids.iter().filter_map(|id| self.log().stream(*id)).collect()
    }

    /// A topic over these streams, not entered yet.
    pub(super) fn topic_of(
        &self,
        id: TopicId,
        name: &str,
        kind: TopicKind,
        streams: Vec<Stream>,
        config: TopicConfig,
    ) -> Arc<Topic> {
        Arc::new(Topic::new(id, name, kind, streams, config, self.hub_default()))
    }

    /// How log topics without a setting of their own take part in the hub.
    #[must_use]
    pub fn hub_default(&self) -> HubMode {
        self.0.config.hub_default
    }

    pub(super) fn submit_topology(&self, entry: Entry) -> Result<Lsn, TopicError> {
        Ok(self.log().submit(entry)?.lsn)
    }

    /// Restores a topic or queue; false if it cannot be.
    pub(crate) fn recover_topic(&self, name: &str, row: &TopicRow) -> bool {
        let streams: Vec<StreamId> = row.streams.iter().map(|s| StreamId(*s)).collect();
        let streams = self.streams(&streams);
        let topic = self.topic_of(TopicId(row.id), name, row.kind, streams, row.config.clone());
        match &row.queue {
            Some((spec, cursor)) => self.recover_queue(name, spec, *cursor, topic),
            None => {
                self.enter_topic(&topic);
                true
            }
        }
    }

    /// Trims log topics by their settings `retention.ms` and `retention.bytes` (-1: unlimited). Blocks on I/O.
    pub(crate) fn apply_retention(&self, now_ms: i64) {
        let logs = self.0.topics.iter().filter(|topic| topic.kind() == TopicKind::Log);
        let logs: Vec<Arc<Topic>> = logs.map(|topic| topic.clone()).collect();
        let mut entry = Entry::new();
        let mut trims = 0;
        for topic in logs {
            let Some(keep) = self.retention(&topic, now_ms) else { continue };
            for partition in topic.partitions() {
                let stream = partition.stream();
                if stream.start() == stream.next_offset() {
                    continue;
                }
                let to = stream.retention_point(&keep);
                if to > stream.start() {
                    entry.trim(stream, to);
                    trims += 1;
                }
            }
            if trims >= TRIMS_MAX {
                self.submit_trims(std::mem::take(&mut entry));
                trims = 0;
            }
        }
        self.submit_trims(entry);
    }

    /// What the settings of a log topic, and the policies of a stream, keep; none if they keep everything.
    fn retention(&self, topic: &Topic, now_ms: i64) -> Option<Retention> {
        let config = topic.config();
        let stream = self.queue(topic.name()).filter(|queue| queue.spec().is_stream());
        let (age_ms, bytes_max) = stream.map(|queue| queue.applied().retention()).unwrap_or_default();
        if config.get("cleanup.policy").is_some_and(|policy| !policy.contains("delete")) {
            return None;
        }
        let own_ms = setting(&config, "retention.ms").unwrap_or(self.0.config.retention_ms);
        let age_ms = age_ms.and_then(|ms| i64::try_from(ms).ok());
        let ms = age_ms.into_iter().chain(Some(own_ms).filter(|ms| *ms >= 0)).min().unwrap_or(-1);
        let own_bytes = setting(&config, "retention.bytes").and_then(|bytes| u64::try_from(bytes).ok());
        let keep = Retention {
            bytes_max: bytes_max.into_iter().chain(own_bytes).min(),
            oldest_ms: (ms >= 0).then(|| now_ms.saturating_sub(ms)),
            tolerance_ms: (ms / RETENTION_TOLERANCE_SHARE).clamp(0, RETENTION_TOLERANCE_MS_MAX),
        };
        (keep.bytes_max.is_some() || keep.oldest_ms.is_some()).then_some(keep)
    }

    fn submit_trims(&self, entry: Entry) {
        if entry.is_empty() {
            return;
        }
        if let Err(error) = self.log().submit(entry) {
            tracing::debug!(%error, "failed to apply retention");
        }
    }
}

fn setting(config: &TopicConfig, name: &str) -> Option<i64> {
    config.get(name)?.parse().ok()
}

fn check_partitions(count: u32) -> Result<(), TopicError> {
    if count == 0 || count > PARTITIONS_MAX {
        return Err(TopicError::BadPartitions(format!(
            "a topic has 1 to {PARTITIONS_MAX} partitions, not {count}"
        )));
    }
    Ok(())
}
