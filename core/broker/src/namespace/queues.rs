//! Queues of a namespace: declaring, recovering, deleting.

use std::sync::{Arc, Weak};

use inver_storage::{CursorId, Entry, Lsn, Offset, SubmitError};

use super::delays::is_reserved;
use super::leaving::Leaving;
use super::passing_on::may_dead_letter;
use super::{Inner, Namespace};
use crate::audit::AuditKind;
use crate::completion::Completion;
use crate::exchange::RouteTarget;
use crate::limits::{self, LimitReached};
use crate::queue::Queue;
use crate::rows::{self, TopicRow};
use crate::spec::{Depth, Mode, QueueSpec, TOPIC_NAME_BYTES_MAX, TopicConfig, TopicId, TopicKind, stream};
use crate::subscription::{MemoryBounds, QueueMemory, Subscription, Trim, WhenFull};
use crate::topic::Topic;

/// An expired queue that could not be deleted is checked again after this time, milliseconds.
const EXPIRY_RETRY_MS: i64 = 1000;

/// The outcome of a declaration.
#[derive(Clone, Debug)]
pub struct Declared<T> {
    /// The queue or exchange.
    pub it: T,
    /// It did not exist before.
    pub created: bool,
    /// When the client may be told.
    pub completion: Completion,
}

/// Why a queue cannot be declared or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// A log topic has that name.
    #[error("'{0}' is a log topic")]
    IsLogTopic(String),
    /// No queue has that name.
    #[error("there is no queue '{0}'")]
    Unknown(String),
    /// It has consumers.
    #[error("queue '{0}' has consumers")]
    InUse(String),
    /// It has messages.
    #[error("queue '{0}' has messages")]
    NotEmpty(String),
    /// Its name is too long, or the broker's own.
    #[error("'{0}' is too long for a name, or reserved")]
    BadName(String),
    /// The client may not have the queue's dead letters published to this exchange.
    #[error("no permission to write to exchange '{0}' with the routing keys of dead letters")]
    NotAllowed(String),
    /// The log does not have its stream.
    #[error("the stream of queue '{0}' is missing from the log")]
    StreamMissing(String),
    /// A bound is reached.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// The log rejected the write.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
}

impl Declared<Arc<Queue>> {
    /// A present queue; its creation may not be committed yet.
    fn present(it: Arc<Queue>) -> Self {
        let completion = it.subscription().made();
        Declared { it, created: false, completion }
    }
}

impl Namespace {
    /// The queue of this name.
    #[must_use]
    pub fn queue(&self, name: &str) -> Option<Arc<Queue>> {
        let queue = self.0.queues.get(name)?;
        (!queue.spec().holds_delayed()).then(|| queue.clone())
    }

    /// All queues, in the order of their names.
    #[must_use]
    pub fn queues(&self) -> Vec<Arc<Queue>> {
        self.0.queues_by_name.all()
    }

    /// The number of queues, without those that hold delayed messages; costs nothing per queue.
    #[must_use]
    pub fn queue_count(&self) -> usize {
        self.0.queues.len().saturating_sub(self.queues_of_delayed())
    }

    /// Messages, consumers and memory of all queues together. Costs a lock for each queue.
    #[must_use]
    pub fn queue_totals(&self) -> (Depth, QueueMemory) {
        let (mut totals, mut memory) = (Depth::default(), QueueMemory::default());
        let all = self.0.queues.iter().filter(|queue| !queue.spec().holds_delayed());
        let all: Vec<Arc<Queue>> = all.map(|queue| queue.clone()).collect();
        for queue in all {
            let depth = queue.depth();
            totals.ready += depth.ready;
            totals.unacked += depth.unacked;
            totals.consumers += depth.consumers;
            let of_queue = queue.subscription().memory();
            memory.waiting_bytes += of_queue.waiting_bytes;
            memory.unacked_bytes += of_queue.unacked_bytes;
        }
        (totals, memory)
    }

    /// Creates a queue, or returns the present one of that name unchanged; the caller compares it with the spec.
    pub fn declare_queue(&self, name: &str, spec: QueueSpec) -> Result<Declared<Arc<Queue>>, QueueError> {
        if name.len() > TOPIC_NAME_BYTES_MAX * 4 || is_reserved(name) {
            return Err(QueueError::BadName(name.to_owned()));
        }
        self.counters().queues_declared.increment(1);
        if let Some(present) = self.queue(name) {
            return Ok(Declared::present(present));
        }
        let _topology = self.topology();
        if let Some(present) = self.queue(name) {
            return Ok(Declared::present(present));
        }
        if self.0.topics.contains_key(name) {
            return Err(QueueError::IsLogTopic(name.to_owned()));
        }
        let client = self.client().map(|client| &**client);
        if let Some(to) = spec.limits.dead_letter.as_ref().filter(|to| !may_dead_letter(client, to)) {
            return Err(QueueError::NotAllowed(to.exchange.clone()));
        }
        let key = spec.limits.dead_letter.as_ref().and_then(|to| to.routing_key.as_deref());
        self.limits().check_address(b'.', key.unwrap_or_default())?;
        limits::check("queues", self.queue_count(), self.queues_max())?;
        if spec.durable && !spec.hidden {
            limits::check("topics", self.0.topics.len(), self.topics_max())?;
        }
        let (it, completion) = if spec.durable {
            let (queue, lsn) = self.make_durable(name, spec)?;
            (queue, Completion::At(lsn))
        } else {
            let bounds = MemoryBounds {
                messages_max: u64::MAX,
                bytes_max: self.0.config.queue_memory_bytes_max,
                when_full: WhenFull::Spill,
            };
            let subscription = Subscription::in_memory(&self.0.context, name, mode(&spec), bounds);
            (Queue::new(name, spec, subscription, None, None), Completion::Now)
        };
        self.enter_queue(&it);
        self.counters().queues_created.increment(1);
        self.audit_queue(AuditKind::Topology, "create", &it);
        self.tell_queue("queue.created", &it);
        Ok(Declared { it, created: true, completion })
    }

    pub(super) fn make_durable(&self, name: &str, spec: QueueSpec) -> Result<(Arc<Queue>, Lsn), QueueError> {
        let log = self.log();
        let (stream, cursor) = (log.allocate_stream(), log.allocate_cursor());
        let mut entry = Entry::new();
        entry.create_stream(stream);
        entry.create_cursor(cursor, stream, Offset(0));
        let (kind, config) = match spec.is_stream() {
            true => (TopicKind::Log, stream::topic_config(&spec)),
            false => (TopicKind::Queue, TopicConfig::new()),
        };
        let row = TopicRow {
            id: self.0.config.topic_ids.next().0,
            kind,
            streams: vec![stream.0],
            config: config.clone(),
            queue: Some((spec.clone(), cursor.0)),
        };
        self.put_topic_row(&mut entry, name, &row);
        let lsn = log.submit(entry)?.lsn;
        let streams = self.streams(&[stream]);
        let topic = self.topic_of(TopicId(row.id), name, kind, streams, config);
        let queue = self
            .durable_queue(name, spec, cursor, topic)
            .ok_or_else(|| QueueError::StreamMissing(name.to_owned()))?;
        queue.subscription().set_made(lsn);
        Ok((queue, lsn))
    }

    fn durable_queue(
        &self,
        name: &str,
        spec: QueueSpec,
        cursor: CursorId,
        topic: Arc<Topic>,
    ) -> Option<Arc<Queue>> {
        let stream = topic.partition(0)?.stream().clone();
        let cursor = self.log().cursor(cursor)?;
        let from = cursor.position();
        let sources = vec![(stream.clone(), Some(cursor), from)];
        let trim = if spec.is_stream() { Trim::Never } else { Trim::Acknowledged };
        let subscription = Subscription::over_streams(&self.0.context, name, mode(&spec), sources, trim);
        Some(Queue::new(name, spec, subscription, Some(stream), Some(topic)))
    }

    pub(super) fn recover_queue(&self, name: &str, spec: &QueueSpec, cursor: u64, topic: Arc<Topic>) -> bool {
        let queue = self.durable_queue(name, spec.clone(), CursorId(cursor), topic);
        match &queue {
            Some(queue) => self.enter_queue(queue),
            None => tracing::error!(queue = name, "queue skipped in recovery: stream or cursor missing"),
        }
        queue.is_some()
    }

    pub(super) fn enter_queue(&self, queue: &Arc<Queue>) {
        if let (Some(topic), false) = (queue.topic(), queue.spec().hidden) {
            self.enter_topic(topic);
        }
        // Before a publisher or a consumer finds it.
        if queue.spec().holds_delayed() {
            queue.subscription().order_by_due();
        } else if let Some(max) = queue.spec().priority_max() {
            queue.subscription().order_by_priority(max);
        }
        if queue.spec().keeps_undelivered() {
            queue.subscription().keep_undelivered();
        }
        let weak: Weak<Queue> = Arc::downgrade(queue);
        queue.subscription().set_owner(&queue.spec().limits, self.0.drop_sink.clone(), weak);
        if queue.spec().limits.expires_after_ms.is_some() {
            self.let_expire(queue);
        }
        if queue.spec().is_quorum() {
            queue.subscription().hand_over_by_priority();
        }
        self.police_queue(queue);
        self.0.queues.insert(queue.name().into(), queue.clone());
        if !queue.spec().holds_delayed() {
            self.0.queues_by_name.insert(queue);
        }
        queue.start_checks();
        if queue.spec().auto_delete {
            let (inner, name) = (Arc::downgrade(&self.0), queue.name().to_owned());
            queue.subscription().on_last_detach(move || delete_unused(&inner, &name));
        }
        self.changed();
    }

    /// Lets a queue be deleted when nobody used it for as long as it lives.
    pub(super) fn let_expire(&self, queue: &Queue) {
        let inner = Arc::downgrade(&self.0);
        queue.on_expired(move |queue, now_ms| delete_expired(&inner, queue, now_ms));
    }

    /// Deletes a queue with its bindings. Returns the number of ready messages that it had.
    pub fn delete_queue(
        &self,
        name: &str,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<(u64, Completion), QueueError> {
        let unknown = || QueueError::Unknown(name.to_owned());
        // Drop expired messages first: dead-lettering may need the topology lock taken below.
        let _checked = self.queue(name).ok_or_else(unknown)?.depth();
        let _topology = self.topology();
        let queue = self.queue(name).ok_or_else(unknown)?;
        let depth = queue.counts();
        if if_unused && depth.consumers > 0 {
            return Err(QueueError::InUse(name.to_owned()));
        }
        if if_empty && depth.ready > 0 {
            return Err(QueueError::NotEmpty(name.to_owned()));
        }
        let target = RouteTarget::Queue(queue.clone());
        let mut leaving = Leaving::default();
        self.leave_bindings_to(&target, &mut leaving);
        let mut entry = Entry::new();
        let read = queue.topic().filter(|_| queue.spec().is_stream());
        let readers = read.map(|topic| self.delete_subscription_rows(topic, &mut entry));
        if let (Some(stream), Some(cursor)) = (queue.stream(), queue.subscription().first_cursor()) {
            queue.subscription().delete_delivered(&mut entry);
            entry.delete_cursor(cursor);
            entry.delete_stream(stream.id());
            entry.delete(rows::TOPICS, rows::key(self.0.id, &[name.as_bytes()]));
        }
        let submit = |entry| Ok(self.log().submit(entry)?.lsn);
        let lsn = match queue.topic() {
            Some(_) => self.write_leaving(&mut leaving, entry, |entry| {
                self.0.committed_offsets.delete_topic(name, entry, submit)
            })?,
            None => self.write_leaving(&mut leaving, entry, submit)?,
        };
        if let Some(stream) = queue.stream() {
            self.forget_sequences(stream.id());
        }
        self.tell_bindings_to(&target);
        self.0.origins.unbind_all(&target);
        self.take_out(leaving);
        if let (false, Some(topic)) = (queue.spec().hidden, queue.topic()) {
            self.remove_topic(topic);
            self.0.transactions.forget_topic(name);
        }
        if let (Some(topic), Some(readers)) = (read, readers) {
            self.remove_subscriptions(topic, readers);
        }
        self.0.queues.remove(name);
        self.counters().queues_deleted.increment(1);
        self.0.queues_by_name.remove(name);
        self.0.context.reclaim.remove(queue.subscription().id());
        queue.subscription().close();
        self.changed();
        self.audit_queue(AuditKind::Deleted, "delete", &queue);
        self.tell_queue("queue.deleted", &queue);
        Ok((depth.ready, lsn.into()))
    }

    fn audit_queue(&self, kind: AuditKind, operation: &str, queue: &Queue) {
        let spec = queue.spec();
        if spec.hidden {
            return;
        }
        let is_lasting = spec.durable && spec.owner.is_none() && !spec.auto_delete;
        self.audit(if is_lasting { kind } else { AuditKind::Transient }, operation, "queue", queue.name());
    }

    /// Deletes the queues of connections, once everything is recovered: these ended with the process.
    pub(crate) fn end_owned_queues(&self) {
        for queue in self.queues().into_iter().filter(|q| q.spec().owner.is_some()) {
            if let Err(error) = self.delete_queue(queue.name(), false, false) {
                tracing::warn!(queue = queue.name(), %error, "failed to delete the queue of an ended connection");
            }
        }
    }
}

fn mode(spec: &QueueSpec) -> Mode {
    if spec.single_active { Mode::Failover } else { Mode::Shared }
}

/// Deletes an auto-delete queue whose last consumer left.
fn delete_unused(inner: &Weak<Inner>, name: &str) {
    let Some(inner) = inner.upgrade() else { return };
    if let Err(error) = Namespace::of(inner).delete_queue(name, true, false) {
        tracing::debug!(queue = name, %error, "failed to delete auto-delete queue");
    }
}

/// Deletes a queue that expired unused; retried later if that fails.
fn delete_expired(inner: &Weak<Inner>, queue: &Arc<Queue>, now_ms: i64) {
    let Some(inner) = inner.upgrade() else { return };
    if let Err(error) = Namespace::of(inner).delete_queue(queue.name(), true, false) {
        tracing::debug!(queue = queue.name(), %error, "failed to delete expired queue");
        queue.check_by(now_ms + EXPIRY_RETRY_MS);
    }
}
