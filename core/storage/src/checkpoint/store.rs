//! The store of checkpoints, as the log uses it: ordered keys in spaces, atomic durable transactions.

use bytes::Bytes;

use crate::error::CheckpointError;

/// A kind of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Space {
    /// One key: the log as a whole.
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

/// Called with each key and value of a scan.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), CheckpointError> + 'a;
/// Called to fill a transaction.
pub(crate) type Fill<'a> = dyn FnMut(&mut dyn Sink) -> Result<(), CheckpointError> + 'a;

/// A store of snapshots.
pub(crate) trait CheckpointStore: Send {
    /// Reads one value.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, CheckpointError>;
    /// Visits the keys of a space that start with a prefix, in order.
    fn scan(&self, space: Space, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), CheckpointError>;
    /// Runs one transaction: when this returns, either everything that `fill` did is durable, or nothing.
    fn commit(&mut self, fill: &mut Fill<'_>) -> Result<(), CheckpointError>;
    /// Turns to another copy of the snapshots, after an error of `get` or `scan`. False if there is none.
    fn fall_back(&mut self) -> bool;
    /// Whether the snapshots are in two files, so that damage of one loses nothing.
    fn is_mirrored(&self) -> bool;
    /// Why the last commit wrote one file only.
    fn copy_failure(&self) -> Option<&CheckpointError>;
    /// Verifies the checksum of every row.
    fn check(&self) -> Result<(), CheckpointError>;
    /// Writes a copy into another file.
    fn copy_to(&self, name: &str) -> Result<(), CheckpointError>;
    /// Closes the files: later calls fail.
    fn close(&mut self);
}

/// An open transaction.
pub(crate) trait Sink {
    /// Sets a key.
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), CheckpointError>;
    /// Removes a key, if it exists.
    fn remove(&mut self, space: Space, key: &[u8]) -> Result<(), CheckpointError>;
}
