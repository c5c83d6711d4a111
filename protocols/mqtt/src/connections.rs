//! Directory of connected clients: one mailbox each, so that one task can tell all of them that the server shuts down.
//!
//! A connection learns of the shutdown through the mailbox that it polls anyway. A cancellation token would need a
//! waiter in every idle connection, several times the size of an entry here.
//!
//! Bound: one slab entry of two words a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use inver_broker::{Mailbox, Shutdown};
use parking_lot::Mutex;
use slab::Slab;

use crate::token;

/// Mailboxes of the connected clients.
#[derive(Default)]
pub(crate) struct Connections {
    registry: Mutex<Registry>,
    /// A task waits for the shutdown signal.
    is_watching: AtomicBool,
}

#[derive(Default)]
struct Registry {
    mailboxes: Slab<Arc<Mailbox>>,
    shutdown_requested: bool,
}

impl Connections {
    /// Posts [`token::SHUTDOWN`] to every client once `shutdown` is requested, to those that connect later at once. One
    /// task does so for all connections: calls after the first have no effect.
    pub(crate) fn watch(self: &Arc<Self>, shutdown: &Shutdown) {
        if !self.is_watching.swap(true, Ordering::AcqRel) {
            let (connections, mut shutdown) = (self.clone(), shutdown.clone());
            tokio::spawn(async move {
                shutdown.requested().await;
                let mut registry = connections.registry.lock();
                registry.shutdown_requested = true;
                registry.mailboxes.iter().for_each(|(_, mailbox)| mailbox.post(token::SHUTDOWN));
            });
        }
    }

    /// Registers a client; returns its key for [`Self::remove`].
    pub(crate) fn insert(&self, mailbox: &Arc<Mailbox>) -> usize {
        let mut registry = self.registry.lock();
        if registry.shutdown_requested {
            mailbox.post(token::SHUTDOWN);
        }
        registry.mailboxes.insert(mailbox.clone())
    }

    pub(crate) fn remove(&self, key: usize) {
        let removed = self.registry.lock().mailboxes.try_remove(key);
        debug_assert!(removed.is_some(), "a client is registered once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutdown_reaches_connected_and_later_clients_and_keys_are_reused() {
        let connections = Arc::new(Connections::default());
        let (trigger, shutdown) = Shutdown::channel();
        connections.watch(&shutdown);
        let (gone, connected, late) = (Mailbox::new(), Mailbox::new(), Mailbox::new());
        let key = connections.insert(&gone);
        connections.remove(key);
        assert_eq!(connections.insert(&connected), key);
        trigger.request();
        connected.wait().await;
        connections.insert(&late);
        late.wait().await;
        let mut tokens = Vec::new();
        connected.drain(&mut tokens);
        assert_eq!(tokens, [token::SHUTDOWN]);
        gone.drain(&mut tokens);
        assert!(tokens.is_empty(), "removed before the shutdown");
    }
}
