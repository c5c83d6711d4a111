//! Verification: every checksum of a stopped log, and the consistency of entries, indexes and checkpoint.

use std::fmt;
use std::path::Path;

use super::folder::Folder;
use super::walk::{PartSummary, walk};
use crate::checkpoint::{RedbStore, SegmentRecord, Space, decode_cursor, decode_stream};
use crate::error::{CHECKPOINT_FILE, CheckpointError, OpenError};
use crate::format::index::{BLOCK_BYTES, Extent, decode_block};
use crate::format::segment::{HEADER_BYTES, SegmentId};
use crate::ids::Lsn;
use crate::medium::MediumFile;
use crate::read::index_cache::read_trailer;
use crate::scan::ScanError;

const CACHE_BYTES: usize = 16 << 20;

/// A place of damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Name of the file.
    pub file: String,
    /// The position in it.
    pub position: u64,
    /// The inconsistency found there.
    pub detail: String,
}

/// Result of [`verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segment files read.
    pub segments: u64,
    /// Whole entries in them.
    pub entries: u64,
    /// Batches in these entries.
    pub batches: u64,
    /// Bytes of whole entries.
    pub bytes: u64,
    /// Index entries of sealed segments.
    pub index_entries: u64,
    /// Streams in the checkpoint.
    pub streams: u64,
    /// Cursors in the checkpoint.
    pub cursors: u64,
    /// End of the log.
    pub end: Lsn,
    /// Replay position of the checkpoint.
    pub checkpoint: Lsn,
    /// Bytes behind the last whole entry of the last segment that recovery would cut off.
    pub torn_bytes: u64,
    /// All damage found.
    pub flaws: Vec<Flaw>,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.file, self.position, self.detail)
    }
}

/// Verifies every checksum of a stopped log, and that its parts are consistent. Damage is listed in the report; an error
/// means that the log could not be read.
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
        Ok(end) => {
            report.bytes += end - HEADER_BYTES;
            report.end = report.end.max(Lsn(if id.is_cleaned() { 0 } else { id.0 + end }));
        }
        Err(stop) => {
            report.end = report.end.max(Lsn(if id.is_cleaned() { 0 } else { id.0 + stop.position }));
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
        // A closed segment is sealed later, by recovery if necessary.
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

/// Verifies that index entries are sorted and refer to existing batches. Returns their number.
pub(super) fn verify_index(
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
                return Err((position, "index is not sorted".to_owned()));
            }
            last = Some(key);
            count += 1;
            let place = found.binary_search_by_key(&key, |(stream, extent)| (*stream, extent.base));
            if place.ok().and_then(|place| found.get(place)).map(|(_, found)| *found) != Some(extent) {
                return Err((position, format!("index refers to a missing batch of stream {stream}")));
            }
        }
    }
    Ok(count)
}

/// Bytes behind a position, up to the last that is not zero.
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

/// A sound file of the checkpoint.
struct SoundCheckpoint {
    lsn: u64,
    streams: u64,
    cursors: u64,
    segments: Vec<SegmentId>,
}

fn verify_checkpoint(folder: &Folder, report: &mut Report) {
    let mut flaw = |file: &str, detail: String| {
        report.flaws.push(Flaw { file: file.to_owned(), position: 0, detail });
    };
    let files = match folder.checkpoint_files() {
        Ok(files) => files,
        Err(error) => return flaw(CHECKPOINT_FILE, error.to_string()),
    };
    if files.is_empty() && !folder.has_beginning() {
        flaw(CHECKPOINT_FILE, "file is missing".to_owned());
    }
    let (mut newest, mut damaged) = (None, Vec::new());
    for file in files {
        match check_file(folder, file) {
            Err(error) => damaged.push((file, error)),
            Ok(sound) => {
                let is_newer =
                    newest.as_ref().is_none_or(|(_, known): &(_, SoundCheckpoint)| sound.lsn > known.lsn);
                newest = if is_newer { Some((file, sound)) } else { newest };
            }
        }
    }
    for (file, error) in damaged {
        let remedy = match &newest {
            Some((sound, _)) => {
                format!("{sound} is sound: the next start uses it and writes this file again")
            }
            None if folder.has_beginning() => "the next start rebuilds it from the log".to_owned(),
            None => "restore the folder from a backup".to_owned(),
        };
        flaw(file, format!("{error}; {remedy}"));
    }
    if let Some((file, sound)) = newest {
        for id in sound.segments.iter().filter(|id| !folder.segments.contains(id)) {
            flaw(file, format!("{} is missing", id.file_name()));
        }
        report.checkpoint = Lsn(sound.lsn);
        report.streams = sound.streams;
        report.cursors = sound.cursors;
    }
}

/// Verifies every page and every row of a file of the checkpoint.
fn check_file(folder: &Folder, name: &str) -> Result<SoundCheckpoint, CheckpointError> {
    let mut store = RedbStore::inspect(folder.medium.open(name)?, CACHE_BYTES)?;
    store.check_pages()?;
    store.check_rows()?;
    let lsn = store.meta()?.map_or(0, |meta| meta.lsn);
    let mut sound = SoundCheckpoint { lsn, streams: 0, cursors: 0, segments: Vec::new() };
    store.scan(Space::Segments, &[], &mut |key, value| {
        let id = key.try_into().map(u64::from_be_bytes).map(SegmentId);
        let (Ok(id), Some(_)) = (id, SegmentRecord::decode(value)) else {
            return Err(CheckpointError::Damaged("malformed segment record"));
        };
        sound.segments.push(id);
        Ok(())
    })?;
    store.scan(Space::Streams, &[], &mut |_, value| {
        sound.streams += u64::from(decode_stream(value).is_some());
        Ok(())
    })?;
    store.scan(Space::Cursors, &[], &mut |_, value| {
        sound.cursors += u64::from(decode_cursor(value).is_some());
        Ok(())
    })?;
    Ok(sound)
}
