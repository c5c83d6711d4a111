//! Checkpoints: snapshots of what the log keeps in memory, so that recovery replays only what came after.
//!
//! A checkpoint holds the position from which to replay, the list of segments, and each stream's, cursor's and state
//! key's value, of which only what changed since the last one is written. Snapshots are taken while the log goes on:
//! one may be newer than the replay position, which is why replaying a change twice changes nothing, and why a
//! checkpoint is committed only after everything that it may contain is durable. It is never on the path of an
//! acknowledgement.

mod codec;
mod redb_store;
mod take;

use bytes::Bytes;

pub(crate) use self::codec::{
    Meta, RunRecord, SegmentRecord, decode_cursor, decode_stream, encode_cursor, encode_stream,
};
pub(crate) use self::redb_store::CHECKPOINT_FILE;
pub(crate) use self::redb_store::RedbStore;
pub(crate) use self::take::SegmentChanges;

/// The checkpoint store failed or holds what it should not.
#[derive(Debug, thiserror::Error)]
#[error("checkpoint: {0}")]
pub(crate) struct CheckpointError(pub(crate) String);

/// What the keys of a checkpoint are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Space {
    /// One key: [`Meta`].
    Meta = 0,
    /// Segment id → segment.
    Segments = 1,
    /// Stream id → stream.
    Streams = 2,
    /// Cursor id → cursor.
    Cursors = 3,
    /// Table id and key → value of the layers above.
    State = 4,
}

/// Called with a key and its value while walking a checkpoint.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), CheckpointError> + 'a;
/// Called to fill a checkpoint's transaction.
pub(crate) type Fill<'a> = dyn FnMut(&mut dyn Sink) -> Result<(), CheckpointError> + 'a;

/// Where snapshots are kept: ordered keys, atomic durable transactions.
pub(crate) trait CheckpointStore: Send {
    /// Reads one value.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, CheckpointError>;
    /// Visits the keys of a space that start with a prefix, in order.
    fn scan(&self, space: Space, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), CheckpointError>;
    /// Makes one transaction: all that `fill` does is durable when this returns, or nothing of it.
    fn commit(&mut self, fill: &mut Fill<'_>) -> Result<(), CheckpointError>;
}

/// An open transaction.
pub(crate) trait Sink {
    /// Sets a key.
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), CheckpointError>;
    /// Removes a key, if it is there.
    fn remove(&mut self, space: Space, key: &[u8]) -> Result<(), CheckpointError>;
}
