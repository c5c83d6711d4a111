//! The sessions of a namespace by client id, and the members of its shared-subscription groups.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use dashmap::DashMap;
use inver_storage::SubmitError;
use parking_lot::{Mutex, MutexGuard};

use super::core::SessionCore;
use crate::access::AccessControl;
use crate::maps;
use crate::namespace::Namespace;
use crate::ordered::{Order, Ordered};
use crate::removal::Removal;

/// The sessions of a namespace; cheap to clone. Every clone keeps the sessions alive.
#[derive(Clone)]
pub struct Sessions(pub(super) Arc<Registry>);

pub(crate) struct Registry {
    pub(super) namespace: Namespace,
    pub(super) access: AccessControl,
    by_client: DashMap<Arc<str>, Arc<SessionCore>>,
    /// The same sessions in the order of their client ids, for lists.
    in_order: Ordered<SessionCore>,
    /// Held while a session is created, taken over or expires.
    changing: Mutex<()>,
    /// The members of each group, by client id. Taken before the namespace's topology lock.
    pub(super) groups: Mutex<HashMap<String, HashSet<String>>>,
}

impl Sessions {
    pub(crate) fn new(namespace: Namespace, access: AccessControl) -> Sessions {
        Sessions(Arc::new(Registry {
            by_client: maps::map(namespace.id()),
            namespace,
            access,
            in_order: Ordered::default(),
            changing: Mutex::default(),
            groups: Mutex::default(),
        }))
    }

    /// The namespace of the sessions.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// The users and permission rules.
    #[must_use]
    pub fn access(&self) -> &AccessControl {
        &self.0.access
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
        self.0.in_order.insert(core);
    }

    /// Removes all sessions, from memory and from the log; their wills are not published.
    pub(crate) fn remove_all(&self, removal: &mut Removal<'_>) -> Result<(), SubmitError> {
        let all: Vec<Arc<SessionCore>> = {
            let _changing = self.0.changing();
            let all = self.0.by_client.iter().map(|core| core.clone()).collect();
            self.0.by_client.clear();
            self.0.in_order.clear();
            self.0.groups.lock().clear();
            all
        };
        for core in all {
            core.remove(removal);
            removal.end_of_object()?;
        }
        Ok(())
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

    /// Bytes of the messages that the namespace keeps in the log, those in inboxes included; one that several keep counts
    /// for each.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        let inboxes: u64 = self.0.by_client.iter().map(|core| core.stored_bytes()).sum();
        self.namespace().stored_bytes() + inboxes
    }

    /// Notes whether the namespace holds as many bytes as it may.
    pub(crate) fn check_bytes(&self) {
        let max = self.namespace().own_limits().bytes_max;
        self.namespace().set_full(max.is_some_and(|max| self.stored_bytes() >= max));
    }

    /// Updates the gauges of the namespace and its sessions.
    pub(crate) fn record(&self) {
        self.0.namespace.record();
        self.0.namespace.counters().sessions.set(self.len() as f64);
    }
}

impl Registry {
    /// Locks out other changes of who holds a session.
    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }

    pub(super) fn following(
        &self,
        order: Order,
        after: Option<&str>,
        skip: usize,
        max: usize,
    ) -> Vec<Arc<SessionCore>> {
        self.in_order.following(order, after, skip, max)
    }

    pub(super) fn remove(&self, core: &Arc<SessionCore>) {
        self.by_client.remove_if(&**core.client_id(), |_, present| Arc::ptr_eq(present, core));
        self.in_order.remove_same(core);
    }
}
