//! Errors, grouped by what the caller can do about them.

use std::path::PathBuf;
use std::sync::Arc;

use crate::ids::{Lsn, Offset};

/// The log cannot be opened. Nothing was changed on the disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the folder.
    #[error("{} is in use by another process (its lock file {} is held)", dir.display(), lock.display())]
    Locked {
        /// The data folder.
        dir: PathBuf,
        /// The lock file inside it.
        lock: PathBuf,
    },
    /// The medium failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, with the file's name.
        what: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The files contradict themselves. Never repaired by guessing; see docs/format.md, "Salvage".
    #[error("damage in {file} at byte {position}: {detail}")]
    Damaged {
        /// The file's name inside the data folder.
        file: String,
        /// The position in it.
        position: u64,
        /// What is wrong there.
        detail: String,
    },
    /// The files were written by a later version.
    #[error("{file} has format version {found}, this build reads up to {supported}")]
    Version {
        /// The file's name inside the data folder.
        file: String,
        /// The version found.
        found: u32,
        /// The latest version known.
        supported: u32,
    },
    /// An option is out of its range.
    #[error("option {0}")]
    Option(String),
}

/// The log does not work any more. Every later call says the same; only a restart helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// A write or a sync failed: what is on the disk is unknown, so nothing is acknowledged any more.
    #[error("the log failed and accepts nothing more: {0}")]
    Poisoned(Arc<str>),
    /// The log was shut down.
    #[error("the log is closed")]
    Closed,
}

/// An entry was refused; nothing of it was appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The log itself failed or is closed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The producer sent this batch before; it is stored at `base_offset`. Once `lsn` is committed it may
    /// be acknowledged again.
    #[error("duplicate of the batch at offset {base_offset}")]
    DuplicateSequence {
        /// Offset of the original's first record.
        base_offset: Offset,
        /// Position of the original's entry (0 when it was recovered, i.e. committed long since).
        lsn: Lsn,
    },
    /// A gap in the producer's sequence numbers.
    #[error("producer sequence out of order")]
    OutOfOrderSequence,
    /// A newer instance of the producer was seen.
    #[error("producer epoch is older than one already seen")]
    InvalidProducerEpoch,
    /// The entry is larger than [`crate::LogOptions::entry_bytes_max`].
    #[error("entry of {bytes} bytes is larger than the bound of {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
}

/// A read was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The offset is below the stream's start or above its end.
    #[error("offset out of range: the stream holds {start}..{end}")]
    OutOfRange {
        /// First offset kept.
        start: Offset,
        /// High watermark.
        end: Offset,
    },
    /// The stream was deleted.
    #[error("the stream was deleted")]
    Deleted,
    /// What the disk holds is not what was written.
    #[error("damage in {file} at byte {position}: {detail}")]
    Damaged {
        /// The file's name inside the data folder.
        file: String,
        /// The position in it.
        position: u64,
        /// What is wrong there.
        detail: String,
    },
    /// The medium failed.
    #[error("reading {file}: {detail}")]
    Io {
        /// The file's name inside the data folder.
        file: String,
        /// What the operating system said.
        detail: String,
    },
}

impl ReadError {
    /// The file that it is about, by its name inside the data folder.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::Damaged { file, .. } | Self::Io { file, .. } => Some(file),
            Self::OutOfRange { .. } | Self::Deleted => None,
        }
    }
}
