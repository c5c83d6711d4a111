//! Bugs seeded on purpose, so that the simulation proves that it finds each of them.
//!
//! A test seeds a bug for its own thread. Without tests [`is_seeded`] is constant and its branches are compiled away.

#[cfg(test)]
use std::cell::Cell;

/// A bug that can be seeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// A rebalance ends without a new generation.
    KeepGeneration,
    /// Commits of an earlier generation are taken.
    CommitAnyGeneration,
    /// Every member gets the leader's assignment.
    AssignToAll,
    /// Members whose sessions have ended stay.
    KeepExpired,
    /// Heartbeats do not tell of a rebalance.
    SilentRebalance,
    /// A member that did not rejoin stays the leader.
    KeepLeader,
    /// The member that joined last is not answered.
    ForgetWaiter,
    /// A restart forgets the assignments.
    ForgetAssignments,
    /// The members' syncs are not answered when the leader's has come.
    ForgetSyncs,
}

#[cfg(test)]
impl Bug {
    /// All bugs.
    pub(super) const ALL: [Bug; 9] = [
        Bug::KeepGeneration,
        Bug::CommitAnyGeneration,
        Bug::AssignToAll,
        Bug::KeepExpired,
        Bug::SilentRebalance,
        Bug::KeepLeader,
        Bug::ForgetWaiter,
        Bug::ForgetAssignments,
        Bug::ForgetSyncs,
    ];
}

#[cfg(test)]
thread_local! {
    static SEEDED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Seeds a bug for this thread, or none.
#[cfg(test)]
pub(super) fn seed(bug: Option<Bug>) {
    SEEDED.set(bug);
}

/// Whether the bug is seeded for this thread.
#[cfg(test)]
pub(super) fn is_seeded(bug: Bug) -> bool {
    SEEDED.get() == Some(bug)
}

/// Never.
#[cfg(not(test))]
pub(super) const fn is_seeded(_: Bug) -> bool {
    false
}
