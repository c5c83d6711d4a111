//! Exchanges: which receivers a message with this routing key and these headers reaches.

mod headers;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use inver_storage::Lsn;
use parking_lot::RwLock;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

use crate::address::{Address, Filter, Form};
use crate::bag::{Bag, Hashed};
use crate::queue::Queue;
use crate::session::SessionCore;
use crate::trie::Trie;
use crate::value::{Arguments, HeaderLookup};

pub(crate) use headers::HeaderRule;

/// How an exchange routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExchangeKind {
    /// Where the binding's key is the routing key.
    Direct,
    /// Everywhere.
    Fanout,
    /// Where the binding's key is a filter that matches the routing key, level by level.
    Topic,
    /// Where the binding's arguments match the message's headers.
    Headers,
}

impl ExchangeKind {
    /// The name that users read and write.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ExchangeKind::Direct => "direct",
            ExchangeKind::Fanout => "fanout",
            ExchangeKind::Topic => "topic",
            ExchangeKind::Headers => "headers",
        }
    }
}

impl std::str::FromStr for ExchangeKind {
    type Err = ();

    fn from_str(s: &str) -> Result<ExchangeKind, ()> {
        match s {
            "direct" => Ok(ExchangeKind::Direct),
            "fanout" => Ok(ExchangeKind::Fanout),
            "topic" => Ok(ExchangeKind::Topic),
            "headers" => Ok(ExchangeKind::Headers),
            _ => Err(()),
        }
    }
}

/// What an exchange was declared as.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExchangeSpec {
    /// How it routes.
    pub kind: ExchangeKind,
    /// Survives a restart.
    pub durable: bool,
    /// Goes away when its last binding does.
    pub auto_delete: bool,
    /// Cannot be published to by clients.
    pub internal: bool,
    /// Further settings, such as `alternate-exchange`.
    pub arguments: Arguments,
}

/// See the module's text.
pub struct Exchange {
    name: Box<str>,
    spec: ExchangeSpec,
    /// The log's position at which it is there for good.
    made: OnceLock<Lsn>,
    table: RwLock<Table>,
    /// Bindings in the table; changed under its lock, read without.
    bindings: AtomicUsize,
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

    /// Of a binding to it with this key.
    fn hash(&self, key: &[u8]) -> u64 {
        let it: *const () = match self {
            BindTarget::Queue(queue) => Arc::as_ptr(queue).cast(),
            BindTarget::Exchange(exchange) => Arc::as_ptr(exchange).cast(),
            BindTarget::Session { session, .. } => Arc::as_ptr(session).cast(),
        };
        FxBuildHasher.hash_one((it, key))
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
    Headers(Vec<(HeaderRule, Bound)>),
}

/// The exchange where the address spaces meet; every namespace has one.
pub const HUB: &str = "amq.topic";

impl Exchange {
    pub(crate) fn new(name: &str, spec: ExchangeSpec) -> Arc<Exchange> {
        let table = match spec.kind {
            ExchangeKind::Direct => Table::Direct(HashMap::new()),
            ExchangeKind::Fanout => Table::Fanout(Bag::Empty),
            ExchangeKind::Topic => Table::Topic(Trie::default()),
            ExchangeKind::Headers => Table::Headers(Vec::new()),
        };
        let (made, bindings) = (OnceLock::new(), AtomicUsize::new(0));
        Arc::new(Exchange { name: name.into(), spec, made, table: RwLock::new(table), bindings })
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
    pub(crate) fn bind(&self, bound: Bound) -> Result<(), Option<Lsn>> {
        let table = &mut *self.table.write();
        if let Some(present) = table.find(&bound) {
            return Err(present.made);
        }
        table.insert(bound);
        self.bindings.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// What to wait for, if the very same binding is there.
    pub(crate) fn present(&self, bound: &Bound) -> Option<Option<Lsn>> {
        self.table.write().find(bound).map(|b| b.made)
    }

    /// Adds a binding, in the place of the very same if that is there: no message is missed meanwhile.
    pub(crate) fn rebind(&self, bound: Bound) {
        let table = &mut *self.table.write();
        match table.find(&bound) {
            Some(present) => *present = bound,
            None => {
                table.insert(bound);
                self.bindings.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// Removes the bindings to a target: of one key (slashed or as the kind has it) and arguments, or all.
    pub(crate) fn unbind(
        &self,
        target: &BindTarget,
        slashed: bool,
        of: Option<(&[u8], &Arguments)>,
    ) -> Vec<Bound> {
        let gone = |b: &Bound| {
            b.target.same(target)
                && of.is_none_or(|(key, arguments)| *b.key == *key && b.arguments == *arguments)
        };
        let table = &mut *self.table.write();
        let taken = match table {
            Table::Direct(t) => {
                let keys: Vec<Box<[u8]>> = match of {
                    Some((key, _)) => vec![key.into()],
                    None => {
                        t.values().flat_map(Bag::iter).filter(|b| gone(b)).map(|b| b.key.clone()).collect()
                    }
                };
                let mut taken = Vec::new();
                for key in keys {
                    let Some(bounds) = t.get_mut(&key) else { continue };
                    taken.extend(bounds.remove(target.hash(&key), gone));
                    if bounds.is_empty() {
                        t.remove(&key);
                    }
                }
                taken
            }
            Table::Fanout(t) => {
                let keys: Vec<Box<[u8]>> = match of {
                    Some((key, _)) => vec![key.into()],
                    None => t.iter().filter(|b| gone(b)).map(|b| b.key.clone()).collect(),
                };
                keys.iter().flat_map(|key| t.remove(target.hash(key), gone)).collect()
            }
            Table::Topic(t) => {
                let filters: Vec<(Filter, u64)> = match of {
                    Some((key, _)) if slashed => vec![(Filter::slashed(key), target.hash(key))],
                    Some((key, _)) => vec![(Filter::dotted(key), target.hash(key))],
                    None => t.iter().filter(|b| gone(b)).map(|b| (b.filter(), b.hash())).collect(),
                };
                filters.iter().flat_map(|(filter, hash)| t.remove(filter, *hash, gone)).collect()
            }
            Table::Headers(t) => {
                let mut taken = Vec::new();
                let mut i = 0;
                while i < t.len() {
                    if gone(&t[i].1) {
                        taken.push(t.remove(i).1);
                    } else {
                        i += 1;
                    }
                }
                taken
            }
        };
        self.bindings.fetch_sub(taken.len(), Ordering::AcqRel);
        taken
    }

    /// Every binding's target, key and arguments.
    pub(crate) fn for_each_binding(&self, mut f: impl FnMut(&Bound)) {
        match &*self.table.read() {
            Table::Direct(t) => t.values().flat_map(Bag::iter).for_each(f),
            Table::Fanout(t) => t.iter().for_each(f),
            Table::Topic(t) => t.iter().for_each(f),
            Table::Headers(t) => t.iter().for_each(|(_, b)| f(b)),
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
                for (rule, b) in t {
                    if rule.matches(headers) {
                        found(&b.target);
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
            Table::Headers(t) => t.iter_mut().map(|(_, b)| b).find(|b| same(b)),
        }
    }

    fn insert(&mut self, bound: Bound) {
        match self {
            Table::Direct(t) => t.entry(bound.key.clone()).or_default().insert(bound),
            Table::Fanout(t) => t.insert(bound),
            Table::Topic(t) => t.insert(&bound.filter(), bound),
            Table::Headers(t) => t.push((HeaderRule::new(&bound.arguments), bound)),
        }
    }
}

impl Bound {
    /// How the key reads in a topic exchange.
    pub(crate) fn filter(&self) -> Filter {
        if self.slashed { Filter::slashed(&self.key) } else { Filter::dotted(&self.key) }
    }
}

impl Hashed for Bound {
    fn hash(&self) -> u64 {
        self.target.hash(&self.key)
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("name", &self.name).field("spec", &self.spec).finish()
    }
}
