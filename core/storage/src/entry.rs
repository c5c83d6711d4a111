//! What one act changes: several batches and changes of state that are stored together or not at all.

use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::batch::Batch;
use crate::cursor::Cursor;
use crate::ids::{CursorId, Offset, StreamId, TableId};
use crate::stream::Stream;

/// An entry of the log in the making.
#[derive(Debug, Default)]
pub struct Entry {
    pub(crate) parts: SmallVec<[Part; 1]>,
}

#[derive(Debug)]
#[allow(dead_code)]
pub(crate) enum Part {
    Batch { destinations: SmallVec<[Stream; 1]>, batch: Batch },
    Put { table: TableId, key: Bytes, value: Bytes },
    Delete { table: TableId, key: Bytes },
    CreateStream { id: StreamId },
    DeleteStream { id: StreamId },
    Trim { stream: Stream, to: Offset },
    CreateCursor { id: CursorId, stream: StreamId, at: Offset },
    DeleteCursor { id: CursorId },
    Ack { cursor: Cursor, ranges: SmallVec<[Range<Offset>; 1]> },
    Returned { cursor: Cursor, offsets: SmallVec<[Offset; 2]> },
    Seek { cursor: Cursor, to: Offset },
}

impl Entry {
    /// An empty entry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing was added yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Appends a batch to every destination. It is stored once; each destination gives it its own offsets.
    /// Without a destination it is not stored.
    pub fn batch(&mut self, destinations: &[Stream], batch: Batch) {
        if !destinations.is_empty() {
            self.parts.push(Part::Batch { destinations: destinations.iter().cloned().collect(), batch });
        }
    }

    /// Sets a key of a table.
    pub fn put(&mut self, table: TableId, key: Bytes, value: Bytes) {
        self.parts.push(Part::Put { table, key, value });
    }

    /// Removes a key of a table.
    pub fn delete(&mut self, table: TableId, key: Bytes) {
        self.parts.push(Part::Delete { table, key });
    }

    /// Makes a stream (its id from [`crate::Log::allocate_stream`]). It exists as soon as the entry is submitted.
    pub fn create_stream(&mut self, id: StreamId) {
        self.parts.push(Part::CreateStream { id });
    }

    /// Deletes a stream with all its data and its cursors' meaning. Deleting one that is gone does nothing.
    pub fn delete_stream(&mut self, id: StreamId) {
        self.parts.push(Part::DeleteStream { id });
    }

    /// Moves the stream's start up to `to` (never down, never beyond its end). The data below may be reclaimed.
    pub fn trim(&mut self, stream: &Stream, to: Offset) {
        self.parts.push(Part::Trim { stream: stream.clone(), to });
    }

    /// Makes a cursor on a stream (its id from [`crate::Log::allocate_cursor`]); all below `at` counts as
    /// acknowledged. It exists as soon as the entry is submitted.
    pub fn create_cursor(&mut self, id: CursorId, stream: StreamId, at: Offset) {
        self.parts.push(Part::CreateCursor { id, stream, at });
    }

    /// Deletes a cursor. Deleting one that is gone does nothing.
    pub fn delete_cursor(&mut self, id: CursorId) {
        self.parts.push(Part::DeleteCursor { id });
    }

    /// Acknowledges offsets, atomically with the rest of the entry. Alone, use [`Cursor::ack`], which is cheaper.
    pub fn ack(&mut self, cursor: &Cursor, ranges: &[Range<Offset>]) {
        self.parts.push(Part::Ack { cursor: cursor.clone(), ranges: ranges.iter().cloned().collect() });
    }

    /// Adds one to the delivery counts of offsets that came back unacknowledged.
    pub fn returned(&mut self, cursor: &Cursor, offsets: &[Offset]) {
        self.parts
            .push(Part::Returned { cursor: cursor.clone(), offsets: offsets.iter().copied().collect() });
    }

    /// Sets the cursor's position, up or down; acknowledgements beyond it and delivery counts are forgotten.
    pub fn seek(&mut self, cursor: &Cursor, to: Offset) {
        self.parts.push(Part::Seek { cursor: cursor.clone(), to });
    }
}
