//! The log: the one durable store under everything.
//!
//! It knows streams, offsets, record batches, cursors, opaque state and files. It deliberately knows no topics,
//! no subscriptions' modes, no protocols and no runtime: futures wake by plain wakers, disk work happens on the
//! log's own threads or on a thread that the caller picks.
//!
//! Invariants:
//! - one order: entries are written in the order in which [`Log::submit`] took them; an entry is whole or absent;
//! - nothing is visible or acknowledged before the commit policy holds for it;
//! - a failed write or sync poisons the log: nothing is acknowledged after it;
//! - damage other than a torn tail of the last segment is an error that names file and position.
//!
//! The format is described in docs/format.md.

pub mod batch;
mod cursor;
mod entry;
mod error;
mod ids;
mod log;
mod options;
mod stream;

pub use self::batch::{
    Batch, BatchBuilder, BatchError, BatchHeader, Compression, Headers, ProducerStamp, Record, Records,
    records,
};
pub use self::cursor::Cursor;
pub use self::entry::Entry;
pub use self::error::{LogError, OpenError, ReadError, SubmitError};
pub use self::ids::{CursorId, Lsn, Offset, StreamId, TableId};
pub use self::log::{Admission, Committed, Log, Submitted};
pub use self::options::{CommitPolicy, LogOptions};
pub use self::stream::{
    ColdRead, ColdTimeLookup, Listener, Listening, Read, StoredBatch, Stream, TimeLookup,
};
