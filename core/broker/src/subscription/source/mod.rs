//! Where a subscription's messages come from: a stream of the log, or batches held in memory.

mod again;
pub(super) mod memory;
mod stream;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use inver_storage::batch::{BatchHeader, Record, Records, records};
use inver_storage::{ColdRead, Cursor, StoredBatch};

use super::Delivery;

pub(super) use memory::MemorySource;
pub use memory::{LiveBatch, MemoryBounds, WhenFull};
pub(super) use stream::StreamSource;

/// A message taken from a source.
pub(super) struct Taken {
    pub(super) offset: u64,
    pub(super) record: Record,
    pub(super) topic: Option<Arc<str>>,
    /// How often it came back in an earlier life of the process.
    pub(super) redelivered: u32,
}

/// What a source had to offer.
pub(super) enum Offer {
    Taken(Taken),
    /// Nothing now; a wake-up will come.
    Empty,
    /// The records are on the disk: load them and hand them to [`Source::loaded`].
    Load(ColdRead),
    /// Asked for again, and no longer there.
    Gone,
}

/// One of them.
pub(super) enum Source {
    Stream(StreamSource),
    Memory(MemorySource),
}

impl Source {
    /// How many messages can be taken, or can be once the log has committed them.
    pub(super) fn ready(&self) -> u64 {
        match self {
            Source::Stream(s) => s.ready(),
            Source::Memory(m) => m.ready(),
        }
    }

    /// How many messages were submitted and not taken.
    pub(super) fn submitted(&self) -> u64 {
        match self {
            Source::Stream(s) => s.submitted(),
            Source::Memory(m) => m.ready(),
        }
    }

    /// The next message.
    pub(super) fn take(&mut self, read_bytes: usize) -> Offer {
        match self {
            Source::Stream(s) => s.take(read_bytes),
            Source::Memory(m) => m.take(read_bytes),
        }
    }

    /// A message that was taken, and not [settled](Self::settled): its record once more.
    pub(super) fn again(&mut self, offset: u64, read_bytes: usize) -> Offer {
        match self {
            Source::Stream(s) => s.again(offset, read_bytes),
            Source::Memory(m) => m.again(offset),
        }
    }

    /// Nothing is asked for again soon.
    pub(super) fn close_again(&mut self) {
        if let Source::Stream(s) = self {
            s.close_again();
        }
    }

    /// A message is in somebody's hands and may be asked for again. The bytes of it that stay in memory for that.
    pub(super) fn keep(&mut self, delivery: &Delivery) -> usize {
        match self {
            Source::Stream(_) => 0,
            Source::Memory(m) => m.keep(delivery),
        }
    }

    /// The bytes that [`keep`](Self::keep) said.
    pub(super) fn kept_bytes(&self, offset: u64) -> usize {
        match self {
            Source::Stream(_) => 0,
            Source::Memory(m) => m.kept_bytes(offset),
        }
    }

    /// A message is done for.
    pub(super) fn settled(&mut self, offset: u64) {
        if let Source::Memory(m) = self {
            m.settled(offset);
        }
    }

    /// What a [`ColdRead`] brought, nothing if it failed; whether it is worth looking again.
    pub(super) fn loaded(&mut self, again: bool, batches: Vec<StoredBatch>) -> bool {
        match self {
            Source::Stream(s) => s.loaded(again, batches),
            Source::Memory(m) => m.loaded(batches),
        }
    }

    pub(super) fn is_loading(&self) -> bool {
        match self {
            Source::Stream(s) => s.is_loading(),
            Source::Memory(m) => m.is_loading(),
        }
    }

    /// Throws away all that was submitted: how many messages, and the offsets of those in a stream.
    pub(super) fn skip_all(&mut self) -> (u64, Range<u64>) {
        match self {
            Source::Stream(s) => (s.submitted(), s.skip_all()),
            Source::Memory(m) => (m.skip_all(), 0..0),
        }
    }

    /// Its durable position, if it has one.
    pub(super) fn cursor(&self) -> Option<&Cursor> {
        match self {
            Source::Stream(s) => s.cursor.as_ref(),
            Source::Memory(_) => None,
        }
    }
}

/// How many offsets a batch takes.
fn span(batch: &Bytes) -> u64 {
    BatchHeader::parse(batch).map_or(1, |h| h.offset_span())
}

/// The records of one batch, being handed out.
struct Open {
    base: u64,
    /// Behind the last offset that the batch takes, whatever its records say.
    end: u64,
    /// Records below this were handed out; a compressed batch's are numbered by its producer, perhaps twice.
    floor: u64,
    records: Records,
    topic: Option<Arc<str>>,
}

impl Open {
    fn new(base: u64, bytes: &Bytes, topic: Option<Arc<str>>) -> Option<Open> {
        match records(bytes) {
            Ok(records) => Some(Open { base, end: base + span(bytes), floor: base, records, topic }),
            Err(error) => {
                // The log checked it when it came in; a reader can only step over it.
                tracing::error!(offset = base, %error, "a stored batch cannot be read; its records are skipped");
                None
            }
        }
    }

    fn next(&mut self) -> Option<Taken> {
        loop {
            match self.records.next()? {
                Ok(record) => {
                    let offset = self.base + u64::from(record.offset_delta);
                    if offset < self.floor {
                        continue;
                    }
                    self.floor = offset + 1;
                    return Some(Taken { offset, record, topic: self.topic.clone(), redelivered: 0 });
                }
                Err(error) => {
                    tracing::error!(offset = self.base, %error, "the rest of a stored batch cannot be read");
                    return None;
                }
            }
        }
    }
}
