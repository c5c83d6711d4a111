//! The listener cache: for each stream that batches are produced to, the subscribers of its topic's address.

use std::sync::Arc;

use dashmap::DashMap;
use inver_storage::StreamId;
use rustc_hash::FxBuildHasher;

use crate::maps;
use crate::receivers::ReceiverSet;

/// Receivers by stream, each with the topology's version that it holds for. At most one entry per partition.
pub(crate) struct ListenerCache(DashMap<u64, (u64, Arc<ReceiverSet>), FxBuildHasher>);

impl ListenerCache {
    pub(super) fn new(namespace: u32) -> ListenerCache {
        ListenerCache(maps::map(namespace))
    }

    /// The receivers, if they hold for this version.
    pub(crate) fn get(&self, stream: StreamId, version: u64) -> Option<Arc<ReceiverSet>> {
        let entry = self.0.get(&stream.0)?;
        (entry.0 == version).then(|| entry.1.clone())
    }

    pub(crate) fn set(&self, stream: StreamId, version: u64, receivers: Arc<ReceiverSet>) {
        self.0.insert(stream.0, (version, receivers));
    }

    pub(super) fn remove(&self, stream: StreamId) {
        self.0.remove(&stream.0);
    }
}
