//! Lists of a namespace for administration: topics and queues a part at a time, bindings, named subscriptions.

use std::sync::Arc;

use inver_storage::{Entry, Offset, ReadError};

use super::{Namespace, SubscriptionError};
use crate::completion::Completion;
use crate::exchange::{Exchange, RouteTarget};
use crate::ordered::Order;
use crate::peek::{self, PeekBounds, Peeked};
use crate::queue::Queue;
use crate::rows::{self, SubscriptionRow};
use crate::spec::{Start, TopicId};
use crate::subscription::{Subscription, Trim};
use crate::topic::{Partition, Topic};
use crate::value::Arguments;

/// Offsets that one peek reads, returned or not.
const VISITED_MAX: u64 = 100_000;

/// A binding to a queue or an exchange.
#[derive(Clone, Debug)]
pub struct BindingInfo {
    /// The exchange that it leads from.
    pub source: Arc<Exchange>,
    /// The key as it was given.
    pub key: Box<[u8]>,
    /// The key is a slashed filter; else its form is that of the exchange's kind.
    pub slashed: bool,
    /// Its arguments.
    pub arguments: Arguments,
    /// It survives a restart.
    pub durable: bool,
}

/// A named subscription and its topic.
#[derive(Clone)]
pub struct NamedSubscription {
    /// The topic.
    pub topic: Arc<Topic>,
    /// The subscription.
    pub subscription: Arc<Subscription>,
}

impl Namespace {
    /// Up to `max` topics that follow the name `after` in this order, without the first `skip` of them; from the
    /// beginning without `after`.
    #[must_use]
    pub fn topics_following(
        &self,
        order: Order,
        after: Option<&str>,
        skip: usize,
        max: usize,
    ) -> Vec<Arc<Topic>> {
        self.0.topics_by_name.following(order, after, skip, max)
    }

    /// Up to `max` queues that follow the name `after` in this order, without the first `skip` of them; from the
    /// beginning without `after`.
    #[must_use]
    pub fn queues_following(
        &self,
        order: Order,
        after: Option<&str>,
        skip: usize,
        max: usize,
    ) -> Vec<Arc<Queue>> {
        self.0.queues_by_name.following(order, after, skip, max)
    }

    /// The number of exchanges.
    #[must_use]
    pub fn exchange_count(&self) -> usize {
        self.0.exchanges.read().len()
    }

    /// The bindings that lead to a queue, in no order: of the first `max` places behind the first `skip`. Also whether there
    /// are further places. A binding that is added or removed meanwhile may change the places of others.
    #[must_use]
    pub fn bindings_to_queue(&self, queue: &Arc<Queue>, skip: usize, max: usize) -> (Vec<BindingInfo>, bool) {
        self.0.origins.bindings_to(&RouteTarget::Queue(queue.clone()), skip, max)
    }

    /// The bindings that lead to an exchange, as [`bindings_to_queue`](Self::bindings_to_queue).
    #[must_use]
    pub fn bindings_to_exchange(
        &self,
        exchange: &Arc<Exchange>,
        skip: usize,
        max: usize,
    ) -> (Vec<BindingInfo>, bool) {
        self.0.origins.bindings_to(&RouteTarget::Exchange(exchange.clone()), skip, max)
    }

    /// The number of named subscriptions.
    #[must_use]
    pub fn subscription_count(&self) -> usize {
        self.0.subscriptions.len()
    }

    /// All named subscriptions of log topics and the ids of their topics, in no order.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<(TopicId, Arc<Subscription>)> {
        self.0.subscriptions.iter().map(|s| (s.key().0, s.value().clone())).collect()
    }

    /// Reads messages of a partition from an offset on, without taking or marking them. Can read from disk: call where
    /// blocking is allowed.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn peek(
        &self,
        partition: &Partition,
        from: u64,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<Peeked, ReadError> {
        let bounds = PeekBounds { messages_max, bytes_max, visited_max: VISITED_MAX };
        let names = &self.0.context.stream_names;
        peek::stream(partition.stream(), Offset(from), &bounds, |stream| names.get(stream), |_| false)
    }

    /// Sets the position of a durable named subscription without consumers: the start of each partition that is given.
    /// Partitions that are not given keep theirs. What was acknowledged before counts as not acknowledged above the new
    /// position.
    pub fn reset_subscription(
        &self,
        topic: &Arc<Topic>,
        name: &str,
        starts: &[(u32, Start)],
    ) -> Result<Completion, SubscriptionError> {
        let _topology = self.topology();
        let present = self.subscription(topic, name);
        let present = present.ok_or_else(|| SubscriptionError::Unknown(name.to_owned()))?;
        if present.counts().consumers > 0 {
            return Err(SubscriptionError::InUse(name.to_owned()));
        }
        if !present.is_durable() {
            return Err(SubscriptionError::NotDurable);
        }
        let (mut entry, mut sources) = (Entry::new(), Vec::new());
        let (cursors, partitions) = (present.cursors(), topic.partitions());
        for (partition, id) in partitions.iter().zip(&cursors) {
            let stream = partition.stream();
            let Some(cursor) = self.log().cursor(*id) else { continue };
            let start = starts.iter().find(|(index, _)| *index == partition.index());
            let from = start.map_or(cursor.position(), |(_, start)| {
                start.offset(stream).clamp(stream.start(), stream.next_offset())
            });
            if start.is_some() {
                entry.seek(&cursor, from);
            }
            sources.push((stream.clone(), cursor, from));
        }
        // The row is written again, so that the entry is not empty and the order of two resets is that of the log.
        let row = SubscriptionRow { mode: present.mode(), cursors: cursors.iter().map(|c| c.0).collect() };
        entry.put(rows::SUBSCRIPTIONS, self.subscription_key(topic, name), rows::encode(&row));
        let submitted = self.log().submit(entry)?;
        let mode = present.mode();
        let sources =
            sources.into_iter().map(|(stream, cursor, from)| (stream, Some(cursor), from)).collect();
        let again = Subscription::over_streams(&self.0.context, name, mode, sources, Trim::Never);
        again.set_made(submitted.lsn);
        self.0.subscriptions.insert((topic.id(), name.into()), again);
        present.close();
        Ok(Completion::At(submitted.lsn))
    }
}
