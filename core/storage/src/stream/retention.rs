//! Retention: the offset below which a stream's data is too old or too much.
//!
//! Decides by whole batches, wherever they are: those of the segment that is being appended to are known in memory; of a
//! sealed segment, the index is read when its first batch is due. What is trimmed so takes space until its segment is
//! removed or cleaned.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::state::StreamInner;
use crate::error::ReadError;
use crate::format::index::Extent;
use crate::ids::Offset;
use crate::read::ReadPath;
use crate::read::segments::Segment;

/// Share of the bound by which a stream may be too large before a part of a segment is dropped, so that a stream at its
/// bound is not trimmed batch by batch.
const BYTES_TOLERANCE_PERCENT: u64 = 1;

/// What is kept of a stream, for [`Stream::retention_point`](super::Stream::retention_point).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The oldest batches are dropped while this many bytes would be left.
    pub bytes_max: Option<u64>,
    /// Batches whose greatest timestamp is older than this (ms since the epoch) are dropped, up to the first that is not.
    /// A batch without timestamps counts as written when its segment was closed.
    pub oldest_ms: Option<i64>,
    /// How much older the first batch must be before a part of a segment is dropped, so that a stream is not trimmed
    /// batch by batch.
    pub tolerance_ms: i64,
}

/// The part of a stream in one segment from an offset on.
struct Front {
    segment: Arc<Segment>,
    from: u64,
    end: u64,
    max_timestamp: i64,
    /// What is known of its first batch.
    first_timestamp: Option<i64>,
    /// Estimate of its bytes.
    bytes: u64,
    /// Bytes behind it.
    behind_bytes: u64,
    is_sealed: bool,
    is_unreadable: bool,
}

impl Front {
    /// The front of a stream from `from` on; none if there is nothing.
    fn at(stream: &StreamInner, from: u64) -> Option<Self> {
        let state = stream.state.lock();
        let high = stream.high.load(Ordering::Acquire);
        if stream.deleted.load(Ordering::Acquire) || from >= high {
            return None;
        }
        let at = state.runs.find(from);
        let run = state.runs.get(at)?;
        let end = state.runs.get(at + 1).map_or(high, |next| next.first);
        let to_end: u64 = state.runs.iter().take(at + 1).map(|run| run.bytes).sum();
        Some(Self {
            segment: run.segment.clone(),
            from: from.max(run.first),
            end,
            max_timestamp: run.max_timestamp,
            first_timestamp: run
                .first_timestamp
                .filter(|first| first.0 == from.max(run.first))
                .map(|first| first.1),
            bytes: run.bytes - run.bytes_below(from, end),
            behind_bytes: state.runs.bytes().saturating_sub(to_end),
            is_sealed: run.extents.is_empty(),
            is_unreadable: run.is_unreadable,
        })
    }

    /// Whether it is known in memory that all of it is dropped.
    fn is_dropped(&self, keep: &Retention) -> bool {
        // Batches without timestamps may be among the others.
        let written_until_ms = self.segment.known_written_until_ms();
        let newest_ms = written_until_ms.map(|until_ms| until_ms.max(self.max_timestamp));
        let is_old = |oldest_ms| newest_ms.is_some_and(|newest_ms| newest_ms < oldest_ms);
        keep.oldest_ms.is_some_and(is_old) || keep.bytes_max.is_some_and(|most| self.behind_bytes >= most)
    }

    /// The first batch that `is_kept`, if there is one in this front.
    fn first_kept(
        &self,
        stream: &StreamInner,
        read: &ReadPath,
        mut is_kept: impl FnMut(&Extent) -> bool,
    ) -> Result<Option<Extent>, ReadError> {
        if !self.is_sealed {
            let state = stream.state.lock();
            let run = state.runs.iter().find(|run| Arc::ptr_eq(&run.segment, &self.segment));
            let extents = run.map_or(&[][..], |run| run.extents.as_slice());
            let first = extents.partition_point(|extent| extent.end() <= self.from);
            let mut extents = extents.get(first..).unwrap_or_default().iter();
            // Sealed meanwhile: kept until the next time.
            let fallback = Extent { base: self.from, ..Extent::default() };
            let is_gone = extents.as_slice().is_empty();
            return Ok(extents.find(|extent| is_kept(extent)).copied().or(is_gone.then_some(fallback)));
        }
        let is_kept = |extent: &Extent| extent.base >= self.end || is_kept(extent);
        let first = read.first_extent(&self.segment, stream.id, self.from, is_kept)?;
        Ok(first.filter(|extent| extent.base < self.end))
    }

    /// The offset below which batches are too old, if the first is older than `due_ms`.
    fn oldest_kept(
        &self,
        stream: &StreamInner,
        read: &ReadPath,
        (due_ms, oldest_ms): (i64, i64),
    ) -> Result<u64, ReadError> {
        if self.first_timestamp.is_some_and(|first| first >= due_ms) {
            return Ok(self.from);
        }
        let written_until_ms = read.written_until_ms(&self.segment)?.unwrap_or(i64::MAX);
        let time = |extent: &Extent| match extent.max_timestamp {
            ..0 => written_until_ms,
            timestamp => timestamp,
        };
        let mut is_first = true;
        let kept = self.first_kept(stream, read, |extent| {
            let is_first = std::mem::take(&mut is_first);
            time(extent) >= oldest_ms || is_first && time(extent) >= due_ms
        })?;
        let Some(kept) = kept else { return Ok(self.end) };
        if kept.base <= self.from {
            stream.state.lock().runs.note_first(&self.segment, self.from, time(&kept));
        }
        Ok(kept.base)
    }

    /// The offset below which batches are too many.
    fn fitting(&self, stream: &StreamInner, read: &ReadPath, bytes_max: u64) -> Result<u64, ReadError> {
        let tolerated = bytes_max.saturating_add(bytes_max / 100 * BYTES_TOLERANCE_PERCENT);
        if self.bytes + self.behind_bytes <= tolerated {
            return Ok(self.from);
        }
        let mut bytes = 0;
        self.first_kept(stream, read, |extent| {
            bytes += u64::from(extent.length);
            false
        })?;
        let total = bytes + self.behind_bytes;
        if total <= tolerated {
            return Ok(self.from);
        }
        let mut excess = total - bytes_max;
        let kept = self.first_kept(stream, read, |extent| {
            let is_kept = u64::from(extent.length) > excess;
            excess = excess.saturating_sub(u64::from(extent.length));
            is_kept
        })?;
        Ok(kept.map_or(self.end, |kept| kept.base))
    }

    /// The offset below which batches of this front are too old or too many.
    fn point(&self, stream: &StreamInner, keep: &Retention) -> Result<u64, ReadError> {
        let read = stream.read_path()?;
        let mut point = self.from;
        if let Some(oldest_ms) = keep.oldest_ms {
            let due_ms = oldest_ms.saturating_sub(keep.tolerance_ms);
            point = self.oldest_kept(stream, &read, (due_ms, oldest_ms))?;
        }
        if let Some(bytes_max) = keep.bytes_max {
            point = point.max(self.fitting(stream, &read, bytes_max)?);
        }
        Ok(point.clamp(self.from, self.end))
    }
}

/// See [`Stream::retention_point`](super::Stream::retention_point).
pub(super) fn point(stream: &StreamInner, keep: &Retention) -> Offset {
    let start = stream.start.load(Ordering::Acquire);
    let mut point = start;
    if keep.bytes_max.is_none() && keep.oldest_ms.is_none() {
        return Offset(start);
    }
    while let Some(front) = Front::at(stream, point) {
        if front.is_dropped(keep) {
            point = front.end;
            continue;
        }
        if front.is_unreadable {
            break;
        }
        match front.point(stream, keep) {
            Ok(to) if to == front.end => {
                point = to;
                continue;
            }
            // What compaction left in front of the first batch is not worth a trim.
            Ok(to) if to > front.from => point = to,
            Ok(_) => {}
            Err(error @ ReadError::Damaged { .. }) => {
                tracing::error!(%error, stream = stream.id, "failed to find where retention ends");
                // It is not read again, but dropped as a whole.
                stream.state.lock().runs.note_unreadable(&front.segment, front.from);
            }
            // Deleted, or replaced by the cleaner meanwhile.
            Err(_) => {}
        }
        break;
    }
    Offset(point)
}
