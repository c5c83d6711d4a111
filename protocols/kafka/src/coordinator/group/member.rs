//! A member of a group.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::codec::text::Str;

/// A protocol (assignor) that a member supports, and the member's metadata under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberProtocol {
    pub(crate) name: Str,
    /// Opaque to the coordinator.
    pub(crate) metadata: Bytes,
}

/// A member. `J` waits for the response to a join, `S` for that to a sync.
#[derive(Debug)]
pub(crate) struct Member<J, S> {
    /// Id assigned by the coordinator.
    pub(crate) id: Str,
    /// Id chosen by the client of a static member (KIP-345).
    pub(crate) instance_id: Option<Str>,
    /// Name that the client gives itself.
    pub(crate) client_id: Str,
    /// Address of the client.
    pub(crate) client_host: Str,
    /// Time without a heartbeat after which the member is removed.
    pub(crate) session_timeout: Duration,
    /// How long a rebalance waits for the member.
    pub(crate) rebalance_timeout: Duration,
    /// Protocols supported, by preference.
    pub(crate) protocols: Vec<MemberProtocol>,
    /// The leader's assignment in this generation.
    pub(crate) assignment: Bytes,
    /// Waits for the rebalance to complete.
    pub(super) joining: Option<J>,
    /// Waits for the leader's assignment.
    pub(super) syncing: Option<S>,
    /// Whether the member must sync before the rebalance timeout.
    pub(super) pending_sync: bool,
    /// Whether the client learns its member id only from the response to its join.
    pub(super) unaware_of_id: bool,
    /// Whether the member has not been in a completed rebalance yet.
    pub(super) new: bool,
    /// End of the session; every heartbeat moves it.
    pub(super) deadline: Instant,
}

impl<J, S> Member<J, S> {
    /// Whether the member waits for others. Its session does not expire meanwhile, unless it is new: the client of a
    /// new member may have given up, so that it is removed at its deadline.
    pub(super) fn is_waiting(&self) -> bool {
        !self.new && (self.joining.is_some() || self.syncing.is_some())
    }

    /// Renews the session.
    pub(super) fn renew(&mut self, now: Instant) {
        self.deadline = now + self.session_timeout;
    }

    /// The metadata under a protocol; empty if the member does not support it.
    pub(crate) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|own| own.name == *protocol);
        found.map(|own| own.metadata.clone()).unwrap_or_default()
    }
}

/// Bytes of names and metadata.
pub(super) fn metadata_bytes(protocols: &[MemberProtocol]) -> usize {
    protocols.iter().map(|own| own.name.len() + own.metadata.len()).sum()
}

/// Names of protocols, each once: a client may list one twice.
pub(super) fn distinct_names(protocols: &[MemberProtocol]) -> impl Iterator<Item = &Str> {
    let earlier = |place: usize| protocols.get(..place).unwrap_or_default();
    let repeated = move |place, name: &Str| earlier(place).iter().any(|own| own.name == *name);
    protocols
        .iter()
        .enumerate()
        .filter(move |(place, own)| !repeated(*place, &own.name))
        .map(|(_, own)| &own.name)
}
