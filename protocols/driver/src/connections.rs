//! The open connections of a protocol, so that one task tells all of them that shutdown was requested, and those that the
//! gate holds back that it opened.
//!
//! An idle connection that waited for shutdown on its own would hold a timer-sized waiter; here it is a pointer.
//! Bound: a slot for each connection that is open at the same time.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use inver_broker::Mailbox;
use inver_storage::{Gate, GateListener};
use parking_lot::Mutex;
use slab::Slab;
use tokio_util::sync::CancellationToken;

use crate::traffic::Traffic;

/// The token that tells a connection that shutdown was requested. Machines never see it and must not use it,
/// nor [`CLOSE`](inver_broker::CLOSE).
pub(crate) const SHUTDOWN: u64 = u64::MAX;
/// The token that tells a connection that the gate opened; the machine does not see it either.
pub(crate) const OPENED: u64 = u64::MAX - 2;

/// The open connections of one protocol.
pub struct Connections {
    open: Mutex<Open>,
    is_watched: AtomicBool,
    traffic: Traffic,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("open", &self.len()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Open {
    mailboxes: Slab<Arc<Mailbox>>,
    /// Slots of the connections that the gate holds back.
    held: HashSet<u32>,
    is_shutdown: bool,
}

impl Connections {
    /// Without connections, of the protocol of this name.
    #[must_use]
    pub fn new(protocol: &'static str) -> Arc<Connections> {
        let traffic = Traffic::new(protocol);
        Arc::new(Connections { open: Mutex::default(), is_watched: AtomicBool::new(false), traffic })
    }

    /// What they receive and send.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Adds what a thread has counted that works for a connection outside of its turns.
    pub fn add_counts(&self) {
        self.traffic.add_tally();
    }

    /// Number of open connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.lock().mailboxes.len()
    }

    /// Whether no connection is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every connection was told to end.
    pub(crate) fn is_shutting_down(&self) -> bool {
        self.open.lock().is_shutdown
    }

    /// Starts to wait for shutdown and for the gate, unless a task does already. Must run within a runtime.
    pub(crate) fn watch(self: &Arc<Self>, shutdown: &CancellationToken, gate: &Gate) {
        if !self.is_watched.swap(true, Ordering::AcqRel) {
            let this: Weak<Connections> = Arc::downgrade(self);
            gate.on_open(this);
            let (connections, shutdown) = (self.clone(), shutdown.clone());
            tokio::spawn(async move {
                shutdown.cancelled().await;
                let mut open = connections.open.lock();
                open.is_shutdown = true;
                open.mailboxes.iter().for_each(|(_, mailbox)| mailbox.post(SHUTDOWN));
            });
        }
    }

    /// Enters a connection by its mailbox; returns its slot.
    pub(crate) fn enter(&self, mailbox: &Arc<Mailbox>) -> u32 {
        let mut open = self.open.lock();
        if open.is_shutdown {
            mailbox.post(SHUTDOWN);
        }
        // The server bounds its connections far below 2^32.
        u32::try_from(open.mailboxes.insert(mailbox.clone())).unwrap_or(u32::MAX)
    }

    /// Frees a slot.
    pub(crate) fn leave(&self, slot: u32) {
        let mut open = self.open.lock();
        open.mailboxes.try_remove(slot as usize);
        open.held.remove(&slot);
    }

    /// Has the connection told when the gate opens. It must look at the gate afterwards.
    pub(crate) fn hold(&self, slot: u32) {
        self.open.lock().held.insert(slot);
    }
}

impl GateListener for Connections {
    fn opened(&self) {
        let mut open = self.open.lock();
        for slot in std::mem::take(&mut open.held) {
            if let Some(mailbox) = open.mailboxes.get(slot as usize) {
                mailbox.post(OPENED);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use inver_storage::Shortage;

    use super::*;

    fn tokens(mailbox: &Mailbox) -> Vec<u64> {
        let mut tokens = Vec::new();
        mailbox.drain(&mut tokens);
        tokens
    }

    #[tokio::test]
    async fn shutdown_reaches_every_connection_and_slots_are_reused() {
        let connections = Connections::new("p");
        let shutdown = CancellationToken::new();
        connections.watch(&shutdown, &Gate::default());
        let (left, here, late) = (Mailbox::new(), Mailbox::new(), Mailbox::new());
        connections.leave(connections.enter(&left));
        assert_eq!((connections.enter(&here), connections.len()), (0, 1));
        shutdown.cancel();
        here.wait().await;
        connections.enter(&late);
        assert_eq!((tokens(&here), tokens(&late), tokens(&left)), (vec![SHUTDOWN], vec![SHUTDOWN], vec![]));
    }

    #[tokio::test]
    async fn those_that_the_gate_holds_back_are_told_once_that_it_opened() {
        let (connections, gate) = (Connections::new("p"), Gate::default());
        connections.watch(&CancellationToken::new(), &gate);
        let (held, free, left) = (Mailbox::new(), Mailbox::new(), Mailbox::new());
        connections.hold(connections.enter(&held));
        connections.enter(&free);
        let gone = connections.enter(&left);
        connections.hold(gone);
        connections.leave(gone);
        for _ in 0..2 {
            gate.set(Shortage::Disk, true);
            gate.set(Shortage::Disk, false);
        }
        assert_eq!((tokens(&held), tokens(&free), tokens(&left)), (vec![OPENED], vec![], vec![]));
    }
}
