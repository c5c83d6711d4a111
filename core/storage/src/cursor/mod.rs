//! Acknowledgement state of one subscription on one stream: a cumulative position, ranges beyond it, and how
//! often each unacknowledged message came back.
//!
//! In memory it changes when the change is submitted; it survives a crash once that entry is committed. It is
//! the caller who waits before it answers. Deliberately absent: what was delivered and to whom (the layers above).

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
use crate::inner::Inner;

/// A cursor's handle. Cheap to clone. Stays valid after the cursor was deleted, without effect.
#[derive(Clone)]
pub struct Cursor(pub(crate) Arc<CursorInner>);

pub(crate) struct CursorInner {
    pub(crate) id: u64,
    pub(crate) stream: u64,
    log: Weak<Inner>,
    pub(crate) deleted: AtomicBool,
    /// The checkpoint round in which it was last listed as changed.
    pub(crate) dirty_round: AtomicU32,
    pub(crate) state: Mutex<CursorState>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CursorState {
    pub(crate) acked: AckedRanges,
    /// Delivery counts of offsets that came back; forgotten when they are acknowledged.
    pub(crate) counts: BTreeMap<u64, u32>,
}

impl CursorInner {
    pub(crate) fn new(log: Weak<Inner>, id: u64, stream: u64, state: CursorState) -> Self {
        Self {
            id,
            stream,
            log,
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

    /// Whether anything changed.
    pub(crate) fn ack(&mut self, start: u64, end: u64) -> bool {
        let changed = self.acked.insert(start, end);
        if changed && !self.counts.is_empty() {
            let position = self.acked.position();
            if self.counts.first_key_value().is_some_and(|(first, _)| *first < position) {
                self.counts = self.counts.split_off(&position);
            }
            let gone: Vec<u64> =
                self.counts.range(start..end.max(start)).map(|(offset, _)| *offset).collect();
            for offset in gone {
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

    /// The stream it is on.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        StreamId(self.0.stream)
    }

    /// All offsets below are acknowledged.
    #[must_use]
    pub fn position(&self) -> Offset {
        Offset(self.0.state.lock().acked.position())
    }

    /// Whether this offset is acknowledged.
    #[must_use]
    pub fn is_acked(&self, offset: Offset) -> bool {
        self.0.state.lock().acked.contains(offset.0)
    }

    /// What is acknowledged beyond the position, in order.
    #[must_use]
    pub fn acked_above(&self) -> Vec<Range<Offset>> {
        let state = self.0.state.lock();
        state.acked.above().map(|(start, end)| Offset(start)..Offset(end)).collect()
    }

    /// How often this offset came back (see [`crate::Entry::returned`]).
    #[must_use]
    pub fn delivery_count(&self, offset: Offset) -> u32 {
        self.0.state.lock().counts.get(&offset.0).copied().unwrap_or(0)
    }

    /// All delivery counts that are not zero, in order.
    #[must_use]
    pub fn delivery_counts(&self) -> Vec<(Offset, u32)> {
        self.0.state.lock().counts.iter().map(|(offset, count)| (Offset(*offset), *count)).collect()
    }

    /// Acknowledges offsets. All acknowledgements of a commit window share one entry; who must answer waits for
    /// the returned position to be committed. What is acknowledged already is not written again, but the
    /// position returned then still covers it.
    pub fn ack(&self, ranges: &[Range<Offset>]) -> Result<Lsn, LogError> {
        let log = self.0.log.upgrade().ok_or(LogError::Closed)?;
        log.submit_acks(self, ranges)
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({} on {})", self.0.id, self.0.stream)
    }
}
