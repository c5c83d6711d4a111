//! Looking at the files of a stopped log: a walk over every entry, and a check of everything that has a checksum.
//!
//! Takes the folder's lock, so it refuses a log that is in use. Reads only and repairs nothing, but for [`salvage()`], which
//! gives up what is damaged when it is told to.

mod salvage;

use std::fmt;
use std::path::Path;

pub use self::salvage::{Loss, salvage};

use crate::batch::BatchHeader;
use crate::checkpoint::{
    CHECKPOINT_FILE, CheckpointStore, Meta, RedbStore, SegmentRecord, Space, decode_cursor, decode_stream,
};
use crate::error::OpenError;
use crate::format::FORMAT_VERSION;
use crate::format::entry::{self, PartView};
use crate::format::index::{BLOCK_BYTES, Extent, decode_block};
use crate::format::segment::{HEADER_BYTES, SegmentId};
use crate::ids::{CursorId, Lsn, Offset, StreamId, TableId};
use crate::index_cache::read_trailer;
use crate::log::open_io;
use crate::medium::{Files, LOCK_FILE, Medium, MediumFile};
use crate::scan::{ScanError, Scanner};

/// An entry as the walk shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryView {
    /// The file it is in.
    pub file: String,
    /// Where it starts in the file.
    pub position: u64,
    /// Where it ends in the log.
    pub lsn: Lsn,
    /// Its bytes.
    pub length: u32,
    /// Everything below was on the medium when it was written.
    pub synced: Lsn,
    /// What it changes.
    pub parts: Vec<PartSummary>,
}

/// A part of an entry, without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartSummary {
    /// A batch: stream and base offset of each destination, records, bytes.
    Batch {
        /// Stream and base offset.
        destinations: Vec<(StreamId, Offset)>,
        /// Its header.
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
    /// A stream made or deleted.
    Stream {
        /// Which.
        id: StreamId,
        /// Made, not deleted.
        is_made: bool,
    },
    /// A stream's start moved.
    Trim {
        /// Which.
        stream: StreamId,
        /// To where.
        to: Offset,
    },
    /// A cursor made (with its stream and position) or deleted.
    Cursor {
        /// Which.
        id: CursorId,
        /// `None` when it was deleted.
        made: Option<(StreamId, Offset)>,
    },
    /// Offsets acknowledged: cursor, start, end.
    Acks(Vec<(CursorId, Offset, Offset)>),
    /// Delivery counts of a cursor.
    Counts(CursorId, Vec<(Offset, u32)>),
    /// A cursor set to a position.
    Seek(CursorId, Offset),
}

/// Damage that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The file.
    pub file: String,
    /// The position in it.
    pub position: u64,
    /// What is wrong there.
    pub detail: String,
}

/// What [`verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segment files looked at.
    pub segments: u64,
    /// Whole entries in them.
    pub entries: u64,
    /// Batches in these.
    pub batches: u64,
    /// Bytes of whole entries.
    pub bytes: u64,
    /// Index entries of sealed segments.
    pub index_entries: u64,
    /// Streams in the checkpoint.
    pub streams: u64,
    /// Cursors in the checkpoint.
    pub cursors: u64,
    /// Replay starts here.
    pub checkpoint: Lsn,
    /// Bytes behind the last whole entry of the last segment that recovery would cut off.
    pub torn_bytes: u64,
    /// Everything that does not hold.
    pub flaws: Vec<Flaw>,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.file, self.position, self.detail)
    }
}

/// Visits every entry of a stopped log, in the order of the log. Stops at the first damage, which it returns;
/// a torn tail of the last segment is not damage.
pub fn dump(dir: &Path, visit: &mut dyn FnMut(EntryView)) -> Result<(), OpenError> {
    let folder = Folder::open(dir)?;
    for (at, id) in folder.segments.iter().enumerate() {
        let file = folder.file(*id)?;
        let end = folder.entries_end(at, file.as_ref());
        let is_last = at + 1 == folder.segments.len();
        match walk(*id, file.as_ref(), end, &mut |view, _| visit(view)) {
            Ok(_) => {}
            Err(Stop { error: ScanError::Flaw { .. }, is_torn: true, .. }) if is_last => {}
            Err(stop) => return Err(stop.into_error(*id)),
        }
    }
    Ok(())
}

/// Checks every checksum of a stopped log and that its parts agree with each other. What is damaged is listed, not an
/// error; an error is only what keeps from looking.
pub fn verify(dir: &Path) -> Result<Report, OpenError> {
    let folder = Folder::open(dir)?;
    let mut report = Report::default();
    verify_checkpoint(&folder, &mut report);
    for (at, id) in folder.segments.iter().enumerate() {
        let file = folder.file(*id)?;
        verify_segment(&folder, at, *id, file.as_ref(), &mut report);
    }
    Ok(report)
}

struct Folder {
    medium: Files,
    /// In the order of the log; those of the cleaner first.
    segments: Vec<SegmentId>,
    _lock: Box<dyn Send + Sync>,
}

impl Folder {
    fn open(dir: &Path) -> Result<Self, OpenError> {
        // Looked at first, so that nothing is written into a folder that is none of a broker's.
        let is_of_log = |entry: std::io::Result<std::fs::DirEntry>| {
            let name = entry.map(|entry| entry.file_name());
            let name = name.as_ref().ok().and_then(|name| name.to_str());
            name.is_some_and(|name| name == CHECKPOINT_FILE || SegmentId::from_file_name(name).is_some())
        };
        if !std::fs::read_dir(dir).map_err(open_io("opening the folder"))?.any(is_of_log) {
            let source = std::io::Error::new(std::io::ErrorKind::NotFound, "there is no file of a log in it");
            return Err(OpenError::Io { what: "opening the log".to_owned(), source });
        }
        let medium = Files::new(dir).map_err(open_io("opening the folder"))?;
        let lock = medium.lock().map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => {
                OpenError::Locked { dir: dir.to_owned(), lock: dir.join(LOCK_FILE) }
            }
            _ => OpenError::Io { what: "locking the folder".to_owned(), source: error },
        })?;
        let names = medium.list().map_err(open_io("listing the folder"))?;
        let mut segments: Vec<SegmentId> =
            names.iter().filter_map(|name| SegmentId::from_file_name(name)).collect();
        segments.sort_unstable_by_key(|id| (!id.is_cleaned(), id.0));
        Ok(Self { medium, segments, _lock: lock })
    }

    fn file(&self, id: SegmentId) -> Result<std::sync::Arc<dyn MediumFile>, OpenError> {
        self.medium.open(&id.file_name()).map_err(open_io(id.file_name()))
    }

    /// Whether the log is there from its beginning: then it is replayed from there if it has no checkpoint.
    fn has_beginning(&self) -> bool {
        self.segments.iter().find(|id| !id.is_cleaned()) == Some(&SegmentId(0))
    }

    /// Where a segment's entries end, if its trailer or its neighbour says so.
    fn entries_end(&self, at: usize, file: &dyn MediumFile) -> Option<u64> {
        let id = self.segments.get(at)?;
        if let Ok(trailer) = read_trailer(*id, file) {
            return Some(trailer.entries_end);
        }
        let next = self.segments.get(at + 1)?;
        if id.is_cleaned() { None } else { Some(next.0 - id.0) }
    }
}

/// Why a walk stopped before its end.
struct Stop {
    error: ScanError,
    position: u64,
    is_torn: bool,
}

impl Stop {
    fn into_error(self, id: SegmentId) -> OpenError {
        let file = id.file_name();
        match self.error {
            ScanError::Io(source) => OpenError::Io { what: format!("reading {file}"), source },
            ScanError::Version(found) => OpenError::Version { file, found, supported: FORMAT_VERSION },
            ScanError::Flaw { position, detail } => {
                OpenError::Damaged { file, position, detail: detail.to_owned() }
            }
        }
    }
}

/// Visits the entries of one segment with their batches' extents. Returns where they end.
fn walk(
    id: SegmentId,
    file: &dyn MediumFile,
    end: Option<u64>,
    visit: &mut dyn FnMut(EntryView, Vec<(u64, Extent)>),
) -> Result<u64, Stop> {
    let stop = |position| move |error| Stop { error, position, is_torn: false };
    let (header, mut scanner) = Scanner::open(file, end).map_err(stop(0))?;
    if header.id != id {
        let error = ScanError::Flaw { position: 32, detail: "the file has another segment's name" };
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
                let behind = scanner.look_behind(position);
                let is_torn =
                    matches!(error, ScanError::Flaw { .. }) && behind.is_ok_and(|behind| !behind.is_damage);
                return Err(Stop { error, position, is_torn });
            }
        }
    }
}

fn extents(position: u64, parts: &[PartView<'_>]) -> Vec<(u64, Extent)> {
    let mut found = Vec::new();
    for part in parts {
        let PartView::Batch { origin, destinations, batch, at } = part else { continue };
        let Ok(header) = BatchHeader::parse(batch) else { continue };
        for (stream, base) in destinations.iter() {
            let extent = crate::stream::extent_of(&header, *origin, base, (position + *at as u64) as u32);
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
        PartView::CreateStream { id } => PartSummary::Stream { id: StreamId(id), is_made: true },
        PartView::DeleteStream { id } => PartSummary::Stream { id: StreamId(id), is_made: false },
        PartView::Trim { stream, to } => PartSummary::Trim { stream: StreamId(stream), to: Offset(to) },
        PartView::CreateCursor { id, stream, at } => {
            PartSummary::Cursor { id: CursorId(id), made: Some((StreamId(stream), Offset(at))) }
        }
        PartView::DeleteCursor { id } => PartSummary::Cursor { id: CursorId(id), made: None },
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

fn verify_segment(folder: &Folder, at: usize, id: SegmentId, file: &dyn MediumFile, report: &mut Report) {
    report.segments += 1;
    let name = id.file_name();
    let flaw = |position, detail: String| Flaw { file: name.clone(), position, detail };
    let end = folder.entries_end(at, file);
    let mut found = Vec::new();
    let (mut entries, mut batches) = (0, 0);
    let walked = walk(id, file, end, &mut |view, extents| {
        entries += 1;
        batches += view.parts.iter().filter(|part| matches!(part, PartSummary::Batch { .. })).count() as u64;
        found.extend(extents);
    });
    report.entries += entries;
    report.batches += batches;
    match walked {
        Ok(end) => report.bytes += end - HEADER_BYTES,
        Err(stop) => {
            report.bytes += stop.position.saturating_sub(HEADER_BYTES);
            let is_last = at + 1 == folder.segments.len();
            if is_last && stop.is_torn {
                report.torn_bytes = torn_bytes(file, stop.position);
                return;
            }
            report.flaws.push(match stop.error {
                ScanError::Io(error) => flaw(stop.position, error.to_string()),
                ScanError::Version(version) => flaw(8, format!("unknown format version {version}")),
                ScanError::Flaw { position, detail } => flaw(position, detail.to_owned()),
            });
            return;
        }
    }
    let is_last = at + 1 == folder.segments.len();
    match read_trailer(id, file) {
        Err(_) if is_last => {}
        // Sealed a little after it was closed; recovery does it if it was not done.
        Err(_) if !id.is_cleaned() => {}
        Err(error) => report.flaws.push(flaw(0, error.to_string())),
        Ok(trailer) => {
            let checked = verify_index(file, trailer.index_start, trailer.index_blocks, &mut found);
            match checked {
                Ok(count) if count == u64::from(trailer.index_entries) => report.index_entries += count,
                Ok(_) => report.flaws.push(flaw(trailer.index_start, "index entries are missing".to_owned())),
                Err((position, detail)) => report.flaws.push(flaw(position, detail)),
            }
        }
    }
}

/// Every index entry is in order and names a batch that is there.
fn verify_index(
    file: &dyn MediumFile,
    start: u64,
    blocks: u32,
    found: &mut [(u64, Extent)],
) -> Result<u64, (u64, String)> {
    found.sort_unstable_by_key(|(stream, extent)| (*stream, extent.base));
    let mut last = None;
    let mut count = 0;
    for number in 0..blocks {
        let position = start + u64::from(number) * BLOCK_BYTES as u64;
        let mut bytes = vec![0; BLOCK_BYTES];
        file.read_at(position, &mut bytes).map_err(|error| (position, error.to_string()))?;
        for (stream, extent) in decode_block(&bytes).map_err(|detail| (position, detail.to_owned()))? {
            let key = (stream, extent.base);
            if last.is_some_and(|last| last >= key) {
                return Err((position, "index is out of order".to_owned()));
            }
            last = Some(key);
            count += 1;
            let place = found.binary_search_by_key(&key, |(stream, extent)| (*stream, extent.base));
            if place.ok().and_then(|place| found.get(place)).map(|(_, found)| *found) != Some(extent) {
                return Err((position, format!("index names a batch that is not there: stream {stream}")));
            }
        }
    }
    Ok(count)
}

/// Bytes behind a position that are not zero, up to the last of them.
fn torn_bytes(file: &dyn MediumFile, position: u64) -> u64 {
    let length = file.len().unwrap_or(position);
    let mut last = position;
    let mut at = position;
    let mut buffer = vec![0; 1 << 16];
    while at < length {
        let Ok(read) = file.read_at(at, &mut buffer) else { break };
        if read == 0 {
            break;
        }
        if let Some(place) = buffer.get(..read).and_then(|bytes| bytes.iter().rposition(|byte| *byte != 0)) {
            last = at + place as u64 + 1;
        }
        at += read as u64;
    }
    last - position
}

fn verify_checkpoint(folder: &Folder, report: &mut Report) {
    let flaw = |detail: String| Flaw { file: CHECKPOINT_FILE.to_owned(), position: 0, detail };
    let is_there = folder.medium.list().is_ok_and(|names| names.iter().any(|name| name == CHECKPOINT_FILE));
    if !is_there {
        if !folder.has_beginning() {
            report.flaws.push(flaw("the file is missing".to_owned()));
        }
        return;
    }
    let store = match RedbStore::open(&folder.medium, 1 << 20) {
        Ok(store) => store,
        Err(error) => return report.flaws.push(flaw(error.to_string())),
    };
    match store.get(Space::Meta, Meta::KEY) {
        Ok(Some(bytes)) => match Meta::decode(&bytes) {
            Some(meta) => report.checkpoint = Lsn(meta.lsn),
            None => report.flaws.push(flaw("its header is malformed".to_owned())),
        },
        Ok(None) => {}
        Err(error) => report.flaws.push(flaw(error.to_string())),
    }
    let (mut streams, mut cursors, mut flaws) = (0, 0, Vec::new());
    let scans = [
        store.scan(Space::Segments, &[], &mut |key, value| {
            let id = key.try_into().map(u64::from_be_bytes).map(SegmentId);
            match (id, SegmentRecord::decode(value)) {
                (Ok(id), Some(_)) if folder.segments.contains(&id) => {}
                (Ok(id), Some(_)) => flaws.push(flaw(format!("{} is missing", id.file_name()))),
                _ => flaws.push(flaw("a segment's record is malformed".to_owned())),
            }
            Ok(())
        }),
        store.scan(Space::Streams, &[], &mut |_, value| {
            streams += u64::from(decode_stream(value).is_some());
            Ok(())
        }),
        store.scan(Space::Cursors, &[], &mut |_, value| {
            cursors += u64::from(decode_cursor(value).is_some());
            Ok(())
        }),
    ];
    if let Err(error) = store.check_rows() {
        report.flaws.push(flaw(error.to_string()));
        return;
    }
    for scan in scans {
        if let Err(error) = scan {
            report.flaws.push(flaw(error.to_string()));
        }
    }
    report.flaws.append(&mut flaws);
    report.streams = streams;
    report.cursors = cursors;
}
