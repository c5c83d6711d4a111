//! An entry: batches and changes of state that are stored together or not at all.
//!
//! Encodes the descriptions of its parts; docs/format.md gives their layout.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use crate::batch::Batch;
use crate::compaction::Compaction;
use crate::cursor::Cursor;
use crate::format::entry::tag;
use crate::ids::{CursorId, Offset, StreamId, TableId, stream_row_key};
use crate::stream::Stream;

/// An entry under construction.
#[derive(Debug, Default)]
pub struct Entry {
    pub(crate) parts: SmallVec<[Part; 1]>,
}

#[derive(Debug)]
pub(crate) enum Part {
    Batch {
        destinations: SmallVec<[Stream; 1]>,
        batch: Batch,
    },
    Put {
        table: TableId,
        key: Bytes,
        value: Bytes,
    },
    Delete {
        table: TableId,
        key: Bytes,
    },
    CreateStream {
        id: StreamId,
    },
    DeleteStream {
        id: StreamId,
        stream: Option<Stream>,
    },
    Trim {
        stream: Stream,
        to: Offset,
    },
    CreateCursor {
        id: CursorId,
        stream: StreamId,
        at: Offset,
    },
    DeleteCursor {
        id: CursorId,
    },
    Ack {
        cursor: Cursor,
        ranges: SmallVec<[Range<Offset>; 1]>,
    },
    /// Delivery counts; absolute once submitted, so that replaying them twice changes nothing.
    Returned {
        cursor: Cursor,
        counts: SmallVec<[(u64, u32); 2]>,
    },
    Seek {
        cursor: Cursor,
        to: Offset,
    },
    /// Acknowledgements of a commit window: cursor, start, end.
    Acks(Vec<(u64, u64, u64)>),
}

impl Entry {
    /// An empty entry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it has no parts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Appends a batch to every destination. The batch is stored once; each destination assigns its own offsets. Without
    /// a destination it is not stored.
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

    /// Creates a stream (its id from [`crate::Log::allocate_stream`]). It exists as soon as the entry is submitted.
    pub fn create_stream(&mut self, id: StreamId) {
        self.parts.push(Part::CreateStream { id });
    }

    /// Deletes a stream with all its data. Deleting a stream that does not exist does nothing. Its cursors have to be
    /// deleted separately.
    pub fn delete_stream(&mut self, id: StreamId) {
        self.parts.push(Part::DeleteStream { id, stream: None });
    }

    /// Raises the stream's start to `to` (never lowers it, never beyond its end). The data below may be reclaimed.
    pub fn trim(&mut self, stream: &Stream, to: Offset) {
        self.parts.push(Part::Trim { stream: stream.clone(), to });
    }

    /// Sets the compaction policy of a stream, or (`None`) removes it. A compacted stream keeps only the last of the
    /// records with the same key. The policy is kept until the stream is deleted.
    pub fn set_compaction(&mut self, stream: StreamId, policy: Option<Compaction>) {
        let (table, key) = (TableId::COMPACTION_POLICIES, stream_row_key(stream.0));
        self.parts.push(match policy {
            Some(policy) => Part::Put { table, key, value: policy.encode() },
            None => Part::Delete { table, key },
        });
    }

    /// Creates a cursor on a stream (its id from [`crate::Log::allocate_cursor`]); offsets below `at` count as
    /// acknowledged. It exists as soon as the entry is submitted.
    pub fn create_cursor(&mut self, id: CursorId, stream: StreamId, at: Offset) {
        self.parts.push(Part::CreateCursor { id, stream, at });
    }

    /// Deletes a cursor. Deleting a cursor that does not exist does nothing.
    pub fn delete_cursor(&mut self, id: CursorId) {
        self.parts.push(Part::DeleteCursor { id });
    }

    /// Acknowledges offsets, atomically with the rest of the entry. For acknowledgements alone, [`Cursor::ack`] is cheaper.
    pub fn ack(&mut self, cursor: &Cursor, ranges: &[Range<Offset>]) {
        self.parts.push(Part::Ack { cursor: cursor.clone(), ranges: ranges.iter().cloned().collect() });
    }

    /// Increments the delivery counts of offsets returned unacknowledged.
    pub fn returned(&mut self, cursor: &Cursor, offsets: &[Offset]) {
        self.parts.push(Part::Returned {
            cursor: cursor.clone(),
            counts: offsets.iter().map(|offset| (offset.0, 0)).collect(),
        });
    }

    /// Sets the cursor's position, up or down; discards acknowledgements beyond it and delivery counts.
    pub fn seek(&mut self, cursor: &Cursor, to: Offset) {
        self.parts.push(Part::Seek { cursor: cursor.clone(), to });
    }

    /// Sizes in bytes: the descriptions of its parts, and its batches.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        let batch_bytes = |part: &Part| match part {
            Part::Batch { batch, .. } => batch.bytes().len(),
            _ => 0,
        };
        self.parts.iter().fold((0, 0), |(described, batches), part| {
            (described + part.description_bytes(), batches + batch_bytes(part))
        })
    }

    /// Whether its order relative to acknowledgements matters.
    pub(crate) fn changes_state(&self) -> bool {
        let is_independent = |part: &Part| {
            matches!(part, Part::Batch { .. } | Part::Put { .. } | Part::Delete { .. } | Part::Trim { .. })
        };
        !self.parts.iter().all(is_independent)
    }
}

impl Part {
    /// Bytes that [`Part::describe`] writes.
    fn description_bytes(&self) -> usize {
        1 + match self {
            Self::Batch { destinations, .. } => 4 + 4 + 8 + destinations.len() * 16,
            Self::Put { key, value, .. } => 2 + 4 + 4 + key.len() + value.len(),
            Self::Delete { key, .. } => 2 + 4 + key.len(),
            Self::CreateStream { .. } | Self::DeleteStream { .. } | Self::DeleteCursor { .. } => 8,
            Self::Trim { .. } | Self::Seek { .. } => 16,
            Self::CreateCursor { .. } => 24,
            Self::Ack { ranges, .. } => 8 + 4 + ranges.len() * 16,
            Self::Returned { counts, .. } => 8 + 4 + counts.len() * 12,
            Self::Acks(acks) => 4 + acks.len() * 24,
        }
    }

    /// Writes the part's description. `bases`: base offsets of this part's destinations.
    pub(crate) fn describe(&self, out: &mut BytesMut, bases: &mut impl Iterator<Item = Offset>) {
        match self {
            Self::Batch { destinations, batch } => {
                out.put_u8(tag::BATCH);
                out.put_u32_le(destinations.len() as u32);
                out.put_u32_le(batch.bytes().len() as u32);
                out.put_u64_le(destinations.first().map_or(0, |stream| stream.0.id));
                for stream in destinations {
                    out.put_u64_le(stream.0.id);
                    out.put_u64_le(bases.next().unwrap_or_default().0);
                }
            }
            Self::Put { table, key, value } => {
                out.put_u8(tag::PUT);
                out.put_u16_le(table.0);
                out.put_u32_le(key.len() as u32);
                out.put_u32_le(value.len() as u32);
                out.put_slice(key);
                out.put_slice(value);
            }
            Self::Delete { table, key } => {
                out.put_u8(tag::DELETE);
                out.put_u16_le(table.0);
                out.put_u32_le(key.len() as u32);
                out.put_slice(key);
            }
            Self::CreateStream { id } => put(out, tag::CREATE_STREAM, &[id.0]),
            Self::DeleteStream { id, .. } => put(out, tag::DELETE_STREAM, &[id.0]),
            Self::Trim { stream, to } => put(out, tag::TRIM, &[stream.0.id, to.0]),
            Self::CreateCursor { id, stream, at } => put(out, tag::CREATE_CURSOR, &[id.0, stream.0, at.0]),
            Self::DeleteCursor { id } => put(out, tag::DELETE_CURSOR, &[id.0]),
            Self::Ack { cursor, ranges } => {
                put(out, tag::ACK, &[cursor.0.id]);
                out.put_u32_le(ranges.len() as u32);
                for range in ranges {
                    out.put_u64_le(range.start.0);
                    out.put_u64_le(range.end.0);
                }
            }
            Self::Returned { cursor, counts } => {
                put(out, tag::COUNTS, &[cursor.0.id]);
                out.put_u32_le(counts.len() as u32);
                for (offset, count) in counts {
                    out.put_u64_le(*offset);
                    out.put_u32_le(*count);
                }
            }
            Self::Seek { cursor, to } => put(out, tag::SEEK, &[cursor.0.id, to.0]),
            Self::Acks(acks) => {
                out.put_u8(tag::ACKS);
                out.put_u32_le(acks.len() as u32);
                for (cursor, start, end) in acks {
                    out.put_u64_le(*cursor);
                    out.put_u64_le(*start);
                    out.put_u64_le(*end);
                }
            }
        }
    }
}

fn put(out: &mut BytesMut, tag: u8, fields: &[u64]) {
    out.put_u8(tag);
    for field in fields {
        out.put_u64_le(*field);
    }
}
