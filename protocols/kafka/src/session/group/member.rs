//! One member of a group.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::codec::text::Str;

/// A way of assigning work that a member knows, and what it wants its leader to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberProtocol {
    /// Its name.
    pub name: Str,
    /// Opaque to the coordinator.
    pub metadata: Bytes,
}

/// A member, and what it is waiting for. `W` is who waits for an answer.
#[derive(Debug)]
pub struct Member<W> {
    /// Given by the coordinator.
    pub id: Str,
    /// Given by the client, if it is a static member (KIP-345).
    pub instance_id: Option<Str>,
    /// What its client calls itself.
    pub client_id: Str,
    /// Where it came from.
    pub client_host: Str,
    /// Without a sign of life for so long it is thrown out.
    pub session_timeout: Duration,
    /// How long a rebalance waits for it.
    pub rebalance_timeout: Duration,
    /// What it can do, best liked first.
    pub protocols: Vec<MemberProtocol>,
    /// What the leader gave it in this generation.
    pub assignment: Bytes,
    /// Who waits for the rebalance to end.
    pub(super) joining: Option<W>,
    /// Who waits for the leader's assignment.
    pub(super) syncing: Option<W>,
    /// Has to ask for its assignment before the rebalance timeout is over.
    pub(super) owes_sync: bool,
    /// The client does not know its id before the join is answered.
    pub(super) nameless: bool,
    /// Never yet in a finished rebalance.
    pub(super) new: bool,
    /// When its session ends; moved on by every sign of life.
    pub(super) deadline: Instant,
}

impl<W> Member<W> {
    /// Whether its answer depends on others. Such a member is alive by definition, unless it is a new one: those may
    /// have given up, and are let go when their time is over.
    pub(super) fn is_waiting(&self) -> bool {
        !self.new && (self.joining.is_some() || self.syncing.is_some())
    }

    /// A sign of life.
    pub(super) fn touch(&mut self, now: Instant) {
        self.deadline = now + self.session_timeout;
    }

    /// What it says under one protocol.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|own| own.name == *protocol);
        found.map(|own| own.metadata.clone()).unwrap_or_default()
    }
}
