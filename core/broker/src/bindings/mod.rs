//! Binding tables: which targets a message with a routing key and headers reaches, for each kind of exchange.
//!
//! Generic over the targets. Owns the bindings of one exchange and their lookup; the cost of adding, finding and
//! removing a binding does not depend on the number of others. Does not own what a target is.

mod choice;
mod headers;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use inver_storage::Lsn;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use crate::access::Permissions;
use crate::address::{Address, Filter, Form};
use crate::bag::{Bag, Hashed};
use crate::spec::ExchangeKind;
use crate::trie::Trie;
use crate::value::{Arguments, HeaderLookup, Value};

use choice::{Chances, by_modulus, by_weight};
use headers::HeaderRule;

/// The target of a binding.
pub(crate) trait BindTarget: Clone {
    /// Identity of the target while the binding exists; two targets of one identity are the same.
    fn identity(&self) -> usize;

    /// Calls `with` with its name, which is the same after a restart.
    fn named(&self, with: &mut dyn FnMut(&str));
}

/// A binding. Target, key and arguments are its identity.
pub(crate) struct Binding<T> {
    pub(crate) target: T,
    /// The key as it was given.
    pub(crate) key: Box<[u8]>,
    /// The key is a slashed filter; else its form is that of the exchange's kind.
    pub(crate) slashed: bool,
    /// Boxed: the bindings of sessions, of which there are the most, have nothing of it.
    pub(crate) declared: Option<Box<BindingTerms>>,
}

/// What a binding has that a client declared.
#[derive(Clone)]
pub(crate) struct BindingTerms {
    pub(crate) arguments: Arguments,
    /// The number of its row, if it is durable.
    pub(crate) row: Option<u64>,
    /// The log position of its creation; none if it is not durable, or was recovered.
    pub(crate) made: Option<Lsn>,
    /// Whose permissions decide what it passes on of log topics. They do not belong to the identity.
    pub(crate) readers: Readers,
}

/// What a binding has that nobody declared.
static PLAIN: BindingTerms =
    BindingTerms { arguments: Arguments::new(), row: None, made: None, readers: Readers::Anyone };

/// The clients that declared a binding: it passes a log topic's records on as long as one of them may read the topic.
#[derive(Clone, Default)]
#[expect(
    clippy::box_collection,
    reason = "hardly any binding has several, and there are millions of bindings"
)]
pub(crate) enum Readers {
    /// Nobody asks: it is the broker's, or was made while permissions were not enforced.
    #[default]
    Anyone,
    /// One client declared it.
    One(Arc<Permissions>),
    /// Several did, each under another user.
    Several(Box<Vec<Arc<Permissions>>>),
}

impl Readers {
    /// Those of a binding that these clients declared.
    pub(crate) fn of(mut clients: Vec<Arc<Permissions>>) -> Readers {
        match clients.len() {
            0 => Readers::Anyone,
            1 => clients.pop().map_or(Readers::Anyone, Readers::One),
            _ => Readers::Several(Box::new(clients)),
        }
    }

    /// The clients; none: anyone.
    pub(crate) fn clients(&self) -> &[Arc<Permissions>] {
        match self {
            Readers::Anyone => &[],
            Readers::One(one) => std::slice::from_ref(one),
            Readers::Several(several) => several,
        }
    }
}

/// The bindings of one exchange.
pub(crate) enum BindingTable<T> {
    Direct(HashMap<Box<[u8]>, Bag<Binding<T>>>),
    Fanout(Bag<Binding<T>>),
    Topic(Trie<Binding<T>>),
    Headers(Bag<Ruled<T>>),
    Weighted(Bag<Binding<T>>),
    Modulus(Bag<Binding<T>>),
    Random(Chances<T>),
}

/// A binding of a headers exchange with its rule.
pub(crate) struct Ruled<T> {
    rule: HeaderRule,
    binding: Binding<T>,
}

/// Removed bindings; mostly one.
pub(crate) type Removed<T> = SmallVec<[Binding<T>; 1]>;

impl<T: BindTarget> BindingTable<T> {
    pub(crate) fn new(kind: ExchangeKind) -> Self {
        match kind {
            ExchangeKind::Direct => BindingTable::Direct(HashMap::new()),
            ExchangeKind::Fanout | ExchangeKind::RecentHistory | ExchangeKind::Deduplicating => {
                BindingTable::Fanout(Bag::default())
            }
            ExchangeKind::Topic => BindingTable::Topic(Trie::default()),
            ExchangeKind::Headers => BindingTable::Headers(Bag::default()),
            ExchangeKind::ConsistentHash => BindingTable::Weighted(Bag::default()),
            ExchangeKind::ModulusHash => BindingTable::Modulus(Bag::default()),
            ExchangeKind::Random | ExchangeKind::LocalRandom => BindingTable::Random(Chances::default()),
        }
    }

    /// The binding with the same identity.
    pub(crate) fn find(&mut self, like: &Binding<T>) -> Option<&mut Binding<T>> {
        let same = |b: &Binding<T>| b.is(&like.target, &like.key, &like.terms().arguments);
        self.find_by(like.hash(), like.slashed, &like.key, same)
    }

    /// The binding with this [hash](Binding::hash) and key that `is_it` selects.
    pub(crate) fn find_by(
        &mut self,
        hash: u64,
        slashed: bool,
        key: &[u8],
        is_it: impl Fn(&Binding<T>) -> bool,
    ) -> Option<&mut Binding<T>> {
        match self {
            BindingTable::Direct(t) => t.get_mut(key)?.find_mut(hash, is_it),
            BindingTable::Fanout(t) | BindingTable::Weighted(t) | BindingTable::Modulus(t) => {
                t.find_mut(hash, is_it)
            }
            BindingTable::Random(t) => t.bindings.find_mut(hash, is_it),
            BindingTable::Topic(t) => t.find_mut(&filter(key, slashed), hash, is_it),
            BindingTable::Headers(t) => {
                let ruled = t.find_mut(hash, |ruled| is_it(&ruled.binding))?;
                Some(&mut ruled.binding)
            }
        }
    }

    /// Adds a binding that is not present.
    pub(crate) fn insert(&mut self, binding: Binding<T>) {
        match self {
            BindingTable::Direct(t) => t.entry(binding.key.clone()).or_default().insert(binding),
            BindingTable::Fanout(t) | BindingTable::Weighted(t) | BindingTable::Modulus(t) => {
                t.insert(binding);
            }
            BindingTable::Random(t) => t.bindings.insert(binding),
            BindingTable::Topic(t) => t.insert(&filter(&binding.key, binding.slashed), binding),
            BindingTable::Headers(t) => {
                t.insert(Ruled { rule: HeaderRule::new(&binding.terms().arguments), binding });
            }
        }
    }

    /// Removes the bindings with this [hash](Binding::hash) and key that `remove` selects.
    pub(crate) fn remove(
        &mut self,
        hash: u64,
        slashed: bool,
        key: &[u8],
        remove: impl Fn(&Binding<T>) -> bool,
    ) -> Removed<T> {
        match self {
            BindingTable::Direct(t) => {
                let Some(bindings) = t.get_mut(key) else { return SmallVec::new() };
                let removed = bindings.remove(hash, remove);
                if bindings.is_empty() {
                    t.remove(key);
                }
                removed
            }
            BindingTable::Fanout(t) | BindingTable::Weighted(t) | BindingTable::Modulus(t) => {
                t.remove(hash, remove)
            }
            BindingTable::Random(t) => t.bindings.remove(hash, remove),
            BindingTable::Topic(t) => t.remove(&filter(key, slashed), hash, remove),
            BindingTable::Headers(t) => {
                let removed = t.remove(hash, |ruled| remove(&ruled.binding));
                removed.into_iter().map(|ruled| ruled.binding).collect()
            }
        }
    }

    pub(crate) fn for_each(&self, mut f: impl FnMut(&Binding<T>)) {
        match self {
            BindingTable::Direct(t) => t.values().flat_map(Bag::iter).for_each(f),
            BindingTable::Fanout(t) | BindingTable::Weighted(t) | BindingTable::Modulus(t) => {
                t.iter().for_each(f);
            }
            BindingTable::Random(t) => t.bindings.iter().for_each(f),
            BindingTable::Topic(t) => t.iter().for_each(f),
            BindingTable::Headers(t) => t.iter().for_each(|ruled| f(&ruled.binding)),
        }
    }

    /// Calls `found` with the bindings of a topic exchange that name the address without a wildcard.
    pub(crate) fn route_exactly(&self, address: &Address, found: impl FnMut(&Binding<T>)) {
        if let BindingTable::Topic(t) = self {
            t.exactly(address, found);
        }
    }

    /// Calls `found` with the bindings that a message matches; several may have one target. `address` is the routing key
    /// already parsed, if the caller has it.
    pub(crate) fn route(
        &self,
        routing_key: &[u8],
        address: Option<&Address>,
        headers: Option<&dyn HeaderLookup>,
        hashed: Option<&[u8]>,
        mut found: impl FnMut(&Binding<T>),
    ) {
        match self {
            BindingTable::Direct(t) => {
                if let Some(bindings) = t.get(routing_key) {
                    bindings.iter().for_each(found);
                }
            }
            BindingTable::Fanout(t) => t.iter().for_each(found),
            BindingTable::Weighted(t) => {
                let hashed = hashed.unwrap_or(routing_key);
                by_weight(t, hashed).into_iter().for_each(found);
            }
            BindingTable::Modulus(t) => by_modulus(t, routing_key).into_iter().for_each(found),
            BindingTable::Random(t) => t.draw().into_iter().for_each(found),
            BindingTable::Topic(t) => {
                let parsed;
                let address = match address {
                    Some(a) => a,
                    None => {
                        parsed = Address::parse(Form::Dotted, routing_key);
                        &parsed
                    }
                };
                t.matching(address, found);
            }
            BindingTable::Headers(t) => {
                for Ruled { rule, binding } in t.iter() {
                    if rule.matches(headers) {
                        found(binding);
                    }
                }
            }
        }
    }
}

impl<T> Binding<T> {
    /// What a client declared of it.
    pub(crate) fn terms(&self) -> &BindingTerms {
        self.declared.as_deref().unwrap_or(&PLAIN)
    }
}

impl<T: BindTarget> Binding<T> {
    /// Whether it is the binding of this identity.
    pub(crate) fn is(&self, target: &T, key: &[u8], arguments: &Arguments) -> bool {
        self.target.identity() == target.identity()
            && *self.key == *key
            && self.terms().arguments == *arguments
    }

    /// A hash of its identity.
    pub(crate) fn hash(&self) -> u64 {
        hash(&self.target, &self.key, &self.terms().arguments)
    }
}

/// The hash of the binding to a target with this key and these arguments.
pub(crate) fn hash<T: BindTarget>(target: &T, key: &[u8], arguments: &Arguments) -> u64 {
    let mut hasher = FxBuildHasher.build_hasher();
    (target.identity(), key).hash(&mut hasher);
    for (name, value) in arguments {
        name.hash(&mut hasher);
        // Values of other types are told apart by comparison.
        if let Value::Text(text) | Value::Bytes(text) = value {
            text.hash(&mut hasher);
        }
        value.as_int().hash(&mut hasher);
    }
    hasher.finish()
}

/// The filter of a topic exchange's binding.
fn filter(key: &[u8], slashed: bool) -> Filter {
    if slashed { Filter::slashed(key) } else { Filter::dotted(key) }
}

impl<T: BindTarget> Hashed for Binding<T> {
    fn hash(&self) -> u64 {
        Binding::hash(self)
    }
}

impl<T: BindTarget> Hashed for Ruled<T> {
    fn hash(&self) -> u64 {
        self.binding.hash()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl BindTarget for usize {
        fn identity(&self) -> usize {
            *self
        }

        fn named(&self, with: &mut dyn FnMut(&str)) {
            with(&format!("q{self}"));
        }
    }

    fn binding(target: usize, key: &[u8]) -> Binding<usize> {
        Binding { target, key: key.into(), slashed: false, declared: None }
    }

    fn routed(table: &BindingTable<usize>, key: &[u8]) -> Vec<usize> {
        let mut found = Vec::new();
        table.route(key, None, None, None, |binding| found.push(binding.target));
        found.sort_unstable();
        found
    }

    #[test]
    fn each_kind_routes_by_its_rule() {
        for (kind, wanted) in [
            (ExchangeKind::Direct, vec![1]),
            (ExchangeKind::Fanout, vec![1, 2, 3]),
            (ExchangeKind::Topic, vec![1, 2]),
            (ExchangeKind::Headers, vec![1, 2, 3]),
        ] {
            let mut table = BindingTable::new(kind);
            for (target, key) in [(1, b"a.b"), (2, b"a.*"), (3, b"b.*")] {
                table.insert(binding(target, key));
            }
            assert_eq!(routed(&table, b"a.b"), wanted, "{kind:?}");
        }
    }

    #[test]
    fn one_binding_is_chosen_by_hash_or_by_chance() {
        for (kind, weights, shares) in [
            (ExchangeKind::ConsistentHash, [1, 1, 2], [0.25, 0.25, 0.5]),
            (ExchangeKind::ModulusHash, [1, 1, 2], [0.333, 0.333, 0.333]),
            (ExchangeKind::Random, [1, 1, 2], [0.333, 0.333, 0.333]),
        ] {
            let mut table = BindingTable::new(kind);
            for (target, weight) in (0..).zip(weights) {
                table.insert(binding(target, weight.to_string().as_bytes()));
            }
            let one = |table: &BindingTable<usize>, key: usize| {
                let found = routed(table, key.to_string().as_bytes());
                assert_eq!(found.len(), 1, "{kind:?}");
                found[0]
            };
            let before: Vec<usize> = (0..6000).map(|key| one(&table, key)).collect();
            for (target, share) in (0..).zip(shares) {
                let count = before.iter().filter(|found| **found == target).count();
                let wanted = 6000.0 * share;
                assert!((count as f64 - wanted).abs() < 300.0, "{kind:?} {target}: {count} of {wanted}");
            }
            if kind == ExchangeKind::ConsistentHash {
                table.insert(binding(3, b"1"));
                let moved = (0..6000).filter(|key| one(&table, *key) != before[*key]);
                assert!(moved.clone().all(|key| one(&table, key) == 3), "only to the new one");
                assert!((900..1500).contains(&moved.count()));
            }
        }
        let most = Some(1_000_000);
        for (key, weight) in [
            (&b"1"[..], Some(1)),
            (b"0", None),
            (b"x", None),
            (b"", None),
            (b"99999999", most),
            (b"5000000000", most),
        ] {
            assert_eq!(choice::weight_of(key), weight);
        }
        let empty: BindingTable<usize> = BindingTable::new(ExchangeKind::ModulusHash);
        assert!(routed(&empty, b"k").is_empty());
    }

    #[test]
    fn only_the_binding_of_the_given_identity_is_removed() {
        let mut table = BindingTable::new(ExchangeKind::Direct);
        for target in 0..3 {
            table.insert(binding(target, b"k"));
        }
        let one = binding(1, b"k");
        assert!(table.find(&one).is_some());
        let removed = table.remove(one.hash(), false, b"k", |b| b.is(&1, b"k", &Arguments::new()));
        assert_eq!(removed.len(), 1);
        assert!(table.find(&one).is_none());
        assert_eq!(routed(&table, b"k"), [0, 2]);
    }

    /// There are several for each session.
    #[test]
    fn a_binding_of_a_session_is_small() {
        let bytes = size_of::<Binding<crate::exchange::RouteTarget>>();
        assert!(bytes <= 56, "{bytes}");
    }
}
