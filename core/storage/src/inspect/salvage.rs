//! Salvage: gives up damaged parts, so that the log opens again and the rest can be read.
//!
//! Damaged bytes are first copied to a file beside the log, and then replaced by an entry of the kind *lost*. Offsets are
//! never assigned twice, so readers find a gap. Nothing is guessed: changes in a damaged entry (such as the creation of a
//! stream) are lost, and so is everything that depends on them.

use std::collections::BTreeMap;
use std::fmt;
use std::io::IoSlice;
use std::path::Path;

use bytes::BytesMut;

use super::folder::Folder;
use super::verify::verify_index;
use super::walk::extents;
use crate::checkpoint::{CheckpointStore, Meta, MirroredStore, RedbStore, SegmentRecord, Space};
use crate::error::{CHECKPOINT_FILE, CheckpointError, OpenError};
use crate::format::entry::{self, ENTRY_HEADER_BYTES, EntryHeader, KIND_LOST};
use crate::format::index::{Extent, IndexBuilder};
use crate::format::segment::{HEADER_BYTES, SegmentHeader, SegmentId, SegmentTrailer};
use crate::medium::{Medium, MediumFile};
use crate::read::index_cache::read_trailer;
use crate::scan::{ScanError, Scanner};

const CACHE_BYTES: usize = 16 << 20;

/// A damaged part that [`salvage`] gives up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Name of the file.
    pub file: String,
    /// Start of the part in the file.
    pub position: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Description of the part.
    pub what: &'static str,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}, {} bytes", self.file, self.position, self.what, self.bytes)
    }
}

/// Finds the damage that keeps a stopped log from opening or being read and, if `gives_up`, gives it up: the bytes of each
/// loss are kept in a file `salvaged-…`. Returns the losses.
///
/// An error means that salvage is impossible, or that the medium failed. If the checkpoint cannot be read and segments that
/// it replaced were already removed, the folder has to be restored from a backup.
pub fn salvage(dir: &Path, gives_up: bool) -> Result<Vec<Loss>, OpenError> {
    let folder = Folder::open(dir)?;
    let mut work = Salvage { folder, gives_up, losses: Vec::new() };
    let known = work.checkpoint()?;
    work.missing(&known)?;
    work.segments(&known)?;
    if gives_up {
        work.folder.medium.sync_folder().map_err(OpenError::io("sync the folder"))?;
    }
    Ok(work.losses)
}

/// The content of a checkpoint, as far as files are concerned.
struct Known {
    meta: Option<Meta>,
    /// A checkpoint could be read.
    exists: bool,
    segments: BTreeMap<SegmentId, SegmentRecord>,
}

impl Known {
    fn lsn(&self) -> u64 {
        self.meta.map_or(0, |meta| meta.lsn)
    }
}

struct Salvage {
    folder: Folder,
    gives_up: bool,
    losses: Vec<Loss>,
}

impl Salvage {
    fn lose(&mut self, file: &str, position: u64, bytes: u64, what: &'static str) {
        self.losses.push(Loss { file: file.to_owned(), position, bytes, what });
    }

    /// Reads the checkpoint. An unreadable one is put aside if the log is complete without it.
    fn checkpoint(&mut self) -> Result<Known, OpenError> {
        let known = Known { meta: None, exists: false, segments: BTreeMap::new() };
        let files = self.folder.checkpoint_files()?;
        let (mut newest, mut failed) = (None, None);
        for file in &files {
            match read_checkpoint(self.folder.medium.as_ref(), file) {
                Ok(read) => {
                    let is_newer = newest.as_ref().is_none_or(|known: &Known| read.lsn() > known.lsn());
                    newest = if is_newer { Some(read) } else { newest };
                }
                Err(error) => failed = Some(error),
            }
        }
        match (newest, failed) {
            // One sound file is enough; the next start mends the other.
            (Some(newest), _) => Ok(newest),
            (None, None) => Ok(known),
            (None, Some(error)) => {
                if !self.folder.has_beginning() {
                    return Err(OpenError::CheckpointLost(error));
                }
                for file in files {
                    self.lose(file, 0, 0, "checkpoint, to be rebuilt from the log");
                    if self.gives_up {
                        let renamed = self.folder.medium.rename(file, &format!("salvaged-{file}"));
                        renamed.map_err(OpenError::io("put the checkpoint aside"))?;
                    }
                }
                Ok(known)
            }
        }
    }

    /// The log id in the checkpoint, or else in the first readable header.
    fn log_id(&self, known: &Known) -> u128 {
        let read = |id: &SegmentId| {
            let file = self.folder.file(*id).ok()?;
            Scanner::open(file.as_ref(), None).ok().map(|(header, _)| header.log_id)
        };
        let from_files = || self.folder.segments.iter().find_map(read).unwrap_or_default();
        known.meta.map_or_else(from_files, |meta| meta.log_id)
    }

    fn log_segments(&self) -> Vec<SegmentId> {
        self.folder.segments.iter().copied().filter(|id| !id.is_cleaned()).collect()
    }

    /// Replaces missing files that the checkpoint names.
    fn missing(&mut self, known: &Known) -> Result<(), OpenError> {
        for (id, record) in &known.segments {
            if self.folder.segments.contains(id) {
                continue;
            }
            let name = id.file_name();
            self.lose(&name, 0, record.entries_end, "missing file");
            if !self.gives_up {
                continue;
            }
            // Empty here; a lost entry is added below.
            let file = self.folder.medium.create(&name).map_err(OpenError::io(format!("create {name}")))?;
            write_header(file.as_ref(), *id, self.log_id(known))
                .map_err(OpenError::io(format!("write {name}")))?;
            self.folder.segments.push(*id);
        }
        self.folder.segments.sort_unstable_by_key(|id| (!id.is_cleaned(), id.0));
        Ok(())
    }

    fn segments(&mut self, known: &Known) -> Result<(), OpenError> {
        let mut log = self.log_segments();
        log.extend(known.segments.keys().filter(|id| !id.is_cleaned()));
        log.sort_unstable();
        let newest = known.segments.keys().rfind(|id| !id.is_cleaned()).copied();
        let mut end = 0;
        for id in self.folder.segments.clone() {
            let record = known.segments.get(&id);
            // A leftover of an interrupted removal; the next start removes it.
            let is_leftover = known.exists
                && record.is_none()
                && (id.is_cleaned() || newest.is_some_and(|newest| id < newest));
            if is_leftover {
                continue;
            }
            let sealed = record.filter(|record| record.is_sealed);
            let next = log.iter().find(|next| !id.is_cleaned() && **next > id).map(|next| next.0 - id.0);
            let segment_end = sealed.map(|record| record.entries_end).or(next);
            let stopped = self.segment(id, self.log_id(known), segment_end, sealed.is_some())?;
            if !id.is_cleaned() {
                end = id.0 + stopped;
            }
        }
        self.shorten_checkpoint(known, end)
    }

    /// Checks one segment. Returns the end of its entries.
    fn segment(
        &mut self,
        id: SegmentId,
        log_id: u128,
        end: Option<u64>,
        is_sealed: bool,
    ) -> Result<u64, OpenError> {
        let name = id.file_name();
        let file = self.folder.file(id)?;
        let io = || OpenError::io(format!("write {name}"));
        let opened = Scanner::open(file.as_ref(), end);
        if let Err(ScanError::Version(found)) = opened {
            let supported = crate::format::FORMAT_VERSION;
            return Err(OpenError::Version { file: name, found, supported });
        }
        if !opened.is_ok_and(|(header, _)| header.id == id) {
            self.lose(&name, 0, HEADER_BYTES, "segment header, to be rewritten");
            if !self.gives_up {
                return Ok(end.unwrap_or(HEADER_BYTES));
            }
            write_header(file.as_ref(), id, log_id).map_err(io())?;
        }
        let losses_before = self.losses.len();
        let mut found = Vec::new();
        let mut scanner = Scanner::open(file.as_ref(), end).map_err(|error| error.in_file(&name))?.1;
        let stopped = loop {
            match scanner.next() {
                Ok(Some((header, bytes))) => {
                    let position = header.lsn - if id.is_cleaned() { 0 } else { id.0 };
                    if let Ok(parts) = entry::decode(&header, bytes, false) {
                        found.extend(extents(position, &parts));
                    }
                }
                Ok(None) => break scanner.position,
                Err(ScanError::Flaw { position, .. }) => {
                    let sound = scanner.find_sound(position).map_err(|error| error.in_file(&name))?;
                    let Some(to) = sound.or(end) else {
                        self.cut(&name, file.as_ref(), &mut scanner, position)?;
                        break position;
                    };
                    self.give_up(&name, file.as_ref(), id, position..to)?;
                    scanner.position = to;
                }
                Err(error) => return Err(error.in_file(&name)),
            }
        };
        // Sealed according to the checkpoint or to the file itself.
        if is_sealed || read_trailer(id, file.as_ref()).is_ok() {
            let is_whole =
                self.losses.len() == losses_before && is_index_whole(id, file.as_ref(), &mut found);
            if !is_whole {
                if self.losses.len() == losses_before {
                    self.lose(&name, stopped, 0, "index, to be rebuilt");
                }
                if self.gives_up {
                    write_index(id, file.as_ref(), stopped, found).map_err(io())?;
                }
            }
        }
        if self.gives_up {
            file.sync().map_err(io())?;
        }
        Ok(stopped)
    }

    /// Truncates the last segment where nothing sound follows. A torn tail is left to recovery.
    fn cut(
        &mut self,
        name: &str,
        file: &dyn MediumFile,
        scanner: &mut Scanner<'_>,
        position: u64,
    ) -> Result<(), OpenError> {
        if !scanner.examine_tail(position).map_err(|error| error.in_file(name))?.is_damage {
            return Ok(());
        }
        let length = file.len().map_err(OpenError::io(format!("read {name}")))?;
        self.lose(name, position, length - position, "end of the log");
        if self.gives_up {
            self.keep(name, file, position..length)?;
            file.set_len(position).map_err(OpenError::io(format!("truncate {name}")))?;
        }
        Ok(())
    }

    /// Replaces a damaged range by a lost entry.
    fn give_up(
        &mut self,
        name: &str,
        file: &dyn MediumFile,
        id: SegmentId,
        range: std::ops::Range<u64>,
    ) -> Result<(), OpenError> {
        let length = range.end - range.start;
        if length < ENTRY_HEADER_BYTES as u64 || u32::try_from(length).is_err() {
            let detail = "damaged range is too small for a lost entry".to_owned();
            return Err(OpenError::Damaged { file: name.to_owned(), position: range.start, detail });
        }
        self.lose(name, range.start, length, "entries");
        if !self.gives_up {
            return Ok(());
        }
        self.keep(name, file, range.clone())?;
        let header = EntryHeader {
            crc: 0,
            length: length as u32,
            description_bytes: 0,
            lsn: range.start + if id.is_cleaned() { 0 } else { id.0 },
            synced: 0,
            part_count: 0,
            kind: KIND_LOST,
        };
        let mut out = BytesMut::with_capacity(length as usize);
        header.put(&mut out);
        entry::seal(&mut out, 0, 0, std::iter::empty());
        out.resize(length as usize, 0);
        file.write_at(range.start, &[IoSlice::new(&out)]).map_err(OpenError::io(format!("write {name}")))
    }

    /// Copies damaged bytes to a file beside the log.
    fn keep(&self, name: &str, file: &dyn MediumFile, range: std::ops::Range<u64>) -> Result<(), OpenError> {
        let aside = format!("salvaged-{name}-{}", range.start);
        let io = || OpenError::io(format!("copy to {aside}"));
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let read = file.read_at(range.start, &mut bytes).map_err(io())?;
        bytes.truncate(read);
        if bytes.is_empty() {
            return Ok(());
        }
        let copy = self.folder.medium.create(&aside).map_err(io())?;
        copy.write_at(0, &[IoSlice::new(&bytes)]).and_then(|()| copy.sync()).map_err(io())
    }

    /// Lowers positions in the checkpoint that are beyond the end of the log.
    fn shorten_checkpoint(&mut self, known: &Known, end: u64) -> Result<(), OpenError> {
        let Some(meta) = known.meta else { return Ok(()) };
        let known_end = meta.lsn.max(meta.durable);
        if known_end <= end {
            return Ok(());
        }
        self.lose(CHECKPOINT_FILE, 0, known_end - end, "end of the log, as recorded in the checkpoint");
        if !self.gives_up {
            return Ok(());
        }
        let shorter = Meta { lsn: meta.lsn.min(end), durable: meta.durable.min(end), ..meta };
        let mut store = MirroredStore::open(self.folder.medium.clone(), CACHE_BYTES)?;
        Ok(store.commit(&mut |sink| sink.put(Space::Meta, Meta::KEY, &shorter.encode()))?)
    }
}

fn read_checkpoint(medium: &dyn Medium, name: &str) -> Result<Known, CheckpointError> {
    let store = RedbStore::inspect(medium.open(name)?, CACHE_BYTES)?;
    let meta = store.meta()?;
    let mut segments = BTreeMap::new();
    store.scan(Space::Segments, &[], &mut |key, value| {
        if let (Ok(id), Some(record)) = (key.try_into(), SegmentRecord::decode(value)) {
            segments.insert(SegmentId(u64::from_be_bytes(id)), record);
        }
        Ok(())
    })?;
    store.check_rows()?;
    Ok(Known { meta, exists: true, segments })
}

fn write_header(file: &dyn MediumFile, id: SegmentId, log_id: u128) -> std::io::Result<()> {
    let base = if id.is_cleaned() { 0 } else { id.0 };
    let header = SegmentHeader { log_id, id, base, created_ms: 0 };
    file.write_at(0, &[IoSlice::new(&header.encode())])
}

fn is_index_whole(id: SegmentId, file: &dyn MediumFile, found: &mut [(u64, Extent)]) -> bool {
    let Ok(trailer) = read_trailer(id, file) else { return false };
    verify_index(file, trailer.index_start, trailer.index_blocks, found)
        .is_ok_and(|count| count == u64::from(trailer.index_entries))
}

fn write_index(
    id: SegmentId,
    file: &dyn MediumFile,
    entries_end: u64,
    mut found: Vec<(u64, Extent)>,
) -> std::io::Result<()> {
    found.sort_unstable_by_key(|(stream, extent)| (*stream, extent.base));
    let mut index = IndexBuilder::default();
    for (stream, extent) in &found {
        index.push(*stream, extent);
    }
    let spread = index.spread();
    let (blocks, index_blocks, index_entries) = index.finish();
    let max_timestamp = found.iter().map(|(_, extent)| extent.max_timestamp).max().unwrap_or(i64::MIN);
    let trailer = SegmentTrailer {
        id,
        entries_end,
        index_start: entries_end,
        index_blocks,
        index_entries,
        max_timestamp,
        spread,
    }
    .encode();
    file.write_at(entries_end, &[IoSlice::new(&blocks), IoSlice::new(&trailer)])?;
    file.set_len(entries_end + (blocks.len() + trailer.len()) as u64)
}
