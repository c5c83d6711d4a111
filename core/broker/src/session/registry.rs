//! The sessions of a namespace by client id, and the members of its shared-subscription groups.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::{Mutex, MutexGuard};

use super::core::SessionCore;
use crate::namespace::Namespace;

/// The sessions of a namespace; cheap to clone. Every clone keeps the sessions alive.
#[derive(Clone)]
pub struct Sessions(pub(super) Arc<Registry>);

pub(crate) struct Registry {
    pub(super) namespace: Namespace,
    by_client: DashMap<Arc<str>, Arc<SessionCore>>,
    /// Held while a session is created, taken over or expires.
    changing: Mutex<()>,
    /// The members of each group, by client id. Taken before the namespace's topology lock.
    pub(super) groups: Mutex<HashMap<String, HashSet<String>>>,
}

impl Sessions {
    pub(crate) fn new(namespace: Namespace) -> Sessions {
        Sessions(Arc::new(Registry {
            namespace,
            by_client: DashMap::new(),
            changing: Mutex::default(),
            groups: Mutex::default(),
        }))
    }

    /// The namespace of the sessions.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// The number of sessions, connected or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.by_client.len()
    }

    /// Whether there is no session.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn get(&self, client_id: &str) -> Option<Arc<SessionCore>> {
        self.0.by_client.get(client_id).map(|core| core.clone())
    }

    pub(super) fn insert(&self, core: &Arc<SessionCore>) {
        self.0.by_client.insert(core.client_id().clone(), core.clone());
    }

    /// Drops the oldest messages of inboxes beyond `messages_max`.
    pub(crate) fn bound_inboxes(&self, messages_max: u64) {
        let mut dropped = 0;
        for core in &self.0.by_client {
            match core.bound_inbox(messages_max) {
                Ok(messages) => dropped += messages,
                Err(error) => core.log_rejected(&error),
            }
        }
        self.0.namespace.counters().dropped.increment(dropped);
    }

    /// Updates the number of sessions in the metrics.
    pub(crate) fn record(&self) {
        self.0.namespace.counters().sessions.set(self.len() as f64);
    }
}

impl Registry {
    /// Locks out other changes of who holds a session.
    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }

    pub(super) fn remove(&self, core: &Arc<SessionCore>) {
        self.by_client.remove_if(&**core.client_id(), |_, present| Arc::ptr_eq(present, core));
    }
}
