//! From an address to its receivers. The hub is the exchange where a publish also meets the log topic of its
//! name, the captures, and the sessions' filters.

use std::sync::Arc;

use bytes::Bytes;
use inver_storage::Stream;
use smallvec::SmallVec;

use crate::address::{Address, Form};
use crate::batch_format::BatchFormat;
use crate::exchange::{BindTarget, Exchange};
use crate::namespace::Namespace;
use crate::queue::Queue;
use crate::session::SessionCore;
use crate::spec::{HUB, PublisherId, TopicConfig, TopicError, TopicKind, TopicSpec};
use crate::subscription::Subscription;
use crate::topic::{Partition, Topic};
use crate::value::{HeaderLookup, Value};

/// Exchanges that one publish may pass; cycles are cut by remembering where it was.
const EXCHANGES_VISITED_MAX: usize = 256;

/// Who receives a message: streams of the log and queues in memory, each once.
#[derive(Default)]
pub(crate) struct ReceiverSet {
    pub(crate) log: SmallVec<[Stream; 2]>,
    pub(crate) live: SmallVec<[Arc<Subscription>; 2]>,
    /// The queues among them, which may have limits.
    pub(crate) queues: SmallVec<[Arc<Queue>; 2]>,
    /// How all its receivers want their batches.
    pub(crate) format: Option<Arc<BatchFormat>>,
    /// Sorted identities, to compare sets and find overlaps.
    ids: SmallVec<[u64; 4]>,
}

impl ReceiverSet {
    /// False if it is there.
    pub(crate) fn add_stream(&mut self, stream: &Stream) -> bool {
        let new = self.note(stream.id().0 << 1);
        if new {
            self.log.push(stream.clone());
        }
        new
    }

    /// False if it is there.
    pub(crate) fn add_queue(&mut self, queue: &Arc<Queue>) -> bool {
        let new = match queue.stream() {
            Some(stream) => self.add_stream(stream),
            None => self.add_live(queue.subscription()),
        };
        if new {
            self.queues.push(queue.clone());
        }
        new
    }

    /// The set without some of its queues.
    pub(crate) fn without(&self, refusing: &[Arc<Queue>]) -> ReceiverSet {
        let refuses = |stream: Option<&Stream>, live: Option<&Arc<Subscription>>| {
            refusing.iter().any(|q| match (stream, live) {
                (Some(s), _) => q.stream().is_some_and(|own| own.id() == s.id()),
                (_, Some(l)) => Arc::ptr_eq(q.subscription(), l),
                _ => false,
            })
        };
        let mut set = ReceiverSet::default();
        for stream in self.log.iter().filter(|s| !refuses(Some(s), None)) {
            set.add_stream(stream);
        }
        for live in self.live.iter().filter(|l| !refuses(None, Some(l))) {
            set.add_live(live);
        }
        set
    }

    /// Those of its receivers that are not in the other.
    pub(crate) fn beyond(&self, other: &ReceiverSet) -> ReceiverSet {
        let is_other = |id: u64| other.ids.binary_search(&id).is_ok();
        let mut set = ReceiverSet { format: self.format.clone(), ..ReceiverSet::default() };
        for stream in self.log.iter().filter(|s| !is_other(s.id().0 << 1)) {
            set.add_stream(stream);
        }
        for live in self.live.iter().filter(|l| !is_other(l.id() << 1 | 1)) {
            set.add_live(live);
        }
        set
    }

    /// False if it is there.
    pub(crate) fn add_live(&mut self, subscription: &Arc<Subscription>) -> bool {
        let new = self.note(subscription.id() << 1 | 1);
        if new {
            self.live.push(subscription.clone());
        }
        new
    }

    fn note(&mut self, id: u64) -> bool {
        match self.ids.binary_search(&id) {
            Ok(_) => false,
            Err(at) => {
                self.ids.insert(at, id);
                true
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether batches for one are batches for the other.
    pub(crate) fn is_same(&self, other: &ReceiverSet) -> bool {
        self.ids == other.ids && self.format == other.format
    }

    /// Whether a receiver is in both.
    pub(crate) fn overlaps(&self, other: &ReceiverSet) -> bool {
        let (small, large) = if self.ids.len() < other.ids.len() { (self, other) } else { (other, self) };
        small.ids.iter().any(|id| large.ids.binary_search(id).is_ok())
    }
}

/// What routing found.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) set: Arc<ReceiverSet>,
    /// Topics that want batches of their own.
    pub(crate) formatted: SmallVec<[Arc<ReceiverSet>; 1]>,
    /// The record's key, where a capture sets it.
    pub(crate) key: Option<Bytes>,
    /// How many receivers there are, captures not counted.
    pub(crate) receivers: usize,
}

/// A publish as routing sees it.
pub(crate) struct Publish<'a> {
    pub(crate) guaranteed: bool,
    pub(crate) by: &'a PublisherId,
    pub(crate) lookup: Option<&'a dyn HeaderLookup>,
}

#[derive(Default)]
struct Found {
    set: ReceiverSet,
    formatted: SmallVec<[Arc<ReceiverSet>; 1]>,
    /// Sessions, once for each of their bindings that matches, and whether that one is guaranteed.
    sessions: Vec<(Arc<SessionCore>, bool)>,
    visited: SmallVec<[*const (); 4]>,
    receivers: usize,
    key: Option<Bytes>,
}

// The pointers of `visited` are only compared.
impl Found {
    fn queue(&mut self, queue: &Arc<Queue>) {
        self.receivers += usize::from(self.set.add_queue(queue));
    }

    /// A partition of a log topic. False if it is there.
    fn partition(&mut self, topic: &Topic, partition: &Partition) -> bool {
        let Some(shape) = topic.format() else { return self.set.add_stream(partition.stream()) };
        let mut set = ReceiverSet { format: Some(shape), ..ReceiverSet::default() };
        set.add_stream(partition.stream());
        let new = !self.formatted.iter().any(|s| s.ids == set.ids);
        if new {
            self.formatted.push(Arc::new(set));
        }
        new
    }

    fn session(&mut self, session: &Arc<SessionCore>, guaranteed: bool) {
        self.sessions.push((session.clone(), guaranteed));
    }
}

impl Namespace {
    /// Who receives what is published to the queues of these names.
    pub(crate) fn route_to_queues(&self, names: &[&[u8]]) -> Route {
        let mut found = Found::default();
        for queue in names.iter().filter_map(|n| self.queue(std::str::from_utf8(n).ok()?)) {
            found.queue(&queue);
        }
        found.finish(&Publish { guaranteed: false, by: &PublisherId::default(), lookup: None })
    }

    /// Who receives what is published to this exchange. Each exchange on the way matches all the keys.
    pub(crate) fn route_from(
        &self,
        exchange: &Arc<Exchange>,
        routing_keys: &[&[u8]],
        publish: &Publish<'_>,
    ) -> Route {
        let mut found = Found::default();
        self.visit(exchange, routing_keys, None, publish, &mut found);
        found.finish(publish)
    }

    /// Who receives what is published at an address of the hub. `but` is left out of it: the topic that the
    /// message lies in already.
    pub(crate) fn route_at(&self, address: &Address, publish: &Publish<'_>, but: Option<&Topic>) -> Route {
        let mut found = Found::default();
        let dotted = address.write(Form::Dotted);
        self.visit(&self.hub(), &[&dotted], Some(address), publish, &mut found);
        for partition in but.into_iter().flat_map(Topic::partitions) {
            let id = partition.stream().id();
            found.set.log.retain(|s| s.id() != id);
            found.set.ids.retain(|i| *i != id.0 << 1);
            found.formatted.retain(|s| s.ids[..] != [id.0 << 1]);
        }
        found.finish(publish)
    }

    /// `address` is the one key, where that is an address already.
    fn visit(
        &self,
        exchange: &Arc<Exchange>,
        routing_keys: &[&[u8]],
        address: Option<&Address>,
        publish: &Publish<'_>,
        found: &mut Found,
    ) {
        let mut stack: SmallVec<[Arc<Exchange>; 4]> = SmallVec::new();
        stack.push(exchange.clone());
        while let Some(exchange) = stack.pop() {
            let here = Arc::as_ptr(&exchange).cast::<()>();
            if found.visited.contains(&here) || found.visited.len() >= EXCHANGES_VISITED_MAX {
                continue;
            }
            found.visited.push(here);
            let mut any = false;
            for routing_key in routing_keys {
                exchange.route(routing_key, address, publish.lookup, |target| {
                    any = true;
                    match target {
                        BindTarget::Queue(queue) => found.queue(queue),
                        BindTarget::Exchange(next) => stack.push(next.clone()),
                        BindTarget::Session { session, guaranteed, no_local } => {
                            if !(*no_local && publish.by.session == Some(session.id())) {
                                found.session(session, *guaranteed);
                            }
                        }
                    }
                });
                if exchange.name() == HUB {
                    any |= self.meet(routing_key, address, publish, found);
                }
            }
            if !any {
                let alternate = exchange.spec().arguments.get("alternate-exchange").and_then(Value::as_str);
                if let Some(next) = alternate.and_then(|name| self.exchange(name)) {
                    stack.push(next);
                }
            }
        }
    }

    /// The log topic of the address's name, and the captures.
    fn meet(
        &self,
        routing_key: &[u8],
        address: Option<&Address>,
        publish: &Publish<'_>,
        found: &mut Found,
    ) -> bool {
        let mut any = false;
        let name = std::str::from_utf8(routing_key).ok();
        if let Some(topic) = name.and_then(|n| self.topic(n)).filter(|t| t.kind() == TopicKind::Log)
            && let Some(partition) = topic.partition_of(Some(routing_key))
        {
            found.receivers += usize::from(found.partition(&topic, &partition));
            any = true;
        }
        let parsed;
        let address = match address {
            Some(a) => a,
            None if self.captures().is_empty() => return any,
            None => {
                parsed = Address::parse(Form::Dotted, routing_key);
                &parsed
            }
        };
        if let Some((topic, key)) = self.captures().capture(publish.by.origin, address)
            && let Some(topic) = self.topic(&topic).or_else(|| self.make_captured_topic(&topic))
            && topic.kind() == TopicKind::Log
            && let Some(partition) = topic.partition_of(Some(&key))
        {
            found.partition(&topic, &partition);
            found.key = Some(key);
        }
        any
    }
}

impl Namespace {
    /// A capture's topic that is not there yet.
    fn make_captured_topic(&self, name: &str) -> Option<Arc<Topic>> {
        let spec = TopicSpec { partitions: 1, config: TopicConfig::new() };
        match self.create_topic(name, &spec) {
            Ok((topic, _)) => Some(topic),
            // Somebody was faster.
            Err(TopicError::Exists(_)) => self.topic(name),
            Err(error) => {
                tracing::warn!(topic = name, %error, "a capture's topic cannot be made");
                None
            }
        }
    }
}

impl Found {
    fn finish(mut self, publish: &Publish<'_>) -> Route {
        // Each session once, with the best of its bindings; in order, as their receivers' ids most likely are.
        let mut sessions = std::mem::take(&mut self.sessions);
        sessions.sort_unstable_by_key(|(session, _)| session.id());
        sessions.dedup_by(|again, first| {
            let is_same = Arc::ptr_eq(&again.0, &first.0);
            first.1 |= is_same && again.1;
            is_same
        });
        for (session, guaranteed) in sessions {
            self.receivers += 1;
            session.receive(guaranteed && publish.guaranteed, &mut self.set);
        }
        Route { set: Arc::new(self.set), formatted: self.formatted, key: self.key, receivers: self.receivers }
    }
}
