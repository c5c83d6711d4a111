//! The listener cache: for each stream that batches are produced to, the subscribers of its topic's address. What is cached
//! holds for one version of the topology and one of the permissions of the clients that made the bindings.

use std::sync::Arc;

use dashmap::DashMap;
use inver_storage::StreamId;
use rustc_hash::FxBuildHasher;

use crate::access::Permissions;
use crate::maps;
use crate::receivers::ReceiverSet;

/// Receivers by stream. At most one entry per partition.
pub(crate) struct ListenerCache(DashMap<u64, Cached, FxBuildHasher>);

struct Cached {
    /// The topology's version.
    version: u64,
    /// Permissions that decided, if any, and their version.
    readers: Option<(Arc<Permissions>, u64)>,
    receivers: Arc<ReceiverSet>,
}

impl ListenerCache {
    pub(super) fn new(namespace: u32) -> ListenerCache {
        ListenerCache(maps::map(namespace))
    }

    /// The receivers, if they hold for this version.
    pub(crate) fn get(&self, stream: StreamId, version: u64) -> Option<Arc<ReceiverSet>> {
        let entry = self.0.get(&stream.0)?;
        let holds = entry.readers.as_ref().is_none_or(|(readers, version)| readers.version() == *version);
        (holds && entry.version == version).then(|| entry.receivers.clone())
    }

    pub(crate) fn set(
        &self,
        stream: StreamId,
        version: u64,
        readers: Option<(Arc<Permissions>, u64)>,
        receivers: Arc<ReceiverSet>,
    ) {
        self.0.insert(stream.0, Cached { version, readers, receivers });
    }

    pub(super) fn remove(&self, stream: StreamId) {
        self.0.remove(&stream.0);
    }
}
