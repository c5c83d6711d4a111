//! Bugs seeded on purpose, so that the simulator and the models prove that they find each of them.
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
    /// The writer reports a sync that it did not make.
    SkipSync,
    /// Entries count as committed before they are written.
    AcknowledgeEarly,
    /// A segment is not synced before the next one is started.
    SkipSyncBetweenSegments,
    /// A new segment's name is not synced.
    SkipNameSync,
    /// A sealed segment's index is not synced before a checkpoint relies on it.
    SkipSealSync,
    /// A segment that the cleaner wrote is not synced before a checkpoint names it.
    SkipCopySync,
    /// The checkpoint store's syncs do nothing.
    SkipCheckpointSync,
    /// A checkpoint is committed before what it contains is durable.
    CheckpointEarly,
    /// Segments are removed before the checkpoint that no longer names them.
    RemoveEarly,
    /// After a failed sync the content of the page cache is trusted.
    TrustPageCache,
    /// Replay does not check an entry's checksum: a torn entry is accepted.
    SkipEntryChecksum,
    /// Replay does not check the records of a batch.
    SkipBatchChecksumInReplay,
    /// Reads from files do not check the batch.
    SkipBatchChecksumInRead,
    /// Damage in front of an entry written later is cut off like a torn tail.
    CutDamage,
    /// Replay takes the checkpoint to be one entry newer than it is.
    ReplayTooLittle,
    /// Acknowledgements of a commit window are written behind entries submitted after them.
    AcknowledgementsLate,
    /// Checkpoints do not contain producers.
    ForgetProducers,
    /// Delivery counts are not stored.
    ForgetCounts,
    /// A trim releases the segment in which the stream now starts.
    TrimTooFar,
    /// Compaction keeps the first record of a key instead of the last.
    KeepOldest,
    /// Compaction drops tombstones at once.
    DropTombstones,
    /// The cleaner copies only the first batches of a run.
    CopyTooLittle,
    /// A direct write does not repeat the synced bytes of its first block.
    ForgetBlock,
    /// A waiting task is listed though the position was committed meanwhile. For `tests/interleavings`, as those below.
    CheckOnce,
    /// A relay that was called once is never called again.
    KeepCalled,
    /// A relay that has ended queues wake-ups.
    QueueAfterEnd,
}

#[cfg(feature = "testing")]
impl Bug {
    /// All that the simulator must find.
    pub const ALL: [Bug; 23] = [
        Bug::SkipSync,
        Bug::AcknowledgeEarly,
        Bug::SkipSyncBetweenSegments,
        Bug::SkipNameSync,
        Bug::SkipSealSync,
        Bug::SkipCopySync,
        Bug::SkipCheckpointSync,
        Bug::CheckpointEarly,
        Bug::RemoveEarly,
        Bug::TrustPageCache,
        Bug::SkipEntryChecksum,
        Bug::SkipBatchChecksumInReplay,
        Bug::SkipBatchChecksumInRead,
        Bug::CutDamage,
        Bug::ReplayTooLittle,
        Bug::AcknowledgementsLate,
        Bug::ForgetProducers,
        Bug::ForgetCounts,
        Bug::TrimTooFar,
        Bug::KeepOldest,
        Bug::DropTombstones,
        Bug::CopyTooLittle,
        Bug::ForgetBlock,
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
