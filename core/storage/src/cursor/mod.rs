//! A cursor: the acknowledgement state of one subscription on one stream, i.e. a cumulative position, acknowledged ranges
//! beyond it, and delivery counts of unacknowledged messages.
//!
//! The state in memory changes when the change is submitted; it survives a crash once that entry is committed, so the
//! caller waits before it answers. Which message was delivered to which consumer is known to the layers above only.

mod ranges;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

pub(crate) use self::ranges::AckedRanges;
use crate::error::LogError;
use crate::ids::{CursorId, Lsn, Offset, StreamId};

/// A cursor's handle. Cheap to clone. Stays valid after the cursor was deleted, without effect.
#[derive(Clone)]
pub struct Cursor(pub(crate) Arc<CursorInner>);

pub(crate) struct CursorInner {
    pub(crate) id: u64,
    pub(crate) stream: u64,
    sink: Weak<dyn AckSink>,
    pub(crate) deleted: AtomicBool,
    /// The checkpoint round in which it was last listed as changed.
    pub(crate) dirty_round: AtomicU32,
    pub(crate) state: Mutex<CursorState>,
}

/// The intake of acknowledgements, which keeps cursors independent of the log above them.
pub(crate) trait AckSink: Send + Sync {
    /// Acknowledges ranges; see [`Cursor::ack`].
    fn submit_acks(&self, cursor: &Arc<CursorInner>, ranges: &[Range<Offset>]) -> Result<Lsn, LogError>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CursorState {
    pub(crate) acked: AckedRanges,
    /// Delivery counts of offsets returned unacknowledged; removed when they are acknowledged.
    pub(crate) counts: BTreeMap<u64, u32>,
}

impl CursorInner {
    pub(crate) fn new(sink: Weak<dyn AckSink>, id: u64, stream: u64, state: CursorState) -> Self {
        Self {
            id,
            stream,
            sink,
            deleted: AtomicBool::new(false),
            dirty_round: AtomicU32::new(0),
            state: Mutex::new(state),
        }
    }
}

impl CursorState {
    pub(crate) fn at(position: u64) -> Self {
        Self { acked: AckedRanges::at(position), ..Self::default() }
    }

    /// Acknowledges a range. Returns whether anything changed.
    pub(crate) fn ack(&mut self, start: u64, end: u64) -> bool {
        let changed = self.acked.insert(start, end);
        if changed && !self.counts.is_empty() {
            let position = self.acked.position();
            if self.counts.first_key_value().is_some_and(|(first, _)| *first < position) {
                self.counts = self.counts.split_off(&position);
            }
            let acked: Vec<u64> =
                self.counts.range(start..end.max(start)).map(|(offset, _)| *offset).collect();
            for offset in acked {
                self.counts.remove(&offset);
            }
        }
        changed
    }

    pub(crate) fn set_count(&mut self, offset: u64, count: u32) {
        if !self.acked.contains(offset) {
            self.counts.insert(offset, count);
        }
    }

    pub(crate) fn seek(&mut self, to: u64) {
        self.acked = AckedRanges::at(to);
        self.counts.clear();
    }
}

impl Cursor {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> CursorId {
        CursorId(self.0.id)
    }

    /// The stream it belongs to.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        StreamId(self.0.stream)
    }

    /// The offset below which everything is acknowledged.
    #[must_use]
    pub fn position(&self) -> Offset {
        Offset(self.0.state.lock().acked.position())
    }

    /// Whether this offset is acknowledged.
    #[must_use]
    pub fn is_acked(&self, offset: Offset) -> bool {
        self.0.state.lock().acked.contains(offset.0)
    }

    /// The acknowledged ranges beyond the position, in order.
    #[must_use]
    pub fn acked_above(&self) -> Vec<Range<Offset>> {
        let state = self.0.state.lock();
        state.acked.above().map(|(start, end)| Offset(start)..Offset(end)).collect()
    }

    /// How often this offset was returned unacknowledged (see [`crate::Entry::returned`]).
    #[must_use]
    pub fn delivery_count(&self, offset: Offset) -> u32 {
        self.0.state.lock().counts.get(&offset.0).copied().unwrap_or(0)
    }

    /// All delivery counts that are not zero, in order.
    #[must_use]
    pub fn delivery_counts(&self) -> Vec<(Offset, u32)> {
        self.0.state.lock().counts.iter().map(|(offset, count)| (Offset(*offset), *count)).collect()
    }

    /// Acknowledges offsets. All acknowledgements of a commit window share one entry; a caller that must answer waits
    /// until the returned position is committed. Offsets already acknowledged are not written again, but the returned
    /// position still covers them.
    pub fn ack(&self, ranges: &[Range<Offset>]) -> Result<Lsn, LogError> {
        let sink = self.0.sink.upgrade().ok_or(LogError::Closed)?;
        sink.submit_acks(&self.0, ranges)
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({} on {})", self.0.id, self.0.stream)
    }
}
