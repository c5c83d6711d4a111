//! Exchanges, and the targets that their bindings lead to: queues, other exchanges, and inboxes of sessions.
//!
//! An inbox is known by the trait [`Inbox`] only, and held weakly: bindings do not keep a session alive.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use inver_storage::Lsn;
use parking_lot::{RwLock, RwLockWriteGuard};

use crate::address::Address;
use crate::bindings::{self, BindTarget, Binding, BindingTable, Removed};
use crate::completion::Completion;
use crate::history::History;
use crate::message::{HeaderView, Headers, Property};
use crate::policy::Applied;
use crate::queue::Queue;
use crate::receivers::ReceiverSet;
use crate::seen::Seen;
use crate::spec::{ExchangeKind, ExchangeSpec, HASH_HEADER, HASH_PROPERTY};
use crate::value::{Arguments, HeaderLookup, Value};

/// An exchange. The default exchange, whose routing keys are queue names, is not one of these.
pub struct Exchange {
    name: Box<str>,
    spec: ExchangeSpec,
    /// The log position of its creation.
    made: OnceLock<Lsn>,
    table: RwLock<BindingTable<RouteTarget>>,
    /// Bindings in the table; changed under its lock, read without.
    bindings: AtomicUsize,
    policies: RwLock<Policed>,
    /// Its last messages, if it keeps them.
    history: Option<Arc<History>>,
    /// The messages that it does not pass on again, if it remembers them.
    seen: Option<Arc<Seen>>,
}

/// What policies make of an exchange.
struct Policed {
    applied: Applied,
    /// Where messages without a binding go.
    alternate: Option<Arc<str>>,
}

impl Policed {
    fn new(applied: Applied, spec: &ExchangeSpec) -> Policed {
        let alternate = applied.alternate_exchange(&spec.arguments).map(Arc::from);
        Policed { applied, alternate }
    }
}

/// Receives messages for a session.
pub(crate) trait Inbox: Send + Sync {
    /// Identity of the session, unique within the process.
    fn id(&self) -> u64;

    /// Whether it still receives: the bindings of one that ended may outlive it.
    fn is_open(&self) -> bool;

    /// The session's name: the id of its client.
    fn name(&self) -> &str;

    /// Adds its receiver of guaranteed or best-effort messages to the set.
    fn receive(&self, guaranteed: bool, set: &mut ReceiverSet);
}

/// The target of a binding.
#[derive(Clone)]
pub(crate) enum RouteTarget {
    Queue(Arc<Queue>),
    Exchange(Arc<Exchange>),
    Inbox { inbox: Weak<dyn Inbox>, guaranteed: bool, no_local: bool },
}

impl BindTarget for RouteTarget {
    fn identity(&self) -> usize {
        match self {
            RouteTarget::Queue(queue) => Arc::as_ptr(queue).addr(),
            RouteTarget::Exchange(exchange) => Arc::as_ptr(exchange).addr(),
            RouteTarget::Inbox { inbox, .. } => inbox.as_ptr().addr(),
        }
    }

    fn named(&self, with: &mut dyn FnMut(&str)) {
        match self {
            RouteTarget::Queue(queue) => with(queue.name()),
            RouteTarget::Exchange(exchange) => with(exchange.name()),
            RouteTarget::Inbox { inbox, .. } => {
                inbox.upgrade().into_iter().for_each(|inbox| with(inbox.name()));
            }
        }
    }
}

impl Exchange {
    pub(crate) fn new(name: &str, spec: ExchangeSpec) -> Arc<Exchange> {
        Arc::new(Exchange {
            name: name.into(),
            table: RwLock::new(BindingTable::new(spec.kind)),
            policies: RwLock::new(Policed::new(Applied::default(), &spec)),
            seen: Seen::of(&spec),
            history: spec.history_max().map(|max| Arc::new(History::new(max))),
            spec,
            made: OnceLock::new(),
            bindings: AtomicUsize::new(0),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it was declared as.
    #[must_use]
    pub fn spec(&self) -> &ExchangeSpec {
        &self.spec
    }

    /// The policies that apply to it.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.policies.read().applied.clone()
    }

    /// Sets the policies that apply to it.
    pub(crate) fn apply(&self, policies: Applied) {
        *self.policies.write() = Policed::new(policies, &self.spec);
    }

    /// The exchange that messages without a binding go to.
    pub(crate) fn alternate(&self) -> Option<Arc<str>> {
        self.policies.read().alternate.clone()
    }

    /// Its last messages, if it keeps them.
    pub(crate) fn history(&self) -> Option<&Arc<History>> {
        self.history.as_ref()
    }

    /// The messages that it does not pass on again, if it remembers them.
    pub(crate) fn seen(&self) -> Option<&Arc<Seen>> {
        self.seen.as_ref()
    }

    /// Whether its routes depend on the routing key only.
    pub(crate) fn routes_by_key(&self) -> bool {
        self.spec.routes_by_key()
    }

    /// The number of bindings from it.
    #[must_use]
    pub fn binding_count(&self) -> usize {
        self.bindings.load(Ordering::Acquire)
    }

    /// When its creation is durable.
    #[must_use]
    pub fn made(&self) -> Completion {
        self.made.get().copied().into()
    }

    pub(crate) fn set_made(&self, lsn: Lsn) {
        // A second call would be a defect of the caller; the first one holds.
        let _ = self.made.set(lsn);
    }

    /// Adds a binding. If one of the same identity is present that one stays, and its position is the error.
    pub(crate) fn bind(&self, binding: Binding<RouteTarget>) -> Result<(), Option<Lsn>> {
        let table = &mut *self.table.write();
        if let Some(present) = table.find(&binding) {
            return Err(present.terms().made);
        }
        self.insert(table, binding);
        Ok(())
    }

    /// What `read` reads of the binding of the same identity, if that is present.
    pub(crate) fn present<R>(
        &self,
        like: &Binding<RouteTarget>,
        read: impl FnOnce(&Binding<RouteTarget>) -> R,
    ) -> Option<R> {
        self.table.write().find(like).map(|present| read(present))
    }

    /// Adds a binding or replaces the one of the same identity; no message is missed meanwhile.
    pub(crate) fn rebind(&self, binding: Binding<RouteTarget>) {
        let table = &mut *self.table.write();
        match table.find(&binding) {
            Some(present) => *present = binding,
            None => self.insert(table, binding),
        }
    }

    fn insert(&self, table: &mut BindingTable<RouteTarget>, binding: Binding<RouteTarget>) {
        table.insert(binding);
        self.bindings.fetch_add(1, Ordering::AcqRel);
    }

    /// Removes a binding.
    pub(crate) fn unbind(
        &self,
        target: &RouteTarget,
        slashed: bool,
        key: &[u8],
        arguments: &Arguments,
    ) -> Removed<RouteTarget> {
        let hash = bindings::hash(target, key, arguments);
        self.remove(hash, slashed, key, |b| b.is(target, key, arguments))
    }

    /// Removes the bindings of one target by slashed filters. Another thread that waits for the bindings gets them next,
    /// before others are removed.
    pub(crate) fn unbind_filters<'f>(
        &self,
        target: &RouteTarget,
        filters: impl IntoIterator<Item = &'f [u8]>,
    ) {
        let arguments = Arguments::new();
        let mut table = self.table.write();
        let remove = |filter| {
            let hash = bindings::hash(target, filter, &arguments);
            table.remove(hash, true, filter, |b| b.is(target, filter, &arguments))
        };
        // Dropped after the lock is given up.
        let removed: Vec<Removed<RouteTarget>> = filters.into_iter().map(remove).collect();
        let count: usize = removed.iter().map(|of_filter| of_filter.len()).sum();
        self.bindings.fetch_sub(count, Ordering::AcqRel);
        RwLockWriteGuard::unlock_fair(table);
    }

    /// Removes the bindings with this hash and key that `remove` selects.
    pub(crate) fn remove(
        &self,
        hash: u64,
        slashed: bool,
        key: &[u8],
        remove: impl Fn(&Binding<RouteTarget>) -> bool,
    ) -> Removed<RouteTarget> {
        let table = &mut *self.table.write();
        let removed = table.remove(hash, slashed, key, remove);
        self.bindings.fetch_sub(removed.len(), Ordering::AcqRel);
        removed
    }

    /// Removes all bindings from it; the numbers of their rows.
    pub(crate) fn clear(&self) -> Vec<u64> {
        let table = std::mem::replace(&mut *self.table.write(), BindingTable::new(self.spec.kind));
        self.bindings.store(0, Ordering::Release);
        let mut rows = Vec::new();
        table.for_each(|binding| rows.extend(binding.terms().row));
        rows
    }

    pub(crate) fn for_each_binding(&self, f: impl FnMut(&Binding<RouteTarget>)) {
        self.table.read().for_each(f);
    }

    /// The arguments of the binding to this target with this hash and key, and whether it is durable.
    pub(crate) fn binding_info(
        &self,
        target: &RouteTarget,
        hash: u64,
        slashed: bool,
        key: &[u8],
    ) -> Option<(Arguments, bool)> {
        let identity = target.identity();
        let mut table = self.table.write();
        let found =
            table.find_by(hash, slashed, key, |b| b.target.identity() == identity && *b.key == *key)?;
        let declared = found.terms();
        Some((declared.arguments.clone(), declared.row.is_some()))
    }

    /// The row of the binding to this target with this hash and key; none if it is not durable.
    pub(crate) fn row_of(&self, target: &RouteTarget, hash: u64, slashed: bool, key: &[u8]) -> Option<u64> {
        let identity = target.identity();
        let mut table = self.table.write();
        let same = |b: &Binding<RouteTarget>| b.target.identity() == identity && *b.key == *key;
        table.find_by(hash, slashed, key, same)?.terms().row
    }

    /// The row of a binding, if that is present; none within if it is not durable.
    pub(crate) fn present_row(
        &self,
        target: &RouteTarget,
        key: &[u8],
        arguments: &Arguments,
    ) -> Option<Option<u64>> {
        let hash = bindings::hash(target, key, arguments);
        let mut table = self.table.write();
        Some(table.find_by(hash, false, key, |b| b.is(target, key, arguments))?.terms().row)
    }

    /// Calls `found` with the bindings that a message matches; see [`BindingTable::route`].
    pub(crate) fn route(
        &self,
        routing_key: &[u8],
        address: Option<&Address>,
        headers: Option<&dyn HeaderLookup>,
        stored: Headers<'_>,
        found: impl FnMut(&Binding<RouteTarget>),
    ) {
        let hashed = match self.spec.kind {
            ExchangeKind::ConsistentHash => self.hashed(headers, stored),
            _ => None,
        };
        self.table.read().route(routing_key, address, headers, hashed.as_deref(), found);
    }

    /// What a hashing exchange takes the hash of, if not of the routing key; of a message without it, nothing.
    fn hashed(&self, headers: Option<&dyn HeaderLookup>, stored: Headers<'_>) -> Option<Vec<u8>> {
        let named = |name| self.spec.arguments.get(name).and_then(Value::as_str);
        if let Some(name) = named(HASH_HEADER) {
            let value = headers.and_then(|headers| headers.get(name));
            return Some(value.map(|value| value.as_bytes_to_hash()).unwrap_or_default());
        }
        let wanted = named(HASH_PROPERTY)?;
        let view = HeaderView::of_encoded(stored.bytes, stored.count);
        let value = view.typed_properties().find_map(|property| match (wanted, property) {
            ("message_id", Property::MessageId(id)) => Some(id.to_vec()),
            ("correlation_id", Property::CorrelationId(id)) => Some(id.to_vec()),
            ("timestamp", Property::TimestampS(seconds)) => Some(seconds.to_string().into_bytes()),
            _ => None,
        });
        Some(value.unwrap_or_default())
    }

    /// Calls `found` with the bindings that name an address; see [`BindingTable::route_exactly`].
    pub(crate) fn route_exactly(&self, address: &Address, found: impl FnMut(&Binding<RouteTarget>)) {
        self.table.read().route_exactly(address, found);
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("name", &self.name).field("spec", &self.spec).finish()
    }
}
