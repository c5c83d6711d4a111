//! Exchanges: which receivers a message with this routing key and these headers reaches.

mod headers;
mod origins;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use inver_storage::Lsn;
use parking_lot::RwLock;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use crate::address::{Address, Filter, Form};
use crate::bag::{Bag, Hashed};
use crate::queue::Queue;
use crate::session::SessionCore;
use crate::spec::{ExchangeKind, ExchangeSpec};
use crate::trie::Trie;
use crate::value::{Arguments, HeaderLookup, Value};

use headers::HeaderRule;
pub(crate) use origins::Origins;

/// See the module's text.
pub struct Exchange {
    name: Box<str>,
    spec: ExchangeSpec,
    /// The log's position at which it is there for good.
    made: OnceLock<Lsn>,
    table: RwLock<Table>,
    /// Bindings in the table; changed under its lock, read without.
    bindings: AtomicUsize,
    /// Bindings that lead to it.
    origins: Origins,
}

/// Where a binding leads.
#[derive(Clone)]
pub(crate) enum BindTarget {
    Queue(Arc<Queue>),
    Exchange(Arc<Exchange>),
    Session { session: Arc<SessionCore>, guaranteed: bool, no_local: bool },
}

impl BindTarget {
    pub(crate) fn same(&self, other: &BindTarget) -> bool {
        match (self, other) {
            (BindTarget::Queue(a), BindTarget::Queue(b)) => Arc::ptr_eq(a, b),
            (BindTarget::Exchange(a), BindTarget::Exchange(b)) => Arc::ptr_eq(a, b),
            (BindTarget::Session { session: a, .. }, BindTarget::Session { session: b, .. }) => {
                Arc::ptr_eq(a, b)
            }
            _ => false,
        }
    }

    /// Where bindings to it come from, if it is to be let go of by that: a session knows its own.
    fn origins(&self) -> Option<&Origins> {
        match self {
            BindTarget::Queue(queue) => Some(queue.origins()),
            BindTarget::Exchange(exchange) => Some(&exchange.origins),
            BindTarget::Session { .. } => None,
        }
    }

    /// Of a binding to it with this key and these arguments.
    fn hash(&self, key: &[u8], arguments: &Arguments) -> u64 {
        let it: *const () = match self {
            BindTarget::Queue(queue) => Arc::as_ptr(queue).cast(),
            BindTarget::Exchange(exchange) => Arc::as_ptr(exchange).cast(),
            BindTarget::Session { session, .. } => Arc::as_ptr(session).cast(),
        };
        let mut hasher = FxBuildHasher.build_hasher();
        (it, key).hash(&mut hasher);
        for (name, value) in arguments {
            name.hash(&mut hasher);
            // Others are told apart when they are compared.
            if let Value::Text(text) | Value::Bytes(text) = value {
                text.hash(&mut hasher);
            }
            value.as_int().hash(&mut hasher);
        }
        hasher.finish()
    }
}

pub(crate) struct Bound {
    pub(crate) target: BindTarget,
    /// The binding's key as it was given, and its arguments: together with the target its identity.
    pub(crate) key: Box<[u8]>,
    pub(crate) arguments: Arguments,
    /// The key is a slashed filter; else it is as the exchange's kind has it.
    pub(crate) slashed: bool,
    /// The number of its row, if it survives a restart.
    pub(crate) row: Option<u64>,
    /// The log's position at which it is there for good; none if it does not survive, or did.
    pub(crate) made: Option<Lsn>,
}

enum Table {
    Direct(HashMap<Box<[u8]>, Bag<Bound>>),
    Fanout(Bag<Bound>),
    Topic(Trie<Bound>),
    Headers(Bag<Ruled>),
}

/// A binding by headers.
struct Ruled {
    rule: HeaderRule,
    bound: Bound,
}

impl Exchange {
    pub(crate) fn new(name: &str, spec: ExchangeSpec) -> Arc<Exchange> {
        let table = match spec.kind {
            ExchangeKind::Direct => Table::Direct(HashMap::new()),
            ExchangeKind::Fanout => Table::Fanout(Bag::Empty),
            ExchangeKind::Topic => Table::Topic(Trie::default()),
            ExchangeKind::Headers => Table::Headers(Bag::Empty),
        };
        Arc::new(Exchange {
            name: name.into(),
            spec,
            made: OnceLock::new(),
            table: RwLock::new(table),
            bindings: AtomicUsize::new(0),
            origins: Origins::default(),
        })
    }

    /// Its name; empty for the default exchange, which is not one of these.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it was declared as.
    #[must_use]
    pub fn spec(&self) -> &ExchangeSpec {
        &self.spec
    }

    /// Whether routes of this exchange depend on nothing but the routing key.
    pub(crate) fn routes_by_key(&self) -> bool {
        self.spec.kind != ExchangeKind::Headers
    }

    /// How many bindings lead away from it.
    #[must_use]
    pub fn binding_count(&self) -> usize {
        self.bindings.load(Ordering::Acquire)
    }

    /// What to wait for before a client is told that it is there; none for what does not survive a restart,
    /// and for what did.
    #[must_use]
    pub fn made(&self) -> Option<Lsn> {
        self.made.get().copied()
    }

    pub(crate) fn set_made(&self, lsn: Lsn) {
        // Made once; a second time would be a defect of the caller, and the first stays.
        let _ = self.made.set(lsn);
    }

    /// Adds a binding. If the very same is there it stays, and what to wait for it comes back as the error.
    pub(crate) fn bind(self: &Arc<Self>, bound: Bound) -> Result<(), Option<Lsn>> {
        let table = &mut *self.table.write();
        if let Some(present) = table.find(&bound) {
            return Err(present.made);
        }
        self.insert(table, bound);
        Ok(())
    }

    /// What to wait for, if the very same binding is there.
    pub(crate) fn present(&self, bound: &Bound) -> Option<Option<Lsn>> {
        self.table.write().find(bound).map(|b| b.made)
    }

    /// Adds a binding, in the place of the very same if that is there: no message is missed meanwhile.
    pub(crate) fn rebind(self: &Arc<Self>, bound: Bound) {
        let table = &mut *self.table.write();
        match table.find(&bound) {
            Some(present) => *present = bound,
            None => self.insert(table, bound),
        }
    }

    fn insert(self: &Arc<Self>, table: &mut Table, bound: Bound) {
        if let Some(origins) = bound.target.origins() {
            origins.note(self, &bound);
        }
        table.insert(bound);
        self.bindings.fetch_add(1, Ordering::AcqRel);
    }

    /// Removes a binding, of a key that is slashed or as the kind has it.
    pub(crate) fn unbind(
        &self,
        target: &BindTarget,
        slashed: bool,
        key: &[u8],
        arguments: &Arguments,
    ) -> SmallVec<[Bound; 1]> {
        let is_it = |b: &Bound| b.target.same(target) && *b.key == *key && b.arguments == *arguments;
        self.remove(target.hash(key, arguments), slashed, key, is_it)
    }

    /// Removes all bindings that lead to a target, wherever from; they come each with its exchange.
    pub(crate) fn unbind_all(target: &BindTarget, mut taken: impl FnMut(&Arc<Exchange>, &Bound)) {
        let Some(origins) = target.origins().map(Origins::take) else { return };
        for origin in origins.iter() {
            let Some(exchange) = origin.exchange.upgrade() else { continue };
            let is_it = |b: &Bound| b.target.same(target) && b.key == origin.key;
            let bounds = exchange.remove(origin.hash, origin.slashed, &origin.key, is_it);
            bounds.iter().for_each(|bound| taken(&exchange, bound));
        }
    }

    fn remove(
        &self,
        hash: u64,
        slashed: bool,
        key: &[u8],
        is_it: impl Fn(&Bound) -> bool,
    ) -> SmallVec<[Bound; 1]> {
        let table = &mut *self.table.write();
        let taken = match table {
            Table::Direct(t) => {
                let Some(bounds) = t.get_mut(key) else { return SmallVec::new() };
                let taken = bounds.remove(hash, is_it);
                if bounds.is_empty() {
                    t.remove(key);
                }
                taken
            }
            Table::Fanout(t) => t.remove(hash, is_it),
            Table::Topic(t) => t.remove(&filter(key, slashed), hash, is_it),
            Table::Headers(t) => {
                t.remove(hash, |ruled| is_it(&ruled.bound)).into_iter().map(|ruled| ruled.bound).collect()
            }
        };
        self.bindings.fetch_sub(taken.len(), Ordering::AcqRel);
        taken.iter().for_each(|bound| self.forget_origin(bound));
        taken
    }

    /// Where a binding leads no longer knows of it.
    pub(crate) fn forget_origin(&self, bound: &Bound) {
        if let Some(origins) = bound.target.origins() {
            origins.forget(self, bound);
        }
    }

    /// Every binding's target, key and arguments.
    pub(crate) fn for_each_binding(&self, mut f: impl FnMut(&Bound)) {
        match &*self.table.read() {
            Table::Direct(t) => t.values().flat_map(Bag::iter).for_each(f),
            Table::Fanout(t) => t.iter().for_each(f),
            Table::Topic(t) => t.iter().for_each(f),
            Table::Headers(t) => t.iter().for_each(|ruled| f(&ruled.bound)),
        }
    }

    /// The targets of a message. A target can come more than once.
    pub(crate) fn route(
        &self,
        routing_key: &[u8],
        address: Option<&Address>,
        headers: Option<&dyn HeaderLookup>,
        mut found: impl FnMut(&BindTarget),
    ) {
        match &*self.table.read() {
            Table::Direct(t) => {
                if let Some(bounds) = t.get(routing_key) {
                    bounds.iter().for_each(|b| found(&b.target));
                }
            }
            Table::Fanout(t) => t.iter().for_each(|b| found(&b.target)),
            Table::Topic(t) => {
                let parsed;
                let address = match address {
                    Some(a) => a,
                    None => {
                        parsed = Address::parse(Form::Dotted, routing_key);
                        &parsed
                    }
                };
                t.matching(address, |b| found(&b.target));
            }
            Table::Headers(t) => {
                for Ruled { rule, bound } in t.iter() {
                    if rule.matches(headers) {
                        found(&bound.target);
                    }
                }
            }
        }
    }
}

impl Table {
    /// The very same binding.
    fn find(&mut self, like: &Bound) -> Option<&mut Bound> {
        let same =
            |b: &Bound| b.target.same(&like.target) && b.key == like.key && b.arguments == like.arguments;
        match self {
            Table::Direct(t) => t.get_mut(&like.key)?.find_mut(like.hash(), same),
            Table::Fanout(t) => t.find_mut(like.hash(), same),
            Table::Topic(t) => t.find_mut(&like.filter(), like.hash(), same),
            Table::Headers(t) => {
                t.find_mut(like.hash(), |ruled| same(&ruled.bound)).map(|ruled| &mut ruled.bound)
            }
        }
    }

    fn insert(&mut self, bound: Bound) {
        match self {
            Table::Direct(t) => t.entry(bound.key.clone()).or_default().insert(bound),
            Table::Fanout(t) => t.insert(bound),
            Table::Topic(t) => t.insert(&bound.filter(), bound),
            Table::Headers(t) => t.insert(Ruled { rule: HeaderRule::new(&bound.arguments), bound }),
        }
    }
}

/// How a key reads in a topic exchange.
fn filter(key: &[u8], slashed: bool) -> Filter {
    if slashed { Filter::slashed(key) } else { Filter::dotted(key) }
}

impl Bound {
    /// How its key reads in a topic exchange.
    fn filter(&self) -> Filter {
        filter(&self.key, self.slashed)
    }
}

impl Hashed for Bound {
    fn hash(&self) -> u64 {
        self.target.hash(&self.key, &self.arguments)
    }
}

impl Hashed for Ruled {
    fn hash(&self) -> u64 {
        self.bound.hash()
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("name", &self.name).field("spec", &self.spec).finish()
    }
}
