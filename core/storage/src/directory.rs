//! The streams and cursors that exist in a log, the next ids, and the compaction policies.
//!
//! Objects are added and removed by the intake when an entry is submitted, and by recovery. The directory does not hold
//! their data: batches are in segments, acknowledgements in the cursors.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::compaction::{CompactedStream, CompactionTable};
use crate::cursor::CursorInner;
use crate::registry::Registry;
use crate::stream::StreamInner;

pub(crate) struct Directory {
    pub(crate) streams: Registry<StreamInner>,
    pub(crate) cursors: Registry<CursorInner>,
    pub(crate) compaction: CompactionTable,
    next_stream: AtomicU64,
    next_cursor: AtomicU64,
    next_cleaned: AtomicU64,
}

impl Directory {
    pub(crate) fn new(next_stream: u64, next_cursor: u64, next_cleaned: u64) -> Self {
        Self {
            streams: Registry::default(),
            cursors: Registry::default(),
            compaction: CompactionTable::default(),
            next_stream: AtomicU64::new(next_stream),
            next_cursor: AtomicU64::new(next_cursor),
            next_cleaned: AtomicU64::new(next_cleaned),
        }
    }

    pub(crate) fn allocate_stream(&self) -> u64 {
        self.next_stream.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn allocate_cursor(&self) -> u64 {
        self.next_cursor.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn next_stream(&self) -> u64 {
        self.next_stream.load(Ordering::Relaxed)
    }

    pub(crate) fn next_cursor(&self) -> u64 {
        self.next_cursor.load(Ordering::Relaxed)
    }

    /// The number of a new segment written by the cleaner.
    pub(crate) fn allocate_cleaned(&self) -> u64 {
        self.next_cleaned.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn next_cleaned(&self) -> u64 {
        self.next_cleaned.load(Ordering::Relaxed)
    }

    /// Raises the next stream id above one that a replayed entry used.
    pub(crate) fn note_stream_id(&self, id: u64) {
        self.next_stream.fetch_max(id.saturating_add(1), Ordering::Relaxed);
    }

    /// Raises the next cursor id above one that a replayed entry used.
    pub(crate) fn note_cursor_id(&self, id: u64) {
        self.next_cursor.fetch_max(id.saturating_add(1), Ordering::Relaxed);
    }

    /// The compacted streams that exist.
    pub(crate) fn compacted_streams(&self) -> Vec<(Arc<StreamInner>, CompactedStream)> {
        let compacted = self.compaction.list();
        compacted.into_iter().filter_map(|(id, known)| Some((self.streams.get(id)?, known))).collect()
    }
}
