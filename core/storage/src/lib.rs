//! The log: the one durable store of a broker.
//!
//! Owns streams of record batches, cursors, opaque tables of state, and their files. Knows no topics, no subscription
//! modes, no protocols and no runtime: futures wake plain wakers, and disk work runs on the log's own threads or on a
//! thread of the caller's choice.
//!
//! Invariants:
//! - one order: entries are written in the order in which [`Log::submit`] accepted them; an entry is whole or absent;
//! - nothing is visible or acknowledged before the commit policy is satisfied;
//! - a failed write or sync ends the log: nothing is acknowledged after it;
//! - damage other than a torn tail of the last segment is an error that names file and position.
//!
//! An entry passes through the intake (offsets and position), the writer (encoding, write, sync, commit) and the read path
//! (tail cache, then segment files); maintenance seals, cleans, compacts and takes checkpoints in the background. The
//! on-disk format is described in docs/format.md, and the layers of this crate in tests/layers.rs.

mod allocator;
mod backup;
pub mod batch;
mod checkpoint;
mod clock;
mod compaction;
mod cursor;
mod directory;
mod durability;
mod entry;
mod error;
mod format;
#[cfg(feature = "testing")]
pub mod fuzz;
mod gate;
mod ids;
pub mod inspect;
mod intake;
mod log;
mod maintenance;
pub mod medium;
mod memory;
mod metrics;
mod open;
mod options;
mod read;
mod recovery;
mod registry;
mod relay;
mod scan;
mod sealing;
#[cfg(feature = "testing")]
pub mod seeded_bugs;
#[cfg(not(feature = "testing"))]
mod seeded_bugs;
mod space;
mod stats;
mod stream;
mod sync;
mod waiter;
mod watermarks;
mod writer;

pub use self::backup::{Backup, BackupFile};
pub use self::batch::{
    Batch, BatchBuilder, BatchError, BatchHeader, Compression, Headers, ProducerStamp, Record, Records,
    records,
};
pub use self::clock::{Clock, SystemClock};
pub use self::compaction::Compaction;
pub use self::cursor::Cursor;
pub use self::entry::Entry;
pub use self::error::{
    BackupError, CheckpointError, FailureCause, LogError, LogFailure, OpenError, RESTORE_FOLDER, ReadError,
    SubmitError,
};
pub use self::gate::{Gate, GateListener, Shortage};
pub use self::ids::{CursorId, Lsn, Offset, StreamId, TableId};
pub use self::intake::Submitted;
pub use self::log::{Admission, Committed, Log};
pub use self::maintenance::BackgroundTask;
pub use self::memory::{Account, Held, Holder, Memory, NoMemory, Share};
pub use self::options::{CommitPolicy, LogOptions};
pub use self::read::StoredBatch;
pub use self::relay::{Carried, Relay};
pub use self::stats::LogStats;
pub use self::stream::{
    AbortedTransaction, ColdRead, ColdTimeLookup, Listener, Listening, OpenTransaction, ProducerState, Read,
    Retention, Stream, TimeLookup,
};
