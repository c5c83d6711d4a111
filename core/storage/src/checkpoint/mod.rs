//! Checkpoints: snapshots of the log's state in memory, so that recovery replays only later entries.
//!
//! A checkpoint holds the replay position, the list of segments, and the value of each stream, cursor and state key; only
//! values changed since the last checkpoint are written. Snapshots are taken while the log goes on and may be newer than
//! the replay position: that is why replaying a change twice changes nothing, and why a checkpoint is committed only after
//! everything that it may contain is durable. No acknowledgement waits for a checkpoint.
//!
//! Segments that only a checkpoint replaces are removed, so a checkpoint is kept in two files: damage of one loses nothing.

mod codec;
mod mirror;
mod overlay;
mod redb_store;
mod store;

pub(crate) use self::codec::{
    Meta, RunRecord, SegmentRecord, decode_cursor, decode_stream, encode_cursor, encode_stream,
};
pub(crate) use self::mirror::MirroredStore;
pub(crate) use self::redb_store::RedbStore;
pub(crate) use self::store::{CheckpointStore, Sink, Space};
