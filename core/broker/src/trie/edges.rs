//! Edges of a trie: from a node, by a level that is no wildcard, to a node.
//!
//! A hash table that grows moves all that it has, and all that use the trie wait for that. So many edges are spread over
//! tables, of which one grows at a time.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// Edges of one table; beyond it, they are spread.
const ONE_TABLE_MAX: usize = 16 * 1024;

/// The tables over which many are spread. A million edges are four thousand in each.
const TABLES: usize = 256;

#[derive(Debug)]
struct Edge {
    from: u32,
    to: u32,
    level: Box<[u8]>,
}

impl Edge {
    fn is(&self, from: u32, level: &[u8]) -> bool {
        self.from == from && *self.level == *level
    }
}

/// The edges of a trie.
#[derive(Debug, Default)]
pub(super) struct Edges {
    /// Clients choose the levels: the hash is none that they could predict.
    hasher: RandomState,
    len: usize,
    one: HashTable<Edge>,
    /// Empty while `one` has all.
    many: Box<[HashTable<Edge>]>,
}

impl Edges {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn hash(&self, from: u32, level: &[u8]) -> u64 {
        self.hasher.hash_one((from, level))
    }

    fn table(&self, hash: u64) -> &HashTable<Edge> {
        self.many.get(table_of(hash)).unwrap_or(&self.one)
    }

    fn table_mut(&mut self, hash: u64) -> &mut HashTable<Edge> {
        self.many.get_mut(table_of(hash)).unwrap_or(&mut self.one)
    }

    /// The node to which the edge leads, if there is one.
    pub(super) fn get(&self, from: u32, level: &[u8]) -> Option<u32> {
        let hash = self.hash(from, level);
        Some(self.table(hash).find(hash, |edge| edge.is(from, level))?.to)
    }

    /// Adds an edge that is not there.
    pub(super) fn insert(&mut self, from: u32, level: &[u8], to: u32) {
        if self.len == ONE_TABLE_MAX && self.many.is_empty() {
            self.spread();
        }
        self.len += 1;
        self.put(Edge { from, to, level: level.into() });
    }

    fn put(&mut self, edge: Edge) {
        let hash = self.hash(edge.from, &edge.level);
        let hasher = self.hasher.clone();
        let rehash = move |edge: &Edge| hasher.hash_one((edge.from, &*edge.level));
        self.table_mut(hash).insert_unique(hash, edge, rehash);
    }

    fn spread(&mut self) {
        let all = std::mem::take(&mut self.one);
        self.many = (0..TABLES).map(|_| HashTable::new()).collect();
        all.into_iter().for_each(|edge| self.put(edge));
    }

    /// Removes an edge. Without any, no memory is kept.
    pub(super) fn remove(&mut self, from: u32, level: &[u8]) {
        let hash = self.hash(from, level);
        let Ok(found) = self.table_mut(hash).find_entry(hash, |edge| edge.is(from, level)) else { return };
        found.remove();
        self.len -= 1;
        if self.len == 0 {
            (self.one, self.many) = Default::default();
        }
    }
}

/// Not by the bits by which a table finds its places.
fn table_of(hash: u64) -> usize {
    (hash >> 40) as usize % TABLES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn very_many_edges_are_spread_over_tables_and_found() {
        const EDGES: u32 = 4 * ONE_TABLE_MAX as u32;
        let level = |number: u32| (number / 3).to_string().into_bytes();
        let mut edges = Edges::default();
        (0..EDGES).for_each(|number| edges.insert(number % 3, &level(number), number));
        assert!(edges.one.is_empty());
        let largest = edges.many.iter().map(HashTable::len).max();
        assert!(largest < Some(3 * EDGES as usize / TABLES), "{largest:?}");
        for number in 0..EDGES {
            assert_eq!(edges.get(number % 3, &level(number)), Some(number));
        }
        assert_eq!(edges.get(3, &level(0)), None);
        (0..EDGES).for_each(|number| edges.remove(number % 3, &level(number)));
        assert!(edges.is_empty() && edges.many.is_empty());
    }
}
