//! Backups: a consistent set of files of a log that goes on meanwhile.
//!
//! A backup holds a checkpoint, the segments that it names, and the log after it up to a position. While it runs, no segment
//! file is removed; sealed files do not change. Of the other segments it takes the part below the position, which is the
//! commit position at the end of the backup: everything acknowledged before is in it.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use crate::error::{BackupError, CHECKPOINT_FILE};
use crate::format::segment::{HEADER_BYTES, SegmentId, TRAILER_BYTES};
use crate::ids::Lsn;
use crate::maintenance::Maintenance;
use crate::medium::{Medium, MediumFile};
use crate::open::OpenLog;

/// The copy of the checkpoint while a backup runs; removed by the next start if that does not end.
const CHECKPOINT_COPY: &str = "backup-checkpoint.tmp";

/// A backup that is being taken. Ends when it is dropped.
pub struct Backup {
    medium: Arc<dyn Medium>,
    maintenance: Arc<Maintenance>,
    log_id: u128,
    sealed: Vec<SegmentId>,
}

/// A file of a backup.
pub struct BackupFile {
    /// Its name in a data folder.
    pub name: String,
    /// Its size in the backup.
    pub bytes: u64,
    /// Whether it never changes, so that a later backup of the same log need not copy it again.
    pub is_sealed: bool,
    file: Arc<dyn MediumFile>,
}

impl Backup {
    /// Takes a checkpoint and holds all segments. Only one backup runs at a time.
    pub(crate) fn begin(log: &OpenLog) -> Result<Self, BackupError> {
        let maintenance = log.maintenance.clone();
        let sealed = maintenance.begin_backup(CHECKPOINT_COPY)?;
        Ok(Self { medium: maintenance.medium(), log_id: maintenance.log_id(), maintenance, sealed })
    }

    /// The identity of the log, the same in all of its backups.
    #[must_use]
    pub fn log_id(&self) -> u128 {
        self.log_id
    }

    /// The checkpoint and the sealed segments.
    pub fn files(&self) -> impl Iterator<Item = io::Result<BackupFile>> {
        let checkpoint = std::iter::once_with(|| self.file(CHECKPOINT_COPY, CHECKPOINT_FILE, None, false));
        let sealed = self.sealed.iter().map(|id| self.file(&id.file_name(), &id.file_name(), None, true));
        checkpoint.chain(sealed)
    }

    /// The position of the backup, and the segments that were not sealed when it began, up to there. Call it last.
    pub fn tail(&self) -> io::Result<(Lsn, Vec<BackupFile>)> {
        let sealed: BTreeSet<SegmentId> = self.sealed.iter().copied().collect();
        let position = self.maintenance.committed();
        let segments = self.maintenance.log_segments();
        let mut tail = Vec::new();
        for (at, id) in segments.iter().enumerate() {
            if sealed.contains(id) || id.0 + HEADER_BYTES > position {
                continue;
            }
            // The next segment begins where the entries of this one end.
            let end = segments.get(at + 1).map_or(position, |next| next.0.min(position));
            let name = id.file_name();
            tail.push(self.file(&name, &name, Some(end - id.0), false)?);
        }
        Ok((Lsn(position), tail))
    }

    fn file(&self, source: &str, name: &str, bytes: Option<u64>, is_sealed: bool) -> io::Result<BackupFile> {
        let file = self.medium.open(source)?;
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => file.len()?,
        };
        Ok(BackupFile { name: name.to_owned(), bytes, is_sealed, file })
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        self.maintenance.end_backup();
        // Removed by the next start as well.
        let _ = self.medium.remove(CHECKPOINT_COPY);
    }
}

impl fmt::Debug for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup").field("sealed", &self.sealed.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for BackupFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupFile({}, {} bytes)", self.name, self.bytes)
    }
}

impl BackupFile {
    /// Checksums of the header and the trailer of a sealed segment, which differ between segments of the same name.
    pub fn identity(&self) -> io::Result<String> {
        let (mut header, mut trailer) = ([0; HEADER_BYTES as usize], [0; TRAILER_BYTES as usize]);
        self.file.read_at(0, &mut header)?;
        self.file.read_at(self.bytes.saturating_sub(TRAILER_BYTES), &mut trailer)?;
        Ok(format!("{:08x}{:08x}", crc32c::crc32c(&header), crc32c::crc32c(&trailer)))
    }

    /// The content. Fails if the file is shorter than the backup needs.
    pub fn reader(&self) -> impl Read {
        Reader { file: self.file.clone(), at: 0, end: self.bytes }
    }
}

struct Reader {
    file: Arc<dyn MediumFile>,
    at: u64,
    end: u64,
}

impl Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let wanted = into.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        let read = self.file.read_at(self.at, into.get_mut(..wanted).unwrap_or_default())?;
        if read == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        Ok(read)
    }
}
