//! Reads that need the files. They run where the caller lets them block; the writer is never in their way.
//!
//! Every batch read from a file is checked (length and checksum) before it is handed out. What lies close together
//! in the file is read in one go. Deliberately absent: filling the tail cache from here, so that catch-up readers
//! do not evict the tail.

use std::sync::Arc;

use bytes::Bytes;

use super::{StoredBatch, Stream};
use crate::batch;
use crate::error::ReadError;
use crate::format::index::Extent;
use crate::ids::{Offset, StreamId};
use crate::inner::Inner;
use crate::read_buffers::BUFFER_BYTES;
use crate::sabotage::{Bug, is_seeded};
use crate::segments::Segment;

/// Batches at most this far apart in the file are read together.
const GAP_BYTES_MAX: u64 = 16 << 10;
/// One read of the file asks for no more than this, unless a single batch is larger.
const CHUNK_BYTES_MAX: u64 = BUFFER_BYTES as u64;
/// How often a read starts over because the cleaner replaced what it was about to read.
const ATTEMPTS_MAX: u32 = 3;

/// A read that needs the disk. Run it where blocking is allowed.
#[derive(Debug)]
pub struct ColdRead {
    stream: Stream,
    from: Offset,
    bytes_max: usize,
}

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
pub struct ColdTimeLookup {
    stream: Stream,
    timestamp_ms: i64,
}

/// A run of the stream, as found under its lock.
struct Found {
    segment: Arc<Segment>,
    /// The extents wanted, when they are in memory.
    resident: Option<Vec<Extent>>,
    /// What of the segment is this run's: several runs of a stream can be in a segment that the cleaner wrote.
    from: u64,
    end: u64,
}

impl ColdRead {
    pub(super) fn new(stream: Stream, from: Offset, bytes_max: usize) -> Self {
        Self { stream, from, bytes_max }
    }

    /// Reads from the files; blocks on I/O. At least one batch, unless the stream holds none at or above the offset.
    pub fn run(self) -> Result<Vec<StoredBatch>, ReadError> {
        let log = self.stream.0.log.upgrade().ok_or(ReadError::Deleted)?;
        let mut attempts = 0;
        loop {
            match self.attempt(&log) {
                Err(ReadError::Io { .. }) if attempts < ATTEMPTS_MAX => attempts += 1,
                result => return result,
            }
        }
    }

    fn attempt(&self, log: &Inner) -> Result<Vec<StoredBatch>, ReadError> {
        let mut step = 0;
        loop {
            let (found, end) = {
                let state = self.stream.0.state.lock();
                if !self.stream.check(self.from)? {
                    return Ok(Vec::new());
                }
                // The tail may have caught up meanwhile (a compacted gap before it).
                let at = state.runs.find(self.from.0) + step;
                let Some(run) = state.runs.get(at) else {
                    return Ok(state.read_tail(self.from.0, self.bytes_max).unwrap_or_default());
                };
                let resident = (!run.extents.is_empty()).then(|| {
                    let first = run.extents.partition_point(|extent| extent.end() <= self.from.0);
                    take_extents(run.extents.get(first..).unwrap_or_default(), self.bytes_max)
                });
                let end = state.runs.get(at + 1).map_or(u64::MAX, |next| next.first);
                let end = end.min(self.stream.high_watermark().0);
                (Found { segment: run.segment.clone(), resident, from: self.from.0.max(run.first), end }, end)
            };
            let mut extents = match found.resident {
                Some(extents) => extents,
                None => log.index.extents(
                    &log.segments,
                    &found.segment,
                    self.stream.0.id,
                    found.from,
                    self.bytes_max,
                )?,
            };
            extents.retain(|extent| extent.base < end);
            if let Some(first) = extents.first() {
                return match read_extents(log, &found.segment, &extents) {
                    // What lies before the damage can be read.
                    Err(ReadError::Damaged { .. }) if extents.len() > 1 => {
                        let sound = extents.iter().map_while(|extent| {
                            read_extents(log, &found.segment, std::slice::from_ref(extent)).ok()
                        });
                        let sound: Vec<StoredBatch> = sound.flatten().collect();
                        match sound.is_empty() {
                            true => read_extents(log, &found.segment, std::slice::from_ref(first)),
                            false => Ok(sound),
                        }
                    }
                    read => read,
                };
            }
            step += 1;
        }
    }
}

/// The first of the extents, up to a number of bytes, at least one.
fn take_extents(extents: &[Extent], bytes_max: usize) -> Vec<Extent> {
    let mut bytes = 0usize;
    let mut count = 0;
    for extent in extents {
        bytes = bytes.saturating_add(extent.length as usize);
        if bytes > bytes_max && count > 0 {
            break;
        }
        count += 1;
    }
    extents.get(..count).unwrap_or_default().to_vec()
}

/// Reads batches; neighbours in one go.
pub(crate) fn read_extents(
    log: &Inner,
    segment: &Segment,
    extents: &[Extent],
) -> Result<Vec<StoredBatch>, ReadError> {
    let name = || segment.id.file_name();
    let file = log.segments.file(segment.id).map_err(|error| io(name(), &error))?;
    let mut batches = Vec::with_capacity(extents.len());
    let mut rest = extents;
    while let Some(first) = rest.first() {
        let start = u64::from(first.position);
        let mut end = start + u64::from(first.length);
        let mut count = 1;
        for next in rest.get(1..).unwrap_or_default() {
            let (next_start, next_end) =
                (u64::from(next.position), u64::from(next.position) + u64::from(next.length));
            if next_start < end || next_start - end > GAP_BYTES_MAX || next_end - start > CHUNK_BYTES_MAX {
                break;
            }
            end = next_end;
            count += 1;
        }
        let mut chunk = log.read_buffers.take((end - start) as usize);
        let read = file.read_at(start, chunk.as_mut()).map_err(|error| io(name(), &error))?;
        let chunk = chunk.freeze(read);
        let (group, after) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        for extent in group {
            let at = (u64::from(extent.position) - start) as usize;
            let bytes = chunk.get(at..at + extent.length as usize).map(|bytes| chunk.slice_ref(bytes));
            let checked = bytes.ok_or("file is cut short").and_then(|bytes| check(bytes, extent));
            let bytes = checked.map_err(|detail| ReadError::Damaged {
                file: name(),
                position: u64::from(extent.position),
                detail: detail.to_owned(),
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

fn check(bytes: Bytes, extent: &Extent) -> Result<Bytes, &'static str> {
    if is_seeded(Bug::SkipBatchChecksumInRead) {
        return Ok(bytes);
    }
    let batch = batch::Batch::parse(bytes).map_err(|_| "the batch does not hold")?;
    if batch.header().offset_span() != u64::from(extent.span) {
        return Err("another batch lies here");
    }
    Ok(batch.into_bytes())
}

fn io(file: String, error: &std::io::Error) -> ReadError {
    ReadError::Io { file, detail: error.to_string() }
}

pub(super) fn offset_for_time(stream: &Stream, timestamp_ms: i64) -> Result<TimeLookup, ReadError> {
    if stream.is_deleted() {
        return Err(ReadError::Deleted);
    }
    if stream.start() >= stream.high_watermark() || timestamp_ms > stream.last_timestamp() {
        return Ok(TimeLookup::Ready(None));
    }
    let state = stream.0.state.lock();
    let Some(all) = state.read_tail(stream.start().0, usize::MAX) else {
        drop(state);
        return Ok(TimeLookup::Cold(ColdTimeLookup { stream: stream.clone(), timestamp_ms }));
    };
    drop(state);
    Ok(TimeLookup::Ready(find_in(&all, timestamp_ms, stream.start())))
}

impl ColdTimeLookup {
    /// Reads from the files; blocks on I/O.
    pub fn run(self) -> Result<Option<(Offset, i64)>, ReadError> {
        let log = self.stream.0.log.upgrade().ok_or(ReadError::Deleted)?;
        let mut attempts = 0;
        loop {
            match self.attempt(&log) {
                Err(ReadError::Io { .. }) if attempts < ATTEMPTS_MAX => attempts += 1,
                result => return result,
            }
        }
    }

    fn attempt(&self, log: &Inner) -> Result<Option<(Offset, i64)>, ReadError> {
        let start = self.stream.start();
        let candidates: Vec<Found> = {
            let state = self.stream.0.state.lock();
            let ends = state.runs.iter().skip(1).map(|next| next.first).chain([u64::MAX]);
            let runs = state.runs.iter().zip(ends);
            runs.filter(|(run, _)| run.max_timestamp >= self.timestamp_ms)
                .map(|(run, end)| {
                    let late = |extent: &&Extent| self.is_late(extent, start);
                    let resident = run.extents.iter().find(late).copied();
                    let resident = (!run.extents.is_empty()).then(|| resident.into_iter().collect());
                    Found { segment: run.segment.clone(), resident, from: run.first.max(start.0), end }
                })
                .collect()
        };
        for found in candidates {
            let extents = match found.resident {
                Some(extents) => extents,
                None => {
                    let late = |extent: &Extent| extent.base < found.end && self.is_late(extent, start);
                    let id = self.stream.0.id;
                    log.index
                        .first_extent(&log.segments, &found.segment, id, found.from, late)?
                        .into_iter()
                        .collect()
                }
            };
            let batches = read_extents(log, &found.segment, &extents)?;
            if let Some(hit) = find_in(&batches, self.timestamp_ms, start) {
                return Ok(Some(hit));
            }
        }
        Ok(None)
    }

    fn is_late(&self, extent: &Extent, start: Offset) -> bool {
        extent.max_timestamp >= self.timestamp_ms
            && extent.end() > start.0
            && extent.base < self.stream.high_watermark().0
    }
}

/// The first record at or after a time, at or above `start`.
fn find_in(batches: &[StoredBatch], timestamp_ms: i64, start: Offset) -> Option<(Offset, i64)> {
    for stored in batches {
        let Ok(header) = batch::BatchHeader::parse(&stored.bytes) else { continue };
        if header.max_timestamp < timestamp_ms || stored.base_offset.plus(header.offset_span()) <= start {
            continue;
        }
        // A producer's batch whose records cannot be read is still found, by its header.
        let Ok(records) = batch::records(&stored.bytes) else {
            return Some((stored.base_offset.max(start), header.max_timestamp));
        };
        for record in records.flatten() {
            let offset = stored.base_offset.plus(u64::from(record.offset_delta));
            if record.timestamp_ms >= timestamp_ms && offset >= start {
                return Some((offset, record.timestamp_ms));
            }
        }
    }
    None
}
