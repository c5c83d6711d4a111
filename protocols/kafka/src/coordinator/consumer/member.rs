//! A member of a consumer group.

use std::time::Duration;

use tokio::time::Instant;

use super::assignor::Assignor;
use super::partitions::Partitions;
use crate::codec::text::Str;

/// Bytes that a partition of a member is counted with.
const PARTITION_BYTES: usize = 32;

/// What a member is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberState {
    /// It has what its epoch gives it.
    Stable,
    /// It has to give up partitions.
    Revoking,
    /// It waits for partitions that others own.
    Waiting,
}

/// A member.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerMember {
    pub(crate) id: Str,
    /// Id chosen by the client of a static member (KIP-345).
    pub(crate) instance_id: Option<Str>,
    pub(crate) rack_id: Option<Str>,
    /// Name that the client gives itself.
    pub(crate) client_id: Str,
    /// Address of the client.
    pub(crate) client_host: Str,
    /// How long it may take to give up partitions.
    pub(crate) rebalance_timeout: Duration,
    /// Topics that it names, each once, in order.
    pub(crate) names: Vec<Str>,
    /// Pattern of further topics.
    pub(crate) pattern: Option<Str>,
    /// Topics that match the pattern and that it may see, in order. Stored, so that after a restart nothing moves because
    /// another member sends a heartbeat first.
    pub(super) matched: Vec<Str>,
    /// The version of the topics that the pattern was matched against; none: it is to be matched again.
    pub(super) matched_at: Option<u64>,
    /// The assignor that it prefers.
    pub(super) assignor: Option<Assignor>,
    pub(crate) epoch: i32,
    /// Its epoch before: the response with the present one may have been lost.
    pub(super) previous_epoch: i32,
    pub(super) state: MemberState,
    /// What it has, or is to take.
    pub(crate) assigned: Partitions,
    /// What it has to give up.
    pub(super) revoking: Partitions,
    /// What the assignor gives it.
    pub(crate) target: Partitions,
    /// End of its session; every heartbeat moves it.
    pub(super) deadline: Instant,
    /// When it has to have given up partitions.
    pub(super) revoke_until: Option<Instant>,
}

impl ConsumerMember {
    /// The topics that it subscribes to; one that it names and that matches as well comes twice.
    pub(super) fn subscription(&self) -> impl Iterator<Item = &Str> {
        self.names.iter().chain(&self.matched)
    }

    /// What counts as memory of the group.
    pub(super) fn bytes(&self) -> usize {
        let texts = self.subscription().map(|name| name.len()).sum::<usize>()
            + self.pattern.as_ref().map_or(0, |pattern| pattern.len())
            + [Some(&self.id), Some(&self.client_id), self.instance_id.as_ref(), self.rack_id.as_ref()]
                .into_iter()
                .flatten()
                .map(|text| text.len())
                .sum::<usize>();
        let partitions = self.assigned.len() + self.revoking.len() + self.target.len();
        texts + partitions * PARTITION_BYTES
    }

    /// Goes to an epoch.
    pub(super) fn set_epoch(&mut self, epoch: i32) {
        if self.epoch != epoch {
            (self.previous_epoch, self.epoch) = (self.epoch, epoch);
        }
    }
}
