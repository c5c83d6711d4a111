//! Publishing single messages: one publisher for each connection (or transaction).
//!
//! Owns a write batch that becomes visible as one entry, whole or absent, with [`Publisher::flush`], and a cache of
//! routes that is valid until the topology changes, so that a publish to a known address costs a look-up and a copy.
//! Does not own routing, or what a queue does at its limits.

mod later;
#[cfg(test)]
mod tests;
mod traced;

use std::sync::Arc;

use bytes::Bytes;
use inver_access::{Operation, ResourceKind};
use inver_storage::batch::{BatchBuilder, records};
use inver_storage::{Entry, SubmitError};
use rustc_hash::FxHashMap;

use crate::access::Permissions;
use crate::address::{Address, Form, is_reserved, rewrite};
use crate::completion::Completion;
use crate::exchange::{Exchange, Inbox};
use crate::fan_out::FanOut;
use crate::history::History;
use crate::limit_checks::{LimitChecks, Refusals};
use crate::limits::LimitReached;
use crate::message::{Headers, Message, Rights, StoredLookup, expires_ms};
use crate::namespace::Namespace;
use crate::queue::Queue;
use crate::receivers::ReceiverSet;
use crate::router::{self, Publish, Route};
use crate::seeded_bugs::{Bug, is_seeded};
use crate::spec::{DeliveryId, ExchangeKind, HUB, PublisherId};
use crate::subscription::Consumer;
use crate::write_batch::WriteBatch;

/// Routes that a publisher caches; beyond it, one makes room for the next.
const ROUTES_MAX: usize = 16 * 1024;

/// The name of the default exchange in permissions.
pub const DEFAULT_EXCHANGE: &str = "amq.default";

/// What looking a route up costs, in messages with one receiver.
const ROUTE_COST: usize = 20;

/// The destination of a message.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    /// An exchange by name; the empty name is the default exchange, whose routing keys are queue names.
    Exchange {
        /// The exchange's name.
        name: &'a str,
        /// The routing key.
        routing_key: &'a [u8],
        /// More routing keys: every exchange on the path matches them all, and each receiver gets the message once.
        more_keys: &'a [&'a [u8]],
    },
    /// An address of the hub in its slashed form.
    Hub(&'a [u8]),
    /// The inbox of one session; see [`Session::target`](crate::Session::target).
    Inbox(InboxTarget<'a>),
}

/// The inbox of a session as a destination.
#[derive(Clone, Copy)]
pub struct InboxTarget<'a>(pub(crate) &'a dyn Inbox);

/// The outcome of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed {
    /// Receivers, captures not counted.
    pub destinations: usize,
    /// A full queue or a full namespace refused the message, the topic of its capture rule cannot be created, or more
    /// exchanges lead on than one publish may visit.
    pub refused: bool,
    /// It was refused by some destinations, and others have it, or receivers of a dead-letter exchange of those.
    pub is_split: bool,
}

/// Why a publish was rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No exchange has that name.
    #[error("no exchange '{0}'")]
    NoSuchExchange(String),
    /// The exchange does not take publishes of clients.
    #[error("exchange '{0}' is internal")]
    Internal(String),
    /// The publisher may not write to the exchange.
    #[error("no permission to write to exchange '{0}'")]
    Refused(String),
    /// The publisher may not write to the exchange with this routing key, or to this address of the hub.
    #[error("no permission to write to '{routing_key}' in exchange '{exchange}'")]
    KeyRefused {
        /// The exchange's name.
        exchange: String,
        /// The routing key.
        routing_key: String,
    },
    /// The address or the routing key is too long.
    #[error(transparent)]
    TooLong(#[from] LimitReached),
    /// The log rejected the write; nothing of the write batch is kept.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
}

/// A publisher.
pub struct Publisher {
    namespace: Namespace,
    id: PublisherId,
    /// What the client may do; none for publishes of the broker itself, which may do everything.
    permissions: Option<Arc<Permissions>>,
    /// Small enough for a hash that a client could predict.
    routes: FxHashMap<Box<[u8]>, Arc<Route>>,
    /// The version of the topology that the routes hold for.
    routes_version: u64,
    /// The version of the permissions by which the publishes of these routes were allowed.
    permissions_version: u64,
    write_batch: WriteBatch,
    /// What was flushed and is not delivered to all receivers yet.
    fan_out: Option<Box<FanOut>>,
    /// It publishes the dead letter of a message that a full queue refused: so many more may come of it.
    pub(crate) nested_letters: Option<u8>,
    /// When what queues refused since the last flush is in the queues of their dead-letter exchanges, and what was left out
    /// because it repeats another message is stored.
    dead_letters: Completion,
    entry: Entry,
    retained: Vec<Retain>,
    checks: LimitChecks,
    single: BatchBuilder,
    scratch: Vec<u8>,
    /// What the messages of the turn cost; see [`Publisher::cost`].
    cost: usize,
    /// Messages since the last flush, for the counters.
    published: u64,
    unroutable: u64,
    /// Its messages are stored already: they only move, whatever the limit of stored bytes.
    is_exempt: bool,
    /// It publishes what the broker itself has to say: at addresses where no client may.
    is_servers: bool,
    /// It publishes what was delayed already.
    is_delivering: bool,
    /// What it may do beyond its targets, as far as permissions allow.
    rights: Rights,
    /// Spans of sampled messages since the last flush.
    spans: traced::Spans,
    /// The queues of the last message, if it was traced.
    traced: Option<Vec<String>>,
}

/// What is special about a publish.
#[derive(Clone, Copy, Default)]
struct How<'a> {
    /// Queues that do not get it.
    except: &'a [&'a str],
    /// It clears a retained value.
    clears: bool,
    /// If a queue refuses it, no receiver gets it.
    to_all: bool,
}

/// Where a message goes, or after which delay, milliseconds.
enum Routing {
    Now(Arc<Route>),
    Later(i64),
}

/// A message that sets or clears the retained value of its address with the next flush.
struct Retain {
    address: Vec<u8>,
    /// A batch of it alone.
    batch: Bytes,
    clears: bool,
    guaranteed: bool,
    /// The receivers when it was published, and the version of the topology then.
    routed_to: Arc<ReceiverSet>,
    version: u64,
}

impl Publisher {
    /// A publisher with an empty write batch.
    #[must_use]
    pub fn new(namespace: Namespace, id: PublisherId) -> Publisher {
        Publisher {
            namespace,
            id,
            permissions: None,
            routes: FxHashMap::default(),
            routes_version: 0,
            permissions_version: 0,
            write_batch: WriteBatch::default(),
            fan_out: None,
            nested_letters: None,
            dead_letters: Completion::Now,
            entry: Entry::new(),
            retained: Vec::new(),
            checks: LimitChecks::default(),
            single: BatchBuilder::new(0),
            scratch: Vec::new(),
            cost: 0,
            published: 0,
            unroutable: 0,
            is_exempt: false,
            is_servers: false,
            is_delivering: false,
            rights: Rights::ALL,
            spans: Vec::new(),
            traced: None,
        }
    }

    /// A publisher of what the broker itself has to say, at addresses where no client may publish too.
    #[must_use]
    pub fn of_server(namespace: Namespace, id: PublisherId) -> Publisher {
        Publisher { is_servers: true, ..Publisher::new(namespace, id) }
    }

    /// With the permissions of a client: publishes that they do not allow are refused, and through the hub a log topic
    /// is appended to only with permission to write to it.
    #[must_use]
    pub fn with_permissions(self, permissions: Arc<Permissions>) -> Publisher {
        Publisher { permissions: Some(permissions), ..self }
    }

    /// Whether the permissions allow a publish, and the exchange takes it.
    pub fn check(&self, to: Target<'_>) -> Result<(), PublishError> {
        match to {
            Target::Inbox(_) => Ok(()),
            Target::Hub(address) => self.check_address(address),
            Target::Exchange { name, routing_key, more_keys } => {
                self.check_exchange(name)?;
                let exchange = self.exchange(name)?;
                let mut keys = std::iter::once(routing_key).chain(more_keys.iter().copied());
                exchange.map_or(Ok(()), |exchange| keys.try_for_each(|key| self.check_key(&exchange, key)))
            }
        }
    }

    /// A publisher of messages that are stored already.
    pub(crate) fn of_stored(namespace: Namespace) -> Publisher {
        Publisher { is_exempt: true, ..Publisher::new(namespace, PublisherId::default()) }
    }

    /// A publisher of delayed messages that are due, of clients of a protocol with these rights.
    pub(crate) fn of_due(namespace: Namespace, origin: &'static str, rights: Rights) -> Publisher {
        let id = PublisherId { origin, session: None };
        Publisher { is_exempt: true, is_delivering: true, rights, ..Publisher::new(namespace, id) }
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Routes a message and copies it into the write batch.
    #[inline]
    pub fn publish(&mut self, to: Target<'_>, message: &Message<'_>) -> Result<Routed, PublishError> {
        self.publish_as(to, message, How::default())
    }

    /// The names of the queues that the message published last was routed to, if it was published to an exchange and
    /// [the namespace is traced](Namespace::set_traced).
    pub fn take_traced(&mut self) -> Option<Vec<String>> {
        self.traced.take()
    }

    /// Publishes a message at an address of the hub that sets (or, with an empty or null value, clears) the retained value of
    /// the address. The second result says whether it can be retained: it is published all the same. A message that is
    /// refused, be it by one queue only, leaves the retained value as it is.
    pub fn publish_retained(
        &mut self,
        address: &[u8],
        message: &Message<'_>,
    ) -> Result<(Routed, Result<(), LimitReached>), PublishError> {
        let before = self.retained.len();
        let retained = self.retain(address, message);
        let clears = message.value.is_none_or(<[u8]>::is_empty);
        let routed = self.publish_as(Target::Hub(address), message, How { clears, ..How::default() });
        if routed.as_ref().map_or(true, |routed| routed.refused) {
            self.retained.truncate(before);
        }
        Ok((routed?, retained))
    }

    /// As [`publish`](Self::publish), but not to the queues of these names. With `to_all`, no receiver gets a message that a
    /// queue refuses.
    #[inline]
    pub(crate) fn publish_letter(
        &mut self,
        to: Target<'_>,
        message: &Message<'_>,
        except: &[&str],
        to_all: bool,
    ) -> Result<Routed, PublishError> {
        self.publish_as(to, message, How { except, to_all, ..How::default() })
    }

    #[inline]
    fn publish_as(
        &mut self,
        to: Target<'_>,
        message: &Message<'_>,
        how: How<'_>,
    ) -> Result<Routed, PublishError> {
        match self.namespace.traces().tracer().cloned() {
            None => self.route_message(to, message, how),
            Some(tracer) => self.publish_traced(&tracer, to, message, how),
        }
    }

    fn route_message(
        &mut self,
        to: Target<'_>,
        message: &Message<'_>,
        how: How<'_>,
    ) -> Result<Routed, PublishError> {
        let How { except, clears, to_all } = how;
        let mut route = match to {
            Target::Inbox(InboxTarget(inbox)) => Arc::new(router::to_inbox(inbox, message.guaranteed)),
            Target::Hub(address) => match self.cached(HUB, b'/', address, message.guaranteed) {
                Some(route) => route,
                None => {
                    self.check_address(address)?;
                    self.new_hub_route(address, message)
                }
            },
            Target::Exchange { name, routing_key, more_keys: [] } => {
                match self.route(name, routing_key, message)? {
                    Routing::Now(route) => route,
                    Routing::Later(delay_ms) => return self.put_later(to, message, delay_ms, false),
                }
            }
            // Rare, and the routes many: not cached.
            Target::Exchange { name, routing_key, more_keys } => {
                let keys: Vec<&[u8]> =
                    std::iter::once(routing_key).chain(more_keys.iter().copied()).collect();
                self.cost += ROUTE_COST * keys.len();
                self.check(to)?;
                let exchange = self.exchange(name)?;
                if let Some(delay_ms) = exchange.as_ref().and_then(|e| self.delay_of(e.spec(), message)) {
                    return self.put_later(to, message, delay_ms, false);
                }
                let stored = self.stored_lookup(message);
                let publish = self.publish_of(message, &stored);
                Arc::new(match exchange {
                    None => router::to_queues(&self.namespace, &keys),
                    Some(e) => router::from_exchange(&self.namespace, &e, &keys, &publish),
                })
            }
        };
        if self.is_exempt || matches!(to, Target::Exchange { more_keys: [_, ..], .. }) {
            route.set.live.iter().for_each(|queue| queue.note_other_addresses());
        }
        if !self.is_exempt && self.namespace.is_full() && route.is_stored() {
            return Ok(Routed { destinations: route.receivers, refused: true, is_split: false });
        }
        if !route.is_plain && self.is_refused_on_the_way(&route, message) {
            return Ok(Routed { destinations: route.receivers, refused: true, is_split: false });
        }
        let mut accepting = None;
        // A dead letter that repeats one is done with.
        let mut destinations = route.receivers + usize::from(to_all && route.repeats.is_some());
        if !except.is_empty() {
            let is_left_out = |queue: &&Arc<Queue>| except.contains(&queue.name());
            let left_out: Vec<Arc<Queue>> = route.set.queues.iter().filter(is_left_out).cloned().collect();
            if !left_out.is_empty() {
                destinations = destinations.saturating_sub(left_out.len());
                route = Arc::new(Route { set: Arc::new(route.set.without(&left_out)), ..(*route).clone() });
            }
        }
        let (mut is_refused, mut is_dead_lettered) = (route.lacks_capture, false);
        if LimitChecks::are_needed(&route.set, message) {
            let Refusals { by: refusing, dead_lettered } =
                self.checks.apply(&self.write_batch, &route.set, message, to_all, &mut self.nested_letters);
            if let Some(completion) = dead_lettered {
                is_dead_lettered = true;
                self.dead_letters = self.dead_letters.and(completion);
            }
            if !refusing.is_empty() {
                if to_all {
                    return Ok(Routed { destinations, refused: true, is_split: false });
                }
                accepting = Some(Arc::new(route.set.without(&refusing)));
                is_refused = true;
            }
        }
        let set = accepting.as_ref().unwrap_or(&route.set);
        let mut taken = self.write_to(set, &route, message, clears);
        for set in &route.formatted {
            taken |= self.write_to(set, &route, message, clears);
        }
        if let Some(noted) = &route.noted {
            // With `to_all`, what nobody has stays where it was, and is published again.
            if taken || !(is_refused || to_all) {
                self.keep(&noted.histories, message);
            }
            // What a queue refused is to be sent again.
            if taken && !is_refused {
                noted.first_seen.iter().for_each(|first| self.write_batch.remember(first));
            }
        }
        self.published += 1;
        self.cost += route.receivers + 1;
        self.unroutable += u64::from(!taken);
        Ok(Routed { destinations, refused: is_refused, is_split: is_refused && (taken || is_dead_lettered) })
    }

    /// Copies a message into the write batch for these receivers of its route. Whether there are any.
    #[inline]
    fn write_to(
        &mut self,
        set: &Arc<ReceiverSet>,
        route: &Route,
        message: &Message<'_>,
        clears: bool,
    ) -> bool {
        if set.is_empty() {
            return false;
        }
        match route.tombstones.filter(|_| clears).and_then(|stream| set.split(stream)) {
            None => self.write_batch.add(set, route.key.as_deref(), message),
            Some((captured, others)) => {
                let tombstone = Message { value: None, ..*message };
                self.write_batch.add(&Arc::new(captured), route.key.as_deref(), &tombstone);
                if !others.is_empty() {
                    self.write_batch.add(&Arc::new(others), route.key.as_deref(), message);
                }
            }
        }
        true
    }

    /// Whether what is special about a route refuses a message. Counts what captures make of it, and notes its queues where
    /// it is traced.
    #[cold]
    fn is_refused_on_the_way(&mut self, route: &Route, message: &Message<'_>) -> bool {
        if route.is_cut {
            return true;
        }
        if route.is_traced && !self.is_servers && !self.is_exempt {
            self.traced = Some(route.set.queues.iter().map(|queue| queue.name().to_owned()).collect());
        }
        if let Some(stored) = route.repeats {
            self.dead_letters = self.dead_letters.and(stored);
        }
        if route.passed_on {
            self.namespace.counters().capture_passed_on.increment(1);
        }
        if route.lacks_capture {
            self.namespace.counters().capture_refused.increment(1);
        }
        route.lacks_capture && message.guaranteed
    }

    /// Sets (or, with an empty or null value, clears) the retained value of an address, with the write batch. Does nothing
    /// at an address where the client may not publish.
    pub fn retain(&mut self, address: &[u8], message: &Message<'_>) -> Result<(), LimitReached> {
        let Message { timestamp_ms, key, headers, value, guaranteed, .. } = message;
        self.single.push_with(*timestamp_ms, *key, headers.count as usize, headers.bytes, *value);
        let batch = self.single.finish().bytes().clone();
        let clears = value.is_none_or(<[u8]>::is_empty);
        if !clears {
            self.namespace.check_room()?;
            self.namespace.retained().room_for(address, batch.len(), &self.namespace.limits())?;
        }
        let version = self.namespace.version();
        if self.cached(HUB, b'/', address, message.guaranteed).is_none()
            && self.check_address(address).is_err()
        {
            return Ok(());
        }
        let routed_to = self.hub_route(address, message).set.clone();
        let guaranteed = *guaranteed;
        let address = address.to_vec();
        self.retained.push(Retain { address, batch, clears, guaranteed, routed_to, version });
        Ok(())
    }

    /// Adds parts that must be atomic with the write batch: state, acknowledgements.
    pub fn attach(&mut self, parts: impl FnOnce(&mut Entry)) {
        parts(&mut self.entry);
    }

    /// Acknowledges together with the write batch.
    pub fn attach_ack(&mut self, consumer: &Consumer, ids: &[DeliveryId]) {
        consumer.ack_in(ids, &mut self.entry);
    }

    /// Bytes in the write batch: a connection flushes when they are many.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.write_batch.bytes()
    }

    /// Counts the cost of messages from 0 again.
    pub fn begin_turn(&mut self) {
        self.cost = 0;
        self.traced = None;
    }

    /// What the messages of the turn cost: about one for each message and each of its receivers, and [`ROUTE_COST`] for a
    /// route that was not cached.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.cost
    }

    /// Whether there is nothing to flush.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.write_batch.is_empty()
            && self.entry.is_empty()
            && self.retained.is_empty()
            && self.spans.is_empty()
            && self.dead_letters == Completion::Now
    }

    /// Discards everything since the last flush.
    pub fn discard(&mut self) {
        self.write_batch.clear();
        self.entry = Entry::new();
        self.retained.clear();
        self.spans.clear();
        self.dead_letters = Completion::Now;
        self.checks.discard();
    }

    /// Submits everything since the last flush as one entry. Guaranteed messages may be acknowledged once the completion
    /// is reached.
    pub fn flush(&mut self) -> Result<Completion, PublishError> {
        self.flush_checked(false)
    }

    /// As [`flush`](Self::flush), but what goes to very many receivers in memory is delivered in slices: while
    /// [`has_more_to_deliver`](Self::has_more_to_deliver), [`deliver_slice`](Self::deliver_slice) goes on with it, and nothing is
    /// acknowledged. A flush before that delivers what is left.
    pub fn flush_in_slices(&mut self) -> Result<Completion, PublishError> {
        self.flush_checked(true)
    }

    fn flush_checked(&mut self, in_slices: bool) -> Result<Completion, PublishError> {
        let queues = self.checks.queues();
        let bounded: Vec<Arc<Queue>> = queues.filter(|queue| queue.reads_what_it_drops()).cloned().collect();
        // Checks of queues with limits must find the messages there.
        let completion = self.flush_as(in_slices && self.checks.is_empty())?;
        // A publisher that is faster than the periodic check takes its part in it.
        bounded.iter().for_each(|queue| queue.drop_over_length());
        Ok(completion)
    }

    /// Whether messages that were flushed are still on their way to their receivers.
    #[must_use]
    pub fn has_more_to_deliver(&self) -> bool {
        self.fan_out.is_some()
    }

    /// Delivers a slice of what was flushed. Whether there was anything to deliver.
    pub fn deliver_slice(&mut self) -> bool {
        let Some(fan_out) = &mut self.fan_out else { return false };
        if !fan_out.deliver_slice() {
            self.fan_out = None;
        }
        true
    }

    pub(crate) fn flush_batch(&mut self) -> Result<Completion, SubmitError> {
        self.flush_as(false)
    }

    fn flush_as(&mut self, in_slices: bool) -> Result<Completion, SubmitError> {
        while self.deliver_slice() {}
        let counters = self.namespace.counters();
        counters.published.increment(std::mem::take(&mut self.published));
        counters.unroutable.increment(std::mem::take(&mut self.unroutable));
        if self.is_empty() {
            self.checks.clear();
            return Ok(Completion::Now);
        }
        let dead_letters = std::mem::take(&mut self.dead_letters);
        let flushed = self.submit(in_slices).map(|completion| completion.and(dead_letters));
        self.checks.schedule(flushed.is_ok());
        if !self.spans.is_empty() {
            self.send_spans(&flushed.as_ref().copied().map_err(ToString::to_string));
        }
        flushed
    }

    fn submit(&mut self, in_slices: bool) -> Result<Completion, SubmitError> {
        let mut entry = std::mem::take(&mut self.entry);
        if self.retained.is_empty() {
            let completion = self.write_batch.submit(self.namespace.log(), entry)?;
            self.fan_out = if in_slices { self.write_batch.fan_out().map(Box::new) } else { None };
            self.write_batch.deliver();
            return Ok(completion);
        }
        // Delivered at once: in the order in which values are retained.
        let values = std::mem::take(&mut self.retained);
        let namespace = self.namespace.clone();
        let retained = namespace.retained();
        let _order = retained.in_order();
        values.iter().for_each(|value| self.deliver_to_late_subscribers(value));
        let changes = values.into_iter().map(|value| (value.address, (!value.clears).then_some(value.batch)));
        let changes: Vec<_> = changes.collect();
        if !is_seeded(Bug::ForgetRetained) {
            retained.put_in(&changes, &mut entry);
        }
        let completion = self.write_batch.flush(namespace.log(), entry)?;
        retained.apply(changes);
        Ok(completion)
    }

    /// A client that subscribes between routing and the retained store would miss the message both ways: it is
    /// delivered here. Called in the order of retained values, so that a later subscriber scans after the store.
    fn deliver_to_late_subscribers(&mut self, value: &Retain) {
        if value.version == self.namespace.version() {
            return;
        }
        let Some(Ok(record)) = records(&value.batch).ok().and_then(|mut records| records.next()) else {
            return;
        };
        let headers =
            Headers { count: record.header_count, bytes: &record.headers, expires_ms: expires_ms(&record) };
        let message = Message {
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers,
            guaranteed: value.guaranteed,
            lookup: None,
        };
        // Not remembered: the permissions may have changed since it was accepted.
        let address = Address::parse(Form::Slashed, &value.address);
        let stored = self.stored_lookup(&message);
        let publish = self.publish_of(&message, &stored);
        let route = router::from_address(&self.namespace, &address, &publish, None);
        let late = route.set.beyond(&value.routed_to);
        if !late.is_empty() {
            self.write_batch.add(&Arc::new(late), None, &message);
        }
    }

    fn hub_route(&mut self, slashed: &[u8], message: &Message<'_>) -> Arc<Route> {
        if let Some(route) = self.cached(HUB, b'/', slashed, message.guaranteed) {
            return route;
        }
        self.new_hub_route(slashed, message)
    }

    /// Routes from an address whose key is in `scratch`.
    fn new_hub_route(&mut self, slashed: &[u8], message: &Message<'_>) -> Arc<Route> {
        self.cost += ROUTE_COST;
        let address = Address::parse(Form::Slashed, slashed);
        let stored = self.stored_lookup(message);
        let publish = self.publish_of(message, &stored);
        let route = router::from_address(&self.namespace, &address, &publish, None);
        // A route that depends on headers is not cached: they are not part of its key.
        if self.namespace.routes_by_key(&self.namespace.hub()) { self.cache(route) } else { Arc::new(route) }
    }

    fn route(
        &mut self,
        name: &str,
        routing_key: &[u8],
        message: &Message<'_>,
    ) -> Result<Routing, PublishError> {
        // Before the look-up of the exchange: it exists as long as the version holds.
        if let Some(route) = self.cached(name, b'.', routing_key, message.guaranteed) {
            return Ok(Routing::Now(route));
        }
        self.cost += ROUTE_COST;
        self.check_exchange(name)?;
        let Some(exchange) = self.exchange(name)? else {
            return Ok(Routing::Now(self.cache(router::to_queues(&self.namespace, &[routing_key]))));
        };
        self.check_key(&exchange, routing_key)?;
        if let Some(delay_ms) = self.delay_of(exchange.spec(), message) {
            return Ok(Routing::Later(delay_ms));
        }
        let stored = self.stored_lookup(message);
        let publish = self.publish_of(message, &stored);
        let route = router::from_exchange(&self.namespace, &exchange, &[routing_key], &publish);
        // A route that depends on headers is not cached: they are not part of its key.
        let is_cached = self.namespace.routes_by_key(&exchange);
        Ok(Routing::Now(if is_cached { self.cache(route) } else { Arc::new(route) }))
    }

    /// The permissions, if they restrict the client.
    fn restricting(&self) -> Option<&Permissions> {
        self.permissions.as_deref().filter(|permissions| !permissions.is_unrestricted())
    }

    fn check_exchange(&self, name: &str) -> Result<(), PublishError> {
        let Some(permissions) = self.restricting() else { return Ok(()) };
        let name = if name.is_empty() { DEFAULT_EXCHANGE } else { name };
        if permissions.may(ResourceKind::Exchange, name, Operation::Write) {
            return Ok(());
        }
        Err(PublishError::Refused(name.to_owned()))
    }

    fn check_key(&self, exchange: &Exchange, routing_key: &[u8]) -> Result<(), PublishError> {
        self.namespace.limits().check_address(b'.', routing_key)?;
        if exchange.name() == HUB && is_reserved(&rewrite(Form::Dotted, Form::Slashed, routing_key)) {
            let routing_key = String::from_utf8_lossy(routing_key).into_owned();
            return Err(PublishError::KeyRefused { exchange: HUB.to_owned(), routing_key });
        }
        let Some(permissions) = self.restricting() else { return Ok(()) };
        if exchange.spec().kind != ExchangeKind::Topic {
            return Ok(());
        }
        let key = String::from_utf8_lossy(routing_key);
        let is_allowed = permissions.may_key(exchange.name(), &key, Operation::Write)
            && (exchange.name() != HUB || {
                let address = rewrite(Form::Dotted, Form::Slashed, routing_key);
                may_write_address(permissions, &address)
            });
        if is_allowed {
            return Ok(());
        }
        Err(PublishError::KeyRefused { exchange: exchange.name().to_owned(), routing_key: key.into_owned() })
    }

    fn check_address(&self, slashed: &[u8]) -> Result<(), PublishError> {
        self.namespace.limits().check_address(b'/', slashed)?;
        match self.restricting() {
            Some(permissions) if !may_write_address(permissions, slashed) => {}
            _ if is_reserved(slashed) && !self.is_servers => {}
            _ => return Ok(()),
        }
        Err(PublishError::KeyRefused {
            exchange: HUB.to_owned(),
            routing_key: String::from_utf8_lossy(slashed).into_owned(),
        })
    }

    /// The exchange, which must accept publishes of clients; none for the default one.
    fn exchange(&self, name: &str) -> Result<Option<Arc<Exchange>>, PublishError> {
        if name.is_empty() {
            return Ok(None);
        }
        match self.namespace.exchange(name) {
            // What the broker publishes itself is not a client's.
            Some(exchange) if exchange.spec().internal && !self.is_exempt && !self.is_servers => {
                Err(PublishError::Internal(name.to_owned()))
            }
            Some(exchange) => Ok(Some(exchange)),
            None => Err(PublishError::NoSuchExchange(name.to_owned())),
        }
    }

    /// The headers of a message as they are stored, for one whose protocol does not look them up itself.
    fn stored_lookup<'a>(&self, message: &Message<'a>) -> StoredLookup<'a> {
        StoredLookup::new(message.headers, self.namespace.stored_headers())
    }

    /// Keeps a message, with the write batch, for queues that are bound later to the exchanges on its way that do so.
    #[cold]
    fn keep(&mut self, histories: &Arc<[Arc<History>]>, message: &Message<'_>) {
        if histories.is_empty() {
            return;
        }
        let stored = self.stored_lookup(message);
        let bytes_max = self.namespace.limits().exchange_history_bytes_max;
        if let Some(copy) = History::copy(message, message.lookup.unwrap_or(&stored), bytes_max) {
            self.cost += histories.len();
            self.write_batch.keep(histories, copy, bytes_max);
        }
    }

    fn publish_of<'a>(&'a self, message: &'a Message<'_>, stored: &'a StoredLookup<'_>) -> Publish<'a> {
        Publish {
            guaranteed: message.guaranteed,
            by: &self.id,
            permissions: self.restricting(),
            lookup: Some(message.lookup.unwrap_or(stored)),
            headers: message.headers,
            rights: self.rights,
            unflushed: Some(&self.write_batch),
        }
    }

    /// The cached route of this key, which is left in `scratch`. Clears the cache when the topology changed.
    fn cached(&mut self, exchange: &str, form: u8, key: &[u8], guaranteed: bool) -> Option<Arc<Route>> {
        let version = self.namespace.version();
        let permissions_version = self.permissions.as_ref().map_or(0, |permissions| permissions.version());
        if (self.routes_version, self.permissions_version) != (version, permissions_version)
            && !is_seeded(Bug::RouteFromCache)
        {
            self.routes.clear();
            self.routes_version = version;
            self.permissions_version = permissions_version;
        }
        self.scratch.clear();
        self.scratch.push(u8::from(guaranteed));
        self.scratch.push(form);
        self.scratch.extend_from_slice(exchange.as_bytes());
        self.scratch.push(0);
        self.scratch.extend_from_slice(key);
        self.routes.get(self.scratch.as_slice()).cloned()
    }

    /// Caches a route for the key in `scratch`.
    fn cache(&mut self, route: Route) -> Arc<Route> {
        let route = Arc::new(route);
        // The capture's topic can be created as soon as a limit allows it.
        if route.lacks_capture || route.passed_on {
            return route;
        }
        if self.routes.len() >= ROUTES_MAX
            && let Some(some) = self.routes.keys().next().cloned()
        {
            self.routes.remove(&some);
        }
        self.routes.insert(self.scratch.as_slice().into(), route.clone());
        route
    }
}

fn may_write_address(permissions: &Permissions, slashed: &[u8]) -> bool {
    permissions.may(ResourceKind::Address, &String::from_utf8_lossy(slashed), Operation::Write)
}
