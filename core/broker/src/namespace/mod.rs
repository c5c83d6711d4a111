//! Namespace: the registry of topics, exchanges, bindings, queues and named subscriptions, under their names.
//!
//! Owns these objects, their rows in the log, and the hub's captures and retained values. Does not own sessions, routing,
//! or dead-lettering.
//!
//! Invariants:
//! - Topology changes happen one at a time under one lock and are submitted to the log under it, so that the log's order
//!   is the order in which they took effect.
//! - Routing reads without that lock. [`Namespace::version`] changes with every change of a route; caches of routes hold
//!   for one version.

mod bindings;
mod compaction;
mod delays;
mod events;
mod groups;
mod leaving;
mod listeners;
mod listing;
mod origins;
mod passing_on;
mod policies;
mod queues;
mod removal;
mod subscriptions;
mod topics;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use inver_storage::Log;
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::access::Permissions;
use crate::audit::{AuditEvent, AuditKind, AuditResult};
use crate::capture::Captures;
use crate::clock::Clock;
use crate::committed_offsets::CommittedOffsets;
use crate::context::Context;
use crate::exchange::Exchange;
use crate::limits::{LimitReached, Limits};
use crate::maps;
use crate::ordered::Ordered;
use crate::policy::Policies;
use crate::publisher_sequences::PublisherSequences;
use crate::queue::Queue;
use crate::retained::Retained;
use crate::spec::{
    BrokerConfig, CaptureRule, DEFAULT_NAMESPACE, ExchangeKind, ExchangeSpec, HUB, NamespaceLimits,
    NamespaceSpec, StoredHeaders, TopicId,
};
use crate::subscription::{DropSink, Subscription};
use crate::telemetry::Counters;
use crate::topic::Topic;
use crate::traces::Traces;
use crate::transactions::Transactions;
use crate::value::Arguments;

use events::EVENTS;
use listeners::ListenerCache;
use origins::Origins;

pub use bindings::{BindDestination, BindError, ExchangeError};
pub use delays::{DelayedId, DelayedMessage, WithdrawError};
pub use groups::{Group, GroupCoordinator, GroupError, GroupMember};
pub use listing::{BindingInfo, NamedSubscription};
pub use passing_on::may_bind;
pub use queues::{Declared, QueueError};
pub use subscriptions::SubscriptionError;

/// The exchange for tracing, which clients cannot publish to.
const TRACE: &str = "amq.rabbitmq.trace";

/// The predeclared exchanges of every namespace, beside the hub.
const PREDECLARED: [(&str, ExchangeKind); 5] = [
    ("amq.direct", ExchangeKind::Direct),
    ("amq.fanout", ExchangeKind::Fanout),
    ("amq.headers", ExchangeKind::Headers),
    ("amq.match", ExchangeKind::Headers),
    (TRACE, ExchangeKind::Topic),
];

/// A namespace, and on whose behalf changes are made through this handle; cheap to clone.
#[derive(Clone)]
pub struct Namespace(Arc<Inner>, Option<Arc<Permissions>>);

pub(crate) struct Inner {
    id: u32,
    name: Arc<str>,
    spec: RwLock<NamespaceSpec>,
    /// It holds as many bytes as it may.
    is_full: AtomicBool,
    /// Messages are traced: see [`Namespace::set_traced`].
    is_traced: AtomicBool,
    /// Deleted, though some connections may still hold it: nothing new is made in it.
    is_deleted: AtomicBool,
    config: Arc<BrokerConfig>,
    limits: RwLock<Limits>,
    topology: Mutex<()>,
    version: AtomicU64,
    topics_version: AtomicU64,
    /// A route from an exchange of another kind may lead through a headers exchange.
    may_reach_headers: AtomicBool,
    topics: DashMap<Box<str>, Arc<Topic>>,
    /// The same topics in the order of their names, for lists.
    topics_by_name: Ordered<Topic>,
    topics_by_id: DashMap<TopicId, Arc<Topic>>,
    context: Arc<Context>,
    exchanges: RwLock<HashMap<Box<str>, Arc<Exchange>>>,
    origins: Origins,
    listener_cache: ListenerCache,
    hub: Arc<Exchange>,
    /// The exchange of events, of the default namespace.
    event_exchange: Option<Arc<Exchange>>,
    queues: DashMap<Box<str>, Arc<Queue>>,
    /// The same queues in the order of their names, for lists.
    queues_by_name: Ordered<Queue>,
    subscriptions: DashMap<(TopicId, Box<str>), Arc<Subscription>>,
    captures: Captures,
    policies: RwLock<Policies>,
    /// Dead-letters what queues drop.
    drop_sink: Arc<dyn DropSink>,
    retained: Retained,
    committed_offsets: CommittedOffsets,
    publisher_sequences: PublisherSequences,
    transactions: Transactions,
    /// The coordinator of consumer groups, once a protocol has one.
    groups: groups::Coordinated,
    next_binding: AtomicU64,
}

impl Namespace {
    pub(crate) fn new(
        id: u32,
        name: &str,
        spec: NamespaceSpec,
        context: Arc<Context>,
        config: &Arc<BrokerConfig>,
        retained: Retained,
        drop_sink: impl FnOnce(Weak<Inner>) -> Arc<dyn DropSink>,
    ) -> Namespace {
        let predeclared = |name: &str, kind: ExchangeKind| {
            let spec = ExchangeSpec {
                kind,
                durable: true,
                auto_delete: false,
                internal: [TRACE, EVENTS].contains(&name),
                arguments: Arguments::new(),
            };
            Exchange::new(name, spec)
        };
        let hub = predeclared(HUB, ExchangeKind::Topic);
        let mut exchanges: HashMap<Box<str>, Arc<Exchange>> =
            PREDECLARED.iter().map(|(name, kind)| (Box::from(*name), predeclared(name, *kind))).collect();
        exchanges.insert(HUB.into(), hub.clone());
        let event_exchange = (name == DEFAULT_NAMESPACE).then(|| predeclared(EVENTS, ExchangeKind::Topic));
        exchanges.extend(event_exchange.clone().map(|exchange| (EVENTS.into(), exchange)));
        let inner = Arc::new_cyclic(|inner| Inner {
            id,
            name: name.into(),
            spec: RwLock::new(spec),
            is_full: AtomicBool::new(false),
            is_traced: AtomicBool::new(false),
            is_deleted: AtomicBool::new(false),
            config: config.clone(),
            limits: RwLock::new(config.limits),
            topology: Mutex::default(),
            version: AtomicU64::new(1),
            topics_version: AtomicU64::new(1),
            may_reach_headers: AtomicBool::new(false),
            topics: maps::map(id),
            topics_by_name: Ordered::default(),
            topics_by_id: maps::map(id),
            transactions: Transactions::new(
                id,
                context.clone(),
                config.limits.transactional_ids_max,
                config.limits.transaction_parts_max,
            ),
            context,
            exchanges: RwLock::new(exchanges),
            origins: Origins::default(),
            listener_cache: ListenerCache::new(id),
            hub,
            event_exchange,
            queues: maps::map(id),
            queues_by_name: Ordered::default(),
            subscriptions: maps::map(id),
            captures: Captures::new(&config.captures),
            policies: RwLock::default(),
            drop_sink: drop_sink(inner.clone()),
            retained,
            committed_offsets: CommittedOffsets::new(id, config.limits.committed_offsets_max),
            publisher_sequences: PublisherSequences::new(id, config.limits.publisher_sequences_max),
            groups: groups::Coordinated::default(),
            next_binding: AtomicU64::new(1),
        });
        Namespace::of(inner)
    }

    pub(crate) fn of(inner: Arc<Inner>) -> Namespace {
        Namespace(inner, None)
    }

    /// The same namespace for a client, whose changes the audit log tells. Through other handles the broker makes them.
    #[must_use]
    pub fn on_behalf_of(&self, client: &Arc<Permissions>) -> Namespace {
        Namespace(self.0.clone(), Some(client.clone()))
    }

    /// Records a change made through this handle in the audit log. Topics, queues, exchanges, bindings, sessions and
    /// named subscriptions do so themselves.
    pub fn audit(&self, kind: AuditKind, operation: &str, resource: &str, name: &str) {
        self.audit_by(self.1.as_deref(), kind, operation, resource, name);
    }

    /// The spans of sampled messages.
    #[must_use]
    pub fn traces(&self) -> &Traces {
        &self.0.config.traces
    }

    /// On whose behalf changes are made through this handle.
    fn client(&self) -> Option<&Arc<Permissions>> {
        self.1.as_ref()
    }

    /// Whether such changes are recorded in the audit log.
    pub(crate) fn audits(&self, kind: AuditKind) -> bool {
        self.0.context.audit.wants(kind)
    }

    /// Records a change made by a client; none: by the broker.
    pub(crate) fn audit_by(
        &self,
        client: Option<&Permissions>,
        kind: AuditKind,
        operation: &str,
        resource: &str,
        name: &str,
    ) {
        let audit = &self.0.context.audit;
        if !audit.wants(kind) {
            return;
        }
        audit.record(&AuditEvent {
            kind,
            result: AuditResult::Accepted,
            who: client.map(|client| client.who()).unwrap_or_default(),
            operation,
            resource,
            name,
            namespace: Some(self.name()),
            rule: None,
            reason: None,
        });
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its name, to share.
    #[must_use]
    pub fn shared_name(&self) -> Arc<str> {
        self.0.name.clone()
    }

    /// What is known of it beside its name.
    #[must_use]
    pub fn spec(&self) -> NamespaceSpec {
        self.0.spec.read().clone()
    }

    /// Its own limits.
    #[must_use]
    pub fn own_limits(&self) -> NamespaceLimits {
        self.0.spec.read().limits
    }

    /// Whether it was deleted: a handle may outlive its namespace.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.0.is_deleted.load(Ordering::SeqCst)
    }

    /// Whether protocols copy what clients publish and get to the exchange of traces.
    #[must_use]
    pub fn is_traced(&self) -> bool {
        self.0.is_traced.load(Ordering::Relaxed)
    }

    /// Begins or ends that, for as long as the broker runs.
    pub fn set_traced(&self, is_traced: bool) {
        if self.0.is_traced.swap(is_traced, Ordering::Relaxed) != is_traced {
            // Routes say whether they are traced.
            self.changed();
        }
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.0.context.log
    }

    /// The clock of the broker.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.context.clock
    }

    /// The committed offsets of consumer groups.
    #[must_use]
    pub fn committed_offsets(&self) -> &CommittedOffsets {
        &self.0.committed_offsets
    }

    /// How far its named publishers have come in streams.
    #[must_use]
    pub fn publisher_sequences(&self) -> &PublisherSequences {
        &self.0.publisher_sequences
    }

    /// The transactions that clients hold open.
    #[must_use]
    pub fn transactions(&self) -> &Transactions {
        &self.0.transactions
    }

    /// The hub's retained values.
    #[must_use]
    pub fn retained(&self) -> &Retained {
        &self.0.retained
    }

    /// The exchange that joins the protocols' address spaces.
    #[must_use]
    pub fn hub(&self) -> Arc<Exchange> {
        self.0.hub.clone()
    }

    /// The version of the topology: it changes with every change that can change a route.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// The version of the topics, those of queues included: it changes when one appears, goes or gets partitions, and with
    /// nothing else that changes a route.
    #[must_use]
    pub fn topics_version(&self) -> u64 {
        self.0.topics_version.load(Ordering::Acquire)
    }

    /// Its number: no other namespace has it or had it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id
    }

    pub(crate) fn changed(&self) {
        self.0.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Told after the change, so that who reads the version first and then the topics misses none.
    fn topics_changed(&self) {
        self.0.topics_version.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn has_hub_subscribers(&self) -> bool {
        self.0.hub.binding_count() > 0 || self.0.captures.captures_producers()
    }

    pub(crate) fn routes_by_key(&self, exchange: &Exchange) -> bool {
        exchange.routes_by_key() && !self.0.may_reach_headers.load(Ordering::Acquire)
    }

    pub(crate) fn address_header(&self) -> &[u8] {
        self.0.config.address_header.as_bytes()
    }

    /// The static name of a protocol, for publishers restored from stored state.
    pub(crate) fn origin(&self, name: &str) -> &'static str {
        self.0.config.origins.iter().find(|o| **o == name).copied().unwrap_or("")
    }

    pub(crate) fn stored_headers(&self) -> StoredHeaders {
        self.0.config.stored_headers
    }

    pub(crate) fn limits(&self) -> Limits {
        *self.0.limits.read()
    }

    /// Changes the bounds. What exists beyond a lower one stays.
    pub(crate) fn set_limits(&self, limits: Limits) {
        *self.0.limits.write() = limits;
        self.0.committed_offsets.set_max(limits.committed_offsets_max);
        self.0.publisher_sequences.set_max(limits.publisher_sequences_max);
    }

    /// Replaces the capture rules of the configuration.
    pub(crate) fn set_captures(&self, rules: &[CaptureRule]) {
        let _topology = self.topology();
        self.0.captures.set_configured(rules);
        self.changed();
    }

    /// Refuses what would be stored while it holds as many bytes as its limit allows.
    pub fn check_room(&self) -> Result<(), LimitReached> {
        if !self.is_full() {
            return Ok(());
        }
        let max = self.own_limits().bytes_max.unwrap_or(0);
        Err(LimitReached { what: "bytes of messages in this namespace", max })
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.is_full.load(Ordering::Relaxed)
    }

    /// Bytes of the messages that topics and queues keep in the log; one that several keep counts for each.
    pub(crate) fn stored_bytes(&self) -> u64 {
        let mut bytes = 0;
        self.0.topics.iter().for_each(|topic| {
            topic.for_each_partition(|partition| bytes += partition.stream().readable_bytes());
        });
        bytes
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        if self.0.is_full.swap(is_full, Ordering::Relaxed) != is_full {
            tracing::warn!(namespace = self.name(), is_full, "limit of stored bytes reached or left");
        }
    }

    pub(crate) fn set_spec(&self, spec: NamespaceSpec) {
        *self.0.spec.write() = spec;
    }

    /// How many of something it may hold: nothing once it was deleted, so that nothing new is made in it.
    fn own_max(&self, of_all: usize, own: impl FnOnce(&NamespaceLimits) -> Option<u32>) -> usize {
        if self.is_deleted() {
            return 0;
        }
        own(&self.0.spec.read().limits).map_or(of_all, |own| of_all.min(own as usize))
    }

    pub(crate) fn sessions_max(&self) -> usize {
        self.own_max(self.limits().sessions_max, |own| own.sessions_max)
    }

    fn topics_max(&self) -> usize {
        self.own_max(self.limits().topics_max, |own| own.topics_max)
    }

    fn queues_max(&self) -> usize {
        self.own_max(self.limits().queues_max, |own| own.queues_max)
    }

    /// Deletes expired retained values, a bounded number at a time.
    pub(crate) fn expire_retained(&self) {
        if let Err(error) = self.0.retained.expire(self.log()) {
            tracing::warn!(%error, "failed to delete expired retained values");
        }
    }

    pub(crate) fn listener_cache(&self) -> &ListenerCache {
        &self.0.listener_cache
    }

    pub(crate) fn captures(&self) -> &Captures {
        &self.0.captures
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.0.context
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.0.context.counters
    }

    fn topology(&self) -> MutexGuard<'_, ()> {
        self.0.topology.lock()
    }

    /// Updates the gauges of what the namespace has.
    pub(crate) fn record(&self) {
        let counters = self.counters();
        counters.topics.set(self.0.topics.len() as f64);
        counters.queues.set(self.queue_count() as f64);
        counters.exchanges.set(self.0.exchanges.read().len() as f64);
        counters.subscriptions.set(self.0.subscriptions.len() as f64);
        counters.retained.set(self.0.retained.len() as f64);
    }

    /// Trims acknowledged messages.
    pub(crate) fn trim(&self) {
        if let Err(error) = self.0.context.reclaim.trim(self.log()) {
            tracing::debug!(%error, "failed to trim acknowledged messages");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Exchanges hold those that they are bound to: a long chain of them would be dropped by recursion.
        for exchange in self.exchanges.get_mut().values() {
            exchange.clear();
        }
    }
}

impl std::fmt::Debug for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Namespace").field(&self.0.name).finish()
    }
}
