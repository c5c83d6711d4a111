//! The state behind the intake lock: submitted entries that the writer has not taken yet, gathered acknowledgements, and
//! the objects changed since the last checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::cursor::CursorInner;
use crate::entry::Part;
use crate::format::segment::HEADER_BYTES;
use crate::ids::{Lsn, Offset};
use crate::options::segment_bytes_at;
use crate::stream::StreamInner;

/// Position and offsets of a submitted entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The entry is committed when [`crate::Log::committed`] has reached this.
    pub lsn: Lsn,
    /// The offset of the first record, one for each destination of each batch, in order.
    pub bases: SmallVec<[Offset; 2]>,
}

/// A submitted entry, waiting for the writer.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Position of the entry's first byte.
    pub(crate) start: u64,
    pub(crate) length: u32,
    pub(crate) description_bytes: u32,
    /// The entry is the first of a new segment, whose header is just before it.
    pub(crate) rolls: bool,
    pub(crate) parts: SmallVec<[Part; 1]>,
    pub(crate) bases: SmallVec<[Offset; 2]>,
}

/// The entries that the writer takes at once.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) entries: Vec<Pending>,
    /// End of the last entry.
    pub(crate) end: u64,
    /// When the first entry was submitted, by the clock's monotonic time.
    pub(crate) since: Option<Duration>,
}

/// What the writer has to be woken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum WriterWaits {
    /// Nothing: it is running.
    #[default]
    No,
    /// Anything.
    Idle,
    /// Entries only: it is gathering acknowledgements.
    Lingering,
}

/// Objects changed since the last checkpoint.
#[derive(Default)]
pub(crate) struct Dirty {
    pub(crate) state: BTreeMap<(u16, Bytes), Option<Bytes>>,
    pub(crate) streams: Vec<Arc<StreamInner>>,
    pub(crate) cursors: Vec<Arc<CursorInner>>,
}

pub(crate) struct IntakeState {
    pub(super) queue: Vec<Pending>,
    /// When the first entry of the queue was submitted.
    pub(super) queued_since: Option<Duration>,
    /// Acknowledgements of this commit window: cursor, start, end.
    pub(super) acks: Vec<(u64, u64, u64)>,
    pub(crate) next_lsn: u64,
    /// Base of the segment of the next entry.
    pub(super) segment_base: u64,
    roll_wanted: bool,
    pub(super) is_closing: bool,
    pub(super) writer_waits: WriterWaits,
    pub(super) has_writer_thread: bool,
    /// A caller waits for the acknowledgements being gathered.
    pub(super) are_acks_wanted: bool,
    pub(crate) dirty: Dirty,
    /// The current checkpoint round; see the `dirty_round` of streams and cursors.
    round: u32,
}

impl IntakeState {
    pub(super) fn new() -> Self {
        Self {
            queue: Vec::new(),
            queued_since: None,
            acks: Vec::new(),
            next_lsn: 0,
            segment_base: 0,
            roll_wanted: false,
            is_closing: false,
            writer_waits: WriterWaits::No,
            has_writer_thread: false,
            are_acks_wanted: false,
            dirty: Dirty::default(),
            round: 1,
        }
    }

    /// Sets the position of the next entry, after recovery.
    pub(crate) fn start_at(&mut self, segment_base: u64, next_lsn: u64) {
        self.segment_base = segment_base;
        self.next_lsn = next_lsn;
    }

    /// Lists a stream as changed.
    pub(crate) fn mark_stream(&mut self, stream: &Arc<StreamInner>) {
        if stream.dirty_round.swap(self.round, Ordering::Relaxed) != self.round {
            self.dirty.streams.push(stream.clone());
        }
    }

    /// Lists a cursor as changed.
    pub(crate) fn mark_cursor(&mut self, cursor: &Arc<CursorInner>) {
        if cursor.dirty_round.swap(self.round, Ordering::Relaxed) != self.round {
            self.dirty.cursors.push(cursor.clone());
        }
    }

    /// Takes the list of changed objects and starts the next round.
    pub(crate) fn take_dirty(&mut self) -> Dirty {
        self.round = self.round.wrapping_add(1);
        std::mem::take(&mut self.dirty)
    }

    /// Lists objects as changed again, after they were taken for a checkpoint that failed.
    pub(crate) fn put_back(&mut self, dirty: Dirty) {
        for (key, value) in dirty.state {
            // A later change is kept.
            self.dirty.state.entry(key).or_insert(value);
        }
        for stream in &dirty.streams {
            self.mark_stream(stream);
        }
        for cursor in &dirty.cursors {
            self.mark_cursor(cursor);
        }
    }

    /// Position up to which entries were submitted, gathered acknowledgements included.
    pub(crate) fn submitted(&self) -> u64 {
        self.next_lsn + u64::from(!self.acks.is_empty())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.acks.is_empty()
    }

    /// Makes the next entry start a new segment, if the current one is `base` and holds any entry. Returns whether it will.
    pub(crate) fn request_roll(&mut self, base: u64) -> bool {
        let is_current = self.segment_base == base && self.next_lsn > base + HEADER_BYTES;
        self.roll_wanted |= is_current;
        is_current
    }

    /// Assigns the position of an entry of this length. Returns it, and whether the entry starts a new segment.
    pub(super) fn place(&mut self, length: usize, segment_bytes_max: u64) -> (u64, bool) {
        let length = length as u64;
        let first = self.segment_base + HEADER_BYTES;
        let is_full = self.next_lsn + length
            > self.segment_base + segment_bytes_at(self.segment_base, segment_bytes_max);
        let rolls = self.next_lsn > first && (is_full || self.roll_wanted);
        if rolls {
            self.segment_base = self.next_lsn;
            self.next_lsn += HEADER_BYTES;
            self.roll_wanted = false;
        }
        let start = self.next_lsn;
        self.next_lsn += length;
        (start, rolls)
    }
}
