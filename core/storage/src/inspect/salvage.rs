//! Salvage: gives up what is damaged, so that the log opens again and the rest can be read.
//!
//! What is given up is first kept in a file beside the log. In its place comes an entry of the kind *lost*; offsets are
//! never given twice, so readers find a gap. Nothing is guessed: what cannot be read is not there any more, and what
//! depended on it (a stream that it made, say) is not either.

use std::collections::BTreeMap;
use std::fmt;
use std::io::IoSlice;
use std::path::Path;

use bytes::BytesMut;

use super::{Folder, extents, verify_index};
use crate::checkpoint::{CHECKPOINT_FILE, CheckpointStore, Meta, RedbStore, SegmentRecord, Space};
use crate::error::OpenError;
use crate::format::entry::{self, ENTRY_HEADER_BYTES, EntryHeader, KIND_LOST};
use crate::format::index::{Extent, IndexBuilder};
use crate::format::segment::{HEADER_BYTES, SegmentHeader, SegmentId, SegmentTrailer};
use crate::index_cache::read_trailer;
use crate::log::open_io;
use crate::medium::{Medium, MediumFile};
use crate::scan::{ScanError, Scanner};

const CACHE_BYTES: usize = 16 << 20;

/// Something that [`salvage`] gives up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The file that it is in.
    pub file: String,
    /// Where it starts in the file.
    pub position: u64,
    /// How much it is.
    pub bytes: u64,
    /// What it is.
    pub what: &'static str,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}, {} bytes", self.file, self.position, self.what, self.bytes)
    }
}

/// Finds what keeps a stopped log from opening or being read, and, if `gives_up`, gives it up: for each loss that holds
/// any bytes a file `salvaged-…` keeps them. Returns the losses.
///
/// An error says that nothing can be done, or that the medium failed: a checkpoint that cannot be read while segments that
/// it stood for were removed already means that the folder has to be restored from a copy.
pub fn salvage(dir: &Path, gives_up: bool) -> Result<Vec<Loss>, OpenError> {
    let folder = Folder::open(dir)?;
    let mut work = Salvage { folder, gives_up, losses: Vec::new() };
    let known = work.checkpoint()?;
    work.missing(&known)?;
    work.segments(&known)?;
    if gives_up {
        work.folder.medium.sync_folder().map_err(open_io("syncing the folder"))?;
    }
    Ok(work.losses)
}

/// What a checkpoint says of the files.
struct Known {
    meta: Option<Meta>,
    /// It could be read.
    is_there: bool,
    segments: BTreeMap<SegmentId, SegmentRecord>,
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

    /// Reads the checkpoint; one that cannot be read is put aside if the log is complete without it.
    fn checkpoint(&mut self) -> Result<Known, OpenError> {
        let known = Known { meta: None, is_there: false, segments: BTreeMap::new() };
        let is_there = self.folder.medium.list().map_err(open_io("listing the folder"))?;
        if !is_there.iter().any(|name| name == CHECKPOINT_FILE) {
            return Ok(known);
        }
        match read_checkpoint(&self.folder.medium) {
            Ok(read) => Ok(read),
            Err(detail) => {
                if !self.folder.has_beginning() {
                    let detail = format!(
                        "{detail}; segments that it stood for are gone: restore the folder from a copy"
                    );
                    return Err(OpenError::Damaged { file: CHECKPOINT_FILE.to_owned(), position: 0, detail });
                }
                self.lose(CHECKPOINT_FILE, 0, 0, "the checkpoint, which is made again from the log");
                if self.gives_up {
                    let aside = format!("salvaged-{CHECKPOINT_FILE}");
                    let renamed = self.folder.medium.rename(CHECKPOINT_FILE, &aside);
                    renamed.map_err(open_io("putting the checkpoint aside"))?;
                }
                Ok(known)
            }
        }
    }

    /// What the checkpoint says, or else the first header that can be read.
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

    /// Files that the checkpoint names and that are not there.
    fn missing(&mut self, known: &Known) -> Result<(), OpenError> {
        for (id, record) in &known.segments {
            if self.folder.segments.contains(id) {
                continue;
            }
            let name = id.file_name();
            self.lose(&name, 0, record.entries_end, "a whole file, which is missing");
            if !self.gives_up {
                continue;
            }
            // Empty, and filled below.
            let file = self.folder.medium.create(&name).map_err(open_io(name.clone()))?;
            write_header(file.as_ref(), *id, self.log_id(known)).map_err(open_io(name))?;
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
            // Left over from an interrupted removal: the next start removes it.
            let is_leftover = known.is_there
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

    /// Goes through one segment. Returns where its entries end.
    fn segment(
        &mut self,
        id: SegmentId,
        log_id: u128,
        end: Option<u64>,
        is_sealed: bool,
    ) -> Result<u64, OpenError> {
        let name = id.file_name();
        let file = self.folder.file(id)?;
        let io = || open_io(name.clone());
        let opened = Scanner::open(file.as_ref(), end);
        if let Err(ScanError::Version(found)) = opened {
            let supported = crate::format::FORMAT_VERSION;
            return Err(OpenError::Version { file: name, found, supported });
        }
        if !opened.is_ok_and(|(header, _)| header.id == id) {
            self.lose(&name, 0, HEADER_BYTES, "the file's header, which is written again");
            if !self.gives_up {
                return Ok(end.unwrap_or(HEADER_BYTES));
            }
            write_header(file.as_ref(), id, log_id).map_err(io())?;
        }
        let losses_before = self.losses.len();
        let mut found = Vec::new();
        let mut scanner = Scanner::open(file.as_ref(), end).map_err(|error| in_file(&name, error))?.1;
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
                    let sound = scanner.find_sound(position).map_err(|error| in_file(&name, error))?;
                    let Some(to) = sound.or(end) else {
                        self.cut(&name, file.as_ref(), &mut scanner, position)?;
                        break position;
                    };
                    self.give_up(&name, file.as_ref(), id, position..to)?;
                    scanner.position = to;
                }
                Err(error) => return Err(in_file(&name, error)),
            }
        };
        // Sealed, be it that no checkpoint says so yet.
        if is_sealed || read_trailer(id, file.as_ref()).is_ok() {
            let is_whole =
                self.losses.len() == losses_before && is_index_whole(id, file.as_ref(), &mut found);
            if !is_whole {
                if self.losses.len() == losses_before {
                    self.lose(&name, stopped, 0, "the index, which is made again");
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

    /// Nothing holds behind this place of the last segment. What recovery takes for a torn tail is left to it.
    fn cut(
        &mut self,
        name: &str,
        file: &dyn MediumFile,
        scanner: &mut Scanner<'_>,
        position: u64,
    ) -> Result<(), OpenError> {
        if !scanner.look_behind(position).map_err(|error| in_file(name, error))?.is_damage {
            return Ok(());
        }
        let length = file.len().map_err(open_io(name.to_owned()))?;
        self.lose(name, position, length - position, "the end of the log");
        if self.gives_up {
            self.keep(name, file, position..length)?;
            file.set_len(position).map_err(open_io(name.to_owned()))?;
        }
        Ok(())
    }

    /// Puts a lost entry in the place of what does not hold.
    fn give_up(
        &mut self,
        name: &str,
        file: &dyn MediumFile,
        id: SegmentId,
        range: std::ops::Range<u64>,
    ) -> Result<(), OpenError> {
        let length = range.end - range.start;
        if length < ENTRY_HEADER_BYTES as u64 || u32::try_from(length).is_err() {
            let detail = "no entry fits into what is damaged".to_owned();
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
        file.write_at(range.start, &[IoSlice::new(&out)]).map_err(open_io(name.to_owned()))
    }

    /// Copies bytes into a file beside the log.
    fn keep(&self, name: &str, file: &dyn MediumFile, range: std::ops::Range<u64>) -> Result<(), OpenError> {
        let aside = format!("salvaged-{name}-{}", range.start);
        let io = || open_io(aside.clone());
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let read = file.read_at(range.start, &mut bytes).map_err(io())?;
        bytes.truncate(read);
        if bytes.is_empty() {
            return Ok(());
        }
        let copy = self.folder.medium.create(&aside).map_err(io())?;
        copy.write_at(0, &[IoSlice::new(&bytes)]).and_then(|()| copy.sync()).map_err(io())
    }

    /// The checkpoint must not say that there is more of the log than there is.
    fn shorten_checkpoint(&mut self, known: &Known, end: u64) -> Result<(), OpenError> {
        let Some(meta) = known.meta else { return Ok(()) };
        let goes_to = meta.lsn.max(meta.durable);
        if goes_to <= end {
            return Ok(());
        }
        self.lose(CHECKPOINT_FILE, 0, goes_to - end, "the end of the log, which the checkpoint knew");
        if !self.gives_up {
            return Ok(());
        }
        let shorter = Meta { lsn: meta.lsn.min(end), durable: meta.durable.min(end), ..meta };
        let again = RedbStore::open(&self.folder.medium, CACHE_BYTES);
        let written = again.and_then(|mut store| {
            store.commit(&mut |sink| sink.put(Space::Meta, Meta::KEY, &shorter.encode()))
        });
        written.map_err(|error| OpenError::Damaged {
            file: CHECKPOINT_FILE.to_owned(),
            position: 0,
            detail: error.to_string(),
        })
    }
}

fn read_checkpoint(medium: &dyn Medium) -> Result<Known, String> {
    let store = RedbStore::open(medium, CACHE_BYTES).map_err(|error| error.to_string())?;
    let meta = store.get(Space::Meta, Meta::KEY).map_err(|error| error.to_string())?;
    let meta = meta.map(|bytes| Meta::decode(&bytes).ok_or("its header is malformed")).transpose()?;
    let mut segments = BTreeMap::new();
    let scanned = store.scan(Space::Segments, &[], &mut |key, value| {
        if let (Ok(id), Some(record)) = (key.try_into(), SegmentRecord::decode(value)) {
            segments.insert(SegmentId(u64::from_be_bytes(id)), record);
        }
        Ok(())
    });
    scanned.map_err(|error| error.to_string())?;
    store.check_rows().map_err(|error| error.to_string())?;
    Ok(Known { meta, is_there: true, segments })
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

fn in_file(name: &str, error: ScanError) -> OpenError {
    let file = name.to_owned();
    match error {
        ScanError::Io(source) => OpenError::Io { what: format!("reading {name}"), source },
        ScanError::Version(found) => {
            OpenError::Version { file, found, supported: crate::format::FORMAT_VERSION }
        }
        ScanError::Flaw { position, detail } => {
            OpenError::Damaged { file, position, detail: detail.to_owned() }
        }
    }
}
