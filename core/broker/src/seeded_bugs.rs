//! Bugs seeded on purpose, so that the simulator proves that it finds each of them.
//!
//! A test seeds a bug for its own thread. Without the feature `testing`, [`is_seeded`] is constant and its branches are
//! compiled away.

#![cfg_attr(
    not(feature = "testing"),
    allow(unreachable_pub, reason = "public with the feature `testing` only")
)]

#[cfg(feature = "testing")]
use std::cell::Cell;

/// A bug that can be seeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A publish counts as committed before the log has it.
    ConfirmEarly,
    /// Acknowledgements are not written to the log.
    ForgetAcks,
    /// The acknowledgements of a transaction are written before it, and not with it.
    AckBeforeTransaction,
    /// Requeued messages are delivered behind newer ones.
    RequeuedLast,
    /// Requeueing does not raise the delivery count.
    KeepCount,
    /// That a message was requeued is not written to the log.
    ForgetReturns,
    /// What is with consumers is not written to the log.
    ForgetDelivered,
    /// What a consumer leaves unacknowledged does not wait again.
    LoseUnacked,
    /// A requeued message still counts as unacknowledged at its consumer.
    RequeueAndKeep,
    /// Consumers that wait are not woken when messages arrive.
    MissAdvance,
    /// Consumers that wait are not woken when another one leaves.
    SilentLeave,
    /// A dead-lettered message is acknowledged before it is published.
    AckBeforeDeadLetter,
    /// A dead-lettered message is not acknowledged where it was.
    KeepDeadLettered,
    /// Deadlines follow the system's time when it is set.
    FollowWallClock,
    /// Messages expire after half of their queue's time to live.
    ExpireEarly,
    /// No check is scheduled for new messages that expire.
    MissExpiry,
    /// Sessions do not expire.
    KeepExpired,
    /// Wills are not written to the log.
    ForgetWill,
    /// The row of a published will stays.
    RepeatWill,
    /// A will is published though its client came back in time.
    WillDespiteReturn,
    /// A session is given to a connection while another holds it.
    TakeOverAtOnce,
    /// Retained values are not written to the log.
    ForgetRetained,
    /// Offsets are committed for another partition.
    WrongPartition,
    /// Session state is written before the acknowledgement that belongs to it.
    StateBeforeAck,
    /// The message after the last acknowledged one is trimmed.
    TrimTooFar,
    /// Bindings are not written to the log.
    ForgetBinding,
    /// The delivery limit is not enforced.
    DeliverForever,
    /// A message is dropped one delivery before its limit.
    DropEarly,
    /// A queue keeps twice as many messages as its length limit.
    KeepTooMany,
    /// Every consumer of a queue with a single active one gets messages.
    AllActive,
    /// Messages acknowledged out of order are delivered again after a restart.
    ForgetHoles,
    /// Publishers go on with the routes that they found before the topology changed.
    RouteFromCache,
    /// The messages of a key go to any consumer of a key-shared subscription.
    SplitKeys,
    /// A mailbox that has a token loses further ones.
    LoseToken,
    /// Rejected messages are not dead-lettered.
    RejectSilently,
    /// Subscriptions of sessions are not written to the log.
    ForgetFilter,
    /// A session that its client replaced keeps its row and its messages.
    KeepOldSession,
    /// Messages expire after half of their own time to live.
    ExpireMessageEarly,
    /// A purge is not written to the log.
    ForgetPurge,
    /// A purge leaves requeued messages.
    PurgeOnlyNew,
    /// The flag of a lock may be read before the lock is released. For `tests/interleavings`, not for the simulator.
    SkipFence,
}

#[cfg(feature = "testing")]
impl Bug {
    /// All that the simulator must find.
    pub const ALL: [Bug; 40] = [
        Bug::ConfirmEarly,
        Bug::ForgetAcks,
        Bug::AckBeforeTransaction,
        Bug::RequeuedLast,
        Bug::KeepCount,
        Bug::ForgetReturns,
        Bug::ForgetDelivered,
        Bug::LoseUnacked,
        Bug::RequeueAndKeep,
        Bug::MissAdvance,
        Bug::SilentLeave,
        Bug::AckBeforeDeadLetter,
        Bug::KeepDeadLettered,
        Bug::FollowWallClock,
        Bug::ExpireEarly,
        Bug::MissExpiry,
        Bug::KeepExpired,
        Bug::ForgetWill,
        Bug::RepeatWill,
        Bug::WillDespiteReturn,
        Bug::TakeOverAtOnce,
        Bug::ForgetRetained,
        Bug::WrongPartition,
        Bug::StateBeforeAck,
        Bug::TrimTooFar,
        Bug::ForgetBinding,
        Bug::DeliverForever,
        Bug::DropEarly,
        Bug::KeepTooMany,
        Bug::AllActive,
        Bug::ForgetHoles,
        Bug::RouteFromCache,
        Bug::SplitKeys,
        Bug::LoseToken,
        Bug::RejectSilently,
        Bug::ForgetFilter,
        Bug::KeepOldSession,
        Bug::ExpireMessageEarly,
        Bug::ForgetPurge,
        Bug::PurgeOnlyNew,
    ];
}

#[cfg(feature = "testing")]
thread_local! {
    static SEEDED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Seeds a bug for this thread, or removes it.
#[cfg(feature = "testing")]
pub fn seed(bug: Option<Bug>) {
    SEEDED.set(bug);
}

/// Whether the bug is seeded for this thread.
#[cfg(feature = "testing")]
pub(crate) fn is_seeded(bug: Bug) -> bool {
    SEEDED.get() == Some(bug)
}

/// Whether the bug is seeded for this thread: never in a build without the feature `testing`.
#[cfg(not(feature = "testing"))]
pub(crate) const fn is_seeded(_: Bug) -> bool {
    false
}
