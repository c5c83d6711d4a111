//! Sharded map from id to object. Shards keep lookups from waiting for each other.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use parking_lot::RwLock;

const SHARDS: usize = 32;

/// Hasher of ids. Ids are assigned by the log itself, so a multiplication spreads them well enough.
#[derive(Clone, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }
}

type Shard<T> = RwLock<HashMap<u64, Arc<T>, BuildHasherDefault<IdHasher>>>;

pub(crate) struct Registry<T> {
    shards: [Shard<T>; SHARDS],
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| RwLock::default()) }
    }
}

impl<T> Registry<T> {
    fn shard(&self, id: u64) -> &Shard<T> {
        &self.shards[id as usize % SHARDS]
    }

    pub(crate) fn get(&self, id: u64) -> Option<Arc<T>> {
        self.shard(id).read().get(&id).cloned()
    }

    pub(crate) fn insert(&self, id: u64, value: Arc<T>) {
        self.shard(id).write().insert(id, value);
    }

    pub(crate) fn remove(&self, id: u64) -> Option<Arc<T>> {
        self.shard(id).write().remove(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// All ids, in order.
    pub(crate) fn ids(&self) -> Vec<u64> {
        let mut ids = Vec::new();
        for shard in &self.shards {
            ids.extend(shard.read().keys().copied());
        }
        ids.sort_unstable();
        ids
    }
}
