//! Peeking: reading messages of a stream without taking or marking them.
//!
//! Reads can need the disk: call where blocking is allowed.

use std::sync::Arc;

use inver_storage::batch::{BatchHeader, CONTROL, Record, TRANSACTIONAL, records};
use inver_storage::{Offset, Read, ReadError, StoredBatch, Stream, StreamId, TimeLookup};

/// Bytes asked of a stream at a time.
const READ_BYTES: usize = 256 * 1024;

/// Reads in search of one message.
const INVISIBLE_READS_MAX: usize = 64;

/// A message that was read and stays where it is.
#[derive(Clone, Debug)]
pub struct PeekedMessage {
    /// Its offset.
    pub offset: u64,
    /// The message.
    pub record: Record,
    /// As [`Delivery::topic`](crate::Delivery::topic).
    pub topic: Option<Arc<str>>,
    /// It is delivered to a consumer and not acknowledged.
    pub unacked: bool,
}

/// Messages that were read, and where to go on.
#[derive(Clone, Debug, Default)]
pub struct Peeked {
    /// In the order of their offsets.
    pub messages: Vec<PeekedMessage>,
    /// The offset from which to read more; none at the end.
    pub next: Option<u64>,
}

/// How much is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeekBounds {
    /// Messages returned.
    pub(crate) messages_max: usize,
    /// Bytes of values, keys and headers returned; the first message is returned whatever its size.
    pub(crate) bytes_max: usize,
    /// Offsets read, returned or not.
    pub(crate) visited_max: u64,
}

/// Reads visible messages from an offset on, without those that `skip` selects.
pub(crate) fn stream(
    stream: &Stream,
    from: Offset,
    bounds: &PeekBounds,
    topic_of: impl Fn(StreamId) -> Option<Arc<str>>,
    skip: impl Fn(u64) -> bool,
) -> Result<Peeked, ReadError> {
    let begin = from.0.max(stream.start().0);
    let (mut at, mut bytes) = (begin, 0);
    let mut messages = Vec::new();
    while at < stream.stable_offset().0 {
        if at - begin >= bounds.visited_max {
            return Ok(Peeked { messages, next: Some(at) });
        }
        let batches = read(stream, Offset(at), READ_BYTES)?;
        if batches.is_empty() {
            break;
        }
        let end = stream.stable_offset();
        for stored in batches {
            if !is_stable(stream, &stored, end) {
                return Ok(Peeked { messages, next: None });
            }
            let is_visible = is_visible(stream, &stored);
            let StoredBatch { base_offset, origin, bytes: batch } = stored;
            let topic = if origin == stream.id() { None } else { topic_of(origin) };
            let all = records(&batch).into_iter().flatten().map_while(Result::ok);
            for record in all.take_while(|_| is_visible) {
                let offset = base_offset.0 + u64::from(record.offset_delta);
                if offset < at || skip(offset) {
                    continue;
                }
                bytes += size(&record);
                if messages.len() >= bounds.messages_max || (bytes > bounds.bytes_max && !messages.is_empty())
                {
                    return Ok(Peeked { messages, next: Some(offset) });
                }
                messages.push(PeekedMessage { offset, record, topic: topic.clone(), unacked: false });
            }
            at = at.max(base_offset.0 + BatchHeader::parse(&batch).map_or(1, |header| header.offset_span()));
        }
    }
    Ok(Peeked { messages, next: None })
}

/// The timestamp of the first message at or above an offset, milliseconds since 1970; none if there is none, and none too
/// if there is none in the next [`INVISIBLE_READS_MAX`] reads.
pub(crate) fn timestamp_at(stream: &Stream, from: Offset) -> Result<Option<i64>, ReadError> {
    let from = from.max(stream.start());
    let mut at = from;
    // Whole reads can be without a message: of markers and aborted transactions.
    for _ in 0..INVISIBLE_READS_MAX {
        if at >= stream.stable_offset() {
            return Ok(None);
        }
        let batches = read(stream, at, READ_BYTES)?;
        let Some(last) = batches.last() else { return Ok(None) };
        at = last.base_offset.plus(BatchHeader::parse(&last.bytes).map_or(1, |header| header.offset_span()));
        let end = stream.stable_offset();
        let stable = batches.iter().take_while(|stored| is_stable(stream, stored, end));
        for StoredBatch { base_offset, bytes, .. } in stable.filter(|stored| is_visible(stream, stored)) {
            for record in records(bytes).into_iter().flatten().map_while(Result::ok) {
                if base_offset.0 + u64::from(record.offset_delta) >= from.0 {
                    return Ok(Some(record.timestamp_ms));
                }
            }
        }
    }
    Ok(None)
}

/// The offset of the first message with a timestamp at or after a time; the end of the stream if there is none.
pub(crate) fn offset_at(stream: &Stream, timestamp_ms: i64) -> Result<Offset, ReadError> {
    let found = match stream.offset_for_time(timestamp_ms)? {
        TimeLookup::Ready(found) => found,
        TimeLookup::Cold(lookup) => lookup.run()?,
    };
    let end = stream.stable_offset();
    Ok(found.map_or(end, |(offset, _)| offset.min(end)))
}

/// Whether a batch is below the stable offset: where that is the start of the stream, an open transaction can begin in the
/// batch that has the start in it.
pub(crate) fn is_stable(stream: &Stream, stored: &StoredBatch, end: Offset) -> bool {
    stored.base_offset.max(stream.start()) < end
}

/// Whether readers get the records of a batch below the stable offset: it is no marker of a transaction, and not part of an
/// aborted one.
pub fn is_visible(stream: &Stream, stored: &StoredBatch) -> bool {
    if BatchHeader::attributes_of(&stored.bytes) & (TRANSACTIONAL | CONTROL) == 0 {
        return true;
    }
    let header = BatchHeader::parse(&stored.bytes);
    header.is_ok_and(|header| {
        !header.is_control()
            && !stream.is_aborted(header.producer_id, stored.base_offset)
            // What was trimmed is not known any more. Asked last: the start moves before that is forgotten.
            && stored.base_offset.plus(header.offset_span()) > stream.start()
    })
}

/// Batches from an offset on, up to a number of bytes; the first whatever its size.
pub(crate) fn read(stream: &Stream, from: Offset, bytes_max: usize) -> Result<Vec<StoredBatch>, ReadError> {
    match stream.read(from, bytes_max) {
        Ok(Read::Ready(batches)) => Ok(batches),
        Ok(Read::Empty) => Ok(Vec::new()),
        Ok(Read::Cold(read)) => read.run(),
        // It was trimmed meanwhile.
        Err(ReadError::OutOfRange { start, .. }) if start > from => read_again(stream, start, bytes_max),
        Err(error) => Err(error),
    }
}

fn read_again(stream: &Stream, from: Offset, bytes_max: usize) -> Result<Vec<StoredBatch>, ReadError> {
    match stream.read(from, bytes_max)? {
        Read::Ready(batches) => Ok(batches),
        Read::Empty => Ok(Vec::new()),
        Read::Cold(read) => read.run(),
    }
}

/// Bytes of a record's parts.
pub(crate) fn size(record: &Record) -> usize {
    let length = |part: &Option<bytes::Bytes>| part.as_ref().map_or(0, bytes::Bytes::len);
    length(&record.key) + length(&record.value) + record.headers.len()
}
