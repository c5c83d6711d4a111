//! The way in for messages: one publisher a connection (or a transaction).
//!
//! Routes are remembered until the topology changes, so a publish to a known address costs a look-up and a
//! copy. Nothing is visible before [`Publisher::flush`], which hands the whole burst over as one entry.

use std::sync::Arc;

use bytes::Bytes;
use inver_storage::batch::{BatchBuilder, records};
use inver_storage::{Entry, Lsn, SubmitError};
use rustc_hash::FxHashMap;

use crate::address::{Address, Form};
use crate::exchange::Exchange;
use crate::limits::LimitReached;
use crate::message::{Headers, Message, expires_ms};
use crate::namespace::Namespace;
use crate::queue::Queue;
use crate::router::{Publish, ReceiverSet, Route};
use crate::session::Session;
use crate::spec::{DeliveryId, HUB, Overflow, PublisherId};
use crate::subscription::Consumer;
use crate::write_batch::WriteBatch;

/// Routes that a publisher remembers; beyond, one makes room for the next.
const ROUTES_MAX: usize = 16 * 1024;

/// A queue with a bound of its length is looked at so long after a publish, milliseconds, if nobody does before.
pub(crate) const LENGTH_LOOK_MS: i64 = 10;

/// Where a message is sent.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    /// An exchange by name; the empty name is the default exchange, whose routing keys are queues' names.
    Exchange {
        /// The exchange's name.
        name: &'a str,
        /// The routing key.
        routing_key: &'a [u8],
        /// More routing keys: every exchange on the way matches them all, and each receiver gets the message once.
        more_keys: &'a [&'a [u8]],
    },
    /// An address of the hub in its slashed form.
    Hub(&'a [u8]),
    /// One session's inbox.
    Session(&'a Session),
}

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed {
    /// Receivers; a capture is none.
    pub destinations: usize,
    /// A queue that is full refused it.
    pub refused: bool,
}

/// Why a publish cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no exchange of that name.
    #[error("no exchange '{0}'")]
    NoSuchExchange(String),
    /// The exchange is for the broker's own use.
    #[error("exchange '{0}' is internal")]
    Internal(String),
    /// The log takes no more; nothing of the burst is kept.
    #[error("log write rejected: {0}")]
    Log(String),
}

impl From<SubmitError> for PublishError {
    fn from(error: SubmitError) -> Self {
        PublishError::Log(error.to_string())
    }
}

/// See the module's text.
pub struct Publisher {
    namespace: Namespace,
    id: PublisherId,
    /// Few enough for a hash that a client could predict.
    routes: FxHashMap<Box<[u8]>, Route>,
    routes_of: u64,
    write_batch: WriteBatch,
    entry: Entry,
    retained: Vec<Keep>,
    /// Queues that are to be looked at in time once the burst is in them: who looked before would find nothing.
    looks: Vec<QueueLook>,
    single: BatchBuilder,
    scratch: Vec<u8>,
    /// Messages since the last flush, for the counters.
    published: u64,
    unroutable: u64,
}

/// When a queue with limits is to be looked at.
struct QueueLook {
    queue: Arc<Queue>,
    at_ms: i64,
    /// For the sake of a message that dies by its age.
    mortal: bool,
    /// Weighed for messages that are not in it yet.
    weighed_bytes: usize,
}

/// A message that is the retained value of its address from the next flush on, or ends it.
struct Keep {
    address: Vec<u8>,
    /// A batch of it alone.
    batch: Bytes,
    clears: bool,
    guaranteed: bool,
    /// Who was there when it came, under which version of the topology.
    routed_to: Arc<ReceiverSet>,
    version: u64,
}

impl Publisher {
    /// A publisher with nothing in hand.
    #[must_use]
    pub fn new(namespace: Namespace, id: PublisherId) -> Publisher {
        Publisher {
            namespace,
            id,
            routes: FxHashMap::default(),
            routes_of: 0,
            write_batch: WriteBatch::default(),
            entry: Entry::new(),
            retained: Vec::new(),
            looks: Vec::new(),
            single: BatchBuilder::new(0),
            scratch: Vec::new(),
            published: 0,
            unroutable: 0,
        }
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Routes a message and copies it into the burst.
    pub fn publish(&mut self, to: Target<'_>, message: &Message<'_>) -> Result<Routed, PublishError> {
        let route = match to {
            Target::Session(session) => session.route(message.guaranteed),
            Target::Hub(address) => self.hub_route(address, message),
            Target::Exchange { name, routing_key, more_keys: [] } => {
                self.route(name, routing_key, message)?
            }
            // Rare, and its routes many: not remembered.
            Target::Exchange { name, routing_key, more_keys } => {
                let keys: Vec<&[u8]> =
                    std::iter::once(routing_key).chain(more_keys.iter().copied()).collect();
                match self.exchange(name)? {
                    None => self.namespace.route_to_queues(&keys),
                    Some(e) => self.namespace.route_from(&e, &keys, &self.publish_of(message)),
                }
            }
        };
        let mut set = route.set;
        let mut refused = false;
        if set.queues.iter().any(|q| q.has_limits() || message.headers.expires_ms.is_some()) {
            let refusing = self.meet_limits(&set, message);
            if !refusing.is_empty() {
                refused = true;
                set = Arc::new(set.without(&refusing));
            }
        }
        let mut taken = false;
        for set in std::iter::once(&set).chain(&route.formatted).filter(|set| !set.is_empty()) {
            self.write_batch.add(set, route.key.as_deref(), message);
            taken = true;
        }
        self.published += 1;
        self.unroutable += u64::from(!taken);
        Ok(Routed { destinations: route.receivers, refused })
    }

    /// Sets (or, with an empty or null value, clears) the retained value of an address, together with the burst.
    pub fn retain(&mut self, address: &[u8], message: &Message<'_>) -> Result<(), LimitReached> {
        let Message { timestamp_ms, key, headers, value, guaranteed, .. } = message;
        self.single.push_with(*timestamp_ms, *key, headers.count as usize, headers.bytes, *value);
        let batch = self.single.finish().bytes().clone();
        let clears = value.is_none_or(<[u8]>::is_empty);
        if !clears {
            self.namespace.retained().room_for(address, batch.len(), self.namespace.limits())?;
        }
        let version = self.namespace.version();
        let routed_to = self.hub_route(address, message).set;
        let guaranteed = *guaranteed;
        self.retained.push(Keep { address: address.to_vec(), batch, clears, guaranteed, routed_to, version });
        Ok(())
    }

    /// Adds what must hold together with the burst: state, acknowledgements.
    pub fn attach(&mut self, parts: impl FnOnce(&mut Entry)) {
        parts(&mut self.entry);
    }

    /// Acknowledges together with the burst.
    pub fn attach_ack(&mut self, consumer: &Consumer, ids: &[DeliveryId]) {
        consumer.ack_in(ids, &mut self.entry);
    }

    /// Bytes in hand: a connection flushes when they are many.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.write_batch.bytes()
    }

    /// Whether there is nothing to flush.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.write_batch.is_empty() && self.entry.is_empty() && self.retained.is_empty()
    }

    /// Forgets what is in hand.
    pub fn discard(&mut self) {
        self.write_batch.clear();
        self.entry = Entry::new();
        self.retained.clear();
        for look in self.looks.drain(..) {
            look.queue.subscription().subtract_bytes(look.weighed_bytes);
        }
    }

    /// Hands everything over as one entry: whole or absent. The position to wait for before guaranteed
    /// messages may be acknowledged; none if nothing went to the log.
    pub fn flush(&mut self) -> Result<Option<Lsn>, PublishError> {
        let counters = self.namespace.counters();
        counters.published.increment(std::mem::take(&mut self.published));
        counters.unroutable.increment(std::mem::take(&mut self.unroutable));
        if self.is_empty() {
            self.looks.clear();
            return Ok(None);
        }
        let flushed = self.hand_over();
        for QueueLook { queue, at_ms, mortal, .. } in self.looks.drain(..) {
            queue.check_new(at_ms, mortal);
        }
        flushed
    }

    fn hand_over(&mut self) -> Result<Option<Lsn>, PublishError> {
        let mut entry = std::mem::take(&mut self.entry);
        if self.retained.is_empty() {
            return Ok(self.write_batch.flush(self.namespace.log(), entry)?);
        }
        let kept = std::mem::take(&mut self.retained);
        let namespace = self.namespace.clone();
        let retained = namespace.retained();
        let _order = retained.in_order();
        kept.iter().for_each(|keep| self.tell_late_comers(keep));
        let changes = kept.into_iter().map(|keep| (keep.address, (!keep.clears).then_some(keep.batch)));
        let changes: Vec<_> = changes.collect();
        retained.put_in(&changes, &mut entry);
        let lsn = self.write_batch.flush(namespace.log(), entry)?;
        retained.apply(changes);
        Ok(lsn)
    }

    /// Who subscribed after the message was routed and looks for retained values before this one is there would hear it
    /// neither way. Called in the retained values' order: who subscribes after this waits for it with his look.
    fn tell_late_comers(&mut self, keep: &Keep) {
        if keep.version == self.namespace.version() {
            return;
        }
        let Some(Ok(record)) = records(&keep.batch).ok().and_then(|mut records| records.next()) else {
            return;
        };
        let headers =
            Headers { count: record.header_count, bytes: &record.headers, expires_ms: expires_ms(&record) };
        let message = Message {
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers,
            guaranteed: keep.guaranteed,
            lookup: None,
        };
        let late = self.hub_route(&keep.address, &message).set.beyond(&keep.routed_to);
        if !late.is_empty() {
            self.write_batch.add(&Arc::new(late), None, &message);
        }
    }

    /// Notes when queues with limits are to be looked at; returns those that refuse the message.
    fn meet_limits(&mut self, set: &ReceiverSet, message: &Message<'_>) -> Vec<Arc<Queue>> {
        let mut refusing = Vec::new();
        for queue in &set.queues {
            let limits = &queue.spec().limits;
            let by_queue = limits.message_ttl_ms.map(|ttl| message.timestamp_ms.saturating_add_unsigned(ttl));
            let due_ms = message.headers.expires_ms.into_iter().chain(by_queue).min();
            let length_ms =
                limits.bounds_length().then(|| message.timestamp_ms.saturating_add(LENGTH_LOOK_MS));
            if limits.overflow != Overflow::DropHead && queue.is_full(self.write_batch.messages_for(queue)) {
                if limits.overflow == Overflow::RejectPublishDeadLetter {
                    queue.subscription().refuse(message);
                }
                refusing.push(queue.clone());
                continue;
            }
            let weighed_bytes = message.value.map_or(0, <[u8]>::len);
            queue.subscription().add_bytes(weighed_bytes);
            if let Some(at_ms) = due_ms.into_iter().chain(length_ms).min() {
                let (queue, mortal) = (queue.clone(), due_ms.is_some());
                self.look_later(QueueLook { queue, at_ms, mortal, weighed_bytes });
            }
        }
        refusing
    }

    fn look_later(&mut self, look: QueueLook) {
        match self.looks.last_mut().filter(|last| Arc::ptr_eq(&last.queue, &look.queue)) {
            Some(last) => {
                last.at_ms = last.at_ms.min(look.at_ms);
                last.mortal |= look.mortal;
                last.weighed_bytes += look.weighed_bytes;
            }
            None => self.looks.push(look),
        }
    }

    fn hub_route(&mut self, slashed: &[u8], message: &Message<'_>) -> Route {
        if let Some(route) = self.remembered(HUB, b'/', slashed, message.guaranteed) {
            return route;
        }
        let address = Address::parse(Form::Slashed, slashed);
        self.remember(self.namespace.route_at(&address, &self.publish_of(message), None))
    }

    fn route(
        &mut self,
        name: &str,
        routing_key: &[u8],
        message: &Message<'_>,
    ) -> Result<Route, PublishError> {
        // Before the exchange is looked for: while the topology stays, it does.
        if let Some(route) = self.remembered(name, b'.', routing_key, message.guaranteed) {
            return Ok(route);
        }
        let Some(exchange) = self.exchange(name)? else {
            return Ok(self.remember(self.namespace.route_to_queues(&[routing_key])));
        };
        let route = self.namespace.route_from(&exchange, &[routing_key], &self.publish_of(message));
        // Headers that any exchange on the way looks at are no part of what is remembered.
        Ok(if self.namespace.routes_by_key(&exchange) { self.remember(route) } else { route })
    }

    /// The exchange that clients can publish to; none for the default one.
    fn exchange(&self, name: &str) -> Result<Option<Arc<Exchange>>, PublishError> {
        if name.is_empty() {
            return Ok(None);
        }
        match self.namespace.exchange(name) {
            Some(exchange) if exchange.spec().internal => Err(PublishError::Internal(name.to_owned())),
            Some(exchange) => Ok(Some(exchange)),
            None => Err(PublishError::NoSuchExchange(name.to_owned())),
        }
    }

    fn publish_of<'a>(&'a self, message: &'a Message<'_>) -> Publish<'a> {
        Publish { guaranteed: message.guaranteed, by: &self.id, lookup: message.lookup }
    }

    /// The route found before for this key, which is left in `scratch`, and forgotten when the topology changed.
    fn remembered(&mut self, exchange: &str, form: u8, key: &[u8], guaranteed: bool) -> Option<Route> {
        let version = self.namespace.version();
        if self.routes_of != version {
            self.routes.clear();
            self.routes_of = version;
        }
        self.scratch.clear();
        self.scratch.push(u8::from(guaranteed));
        self.scratch.push(form);
        self.scratch.extend_from_slice(exchange.as_bytes());
        self.scratch.push(0);
        self.scratch.extend_from_slice(key);
        self.routes.get(self.scratch.as_slice()).cloned()
    }

    /// Remembers a route for the key in `scratch`.
    fn remember(&mut self, route: Route) -> Route {
        if self.routes.len() >= ROUTES_MAX
            && let Some(some) = self.routes.keys().next().cloned()
        {
            self.routes.remove(&some);
        }
        self.routes.insert(self.scratch.as_slice().into(), route.clone());
        route
    }
}
