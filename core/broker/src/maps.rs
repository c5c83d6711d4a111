//! Concurrent maps of namespaces.

use std::hash::{BuildHasher, Hash};

use dashmap::DashMap;

/// Shards of a map of a namespace other than the default one: there may be many namespaces, and an empty shard has a cost
/// too. The default number grows with the number of processors.
const SHARDS: usize = 8;

/// An empty map of the namespace of this number.
pub(crate) fn map<K: Eq + Hash, V, S: BuildHasher + Clone + Default>(namespace: u32) -> DashMap<K, V, S> {
    if namespace == 0 {
        DashMap::default()
    } else {
        DashMap::with_hasher_and_shard_amount(S::default(), SHARDS)
    }
}
