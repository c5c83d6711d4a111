//! Routing: from an exchange and routing keys, an address of the hub, or a log topic, to receivers. At the hub a publish
//! also reaches the log topic named by the address, the captures, and the sessions' filters. A log topic's own records
//! reach the bindings that its [`HubMode`] allows, and the captures.
//!
//! Reads the namespace and changes it in one way only: a capture's topic is created when it is first needed.

use std::sync::Arc;

use bytes::Bytes;
use inver_access::{Operation, ResourceKind};
use inver_storage::StreamId;
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use crate::access::Permissions;
use crate::address::{Address, Form, is_reserved};
use crate::bindings::{Binding, Readers};
use crate::completion::Completion;
use crate::exchange::{Exchange, Inbox, RouteTarget};
use crate::history::History;
use crate::message::{Headers, Rights};
use crate::namespace::Namespace;
use crate::queue::Queue;
use crate::receivers::{self, ReceiverSet};
use crate::seen::{FirstSeen, Seen};
use crate::spec::{HUB, HubMode, PublisherId, TopicConfig, TopicError, TopicKind, TopicSpec};
use crate::topic::{Partition, Topic};
use crate::value::HeaderLookup;
use crate::write_batch::WriteBatch;

/// Exchanges that one publish may visit; each is visited once. A publish that would visit more is refused.
const EXCHANGES_VISITED_MAX: usize = 65_536;

/// Exchanges visited that are searched one by one.
const FEW_VISITED: usize = 16;

/// The receivers of a message.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) set: Arc<ReceiverSet>,
    /// Topics with a batch format of their own.
    pub(crate) formatted: SmallVec<[Arc<ReceiverSet>; 1]>,
    /// The record's key, where a capture sets it.
    pub(crate) key: Option<Bytes>,
    /// The number of receivers, captures not counted.
    pub(crate) receivers: usize,
    /// The permissions of clients whose bindings were asked for, if any, and their version: the route holds for it.
    pub(crate) readers: Option<(Arc<Permissions>, u64)>,
    /// A capture rule applies whose topic cannot be appended to: such a message is not acknowledged.
    pub(crate) lacks_capture: bool,
    /// The topic of a capture rule could not be appended to, and the next rule applied.
    pub(crate) passed_on: bool,
    /// A partition to which a message that clears a retained value is appended with a null value.
    pub(crate) tombstones: Option<StreamId>,
    /// More exchanges lead on than one publish may visit: such a message is refused.
    pub(crate) is_cut: bool,
    /// What exchanges on the way are to note of such a message.
    pub(crate) noted: Option<Arc<Noted>>,
    /// An exchange on the way has passed on such a message before: when that is stored.
    pub(crate) repeats: Option<Completion>,
    /// Publishers tell the names of its queues.
    pub(crate) is_traced: bool,
    /// No capture fails, it is not cut, not traced, repeats nothing, and exchanges note nothing: one question for each
    /// message instead of six.
    pub(crate) is_plain: bool,
}

impl Route {
    /// Whether a receiver keeps the message in the log.
    pub(crate) fn is_stored(&self) -> bool {
        std::iter::once(&self.set).chain(&self.formatted).any(|set| !set.log.is_empty())
    }
}

/// What exchanges note of a message that they pass on.
pub(crate) struct Noted {
    /// Those that keep their last messages.
    pub(crate) histories: Arc<[Arc<History>]>,
    /// What others see for the first time.
    pub(crate) first_seen: Vec<FirstSeen>,
}

/// What routing needs of a publish.
pub(crate) struct Publish<'a> {
    pub(crate) guaranteed: bool,
    pub(crate) by: &'a PublisherId,
    /// What the publisher may do, if anything restricts it.
    pub(crate) permissions: Option<&'a Permissions>,
    pub(crate) lookup: Option<&'a dyn HeaderLookup>,
    /// The headers of the message.
    pub(crate) headers: Headers<'a>,
    /// What the publisher may do beside that, as far as permissions allow.
    pub(crate) rights: Rights,
    /// What the publisher has not flushed yet.
    pub(crate) unflushed: Option<&'a WriteBatch>,
}

impl Publish<'_> {
    /// Whether the publisher may publish at an address of the hub.
    pub(crate) fn may_write(&self, address: &Address) -> bool {
        let slashed = address.write(Form::Slashed);
        let permits = |permissions: &Permissions| {
            permissions.may(ResourceKind::Address, &String::from_utf8_lossy(&slashed), Operation::Write)
        };
        !is_reserved(&slashed) && self.permissions.is_none_or(permits)
    }

    /// Whether the publisher may publish at the address that a routing key is at the hub.
    fn may_write_key(&self, routing_key: &[u8]) -> bool {
        self.rights.passes_on && self.may_write(&Address::parse(Form::Dotted, routing_key))
    }
}

/// Routes to the queues of these names, as the default exchange does.
pub(crate) fn to_queues(namespace: &Namespace, names: &[&[u8]]) -> Route {
    let mut found = Found::of(namespace);
    found.queues.extend(names.iter().filter_map(|n| namespace.queue(std::str::from_utf8(n).ok()?)));
    found.finish(false)
}

/// Routes to one inbox.
pub(crate) fn to_inbox(inbox: &dyn Inbox, guaranteed: bool) -> Route {
    let mut set = ReceiverSet::default();
    inbox.receive(guaranteed, &mut set);
    Route {
        set: Arc::new(set),
        formatted: SmallVec::new(),
        key: None,
        receivers: 1,
        readers: None,
        lacks_capture: false,
        passed_on: false,
        tombstones: None,
        is_cut: false,
        noted: None,
        repeats: None,
        is_traced: false,
        is_plain: true,
    }
}

/// Routes from an exchange. Every exchange on the path matches all the keys.
pub(crate) fn from_exchange(
    namespace: &Namespace,
    exchange: &Arc<Exchange>,
    routing_keys: &[&[u8]],
    publish: &Publish<'_>,
) -> Route {
    let mut found = Found::of(namespace);
    visit(namespace, exchange, routing_keys, None, publish, &mut found);
    found.finish(publish.guaranteed)
}

/// Routes from an address of the hub, except to the topic that has the message already.
pub(crate) fn from_address(
    namespace: &Namespace,
    address: &Address,
    publish: &Publish<'_>,
    except: Option<&Topic>,
) -> Route {
    let mut found = Found::default();
    let dotted = address.write(Form::Dotted);
    visit(namespace, &namespace.hub(), &[&dotted], Some(address), publish, &mut found);
    except.into_iter().for_each(|topic| found.leave_out(topic));
    found.finish(publish.guaranteed)
}

/// Routes the records of a topic from the address of its name, as its mode allows.
pub(crate) fn from_topic(namespace: &Namespace, topic: &Topic, publish: &Publish<'_>) -> Route {
    let mut found = Found::default();
    let address = Address::parse(Form::Dotted, topic.name().as_bytes());
    let (hub, keys) = (namespace.hub(), &[topic.name().as_bytes()]);
    let mut next = SmallVec::new();
    let mut pass_on = |binding: &Binding<RouteTarget>| {
        if found.may_read(topic, &binding.terms().readers) {
            found.add_target(&binding.target, publish, &mut next);
        }
    };
    match (topic.hub(), topic.kind()) {
        (HubMode::Off, _) => return found.finish(publish.guaranteed),
        // A queue's name is no address.
        (_, TopicKind::Queue) => {}
        (HubMode::Open, _) => {
            hub.route(keys[0], Some(&address), publish.lookup, publish.headers, &mut pass_on);
        }
        (HubMode::Named, _) => hub.route_exactly(&address, &mut pass_on),
    }
    found.visited.add(&hub);
    visit_all(namespace, next, keys, Some(&address), publish, &mut found);
    add_capture(namespace, &address, publish, &mut found);
    found.leave_out(topic);
    found.finish(publish.guaranteed)
}

/// What a publish to an exchange would find now; nothing is created.
pub(crate) fn preview(
    namespace: &Namespace,
    exchange: &Arc<Exchange>,
    routing_key: &[u8],
    address: Option<&Address>,
    publish: &Publish<'_>,
) -> Found {
    let mut found = Found { is_preview: true, ..Found::default() };
    visit(namespace, exchange, &[routing_key], address, publish, &mut found);
    found.add_queues();
    found
}

/// Visits an exchange and those bound to it. `address` is the one routing key, where that is parsed already.
fn visit(
    namespace: &Namespace,
    exchange: &Arc<Exchange>,
    routing_keys: &[&[u8]],
    address: Option<&Address>,
    publish: &Publish<'_>,
    found: &mut Found,
) {
    // Whether the message may be published here was asked before.
    found.entry = Some(Arc::as_ptr(exchange).addr());
    visit_all(namespace, SmallVec::from_iter([exchange.clone()]), routing_keys, address, publish, found);
}

/// Visits several exchanges and those bound to them.
fn visit_all(
    namespace: &Namespace,
    mut stack: Exchanges,
    routing_keys: &[&[u8]],
    address: Option<&Address>,
    publish: &Publish<'_>,
    found: &mut Found,
) {
    while let Some(exchange) = stack.pop() {
        let here = Arc::as_ptr(&exchange).addr();
        if !found.visited.add(&exchange) {
            continue;
        }
        if found.visited.len() > EXCHANGES_VISITED_MAX {
            found.is_cut = true;
            return;
        }
        if let Some(seen) = exchange.seen()
            && !found.is_new(seen, namespace, publish)
        {
            continue;
        }
        found.histories.extend(exchange.history().cloned());
        let mut any = false;
        let is_passed_on = exchange.name() == HUB && found.entry != Some(here);
        for routing_key in routing_keys {
            if is_passed_on && !publish.may_write_key(routing_key) {
                continue;
            }
            exchange.route(routing_key, address, publish.lookup, publish.headers, |binding| {
                any = true;
                found.add_target(&binding.target, publish, &mut stack);
            });
            if exchange.name() == HUB {
                any |= visit_topics(namespace, routing_key, address, publish, found);
            }
        }
        if !any && let Some(next) = exchange.alternate().and_then(|name| namespace.exchange(&name)) {
            stack.push(next);
        }
    }
}

/// Adds the log topic named by the address, and the captures'. Whether the former is there.
fn visit_topics(
    namespace: &Namespace,
    routing_key: &[u8],
    address: Option<&Address>,
    publish: &Publish<'_>,
    found: &mut Found,
) -> bool {
    let mut any = false;
    let name = std::str::from_utf8(routing_key).ok();
    if let Some(topic) = name.and_then(|n| namespace.topic(n))
        && topic.kind() == TopicKind::Log
        && topic.hub() != HubMode::Off
        && publish.rights.appends
        && publish.permissions.is_none_or(|p| p.may(ResourceKind::Topic, topic.name(), Operation::Write))
        && let Some(partition) = topic.partition_of(Some(routing_key))
    {
        found.receivers += usize::from(found.add_partition(&topic, &partition));
        any = true;
    }
    match address {
        Some(address) => add_capture(namespace, address, publish, found),
        None if namespace.captures().is_empty() => {}
        None => add_capture(namespace, &Address::parse(Form::Dotted, routing_key), publish, found),
    }
    any
}

/// Adds the topic of the first capture rule that matches and does not pass the message on.
fn add_capture(namespace: &Namespace, address: &Address, publish: &Publish<'_>, found: &mut Found) {
    let (captures, origin) = (namespace.captures(), publish.by.origin);
    let mut next = captures.capture(origin, address, None);
    if found.is_preview {
        found.captured = next.map(|capture| (capture.topic, capture.key));
        return;
    }
    while let Some(capture) = next {
        match capture_topic(namespace, &capture.topic) {
            Ok(topic) => {
                if let Some(partition) = topic.partition_of(Some(&capture.key)) {
                    found.add_partition(&topic, &partition);
                    found.key = Some(capture.key);
                    found.tombstones = capture.tombstones.then(|| partition.stream().id());
                }
                found.lacks_capture = false;
                return;
            }
            Err(error) => {
                captures.log_refusal(namespace.clock(), &capture.topic, &error);
                found.lacks_capture = true;
                if !capture.passes_on {
                    return;
                }
                next = captures.capture(origin, address, Some(&capture.rank));
                found.passed_on |= next.is_some();
            }
        }
    }
}

/// The topic of a capture, which is created if it is not there.
fn capture_topic(namespace: &Namespace, name: &str) -> Result<Arc<Topic>, TopicError> {
    let created = || {
        let spec = TopicSpec { partitions: 1, config: TopicConfig::new() };
        match namespace.create_topic(name, &spec) {
            Ok((topic, _)) => Ok(topic),
            // Created by another task meanwhile.
            Err(TopicError::Exists(_)) => {
                namespace.topic(name).ok_or_else(|| TopicError::Unknown(name.to_owned()))
            }
            Err(error) => Err(error),
        }
    };
    let topic = namespace.topic(name).map_or_else(created, Ok)?;
    match topic.kind() {
        TopicKind::Log => Ok(topic),
        TopicKind::Queue => Err(TopicError::BadName(name.to_owned(), "it is a queue")),
    }
}

/// The receivers found so far.
#[derive(Default)]
pub(crate) struct Found {
    /// Nothing is created; a capture is noted.
    is_preview: bool,
    /// The topic and key of the capture that applies, in a preview.
    pub(crate) captured: Option<(String, Bytes)>,
    pub(crate) set: ReceiverSet,
    /// Queues to add to the set, some of them more than once.
    queues: SmallVec<[Arc<Queue>; 4]>,
    pub(crate) formatted: SmallVec<[Arc<ReceiverSet>; 1]>,
    /// Inboxes with their ids, once for each of their bindings that matches, and whether that one is guaranteed.
    pub(crate) inboxes: Vec<(u64, Arc<dyn Inbox>, bool)>,
    visited: Visited,
    /// Address of the exchange that the message is published to.
    entry: Option<usize>,
    receivers: usize,
    key: Option<Bytes>,
    /// See [`Route::readers`].
    readers: Option<(Arc<Permissions>, u64)>,
    /// See [`Route::lacks_capture`].
    lacks_capture: bool,
    /// See [`Route::passed_on`].
    passed_on: bool,
    /// See [`Route::tombstones`].
    tombstones: Option<StreamId>,
    /// See [`Route::is_cut`].
    is_cut: bool,
    /// See [`Noted::histories`].
    histories: Vec<Arc<History>>,
    /// See [`Noted::first_seen`].
    first_seen: Vec<FirstSeen>,
    /// See [`Route::repeats`].
    repeats: Option<Completion>,
    /// See [`Route::is_traced`].
    is_traced: bool,
}

/// The exchanges visited, by their addresses.
#[derive(Default)]
struct Visited {
    few: SmallVec<[usize; 4]>,
    more: FxHashSet<usize>,
}

impl Visited {
    /// Adds an exchange; false if it was visited.
    fn add(&mut self, exchange: &Arc<Exchange>) -> bool {
        let here = Arc::as_ptr(exchange).addr();
        if self.few.contains(&here) {
            return false;
        }
        if self.few.len() < FEW_VISITED {
            self.few.push(here);
            return true;
        }
        self.more.insert(here)
    }

    fn len(&self) -> usize {
        self.few.len() + self.more.len()
    }
}

/// Exchanges to visit.
type Exchanges = SmallVec<[Arc<Exchange>; 4]>;

impl Found {
    /// Nothing yet, in a namespace that may be traced.
    fn of(namespace: &Namespace) -> Found {
        Found { is_traced: namespace.is_traced(), ..Found::default() }
    }

    /// Adds the target of a binding; an exchange is put on the list of those to visit.
    fn add_target(&mut self, target: &RouteTarget, publish: &Publish<'_>, next: &mut Exchanges) {
        match target {
            // Bindings that match are often of one queue.
            RouteTarget::Queue(queue) if self.queues.last().is_some_and(|last| Arc::ptr_eq(last, queue)) => {}
            RouteTarget::Queue(queue) => self.queues.push(queue.clone()),
            RouteTarget::Exchange(exchange) => next.push(exchange.clone()),
            RouteTarget::Inbox { inbox, guaranteed, no_local } => {
                if let Some(inbox) = inbox.upgrade()
                    && inbox.is_open()
                    && !(*no_local && publish.by.session == Some(inbox.id()))
                {
                    self.inboxes.push((inbox.id(), inbox, *guaranteed));
                }
            }
        }
    }

    /// Whether an exchange that remembers messages passes this one on.
    fn is_new(&mut self, seen: &Arc<Seen>, namespace: &Namespace, publish: &Publish<'_>) -> bool {
        let now_ms = namespace.clock().steady_ms();
        let first = match publish.lookup.and_then(|headers| seen.look(headers, now_ms)) {
            None => return true,
            Some(Ok(first)) if publish.unflushed.is_some_and(|batch| batch.remembers(&first)) => {
                // It waits for the same flush.
                self.repeats.get_or_insert_default();
                return false;
            }
            Some(Ok(first)) => first,
            Some(Err(stored)) => {
                self.repeats = Some(self.repeats.unwrap_or_default().and(stored));
                return false;
            }
        };
        self.first_seen.push(first);
        true
    }

    /// Whether one of the clients that declared a binding may read a topic.
    fn may_read(&mut self, topic: &Topic, readers: &Readers) -> bool {
        let clients = readers.clients();
        clients.is_empty()
            || clients.iter().any(|client| {
                // Read before the question: a change in between makes the route stale.
                let readers = self.readers.get_or_insert_with(|| (client.clone(), client.version()));
                readers.1 = readers.1.min(client.version());
                client.may(ResourceKind::Topic, topic.name(), Operation::Read)
            })
    }

    /// Removes a topic's partitions.
    fn leave_out(&mut self, topic: &Topic) {
        self.add_queues();
        topic.for_each_partition(|partition| {
            let stream = partition.stream().id();
            self.set.remove_stream(stream);
            self.formatted.retain(|set| !set.is_only(stream));
        });
    }

    /// Adds the queues that were found to the set, each once.
    fn add_queues(&mut self) {
        let mut queues = std::mem::take(&mut self.queues);
        receivers::in_order(&mut queues);
        self.receivers += queues.iter().filter(|queue| self.set.add_queue(queue)).count();
    }

    /// Adds a partition of a log topic; false if it is present.
    fn add_partition(&mut self, topic: &Topic, partition: &Partition) -> bool {
        let stream = partition.stream();
        let Some(format) = topic.format() else { return self.set.add_stream(stream) };
        let new = !self.formatted.iter().any(|set| set.is_only(stream.id()));
        if new {
            self.formatted.push(Arc::new(ReceiverSet::formatted(stream, format)));
        }
        new
    }

    fn finish(mut self, guaranteed: bool) -> Route {
        self.add_queues();
        // Each inbox once, guaranteed if one of its bindings is; sorted, as their receivers' ids most likely are.
        let mut inboxes = std::mem::take(&mut self.inboxes);
        inboxes.sort_unstable_by_key(|(id, ..)| *id);
        inboxes.dedup_by(|again, first| {
            let same = again.0 == first.0;
            first.2 |= same && again.2;
            same
        });
        for (_, inbox, is_guaranteed) in inboxes {
            self.receivers += 1;
            inbox.receive(is_guaranteed && guaranteed, &mut self.set);
        }
        let notes = !(self.histories.is_empty() && self.first_seen.is_empty());
        let noted =
            notes.then(|| Arc::new(Noted { histories: self.histories.into(), first_seen: self.first_seen }));
        Route {
            set: Arc::new(self.set),
            formatted: self.formatted,
            key: self.key,
            receivers: self.receivers,
            readers: self.readers,
            lacks_capture: self.lacks_capture,
            passed_on: self.passed_on,
            tombstones: self.tombstones,
            is_cut: self.is_cut,
            is_traced: self.is_traced,
            is_plain: !(self.lacks_capture || self.passed_on || self.is_cut || self.is_traced)
                && self.repeats.is_none()
                && noted.is_none(),
            repeats: self.repeats,
            noted,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;
    use crate::bindings::Binding;
    use crate::namespace::BindDestination;
    use crate::spec::{BrokerConfig, CaptureRule, ExchangeKind, ExchangeSpec, QueueSpec};
    use crate::value::{Arguments, Value};
    use crate::{Filter, testing};

    const PUBLISHER: PublisherId = PublisherId { origin: "test", session: Some(7) };

    fn exchange(namespace: &Namespace, name: &str, kind: ExchangeKind, alternate: Option<&str>) {
        let alternate = alternate.map(|to| ("alternate-exchange".to_owned(), Value::Text(to.into())));
        let arguments = alternate.into_iter().collect();
        let spec = ExchangeSpec { kind, durable: false, auto_delete: false, internal: false, arguments };
        namespace.declare_exchange(name, spec).unwrap();
    }

    fn queue(namespace: &Namespace, name: &str) -> Arc<Queue> {
        namespace.declare_queue(name, QueueSpec::default()).unwrap().it
    }

    fn bind(namespace: &Namespace, source: &str, to: BindDestination<'_>, key: &str) {
        let _ = namespace.bind(source, to, key.as_bytes(), &Arguments::new()).unwrap();
    }

    fn publish() -> Publish<'static> {
        Publish {
            guaranteed: true,
            by: &PUBLISHER,
            permissions: None,
            lookup: None,
            headers: Headers::default(),
            rights: Rights::ALL,
            unflushed: None,
        }
    }

    fn queues(route: &Route) -> Vec<&str> {
        let mut names: Vec<&str> = route.set.queues.iter().map(|q| q.name()).collect();
        names.sort_unstable();
        names
    }

    fn from(namespace: &Namespace, name: &str, key: &str) -> Route {
        let exchange = namespace.exchange(name).unwrap();
        from_exchange(namespace, &exchange, &[key.as_bytes()], &publish())
    }

    #[test]
    fn a_queue_that_several_paths_reach_receives_once() {
        let ns = testing::namespace(BrokerConfig::default());
        exchange(&ns, "a", ExchangeKind::Fanout, None);
        exchange(&ns, "b", ExchangeKind::Fanout, None);
        queue(&ns, "q");
        bind(&ns, "a", BindDestination::Queue("q"), "");
        bind(&ns, "a", BindDestination::Exchange("b"), "");
        bind(&ns, "b", BindDestination::Queue("q"), "");
        // A cycle of exchanges ends.
        bind(&ns, "b", BindDestination::Exchange("a"), "");
        let route = from(&ns, "a", "k");
        assert_eq!((queues(&route), route.receivers), (vec!["q"], 1));
    }

    /// A message that had to pass more than 256 exchanges was lost, and confirmed.
    #[test]
    fn a_chain_of_exchanges_is_followed_to_its_end_or_refused() {
        let ns = testing::namespace(BrokerConfig::default());
        queue(&ns, "q");
        bind(&ns, "amq.fanout", BindDestination::Queue("q"), "");
        let mut last = "amq.fanout".to_owned();
        let extend = |last: &mut String, to: usize| {
            for n in 0..to {
                let name = format!("{to}-{n}");
                exchange(&ns, &name, ExchangeKind::Fanout, None);
                bind(&ns, &name, BindDestination::Exchange(last), "");
                *last = name;
            }
        };
        extend(&mut last, 300);
        let route = from(&ns, &last, "k");
        assert_eq!((queues(&route), route.is_cut), (vec!["q"], false));
        extend(&mut last, EXCHANGES_VISITED_MAX);
        assert!(from(&ns, &last, "k").is_cut);
    }

    #[test]
    fn what_is_passed_on_to_the_hub_is_held_to_its_addresses() {
        let ns = testing::namespace(BrokerConfig::default());
        exchange(&ns, "x", ExchangeKind::Fanout, None);
        exchange(&ns, "y", ExchangeKind::Direct, Some(HUB));
        queue(&ns, "q");
        bind(&ns, "x", BindDestination::Exchange(HUB), "");
        bind(&ns, HUB, BindDestination::Queue("q"), "#");
        for source in ["x", "y"] {
            assert_eq!(queues(&from(&ns, source, "a.b")), ["q"]);
            assert_eq!(
                queues(&from(&ns, source, "$SYS.a")),
                [""; 0],
                "{source}: the server's own statistics"
            );
        }
    }

    #[test]
    fn queues_are_added_in_the_order_of_their_ids() {
        let ns = testing::namespace(BrokerConfig::default());
        exchange(&ns, "x", ExchangeKind::Fanout, None);
        for i in 0..1000 {
            let name = format!("q{i}");
            queue(&ns, &name);
            bind(&ns, "x", BindDestination::Queue(&name), "");
            bind(&ns, "x", BindDestination::Queue(&name), "again");
        }
        let route = from(&ns, "x", "k");
        assert_eq!((route.set.queues.len(), route.receivers), (1000, 1000));
        // Each is appended: the ids of all are never moved to make room for one.
        let ids: Vec<u64> = route.set.live.iter().map(|live| live.id()).collect();
        assert!(ids.is_sorted(), "{ids:?}");
    }

    #[test]
    fn the_alternate_exchange_receives_only_what_has_no_binding() {
        let ns = testing::namespace(BrokerConfig::default());
        exchange(&ns, "x", ExchangeKind::Direct, Some("other"));
        exchange(&ns, "other", ExchangeKind::Fanout, None);
        queue(&ns, "bound");
        queue(&ns, "unbound");
        bind(&ns, "x", BindDestination::Queue("bound"), "k");
        bind(&ns, "other", BindDestination::Queue("unbound"), "");
        assert_eq!(queues(&from(&ns, "x", "k")), ["bound"]);
        assert_eq!(queues(&from(&ns, "x", "other key")), ["unbound"]);
    }

    #[test]
    fn the_default_exchange_routes_by_queue_name() {
        let ns = testing::namespace(BrokerConfig::default());
        queue(&ns, "q");
        assert_eq!(queues(&to_queues(&ns, &[b"q", b"none", b"\xff"])), ["q"]);
    }

    #[test]
    fn an_address_reaches_its_topic_and_one_capture_but_not_the_topic_it_came_from() {
        let capture = CaptureRule {
            origin: None,
            filter: Filter::slashed(b"s/#"),
            topic: "captured".into(),
            key: "{1}".into(),
            tombstones: false,
            passes_on: false,
        };
        let ns = testing::namespace(BrokerConfig { captures: vec![capture], ..BrokerConfig::default() });
        let spec = TopicSpec { partitions: 1, config: TopicConfig::new() };
        let (topic, _) = ns.create_topic("s.a", &spec).unwrap();
        let address = Address::parse(Form::Slashed, b"s/a");
        let route = from_address(&ns, &address, &publish(), None);
        assert_eq!((route.set.log.len(), route.receivers), (2, 1), "the capture does not count");
        assert_eq!(route.key.as_deref(), Some(&b"a"[..]));
        assert!(ns.topic("captured").is_some(), "created on demand");
        let route = from_address(&ns, &address, &publish(), Some(&topic));
        assert_eq!(route.set.log.len(), 1);
    }

    /// Receives through a queue.
    struct QueueInbox(u64, Arc<Queue>);

    impl Inbox for QueueInbox {
        fn id(&self) -> u64 {
            self.0
        }

        fn is_open(&self) -> bool {
            true
        }

        fn name(&self) -> &str {
            self.1.name()
        }

        fn receive(&self, guaranteed: bool, set: &mut ReceiverSet) {
            if guaranteed {
                set.add_queue(&self.1);
            }
        }
    }

    fn subscribe(namespace: &Namespace, inbox: &Arc<QueueInbox>, filter: &str, guaranteed: bool) {
        let weak: Weak<QueueInbox> = Arc::downgrade(inbox);
        namespace.hub().rebind(Binding {
            target: RouteTarget::Inbox { inbox: weak, guaranteed, no_local: true },
            key: filter.as_bytes().into(),
            slashed: true,
            declared: None,
        });
    }

    #[test]
    fn an_inbox_receives_once_guaranteed_and_not_its_own_publishes() {
        let ns = testing::namespace(BrokerConfig::default());
        let own = Arc::new(QueueInbox(7, queue(&ns, "own")));
        let other = Arc::new(QueueInbox(8, queue(&ns, "other")));
        for inbox in [&own, &other] {
            subscribe(&ns, inbox, "a/+", true);
            subscribe(&ns, inbox, "a/b", false);
        }
        let address = Address::parse(Form::Slashed, b"a/b");
        let route = from_address(&ns, &address, &publish(), None);
        assert_eq!((queues(&route), route.receivers), (vec!["other"], 1));
        drop(other);
        assert!(from_address(&ns, &address, &publish(), None).set.is_empty(), "bindings keep no inbox alive");
    }
}
