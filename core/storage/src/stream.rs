//! A stream's handle.
use std::sync::Arc;

use bytes::Bytes;

use crate::error::ReadError;
use crate::ids::{Offset, StreamId};

/// An append-only sequence of records with dense offsets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stream(Arc<StreamId>);

/// A batch as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// Offset of its first record in this stream.
    pub base_offset: Offset,
    /// The batch as submitted. Its own base offset (the first 8 bytes) is not authoritative: several
    /// destinations share the bytes. Who needs it writes `base_offset` and then `bytes[8..]`.
    pub bytes: Bytes,
}

/// What [`Stream::read`] found.
#[derive(Debug)]
pub enum Read {
    /// At least one batch.
    Ready(Vec<StoredBatch>),
    /// Nothing at or above the offset yet.
    Empty,
    /// On the disk only.
    Cold(ColdRead),
}

/// A read that needs the disk. Run it where blocking is allowed.
#[derive(Debug)]
pub struct ColdRead(());

/// What [`Stream::offset_for_time`] found.
#[derive(Debug)]
pub enum TimeLookup {
    /// The first record with a timestamp at or after the one asked for, and its timestamp.
    Ready(Option<(Offset, i64)>),
    /// On the disk only.
    Cold(ColdTimeLookup),
}

/// A lookup by time that needs the disk. Run it where blocking is allowed.
#[derive(Debug)]
pub struct ColdTimeLookup(());

/// Told when a stream's high watermark has moved. Called from the log's writer thread: be quick, never block,
/// do not call back into the log.
pub trait Listener: Send + Sync {
    /// The stream registered under `token` has more to read.
    fn advanced(&self, token: u64);
}

/// A registration; dropping it ends it.
#[derive(Debug)]
pub struct Listening(());

#[allow(unused_variables, clippy::unimplemented)]
impl ColdRead {
    /// Reads from the files; blocks on I/O. An empty result means that the stream ended there meanwhile.
    pub fn run(self) -> Result<Vec<StoredBatch>, ReadError> {
        unimplemented!()
    }
}

#[allow(unused_variables, clippy::unimplemented)]
impl ColdTimeLookup {
    /// Reads from the files; blocks on I/O.
    pub fn run(self) -> Result<Option<(Offset, i64)>, ReadError> {
        unimplemented!()
    }
}

#[allow(unused_variables, clippy::unimplemented)]
impl Stream {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> StreamId {
        *self.0
    }
    /// The first offset kept.
    #[must_use]
    pub fn start(&self) -> Offset {
        unimplemented!()
    }
    /// The next visible offset: everything below is committed under the policy.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        unimplemented!()
    }
    /// The next offset to be given: everything below was submitted.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        unimplemented!()
    }
    /// Bytes of batches kept (in whole segments below the start, a little more than what can be read).
    #[must_use]
    pub fn bytes(&self) -> u64 {
        unimplemented!()
    }
    /// The greatest timestamp of a visible record, −1 when there was none.
    #[must_use]
    pub fn last_timestamp(&self) -> i64 {
        unimplemented!()
    }
    /// The stream was deleted; handles stay valid but read nothing.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        unimplemented!()
    }
    /// Batches from the one that holds `from` on, below the high watermark: at least one if there is one, then
    /// up to `bytes_max`. Never does I/O.
    pub fn read(&self, from: Offset, bytes_max: usize) -> Result<Read, ReadError> {
        unimplemented!()
    }
    /// The first record with a timestamp at or after `timestamp_ms`. Never does I/O.
    pub fn offset_for_time(&self, timestamp_ms: i64) -> Result<TimeLookup, ReadError> {
        unimplemented!()
    }
    /// Calls `listener.advanced(token)` whenever the high watermark has moved, once a commit at most.
    /// Register, then read: what was committed before the registration is not told.
    #[must_use]
    pub fn listen(&self, listener: Arc<dyn Listener>, token: u64) -> Listening {
        unimplemented!()
    }
}
