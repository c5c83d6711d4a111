//! Lookups by time: the first record of a stream with a timestamp at or after a given one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cold::{Found, retrying};
use super::state::StreamInner;
use crate::batch;
use crate::error::ReadError;
use crate::format::index::Extent;
use crate::ids::Offset;
use crate::read::{ReadPath, StoredBatch};

/// Result of [`crate::Stream::offset_for_time`].
#[derive(Debug)]
pub enum TimeLookup {
    /// The first record with a timestamp at or after the given one, and its timestamp.
    Ready(Option<(Offset, i64)>),
    /// A lookup that needs the disk.
    Cold(ColdTimeLookup),
}

/// A lookup by time that needs the disk. Run it where blocking is allowed.
#[derive(Debug)]
pub struct ColdTimeLookup {
    stream: Arc<StreamInner>,
    timestamp_ms: i64,
}

pub(super) fn offset_for_time(stream: &Arc<StreamInner>, timestamp_ms: i64) -> Result<TimeLookup, ReadError> {
    if stream.deleted.load(Ordering::Acquire) {
        return Err(ReadError::Deleted);
    }
    let start = Offset(stream.start.load(Ordering::Acquire));
    let is_empty = start.0 >= stream.high.load(Ordering::Acquire);
    if is_empty || timestamp_ms > stream.last_timestamp.load(Ordering::Acquire) {
        return Ok(TimeLookup::Ready(None));
    }
    let all = stream.state.lock().read_tail(start.0, usize::MAX);
    let Some(all) = all else {
        return Ok(TimeLookup::Cold(ColdTimeLookup { stream: stream.clone(), timestamp_ms }));
    };
    let start = Offset(stream.start.load(Ordering::Acquire));
    Ok(TimeLookup::Ready(find_in(&all, timestamp_ms, start)))
}

impl ColdTimeLookup {
    /// Reads from the files; blocks on I/O.
    pub fn run(self) -> Result<Option<(Offset, i64)>, ReadError> {
        let read = self.stream.read_path()?;
        retrying(|| self.attempt(&read))
    }

    fn attempt(&self, read: &ReadPath) -> Result<Option<(Offset, i64)>, ReadError> {
        let start = Offset(self.stream.start.load(Ordering::Acquire));
        for found in self.candidates(start) {
            let extents = match found.resident {
                Some(extents) => extents,
                None => {
                    let late = |extent: &Extent| extent.base < found.end && self.is_late(extent, start);
                    let first = read.first_extent(&found.segment, self.stream.id, found.from, late)?;
                    first.into_iter().collect()
                }
            };
            let batches = read.batches(&found.segment, &extents)?;
            if let Some(hit) = find_in(&batches, self.timestamp_ms, start) {
                return Ok(Some(hit));
            }
        }
        Ok(None)
    }

    /// Runs that hold a record late enough.
    fn candidates(&self, start: Offset) -> Vec<Found> {
        let state = self.stream.state.lock();
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
    }

    fn is_late(&self, extent: &Extent, start: Offset) -> bool {
        extent.max_timestamp >= self.timestamp_ms
            && extent.end() > start.0
            && extent.base < self.stream.high.load(Ordering::Acquire)
    }
}

/// The first record at or after a time, at or above `start`.
fn find_in(batches: &[StoredBatch], timestamp_ms: i64, start: Offset) -> Option<(Offset, i64)> {
    for stored in batches {
        let Ok(header) = batch::BatchHeader::parse(&stored.bytes) else { continue };
        if header.max_timestamp < timestamp_ms || stored.base_offset.plus(header.offset_span()) <= start {
            continue;
        }
        // A batch whose records cannot be decoded is still found, by its header.
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
