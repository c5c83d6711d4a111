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

mod append;
pub mod batch;
mod checkpoint;
mod chores;
mod cleaner;
mod clock;
mod compaction;
mod cursor;
mod entry;
mod error;
mod format;
#[doc(hidden)]
pub mod fuzz;
mod ids;
mod index_cache;
mod inner;
pub mod inspect;
mod log;
pub mod medium;
mod options;
mod read_buffers;
mod recovery;
mod registry;
mod relay;
#[doc(hidden)]
pub mod sabotage;
mod scan;
mod segments;
mod stream;
mod submit;
mod tail;
mod watermarks;
mod writer;

pub use self::batch::{
    Batch, BatchBuilder, BatchError, BatchHeader, Compression, Headers, ProducerStamp, Record, Records,
    records,
};
pub use self::clock::{Clock, SystemClock};
pub use self::compaction::Compaction;
pub use self::cursor::Cursor;
pub use self::entry::Entry;
pub use self::error::{LogError, OpenError, ReadError, SubmitError};
pub use self::ids::{CursorId, Lsn, Offset, StreamId, TableId};
pub use self::log::{Admission, Committed, Log, LogStats};
pub use self::options::{CommitPolicy, LogOptions};
pub use self::relay::{Carried, Relay};
pub use self::stream::{
    ColdRead, ColdTimeLookup, Listener, Listening, ProducerState, Read, Retention, StoredBatch, Stream,
    TimeLookup,
};
pub use self::submit::Submitted;
