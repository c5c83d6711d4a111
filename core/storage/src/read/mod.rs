//! The read path: segment files, their indexes, and reads of batches from them.
//!
//! Owns the open files and the caches of reads. Does not know streams: callers pass stream ids and extents. Every batch
//! read from a file is checked (length and checksum) before it is returned. Batches close together in the file are read
//! in one call. Reads do not fill the tail cache, so that catch-up readers do not evict it.

pub(crate) mod buffers;
pub(crate) mod index_cache;
pub(crate) mod segments;

use bytes::Bytes;

use self::buffers::{BUFFER_BYTES, ReadBuffers};
use self::index_cache::IndexCache;
use self::segments::{Segment, Segments};
use crate::batch;
use crate::error::ReadError;
use crate::format::index::Extent;
use crate::format::segment::{HEADER_BYTES as SEGMENT_HEADER_BYTES, SegmentHeader, Spread};
use crate::ids::{Offset, StreamId};
use crate::seeded_bugs::{Bug, is_seeded};

/// Batches at most this far apart in the file are read together.
const GAP_BYTES_MAX: u64 = 16 << 10;
/// Bytes of one read, unless a single batch is larger.
const CHUNK_BYTES_MAX: u64 = BUFFER_BYTES as u64;

/// A batch as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// Offset of its first record in this stream, whether compaction kept that record or not. The next batch starts
    /// `offset_span` offsets on or later: compaction removes records and whole batches, and never changes offsets.
    pub base_offset: Offset,
    /// The first of the streams that the batch was submitted for; another stream if this one received a copy.
    pub origin: StreamId,
    /// The batch as submitted. Its own base offset (the first 8 bytes) is not authoritative: several destinations
    /// share the bytes. To send the batch, write `base_offset` and then `bytes[8..]`.
    pub bytes: Bytes,
}

pub(crate) struct ReadPath {
    pub(crate) segments: Segments,
    index: IndexCache,
    buffers: ReadBuffers,
}

impl ReadPath {
    pub(crate) fn new(segments: Segments, index_cache_bytes_max: usize, buffers_bytes_max: usize) -> Self {
        let index = IndexCache::new(index_cache_bytes_max);
        Self { segments, index, buffers: ReadBuffers::new(buffers_bytes_max) }
    }

    /// Memory of the index cache.
    pub(crate) fn index_cache_bytes(&self) -> u64 {
        self.index.bytes()
    }

    /// Memory of read buffers that nobody uses.
    pub(crate) fn idle_buffer_bytes(&self) -> u64 {
        self.buffers.idle_bytes()
    }

    /// Extents of a stream in a sealed segment from the one that contains `from` (or the next above it), up to a number
    /// of bytes, at least one if there is one.
    pub(crate) fn extents(
        &self,
        segment: &Segment,
        stream: u64,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<Extent>, ReadError> {
        self.index.extents(&self.segments, segment, stream, from, bytes_max)
    }

    /// The first extent of a stream in a sealed segment at or above `from` that satisfies `is_wanted`.
    pub(crate) fn first_extent(
        &self,
        segment: &Segment,
        stream: u64,
        from: u64,
        is_wanted: impl FnMut(&Extent) -> bool,
    ) -> Result<Option<Extent>, ReadError> {
        self.index.first_extent(&self.segments, segment, stream, from, is_wanted)
    }

    /// Appends the ids of all streams in a sealed segment to `ids`.
    pub(crate) fn stream_ids(&self, segment: &Segment, ids: &mut Vec<u64>) -> Result<(), ReadError> {
        self.index.stream_ids(&self.segments, segment, ids)
    }

    /// When a segment was created, ms since the epoch.
    pub(crate) fn created_ms(&self, segment: &Segment) -> Result<i64, ReadError> {
        if let Some(created_ms) = segment.known_created_ms() {
            return Ok(created_ms);
        }
        let name = segment.id.file_name();
        let file = self.segments.file(segment.id).map_err(ReadError::io(name.clone()))?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        file.read_at(0, &mut bytes).map_err(ReadError::io(name.clone()))?;
        let header = SegmentHeader::decode(&bytes).map_err(|_| ReadError::Damaged {
            file: name,
            position: 0,
            detail: "malformed segment header",
        })?;
        Ok(segment.note_created(header.created_ms))
    }

    /// A time at which everything in a segment had been written, ms since the epoch: when the next one was started, or when
    /// the copy was made. None while it is appended to.
    pub(crate) fn written_until_ms(&self, segment: &Segment) -> Result<Option<i64>, ReadError> {
        if let Some(until_ms) = segment.known_written_until_ms() {
            return Ok(Some(until_ms));
        }
        let until_ms = if segment.id.is_cleaned() {
            self.created_ms(segment)?
        } else {
            // After a restart; the one that followed may be gone.
            let Some(next) = self.segments.next_of_log(segment.id) else { return Ok(None) };
            self.created_ms(&next)?
        };
        Ok(Some(segment.note_written_until(until_ms)))
    }

    /// How far the streams of a sealed segment are interleaved.
    pub(crate) fn spread(&self, segment: &Segment) -> Result<Spread, ReadError> {
        self.index.spread(&self.segments, segment)
    }

    /// Reads batches; neighbours in one call.
    pub(crate) fn batches(
        &self,
        segment: &Segment,
        extents: &[Extent],
    ) -> Result<Vec<StoredBatch>, ReadError> {
        let name = || segment.id.file_name();
        let file = self.segments.file(segment.id).map_err(ReadError::io(name()))?;
        let mut batches = Vec::with_capacity(extents.len());
        let mut rest = extents;
        while let Some(first) = rest.first() {
            let (count, end) = neighbours(rest);
            let start = u64::from(first.position);
            let mut chunk = self.buffers.take((end - start) as usize);
            let read = file.read_at(start, chunk.as_mut()).map_err(ReadError::io(name()))?;
            let chunk = chunk.freeze(read);
            let (group, after) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            for extent in group {
                let at = (u64::from(extent.position) - start) as usize;
                let bytes = chunk.get(at..at + extent.length as usize).map(|bytes| chunk.slice_ref(bytes));
                let checked = bytes.ok_or("file is truncated").and_then(|bytes| check(bytes, extent));
                let bytes = checked.map_err(|detail| ReadError::Damaged {
                    file: name(),
                    position: u64::from(extent.position),
                    detail,
                })?;
                batches.push(StoredBatch {
                    base_offset: Offset(extent.base),
                    origin: StreamId(extent.origin),
                    bytes,
                });
            }
            rest = after;
        }
        Ok(batches)
    }
}

/// How many of the extents are read in one call, and where the last of them ends.
fn neighbours(extents: &[Extent]) -> (usize, u64) {
    let place =
        |extent: &Extent| (u64::from(extent.position), u64::from(extent.position) + u64::from(extent.length));
    let (start, mut end) = extents.first().map(place).unwrap_or_default();
    let mut count = 1;
    for next in extents.get(1..).unwrap_or_default() {
        let (next_start, next_end) = place(next);
        if next_start < end || next_start - end > GAP_BYTES_MAX || next_end - start > CHUNK_BYTES_MAX {
            break;
        }
        end = next_end;
        count += 1;
    }
    (count, end)
}

fn check(bytes: Bytes, extent: &Extent) -> Result<Bytes, &'static str> {
    if is_seeded(Bug::SkipBatchChecksumInRead) {
        return Ok(bytes);
    }
    let batch = batch::Batch::parse(bytes).map_err(|_| "malformed batch")?;
    if batch.header().offset_span() != u64::from(extent.span) {
        return Err("batch differs from its index entry");
    }
    Ok(batch.into_bytes())
}
