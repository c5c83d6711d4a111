//! The next step of a member to its target.

use super::member::{ConsumerMember, MemberState};
use super::partitions::{PartitionId, Partitions};

/// What a member has after a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) epoch: i32,
    pub(super) state: MemberState,
    pub(super) assigned: Partitions,
    pub(super) revoking: Partitions,
}

/// The next step to the target of an epoch; none if there is nothing to do, or if the member has not given up yet what it
/// has to. `owned`: what it says that it owns, if it does. `is_free`: whether no other member owns a partition.
pub(super) fn next_step(
    member: &ConsumerMember,
    target_epoch: i32,
    owned: Option<&Partitions>,
    is_free: impl Fn(&PartitionId) -> bool,
) -> Option<Step> {
    let owns_any = |partitions: &Partitions| owned.is_none_or(|owned| !owned.is_disjoint(partitions));
    let epoch = match member.state {
        MemberState::Stable if member.epoch == target_epoch => return None,
        MemberState::Revoking if owns_any(&member.revoking) => return None,
        MemberState::Revoking => target_epoch.min(member.epoch.saturating_add(1)),
        MemberState::Stable | MemberState::Waiting => member.epoch,
    };
    let kept: Partitions = member.assigned.intersection(&member.target).copied().collect();
    let revoking: Partitions = member.assigned.difference(&member.target).copied().collect();
    if !revoking.is_empty() && owns_any(&revoking) {
        return Some(Step { epoch, state: MemberState::Revoking, assigned: kept, revoking });
    }
    let mut assigned = kept;
    let mut state = MemberState::Stable;
    for partition in member.target.difference(&member.assigned) {
        match is_free(partition) {
            true => assigned.extend([*partition]),
            false => state = MemberState::Waiting,
        }
    }
    Some(Step { epoch: target_epoch, state, assigned, revoking: Partitions::new() })
}
