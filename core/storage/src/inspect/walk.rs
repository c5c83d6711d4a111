//! A walk over the entries of a segment file.

use crate::batch::BatchHeader;
use crate::format::entry::{self, PartView};
use crate::format::index::Extent;
use crate::format::segment::SegmentId;
use crate::ids::{CursorId, Lsn, Offset, StreamId, TableId};
use crate::medium::MediumFile;
use crate::scan::{ScanError, Scanner};
use crate::stream::state::extent_of;

/// An entry of a segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryView {
    /// Name of the file.
    pub file: String,
    /// Start of the entry in the file.
    pub position: u64,
    /// End of the entry in the log.
    pub lsn: Lsn,
    /// Its length in bytes.
    pub length: u32,
    /// Everything below this position was on the medium when the entry was written.
    pub synced: Lsn,
    /// Its parts.
    pub parts: Vec<PartSummary>,
}

/// A part of an entry, without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartSummary {
    /// A batch.
    Batch {
        /// Stream and base offset of each destination.
        destinations: Vec<(StreamId, Offset)>,
        /// Header of the batch.
        header: BatchHeader,
    },
    /// A key set (`value_bytes`) or removed.
    State {
        /// The table.
        table: TableId,
        /// The key.
        key: Vec<u8>,
        /// Length of the value; `None` when the key was removed.
        value_bytes: Option<usize>,
    },
    /// A stream created or deleted.
    Stream {
        /// Id of the stream.
        id: StreamId,
        /// Created, not deleted.
        is_created: bool,
    },
    /// A stream's start raised.
    Trim {
        /// Id of the stream.
        stream: StreamId,
        /// The new start.
        to: Offset,
    },
    /// A cursor created or deleted.
    Cursor {
        /// Id of the cursor.
        id: CursorId,
        /// Stream and position of a created cursor; `None` when it was deleted.
        created: Option<(StreamId, Offset)>,
    },
    /// Offsets acknowledged: cursor, start, end.
    Acks(Vec<(CursorId, Offset, Offset)>),
    /// Delivery counts of a cursor.
    Counts(CursorId, Vec<(Offset, u32)>),
    /// A cursor set to a position.
    Seek(CursorId, Offset),
}

/// Early end of a walk.
pub(super) struct Stop {
    pub(super) error: ScanError,
    pub(super) position: u64,
    pub(super) is_torn: bool,
}

/// Visits the entries of one segment with their batches' extents. Returns the end of the entries.
pub(super) fn walk(
    id: SegmentId,
    file: &dyn MediumFile,
    end: Option<u64>,
    visit: &mut dyn FnMut(EntryView, Vec<(u64, Extent)>),
) -> Result<u64, Stop> {
    let stop = |position| move |error| Stop { error, position, is_torn: false };
    let (header, mut scanner) = Scanner::open(file, end).map_err(stop(0))?;
    if header.id != id {
        let error = ScanError::Flaw { position: 32, detail: "file has the name of another segment" };
        return Err(stop(0)(error));
    }
    loop {
        match scanner.next() {
            Ok(None) => return Ok(scanner.position),
            Ok(Some((entry, bytes))) => {
                let position = entry.lsn - header.base;
                let parts = entry::decode(&entry, bytes, false)
                    .map_err(|detail| stop(position)(ScanError::Flaw { position, detail }))?;
                let view = EntryView {
                    file: id.file_name(),
                    position,
                    lsn: Lsn(entry.lsn + u64::from(entry.length)),
                    length: entry.length,
                    synced: Lsn(entry.synced),
                    parts: parts.iter().filter_map(summary).collect(),
                };
                visit(view, extents(position, &parts));
            }
            Err(error) => {
                let position = scanner.position;
                let tail = scanner.examine_tail(position);
                let is_torn =
                    matches!(error, ScanError::Flaw { .. }) && tail.is_ok_and(|tail| !tail.is_damage);
                return Err(Stop { error, position, is_torn });
            }
        }
    }
}

/// Stream and extent of each batch of an entry.
pub(super) fn extents(position: u64, parts: &[PartView<'_>]) -> Vec<(u64, Extent)> {
    let mut found = Vec::new();
    for part in parts {
        let PartView::Batch { origin, destinations, batch, at } = part else { continue };
        let Ok(header) = BatchHeader::parse(batch) else { continue };
        for (stream, base) in destinations.iter() {
            let extent = extent_of(&header, *origin, base, (position + *at as u64) as u32);
            found.push((stream, extent));
        }
    }
    found
}

fn summary(part: &PartView<'_>) -> Option<PartSummary> {
    Some(match *part {
        PartView::Batch { destinations, batch, .. } => PartSummary::Batch {
            destinations: destinations.iter().map(|(id, base)| (StreamId(id), Offset(base))).collect(),
            header: BatchHeader::parse(batch).ok()?,
        },
        PartView::Put { table, key, value } => {
            PartSummary::State { table: TableId(table), key: key.to_vec(), value_bytes: Some(value.len()) }
        }
        PartView::Delete { table, key } => {
            PartSummary::State { table: TableId(table), key: key.to_vec(), value_bytes: None }
        }
        PartView::CreateStream { id } => PartSummary::Stream { id: StreamId(id), is_created: true },
        PartView::DeleteStream { id } => PartSummary::Stream { id: StreamId(id), is_created: false },
        PartView::Trim { stream, to } => PartSummary::Trim { stream: StreamId(stream), to: Offset(to) },
        PartView::CreateCursor { id, stream, at } => {
            PartSummary::Cursor { id: CursorId(id), created: Some((StreamId(stream), Offset(at))) }
        }
        PartView::DeleteCursor { id } => PartSummary::Cursor { id: CursorId(id), created: None },
        PartView::Ack { cursor, ranges } => PartSummary::Acks(
            ranges.iter().map(|(start, end)| (CursorId(cursor), Offset(start), Offset(end))).collect(),
        ),
        PartView::Acks { acks } => PartSummary::Acks(
            entry::acks(acks).map(|(id, start, end)| (CursorId(id), Offset(start), Offset(end))).collect(),
        ),
        PartView::Counts { cursor, counts } => PartSummary::Counts(
            CursorId(cursor),
            entry::counts(counts).map(|(offset, count)| (Offset(offset), count)).collect(),
        ),
        PartView::Seek { cursor, to } => PartSummary::Seek(CursorId(cursor), Offset(to)),
    })
}
