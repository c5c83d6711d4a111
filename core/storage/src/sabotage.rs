//! Bugs put in on purpose, so that the simulator must show that it finds each of them. A bug is seeded for the thread
//! that asks for it, by tests; without debug assertions all of this is compiled to nothing.

use std::cell::Cell;

/// A bug that can be seeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The writer says that it synced, and did not.
    SkipSync,
    /// Entries count as committed before they are written.
    AcknowledgeEarly,
    /// A segment is not synced before the next one is begun.
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
    /// After a failed sync the page cache is believed.
    BelievePageCache,
    /// Replay does not check an entry's checksum: a torn one counts.
    SkipEntryChecksum,
    /// Replay does not check the records of a batch.
    SkipBatchChecksumInReplay,
    /// Reads from files do not check the batch.
    SkipBatchChecksumInRead,
    /// Damage before an entry that was written later is cut off as if it were a torn tail.
    CutDamage,
    /// Replay believes a checkpoint to be older than it is: by one entry.
    ReplayTooLittle,
    /// Acknowledgements of a window are written behind what was submitted after them.
    AcknowledgementsLate,
    /// Checkpoints do not contain producers.
    ForgetProducers,
    /// Delivery counts are not stored.
    ForgetCounts,
    /// A trim lets go of the segment in which the stream starts now.
    TrimTooFar,
    /// Of the records of a key the first one stays.
    KeepOldest,
    /// Tombstones go at once.
    DropTombstones,
    /// The cleaner copies the first batches of a run only.
    CopyTooLittle,
    /// A direct write does not repeat what its first block held.
    ForgetBlock,
}

impl Bug {
    /// All of them.
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
        Bug::BelievePageCache,
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

thread_local! {
    static SEEDED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Seeds a bug for this thread, or none. Without effect where there are no debug assertions.
pub fn seed(bug: Option<Bug>) {
    SEEDED.set(bug);
}

/// Whether bugs can be seeded at all.
#[must_use]
pub const fn is_possible() -> bool {
    cfg!(debug_assertions)
}

pub(crate) fn is_seeded(bug: Bug) -> bool {
    is_possible() && SEEDED.get() == Some(bug)
}
