//! Trie: a map from filters to values, matched against addresses.
//!
//! The cost of matching depends on the depth of the address and on the wildcards that it meets, not on the number of
//! filters. Filters that match the same addresses share a node: of wildcards in a row, only the number of single levels
//! counts, and whether any number of them may follow. Matching keeps a set of nodes instead of recursing, so that an
//! address of sixty thousand levels needs no stack.

mod edges;

use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use crate::address::{Address, Filter, Step};
use crate::bag::{Bag, Hashed};

use self::edges::Edges;

const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;

/// A map from filters to sets of values.
#[derive(Debug)]
pub(crate) struct Trie<T> {
    nodes: Vec<Node<T>>,
    edges: Edges,
    free: Vec<u32>,
}

/// The steps of a filter, wildcards in a row in a fixed form: those of one level first, then one of many.
type Steps<'a> = SmallVec<[&'a Step; 16]>;

fn canonical(filter: &Filter) -> Steps<'_> {
    let mut steps = Steps::new();
    let mut many = None;
    for step in filter.steps() {
        match step {
            Step::One => steps.push(step),
            Step::Many => many = Some(step),
            Step::Literal(_) => {
                steps.extend(many.take());
                steps.push(step);
            }
        }
    }
    steps.extend(many);
    steps
}

#[derive(Debug)]
struct Node<T> {
    one: u32,
    many: u32,
    parent: u32,
    /// Edges to children, including wildcard edges.
    children: u32,
    values: Bag<Value<T>>,
}

#[derive(Debug)]
struct Value<T> {
    /// See [`Filter::is_guarded`].
    guarded: bool,
    value: T,
}

impl<T: Hashed> Hashed for Value<T> {
    fn hash(&self) -> u64 {
        self.value.hash()
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Trie { nodes: vec![Node::new(NONE)], edges: Edges::default(), free: Vec::new() }
    }
}

impl<T> Node<T> {
    fn new(parent: u32) -> Self {
        Node { one: NONE, many: NONE, parent, children: 0, values: Bag::Empty }
    }

    fn has_literals(&self) -> bool {
        self.children > u32::from(self.one != NONE) + u32::from(self.many != NONE)
    }
}

impl<T: Hashed> Trie<T> {
    /// Adds a value to a filter; a filter can have several.
    pub(crate) fn insert(&mut self, filter: &Filter, value: T) {
        let node = self.grow(&canonical(filter));
        self.nodes[node as usize].values.insert(Value { guarded: filter.is_guarded(), value });
    }

    /// A value of exactly this filter, with this hash, that `is_it` accepts.
    pub(crate) fn find_mut(
        &mut self,
        filter: &Filter,
        hash: u64,
        is_it: impl Fn(&T) -> bool,
    ) -> Option<&mut T> {
        let node = self.descend(&canonical(filter))?;
        let found = self.nodes[node as usize].values.find_mut(hash, |v| is_it(&v.value))?;
        Some(&mut found.value)
    }

    /// Removes the values of this filter with this hash that `remove` selects.
    pub(crate) fn remove(
        &mut self,
        filter: &Filter,
        hash: u64,
        mut remove: impl FnMut(&T) -> bool,
    ) -> SmallVec<[T; 1]> {
        let steps = canonical(filter);
        let Some(node) = self.descend(&steps) else { return SmallVec::new() };
        let taken = self.nodes[node as usize].values.remove(hash, |v| remove(&v.value));
        self.prune(node, &steps);
        taken.into_iter().map(|v| v.value).collect()
    }
}

impl<T> Trie<T> {
    /// Calls `found` once for every value whose filter matches the address.
    pub(crate) fn matching<'a>(&'a self, address: &Address, found: impl FnMut(&'a T)) {
        self.visit(address, found);
    }

    /// As [`matching`](Self::matching); the number of nodes visited.
    fn visit<'a>(&'a self, address: &Address, mut found: impl FnMut(&'a T)) -> usize {
        let system = address.is_system();
        let mut find = |node: &'a Node<T>| {
            node.values.iter().filter(|v| !(system && v.guarded)).for_each(|v| found(&v.value));
        };
        // The nodes whose filters match the levels so far. A node of many levels matches all that follow: it is reached
        // once, and stays.
        let (mut here, mut next): (Vec<u32>, Vec<u32>) = (vec![ROOT], Vec::new());
        let mut staying: Vec<u32> = Vec::new();
        let mut reached: FxHashSet<u32> = FxHashSet::default();
        let mut visited = 0;
        for level in address.levels() {
            self.reach(&here, &mut reached, &mut staying, &mut find);
            next.clear();
            for &n in here.iter().chain(&staying) {
                visited += 1;
                let node = &self.nodes[n as usize];
                if node.one != NONE {
                    next.push(node.one);
                }
                if node.has_literals() {
                    next.extend(self.edges.get(n, level));
                }
            }
            std::mem::swap(&mut here, &mut next);
            if here.is_empty() && staying.is_empty() {
                return visited;
            }
        }
        self.reach(&here, &mut reached, &mut staying, &mut find);
        here.iter().for_each(|n| find(&self.nodes[*n as usize]));
        visited + here.len()
    }

    /// Finds what the nodes of many levels behind these nodes have, since those match no level too. They stay if filters
    /// go on behind them.
    fn reach<'a>(
        &'a self,
        nodes: &[u32],
        reached: &mut FxHashSet<u32>,
        staying: &mut Vec<u32>,
        find: &mut impl FnMut(&'a Node<T>),
    ) {
        for n in nodes {
            let many = self.nodes[*n as usize].many;
            if many == NONE || !reached.insert(many) {
                continue;
            }
            let node = &self.nodes[many as usize];
            find(node);
            if node.children > 0 {
                staying.push(many);
            }
        }
    }

    /// Calls `found` once for every value whose filter is the address, without a wildcard.
    pub(crate) fn exactly<'a>(&'a self, address: &Address, found: impl FnMut(&'a T)) {
        let mut at = ROOT;
        for level in address.levels() {
            let Some(child) = self.edges.get(at, level) else { return };
            at = child;
        }
        self.nodes[at as usize].values.iter().map(|v| &v.value).for_each(found);
    }

    /// The values of all filters.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.nodes.iter().flat_map(|n| n.values.iter().map(|v| &v.value))
    }

    fn descend(&self, steps: &[&Step]) -> Option<u32> {
        let mut at = ROOT;
        for step in steps {
            at = self.child(at, step)?;
        }
        Some(at)
    }

    fn child(&self, at: u32, step: &Step) -> Option<u32> {
        let node = &self.nodes[at as usize];
        let child = match step {
            Step::One => node.one,
            Step::Many => node.many,
            Step::Literal(l) => self.edges.get(at, l).unwrap_or(NONE),
        };
        (child != NONE).then_some(child)
    }

    fn grow(&mut self, steps: &[&Step]) -> u32 {
        let mut at = ROOT;
        for step in steps {
            at = match self.child(at, step) {
                Some(child) => child,
                None => self.add_child(at, step),
            };
        }
        at
    }

    fn add_child(&mut self, at: u32, step: &Step) -> u32 {
        let child = match self.free.pop() {
            Some(reused) => {
                self.nodes[reused as usize] = Node::new(at);
                reused
            }
            None => {
                self.nodes.push(Node::new(at));
                (self.nodes.len() - 1) as u32
            }
        };
        let node = &mut self.nodes[at as usize];
        node.children += 1;
        match step {
            Step::One => node.one = child,
            Step::Many => node.many = child,
            Step::Literal(l) => self.edges.insert(at, l, child),
        }
        child
    }

    /// Removes an emptied node and its ancestors as far as they have no other children or values.
    fn prune(&mut self, mut node: u32, steps: &[&Step]) {
        for step in steps.iter().rev() {
            let n = &self.nodes[node as usize];
            if n.children > 0 || !n.values.is_empty() {
                return;
            }
            let parent = n.parent;
            let up = &mut self.nodes[parent as usize];
            up.children -= 1;
            match step {
                Step::One => up.one = NONE,
                Step::Many => up.many = NONE,
                Step::Literal(l) => self.edges.remove(parent, l),
            }
            self.nodes[node as usize] = Node::new(NONE);
            self.free.push(node);
            node = parent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Form;
    use proptest::prelude::*;

    impl Hashed for usize {
        fn hash(&self) -> u64 {
            *self as u64
        }
    }

    #[test]
    fn an_address_of_many_levels_costs_no_stack() {
        let mut trie = Trie::default();
        trie.insert(&Filter::dotted(b"#.x.#"), 1usize);
        let address = Address::parse(Form::Slashed, &[b'/'; 65_000]);
        let mut found = 0;
        trie.matching(&address, |_| found += 1);
        assert_eq!(found, 0);
    }

    #[test]
    fn filters_of_wildcards_only_share_nodes() {
        const STEPS: u32 = 12;
        let mut trie = Trie::default();
        let filter = |bits: u32| {
            let steps = (0..STEPS).map(|i| if bits >> i & 1 == 1 { "#" } else { "*" });
            Filter::dotted(steps.collect::<Vec<_>>().join(".").as_bytes())
        };
        (0..1 << STEPS).for_each(|bits| trie.insert(&filter(bits), bits as usize));
        assert!(trie.nodes.len() <= 2 * (STEPS as usize + 1), "{}", trie.nodes.len());
        let address = Address::parse(Form::Dotted, b"a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t");
        let mut found = 0;
        let visited = trie.visit(&address, |_| found += 1);
        assert_eq!(found, (1 << STEPS) - 1, "all with a wildcard for many levels");
        assert!(visited <= address.levels().len() * 2, "{visited}");
        assert_eq!(trie.remove(&filter(5), 5, |v| *v == 5).len(), 1);
        assert!(trie.find_mut(&filter(6), 6, |v| *v == 6).is_some());
    }

    #[test]
    fn a_node_is_visited_once_a_level_however_often_it_is_reached() {
        let mut trie = Trie::default();
        let filters = ["#.a.#.a.#.a.#", "#.a.*.a.#", "#.a.#.*.a", "a.#.a", "#.a", "a.a.#.a"];
        filters.iter().enumerate().for_each(|(i, filter)| trie.insert(&Filter::dotted(filter.as_bytes()), i));
        let address = Address::parse(Form::Dotted, &b"a.".repeat(200));
        let visited = trie.visit(&address, |_| {});
        assert!(visited <= address.levels().len() * trie.nodes.len(), "{visited}");
    }

    proptest! {
        #[test]
        fn agrees_with_matching_each_filter(
            filters in prop::collection::vec("([ab$]|\\*|#)(\\.([ab]|\\*|#)){0,4}", 1..24),
            addresses in prop::collection::vec("[ab$](\\.[ab]){0,5}", 1..12),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut trie = Trie::default();
            let mut plain: Vec<(Filter, usize)> = Vec::new();
            for (i, text) in filters.iter().enumerate() {
                let filter = if i % 2 == 0 {
                    Filter::dotted(text.as_bytes())
                } else {
                    Filter::slashed(text.replace('.', "/").replace('*', "+").as_bytes())
                };
                trie.insert(&filter, i);
                plain.push((filter, i));
            }
            for index in removed {
                if plain.is_empty() { break }
                let (filter, value) = plain.remove(index.index(plain.len()));
                prop_assert_eq!(trie.remove(&filter, value.hash(), |v| *v == value).to_vec(), vec![value]);
            }
            prop_assert_eq!(trie.iter().count(), plain.len());
            for text in addresses {
                let address = Address::parse(Form::Dotted, text.as_bytes());
                let mut found = Vec::new();
                trie.matching(&address, |v| found.push(*v));
                found.sort_unstable();
                let wanted: Vec<usize> =
                    plain.iter().filter(|(f, _)| f.matches(&address)).map(|(_, v)| *v).collect();
                prop_assert_eq!(found, wanted);
                let mut found = Vec::new();
                trie.exactly(&address, |v| found.push(*v));
                found.sort_unstable();
                let is_it = |f: &Filter| f.as_address().is_some_and(|of| of == address);
                let wanted: Vec<usize> = plain.iter().filter(|(f, _)| is_it(f)).map(|(_, v)| *v).collect();
                prop_assert_eq!(found, wanted);
            }
            for (filter, value) in plain {
                trie.remove(&filter, value.hash(), |v| *v == value);
            }
            prop_assert_eq!(trie.iter().count(), 0);
            prop_assert!(trie.edges.is_empty());
        }
    }
}
