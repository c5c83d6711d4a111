//! What the parts of one namespace share: the log, the names of its streams, counters and timers.

use std::sync::Arc;

use dashmap::DashMap;
use inver_storage::{Log, StreamId};
use rustc_hash::FxBuildHasher;

use crate::clockwork::Clockwork;
use crate::telemetry::Counters;

/// Shared by the namespace, its queues and its subscriptions.
pub(crate) struct Context {
    pub(crate) log: Log,
    pub(crate) stream_names: StreamNames,
    pub(crate) counters: Counters,
    pub(crate) clockwork: Arc<Clockwork>,
}

/// The name of the topic that each stream belongs to.
#[derive(Default)]
pub(crate) struct StreamNames(DashMap<u64, Arc<str>, FxBuildHasher>);

impl StreamNames {
    pub(crate) fn get(&self, stream: StreamId) -> Option<Arc<str>> {
        self.0.get(&stream.0).map(|n| n.clone())
    }

    pub(crate) fn insert(&self, stream: StreamId, topic: &Arc<str>) {
        self.0.insert(stream.0, topic.clone());
    }

    pub(crate) fn remove(&self, stream: StreamId) {
        self.0.remove(&stream.0);
    }
}
