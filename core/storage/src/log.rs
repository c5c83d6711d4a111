//! The log's handle.
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::cursor::Cursor;
use crate::entry::Entry;
use crate::error::{LogError, OpenError, SubmitError};
use crate::ids::{CursorId, Lsn, Offset, StreamId, TableId};
use crate::options::LogOptions;
use crate::stream::Stream;

/// The log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Log(#[allow(dead_code)] Arc<LogOptions>);

/// Where a submitted entry went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The entry is committed when [`Log::committed`] has reached this.
    pub lsn: Lsn,
    /// The offset of the first record, one for each destination of each batch, in order.
    pub bases: SmallVec<[Offset; 2]>,
}

/// Future of [`Log::wait_committed`].
#[derive(Debug)]
pub struct Committed {
    log: Log,
    lsn: Lsn,
}

/// Future of [`Log::admit`].
#[derive(Debug)]
pub struct Admission {
    log: Log,
}

impl Future for Committed {
    type Output = Result<(), LogError>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.log.poll_committed(self.lsn, cx)
    }
}

impl Future for Admission {
    type Output = Result<(), LogError>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.log.poll_admit(cx)
    }
}

#[allow(unused_variables, clippy::unimplemented)]
impl Log {
    /// Opens the log in a folder, making both if need be; recovers what was committed. Blocks.
    pub fn open(dir: &Path, options: LogOptions) -> Result<Log, OpenError> {
        unimplemented!()
    }
    /// What the layers above stored in a table, in key order. Read it once, at start-up: it comes from the disk.
    #[must_use]
    pub fn recovered_state(&self, table: TableId) -> Vec<(Bytes, Bytes)> {
        unimplemented!()
    }
    /// An id for a new stream, never given before.
    #[must_use]
    pub fn allocate_stream(&self) -> StreamId {
        unimplemented!()
    }
    /// The handle of a stream that exists.
    #[must_use]
    pub fn stream(&self, id: StreamId) -> Option<Stream> {
        unimplemented!()
    }
    /// An id for a new cursor, never given before.
    #[must_use]
    pub fn allocate_cursor(&self) -> CursorId {
        unimplemented!()
    }
    /// The handle of a cursor that exists.
    #[must_use]
    pub fn cursor(&self, id: CursorId) -> Option<Cursor> {
        unimplemented!()
    }
    /// Gives the entry its place in the one order and its batches their offsets. Never blocks, never waits: the
    /// entry is on its way to the disk, committed when [`Log::committed`] has reached the returned position.
    pub fn submit(&self, entry: Entry) -> Result<Submitted, SubmitError> {
        unimplemented!()
    }
    /// Acknowledgements of entries up to here may be sent: synced under the policy `Always`, else written.
    #[must_use]
    pub fn committed(&self) -> Lsn {
        unimplemented!()
    }
    /// Synced up to here.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        unimplemented!()
    }
    /// Ready when the entry is committed, or with the error that ended the log.
    #[must_use]
    pub fn wait_committed(&self, lsn: Lsn) -> Committed {
        Committed { log: self.clone(), lsn }
    }
    /// As [`Log::wait_committed`], by hand. The task is woken once, when `lsn` is committed or the log ended.
    pub fn poll_committed(&self, lsn: Lsn, cx: &mut Context<'_>) -> Poll<Result<(), LogError>> {
        unimplemented!()
    }
    /// Ready while the writer's queue is below its bounds. Await it before reading more from a client.
    #[must_use]
    pub fn admit(&self) -> Admission {
        Admission { log: self.clone() }
    }
    /// As [`Log::admit`], by hand.
    pub fn poll_admit(&self, cx: &mut Context<'_>) -> Poll<Result<(), LogError>> {
        unimplemented!()
    }
    /// Whether [`Log::admit`] would be ready now.
    #[must_use]
    pub fn is_admitting(&self) -> bool {
        unimplemented!()
    }
    /// The error that ended the log, if any.
    #[must_use]
    pub fn failure(&self) -> Option<LogError> {
        unimplemented!()
    }
    /// Blocks until the entry is committed. For tools, tests and start-up, not for the runtime's threads.
    pub fn wait_committed_blocking(&self, lsn: Lsn) -> Result<(), LogError> {
        unimplemented!()
    }
    /// Writes and syncs what was submitted, takes a checkpoint, ends the log's threads. Blocks.
    pub fn shutdown(&self) -> Result<(), LogError> {
        unimplemented!()
    }
}
