//! Named subscriptions of log topics: creating, extending to new partitions, deleting.

use std::sync::Arc;

use inver_storage::{Entry, Lsn, Offset, Stream, SubmitError};

use super::Namespace;
use crate::audit::AuditKind;
use crate::completion::Completion;
use crate::limits::{self, LimitReached};
use crate::rows::{self, SubscriptionRow};
use crate::spec::{Mode, Start, TopicId};
use crate::subscription::{Subscription, Trim};
use crate::topic::{Partition, Topic};

/// Why a subscription cannot be created, joined or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    /// It exists in another mode.
    #[error("the subscription's mode is {}", .0.as_str())]
    ModeClash(Mode),
    /// It exists, is not durable, and a durable one was asked for.
    #[error("the subscription ends with its last consumer")]
    NotDurable,
    /// No subscription has that name.
    #[error("there is no subscription '{0}'")]
    Unknown(String),
    /// It has consumers.
    #[error("subscription '{0}' has consumers")]
    InUse(String),
    /// A bound is reached.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// The log rejected the write.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
}

/// Streams, each with its durable cursor, if any, and its start.
type Sources = Vec<(Stream, Option<inver_storage::Cursor>, Offset)>;

/// A named subscription in the audit log.
fn shown(topic: &Topic, name: &str) -> String {
    format!("{name} of {}", topic.name())
}

impl Namespace {
    /// The subscription of this name on a log topic, created if it does not exist. Its mode is that of its first
    /// consumer and changes only while no consumer is attached. [`Subscription::made`] is the position of its creation.
    ///
    /// Durability is set at creation: a request for a non-durable one joins a durable one, the reverse is refused. A
    /// non-durable subscription ends with its last consumer; a durable one by
    /// [`delete_subscription`](Self::delete_subscription), with its topic, or when it had no consumer for
    /// [`subscription_idle_ms`](crate::BrokerConfig::subscription_idle_ms).
    pub fn subscribe(
        &self,
        topic: &Arc<Topic>,
        name: &str,
        mode: Mode,
        durable: bool,
        start: Start,
    ) -> Result<Arc<Subscription>, SubscriptionError> {
        self.subscribe_at(topic, name, mode, durable, &|_| start)
    }

    /// The same, with a start for each partition.
    ///
    /// # Errors
    /// Those of [`Namespace::subscribe`].
    pub fn subscribe_at(
        &self,
        topic: &Arc<Topic>,
        name: &str,
        mode: Mode,
        durable: bool,
        start: &dyn Fn(u32) -> Start,
    ) -> Result<Arc<Subscription>, SubscriptionError> {
        let _topology = self.topology();
        if let Some(present) = self.subscription(topic, name) {
            if durable && !present.is_durable() {
                return Err(SubscriptionError::NotDurable);
            }
            present.ask_mode(mode).map_err(SubscriptionError::ModeClash)?;
            present.touch();
            return Ok(present);
        }
        let max = self.own_max(self.limits().subscriptions_max, |_| None);
        limits::check("subscriptions", self.0.subscriptions.len(), max)?;
        let partitions = topic.partitions();
        let (sources, made) = if durable {
            let (sources, made) = self.durable_sources(topic, name, mode, &partitions, start)?;
            (sources, Some(made))
        } else {
            let source = |p: &Arc<Partition>| (p.stream().clone(), None, start(p.index()).offset(p.stream()));
            (partitions.iter().map(source).collect(), None)
        };
        let subscription = Subscription::over_streams(&self.0.context, name, mode, sources, Trim::Never);
        made.into_iter().for_each(|lsn| subscription.set_made(lsn));
        self.0.subscriptions.insert((topic.id(), name.into()), subscription.clone());
        if !durable {
            let (inner, key) = (Arc::downgrade(&self.0), (topic.id(), Box::<str>::from(name)));
            subscription.on_last_detach(move || {
                if let Some(inner) = inner.upgrade() {
                    inner.subscriptions.remove_if(&key, |_, s| s.counts().consumers == 0);
                }
            });
        }
        let kind = if durable { AuditKind::Topology } else { AuditKind::Transient };
        self.audit(kind, "create", "subscription", &shown(topic, name));
        Ok(subscription)
    }

    /// Deletes a named subscription with its position.
    pub fn delete_subscription(
        &self,
        topic: &Topic,
        name: &str,
        if_unused: bool,
    ) -> Result<Completion, SubscriptionError> {
        let _topology = self.topology();
        let gone = self.subscription(topic, name);
        let gone = gone.ok_or_else(|| SubscriptionError::Unknown(name.to_owned()))?;
        if if_unused && gone.counts().consumers > 0 {
            return Err(SubscriptionError::InUse(name.to_owned()));
        }
        let completion = if gone.is_durable() {
            let mut entry = Entry::new();
            gone.delete_delivered(&mut entry);
            gone.cursors().into_iter().for_each(|c| entry.delete_cursor(c));
            entry.delete(rows::SUBSCRIPTIONS, self.subscription_key(topic, name));
            let submitted = self.log().submit(entry)?;
            Completion::At(submitted.lsn)
        } else {
            Completion::Now
        };
        self.0.subscriptions.remove(&(topic.id(), name.into()));
        let kind = if gone.is_durable() { AuditKind::Deleted } else { AuditKind::Transient };
        self.audit(kind, "delete", "subscription", &shown(topic, name));
        gone.close();
        Ok(completion)
    }

    /// Deletes durable subscriptions that had no consumer for the configured time.
    pub(crate) fn end_idle_subscriptions(&self, now_ms: i64) {
        let Some(idle_ms) = self.0.config.subscription_idle_ms else { return };
        let idle: Vec<(TopicId, String)> = self
            .0
            .subscriptions
            .iter()
            .filter(|s| {
                s.is_durable()
                    && s.idle_since_ms().is_some_and(|at| at.saturating_add_unsigned(idle_ms) <= now_ms)
            })
            .map(|s| (s.key().0, s.key().1.to_string()))
            .collect();
        for (topic, name) in idle {
            let Some(topic) = self.topic_by_id(topic) else { continue };
            match self.delete_subscription(&topic, &name, true) {
                Ok(_) => {
                    tracing::info!(topic = topic.name(), subscription = name, "deleted idle subscription");
                }
                Err(error) => tracing::debug!(%error, "failed to delete idle subscription"),
            }
        }
    }

    /// The subscription of this name on a topic.
    #[must_use]
    pub fn subscription(&self, topic: &Topic, name: &str) -> Option<Arc<Subscription>> {
        self.0.subscriptions.get(&(topic.id(), name.into())).map(|s| s.clone())
    }

    fn durable_sources(
        &self,
        topic: &Topic,
        name: &str,
        mode: Mode,
        partitions: &[Arc<Partition>],
        start: &dyn Fn(u32) -> Start,
    ) -> Result<(Sources, Lsn), SubscriptionError> {
        let mut entry = Entry::new();
        let mut made = Vec::new();
        for partition in partitions {
            let (cursor, from) =
                (self.log().allocate_cursor(), start(partition.index()).offset(partition.stream()));
            entry.create_cursor(cursor, partition.stream().id(), from);
            made.push((partition.stream().clone(), cursor, from));
        }
        let row = SubscriptionRow { mode, cursors: made.iter().map(|(_, c, _)| c.0).collect() };
        entry.put(rows::SUBSCRIPTIONS, self.subscription_key(topic, name), rows::encode(&row));
        let submitted = self.log().submit(entry)?;
        let sources = made.into_iter().map(|(s, c, from)| (s, self.log().cursor(c), from)).collect();
        Ok((sources, submitted.lsn))
    }

    pub(super) fn subscription_key(&self, topic: &Topic, name: &str) -> bytes::Bytes {
        let id = topic.id().0.to_be_bytes();
        rows::key(self.0.id, &[&id, name.as_bytes()])
    }

    pub(crate) fn recover_subscription(&self, key: &[u8], row: &SubscriptionRow) {
        let Some((id, name)) = key.split_first_chunk::<16>() else { return };
        let id = TopicId(u128::from_be_bytes(*id));
        let Some(topic) = self.topic_by_id(id) else { return };
        let name = String::from_utf8_lossy(name).into_owned();
        let partitions = topic.partitions();
        let sources = partitions.iter().enumerate().filter_map(|(i, p)| {
            let cursor = row.cursors.get(i).and_then(|c| self.log().cursor((*c).into()))?;
            let from = cursor.position();
            Some((p.stream().clone(), Some(cursor), from))
        });
        let subscription =
            Subscription::over_streams(&self.0.context, &name, row.mode, sources.collect(), Trim::Never);
        self.0.subscriptions.insert((id, name.into()), subscription);
        self.extend_subscriptions(&topic, row.cursors.len() as u32);
    }

    /// Adds a topic's new partitions to its subscriptions.
    pub(super) fn extend_subscriptions(&self, topic: &Arc<Topic>, from: u32) {
        let new: Vec<Arc<Partition>> = topic.partitions().into_iter().skip(from as usize).collect();
        if new.is_empty() {
            return;
        }
        let of_topic: Vec<(String, Arc<Subscription>)> = self
            .0
            .subscriptions
            .iter()
            .filter(|s| s.key().0 == topic.id())
            .map(|s| (s.key().1.to_string(), s.value().clone()))
            .collect();
        for (name, subscription) in of_topic {
            let mut entry = Entry::new();
            let mut cursors: Vec<u64> = subscription.cursors().iter().map(|c| c.0).collect();
            let mut made = Vec::new();
            for partition in &new {
                let cursor = subscription.is_durable().then(|| self.log().allocate_cursor());
                if let Some(cursor) = cursor {
                    entry.create_cursor(cursor, partition.stream().id(), Offset(0));
                    cursors.push(cursor.0);
                }
                made.push((partition.stream().clone(), cursor));
            }
            if subscription.is_durable() {
                let row = SubscriptionRow { mode: subscription.mode(), cursors };
                entry.put(rows::SUBSCRIPTIONS, self.subscription_key(topic, &name), rows::encode(&row));
                if let Err(error) = self.log().submit(entry) {
                    tracing::error!(%error, subscription = %name, "failed to add new partitions to subscription");
                    continue;
                }
            }
            for (stream, cursor) in made {
                subscription.extend(stream, cursor.and_then(|c| self.log().cursor(c)));
            }
        }
    }

    /// Adds the deletion of a topic's subscriptions to the entry; returns them, to be removed once it was submitted.
    pub(super) fn delete_subscription_rows(
        &self,
        topic: &Topic,
        entry: &mut Entry,
    ) -> Vec<(Box<str>, Arc<Subscription>)> {
        let all = self.0.subscriptions.iter().filter(|s| s.key().0 == topic.id());
        let of_topic: Vec<_> = all.map(|s| (s.key().1.clone(), s.value().clone())).collect();
        for (name, subscription) in &of_topic {
            subscription.delete_delivered(entry);
            subscription.cursors().into_iter().for_each(|c| entry.delete_cursor(c));
            if subscription.is_durable() {
                entry.delete(rows::SUBSCRIPTIONS, self.subscription_key(topic, name));
            }
        }
        of_topic
    }

    pub(super) fn remove_subscriptions(
        &self,
        topic: &Topic,
        subscriptions: Vec<(Box<str>, Arc<Subscription>)>,
    ) {
        for (name, subscription) in subscriptions {
            self.0.subscriptions.remove(&(topic.id(), name));
            subscription.close();
        }
    }
}
