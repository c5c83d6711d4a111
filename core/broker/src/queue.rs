//! Queues: a topic of the queue kind with the one subscription that its consumers share, or the same held in
//! memory where nothing of it is to survive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use inver_storage::Stream;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::exchange::Exchange;
use crate::subscription::{Depth, Subscription};
use crate::topic::Topic;
use crate::value::Arguments;

/// A connection's identity, for what it alone may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OwnerId(pub u64);

/// What a queue was declared as.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueSpec {
    /// Survives a restart, with its messages.
    pub durable: bool,
    /// Goes away when its last consumer does.
    pub auto_delete: bool,
    /// The one connection that may use it. The owner deletes it when it ends.
    pub owner: Option<OwnerId>,
    /// Not seen as a topic.
    pub hidden: bool,
    /// One consumer is active at a time, another takes over.
    pub single_active: bool,
    /// All settings as they were given, for comparison.
    pub arguments: Arguments,
}

/// See the module's text.
pub struct Queue {
    name: Box<str>,
    spec: QueueSpec,
    subscription: Arc<Subscription>,
    stream: Option<Stream>,
    topic: Option<Arc<Topic>>,
    /// Exchanges with bindings to this queue.
    bound_from: Mutex<Vec<Arc<Exchange>>>,
    deleted: AtomicBool,
}

impl Queue {
    pub(crate) fn new(
        name: &str,
        spec: QueueSpec,
        subscription: Arc<Subscription>,
        stream: Option<Stream>,
        topic: Option<Arc<Topic>>,
    ) -> Arc<Queue> {
        Arc::new(Queue {
            name: name.into(),
            spec,
            subscription,
            stream,
            topic,
            bound_from: Mutex::default(),
            deleted: AtomicBool::new(false),
        })
    }

    /// Its name within its namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it was declared as.
    #[must_use]
    pub fn spec(&self) -> &QueueSpec {
        &self.spec
    }

    /// What its consumers attach to.
    #[must_use]
    pub fn subscription(&self) -> &Arc<Subscription> {
        &self.subscription
    }

    /// How full it is.
    #[must_use]
    pub fn depth(&self) -> Depth {
        self.subscription.depth()
    }

    /// The topic that it is, if it is durable.
    #[must_use]
    pub fn topic(&self) -> Option<&Arc<Topic>> {
        self.topic.as_ref()
    }

    pub(crate) fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }

    pub(crate) fn note_bound(&self, exchange: &Arc<Exchange>) {
        let mut from = self.bound_from.lock();
        if !from.iter().any(|e| Arc::ptr_eq(e, exchange)) {
            from.push(exchange.clone());
        }
    }

    pub(crate) fn take_bound(&self) -> Vec<Arc<Exchange>> {
        std::mem::take(&mut self.bound_from.lock())
    }

    /// Marks it deleted; true the first time.
    pub(crate) fn mark_deleted(&self) -> bool {
        !self.deleted.swap(true, Ordering::AcqRel)
    }

    /// Whether it was deleted.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("name", &self.name).field("spec", &self.spec).finish()
    }
}
