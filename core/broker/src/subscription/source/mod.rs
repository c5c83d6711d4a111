//! Message sources of a subscription: a stream of the log, or batches in memory.

mod again;
pub(super) mod delivered;
pub(super) mod memory;
mod stream;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use inver_storage::batch::{
    BatchError, BatchHeader, HEADER_BYTES, Record, Records, decompressed, records, records_within,
};
use inver_storage::{ColdRead, Cursor, StoredBatch};

use super::Delivery;

pub(super) use memory::MemorySource;
pub use memory::{LiveBatch, MemoryBounds, WhenFull};
pub(super) use stream::{StreamSource, delivered_key};

/// Bytes asked of a stream at a time.
pub(super) const READ_BYTES: usize = 256 * 1024;

/// Batches that decompress to more than this are decompressed on another thread.
const OPENED_BYTES_MAX: usize = 512 * 1024;

/// A message taken from a source.
pub(super) struct Taken {
    pub(super) offset: u64,
    pub(super) record: Record,
    pub(super) topic: Option<Arc<str>>,
    /// How often it was requeued before the process started.
    pub(super) redelivered: u32,
}

/// The result of asking a source for a message.
pub(super) enum Offer {
    Taken(Taken),
    /// None now; a wake-up follows.
    Empty,
    /// The records are on the disk: the caller runs the read and passes the result to [`Source::loaded`].
    Load(ColdRead),
    /// The message no longer exists.
    Gone,
}

/// A source.
pub(super) enum Source {
    Stream(StreamSource),
    Memory(MemorySource),
}

impl Source {
    /// Bytes of the messages that wait in memory, but for those that other queues share.
    pub(super) fn memory_bytes(&self) -> u64 {
        match self {
            Source::Stream(_) => 0,
            Source::Memory(memory) => memory.own_bytes(),
        }
    }

    /// Whether the memory for messages that it keeps is used up.
    pub(super) fn is_short(&self) -> bool {
        match self {
            Source::Stream(_) => false,
            Source::Memory(memory) => memory.is_short(),
        }
    }

    /// Messages that can be taken.
    pub(super) fn ready(&self) -> u64 {
        match self {
            Source::Stream(s) => s.ready(),
            Source::Memory(m) => m.ready(),
        }
    }

    /// Messages that were submitted and not taken, uncommitted ones included.
    pub(super) fn submitted(&self) -> u64 {
        match self {
            Source::Stream(s) => s.submitted(),
            Source::Memory(m) => m.ready(),
        }
    }

    /// The next message.
    #[inline]
    pub(super) fn take(&mut self, read_bytes: usize) -> Offer {
        match self {
            Source::Stream(s) => s.take(read_bytes),
            Source::Memory(m) => m.take(read_bytes),
        }
    }

    /// The record of a message that was taken and not [settled](Self::settled).
    pub(super) fn again(&mut self, offset: u64, read_bytes: usize) -> Offer {
        match self {
            Source::Stream(s) => s.again(offset, read_bytes),
            Source::Memory(m) => m.again(offset),
        }
    }

    /// Whether [`again`](Self::again) searches a batch for the message.
    pub(super) fn searches(&self) -> bool {
        matches!(self, Source::Stream(_))
    }

    /// Releases what [`again`](Self::again) keeps open.
    pub(super) fn close_again(&mut self) {
        if let Source::Stream(s) = self {
            s.close_again();
        }
    }

    /// Keeps a message that was taken, because it may be read again. Returns the bytes that stay in memory for it.
    pub(super) fn keep(&mut self, delivery: &Delivery) -> usize {
        match self {
            Source::Stream(_) => 0,
            Source::Memory(m) => m.keep(delivery),
        }
    }

    /// The bytes that [`keep`](Self::keep) returned.
    pub(super) fn kept_bytes(&self, offset: u64) -> usize {
        match self {
            Source::Stream(_) => 0,
            Source::Memory(m) => m.kept_bytes(offset),
        }
    }

    /// Releases a message that was acknowledged or dropped.
    pub(super) fn settled(&mut self, offset: u64) {
        if let Source::Memory(m) = self {
            m.settled(offset);
        }
    }

    /// Takes the result of a [`ColdRead`], which is empty if it failed. Whether a message may be available now.
    pub(super) fn loaded(&mut self, again: bool, batches: Vec<StoredBatch>) -> bool {
        match self {
            Source::Stream(s) => s.loaded(again, batches),
            Source::Memory(m) => m.loaded(batches),
        }
    }

    /// Whether the next message is being loaded.
    pub(super) fn is_loading_next(&self) -> bool {
        match self {
            Source::Stream(s) => s.is_loading_next(),
            Source::Memory(m) => m.is_loading(),
        }
    }

    /// Whether more messages may be taken ahead of their delivery, as far as their memory goes.
    pub(super) fn has_room_ahead(&self) -> bool {
        match self {
            Source::Stream(_) => true,
            Source::Memory(m) => m.has_room_ahead(),
        }
    }

    pub(super) fn is_loading(&self) -> bool {
        match self {
            Source::Stream(s) => s.is_loading(),
            Source::Memory(m) => m.is_loading(),
        }
    }

    /// The next read to run ahead of [`take`](Self::take), if what is buffered was read from the disk and is less than
    /// `read_bytes`.
    pub(super) fn read_ahead(&mut self, read_bytes: usize) -> Option<ColdRead> {
        match self {
            Source::Stream(s) => s.read_ahead(read_bytes),
            Source::Memory(m) => m.read_ahead(read_bytes),
        }
    }

    /// The stream that it reads.
    pub(super) fn stream(&mut self) -> Option<&mut StreamSource> {
        match self {
            Source::Stream(s) => Some(s),
            Source::Memory(m) => m.spilled(),
        }
    }

    /// Releases batches that were read and not begun; they are read again when they are wanted.
    pub(super) fn release_buffered(&mut self) {
        match self {
            Source::Stream(s) => s.release_buffered(),
            Source::Memory(m) => m.release_buffered(),
        }
    }

    /// Batches that were read and not begun.
    #[cfg(test)]
    pub(super) fn buffered_batches(&self) -> usize {
        match self {
            Source::Stream(s) => s.buffered_batches(),
            Source::Memory(_) => 0,
        }
    }

    /// Removes the first messages that can be taken, up to `messages`, without reading the log.
    pub(super) fn skip(&mut self, messages: u64) -> Skipped {
        match self {
            Source::Stream(s) => s.skip(messages),
            Source::Memory(m) => Skipped { messages: m.skip(messages), offsets: 0..0 },
        }
    }

    /// Removes the first messages as long as they are in batches with timestamps below `timestamp_ms` only, without
    /// reading the log.
    pub(super) fn skip_older(&mut self, timestamp_ms: i64) -> Skipped {
        match self {
            Source::Stream(s) => s.skip_older(timestamp_ms),
            Source::Memory(m) => Skipped { messages: m.skip_older(timestamp_ms), offsets: 0..0 },
        }
    }

    /// Removes all submitted messages. Returns how many, and their range of offsets in a stream.
    pub(super) fn skip_all(&mut self) -> (u64, Range<u64>) {
        match self {
            Source::Stream(s) => (s.submitted(), s.skip_all()),
            Source::Memory(m) => (m.skip_all(), 0..0),
        }
    }

    /// Notes that a message is delivered to a consumer that acknowledges.
    pub(super) fn deliver(&mut self, offset: u64, now_ms: i64) {
        if let Source::Stream(s) = self {
            s.deliver(offset, now_ms);
        }
    }

    /// Continues at this offset of its stream, because what is before it cannot be read.
    pub(super) fn step_over(&mut self, to: u64) -> SteppedOver {
        match self {
            Source::Stream(s) => s.step_over(to),
            Source::Memory(m) => m.step_over(to),
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

/// Messages that were removed without being read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Skipped {
    pub(super) messages: u64,
    /// Their offsets in a stream, to be acknowledged.
    pub(super) offsets: Range<u64>,
}

/// Messages that were not taken because they cannot be read.
#[derive(Default)]
pub(super) struct SteppedOver {
    /// The offset of the first of them, as messages that are taken have it.
    pub(super) first: u64,
    pub(super) messages: u64,
    /// Their offsets in a stream, to be acknowledged.
    pub(super) acked: Range<u64>,
}

/// The number of offsets that a batch takes.
fn span(batch: &Bytes) -> u64 {
    BatchHeader::parse(batch).map_or(1, |h| h.offset_span())
}

/// Decompresses the first of the batches that were loaded, on the thread that loaded them. One that cannot be decompressed
/// becomes one that cannot be read.
pub(super) fn decompress_first(batches: &mut [StoredBatch]) {
    let Some(first) = batches.first_mut() else { return };
    first.bytes = decompressed(&first.bytes).unwrap_or_else(|error| {
        tracing::error!(offset = first.base_offset.0, %error, "failed to decompress a stored batch");
        first.bytes.slice(..HEADER_BYTES.min(first.bytes.len()))
    });
}

/// The log verified it on append; a reader can only skip it.
fn log_broken(base: u64, error: &BatchError) {
    tracing::error!(offset = base, %error, "failed to read a stored batch; skipping its records");
}

/// A batch whose records are being taken.
struct Open {
    base: u64,
    /// The offset after the last one that the batch takes, whatever its records say.
    end: u64,
    /// Records below this offset were taken. A compressed batch's offsets are its producer's and may repeat.
    floor: u64,
    records: Records,
    topic: Option<Arc<str>>,
}

/// A batch that is to be read.
enum Opened {
    Open(Open),
    /// It decompresses to much: that is left to a load ([`decompress_first`]).
    Long,
    /// It cannot be read, or has nothing for readers.
    Nothing,
}

impl Opened {
    fn new(base: u64, bytes: &Bytes, topic: Option<Arc<str>>) -> Opened {
        match records_within(bytes, OPENED_BYTES_MAX) {
            Ok(records) => Opened::Open(Open::of(base, bytes, records, topic)),
            Err(BatchError::TooLarge { .. }) => Opened::Long,
            Err(error) => {
                log_broken(base, &error);
                Opened::Nothing
            }
        }
    }
}

impl Open {
    /// A batch in memory, which producers leave there decompressed.
    fn in_memory(base: u64, bytes: &Bytes, topic: Option<Arc<str>>) -> Option<Open> {
        let records = records(bytes).inspect_err(|error| log_broken(base, error)).ok()?;
        Some(Open::of(base, bytes, records, topic))
    }

    fn of(base: u64, bytes: &Bytes, records: Records, topic: Option<Arc<str>>) -> Open {
        Open { base, end: base + span(bytes), floor: base, records, topic }
    }

    /// Whether the offset is one of the batch.
    fn has(&self, offset: u64) -> bool {
        (self.base..self.end).contains(&offset)
    }

    #[inline]
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
                    tracing::error!(offset = self.base, %error, "failed to read the rest of a stored batch; skipping it");
                    return None;
                }
            }
        }
    }
}
