//! The sessions of a namespace by client id, and the members of its shared-subscription groups.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use dashmap::DashMap;
use inver_storage::SubmitError;
use parking_lot::{Mutex, MutexGuard};
use rustc_hash::FxBuildHasher;

use super::core::SessionCore;
use super::exclusive::Exclusive;
use super::overflows::Overflows;
use super::tally::{Counted, SessionTally};
use crate::access::AccessControl;
use crate::context::OneByOne;
use crate::maps;
use crate::namespace::Namespace;
use crate::ordered::{Order, Ordered};
use crate::removal::Removal;
use crate::spec::InboxBounds;

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
    /// The members of each group, by the ids of their sessions: one that ends leaves its groups later than its client may come
    /// again with another session. Taken before the namespace's topology lock.
    pub(super) groups: Mutex<HashMap<String, HashSet<u64>>>,
    pub(super) exclusive: Exclusive,
    pub(super) counted: Counted,
    /// Durable sessions by the streams of their inboxes.
    by_stream: DashMap<u64, Arc<SessionCore>, FxBuildHasher>,
    pub(super) inbox: InboxBounds,
    overflows: Overflows,
    /// Sessions that ended, and have many subscriptions to remove.
    pub(super) leaving: OneByOne,
}

impl Sessions {
    pub(crate) fn new(namespace: Namespace, access: AccessControl, inbox: InboxBounds) -> Sessions {
        Sessions(Arc::new(Registry {
            by_client: maps::map(namespace.id()),
            by_stream: maps::map(namespace.id()),
            inbox,
            overflows: Overflows::default(),
            namespace,
            access,
            in_order: Ordered::default(),
            changing: Mutex::default(),
            groups: Mutex::default(),
            exclusive: Exclusive::default(),
            counted: Counted::default(),
            leaving: OneByOne::default(),
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

    /// How many sessions and subscriptions there are.
    #[must_use]
    pub fn tally(&self) -> SessionTally {
        self.0.counted.tally(self.len())
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
        if let Some((stream, _)) = core.stream() {
            self.0.by_stream.insert(stream.id().0, core.clone());
            self.bound(core);
        }
    }

    /// Removes all sessions, from memory and from the log; their wills are not published.
    pub(crate) fn remove_all(&self, removal: &mut Removal<'_>) -> Result<(), SubmitError> {
        let all: Vec<Arc<SessionCore>> = {
            let _changing = self.0.changing();
            let all = self.0.by_client.iter().map(|core| core.clone()).collect();
            self.0.by_client.clear();
            self.0.by_stream.clear();
            self.0.in_order.clear();
            self.0.groups.lock().clear();
            self.0.exclusive.clear();
            all
        };
        for core in all {
            core.remove(removal);
            removal.end_of_object()?;
        }
        Ok(())
    }

    /// Drops the oldest messages of all inboxes beyond their bounds, and counts the others.
    pub(crate) fn bound_inboxes(&self) {
        let (mut messages, mut bytes) = (0, 0);
        for core in self.0.by_client.iter() {
            self.bound(&core);
            messages += core.stored();
            bytes += core.stored_bytes();
        }
        self.0.counted.set_queued(messages, bytes);
    }

    /// Drops the oldest messages beyond its bounds of the inbox in this stream. Whether it is one of the namespace.
    pub(crate) fn bound_inbox(&self, stream: u64) -> bool {
        let core = self.0.by_stream.get(&stream).map(|core| core.clone());
        core.is_some_and(|core| {
            self.bound(&core);
            true
        })
    }

    fn bound(&self, core: &SessionCore) {
        match core.bound_inbox(&self.0.inbox) {
            Ok(0) => {}
            Ok(dropped) => {
                let namespace = self.namespace();
                namespace.counters().dropped.increment(dropped);
                namespace.counters().inbox_dropped.increment(dropped);
                self.0.overflows.log(namespace, core.client_id(), dropped);
            }
            Err(error) => core.log_rejected(&error),
        }
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
        if let Some((stream, _)) = core.stream() {
            self.by_stream.remove(&stream.id().0);
        }
    }
}
