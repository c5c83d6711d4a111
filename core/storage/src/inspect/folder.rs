//! The folder of a stopped log, locked while it is inspected.

use std::path::Path;
use std::sync::Arc;

use crate::error::{CHECKPOINT_COPY_FILE, CHECKPOINT_FILE, OpenError};
use crate::format::segment::SegmentId;
use crate::medium::{Files, LOCK_FILE, Medium, MediumFile};
use crate::read::index_cache::read_trailer;

/// The files of the checkpoint.
pub(super) const CHECKPOINT_FILES: [&str; 2] = [CHECKPOINT_FILE, CHECKPOINT_COPY_FILE];

/// A locked folder of a stopped log.
pub(super) struct Folder {
    pub(super) medium: Arc<dyn Medium>,
    /// In the order of the log; segments of the cleaner first.
    pub(super) segments: Vec<SegmentId>,
    _lock: Box<dyn Send + Sync>,
}

impl Folder {
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        // Checked first, so that nothing is written into a folder of another kind.
        let is_of_log = |entry: std::io::Result<std::fs::DirEntry>| {
            let name = entry.map(|entry| entry.file_name());
            let name = name.as_ref().ok().and_then(|name| name.to_str());
            name.is_some_and(|name| {
                CHECKPOINT_FILES.contains(&name) || SegmentId::from_file_name(name).is_some()
            })
        };
        if !std::fs::read_dir(dir).map_err(OpenError::io("open the folder"))?.any(is_of_log) {
            let source = std::io::Error::new(std::io::ErrorKind::NotFound, "no log files in the folder");
            return Err(OpenError::io("open the log")(source));
        }
        let medium: Arc<dyn Medium> = Arc::new(Files::new(dir).map_err(OpenError::io("open the folder"))?);
        let lock = medium.lock().map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => {
                OpenError::Locked { dir: dir.to_owned(), lock: dir.join(LOCK_FILE) }
            }
            _ => OpenError::io("lock the folder")(error),
        })?;
        let names = medium.list().map_err(OpenError::io("list the folder"))?;
        let mut segments: Vec<SegmentId> =
            names.iter().filter_map(|name| SegmentId::from_file_name(name)).collect();
        segments.sort_unstable_by_key(|id| (!id.is_cleaned(), id.0));
        Ok(Self { medium, segments, _lock: lock })
    }

    pub(super) fn file(&self, id: SegmentId) -> Result<Arc<dyn MediumFile>, OpenError> {
        let name = id.file_name();
        self.medium.open(&name).map_err(OpenError::io(format!("open {name}")))
    }

    /// Whether the log goes back to its beginning: then it is replayed without a checkpoint.
    pub(super) fn has_beginning(&self) -> bool {
        self.segments.first() == Some(&SegmentId(0))
    }

    /// The files of the checkpoint that exist.
    pub(super) fn checkpoint_files(&self) -> Result<Vec<&'static str>, OpenError> {
        let names = self.medium.list().map_err(OpenError::io("list the folder"))?;
        Ok(CHECKPOINT_FILES.into_iter().filter(|file| names.iter().any(|name| name == file)).collect())
    }

    /// End of a segment's entries, if its trailer or the next segment determines it.
    pub(super) fn entries_end(&self, at: usize, file: &dyn MediumFile) -> Option<u64> {
        let id = self.segments.get(at)?;
        if let Ok(trailer) = read_trailer(*id, file) {
            return Some(trailer.entries_end);
        }
        let next = self.segments.get(at + 1)?;
        if id.is_cleaned() { None } else { Some(next.0 - id.0) }
    }
}
