//! Errors, grouped by what the caller can do about them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::ids::{Lsn, Offset};

/// Failure to open a log. Recovery reports damage before it changes any file of the log.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the folder's lock.
    #[error("{} is in use by another process (its lock file {} is held)", dir.display(), lock.display())]
    Locked {
        /// The data folder.
        dir: PathBuf,
        /// The lock file inside it.
        lock: PathBuf,
    },
    /// The medium failed.
    #[error("failed to {attempt}: {source}")]
    Io {
        /// What was attempted, with the file's name.
        attempt: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file is damaged, or files contradict each other. Nothing is repaired by guessing; see docs/format.md, "Salvage".
    #[error("damage in {file} at byte {position}: {detail}")]
    Damaged {
        /// The file's name inside the data folder.
        file: String,
        /// The position in it.
        position: u64,
        /// The inconsistency found there.
        detail: String,
    },
    /// The checkpoint cannot be read or written.
    #[error("failed to open {file}: {0}", file = CHECKPOINT_FILE)]
    Checkpoint(#[from] CheckpointError),
    /// No file of the checkpoint can be read, and segments that it replaced were removed.
    #[error(
        "{0}; neither {CHECKPOINT_FILE} nor {CHECKPOINT_COPY_FILE} can be read, and the log does not go back to its \
         beginning: restore the folder from a backup (`inver restore`)"
    )]
    CheckpointLost(#[source] CheckpointError),
    /// A file was written by a later version.
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
    /// The log failed while it was being opened.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl OpenError {
    /// An I/O error with what was attempted, as an infinitive: `read 00000000.seg`.
    pub(crate) fn io(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
        let attempt = attempt.into();
        move |source| OpenError::Io { attempt, source }
    }

    pub(crate) fn damaged(file: &str, position: u64, detail: &str) -> Self {
        OpenError::Damaged { file: file.to_owned(), position, detail: detail.to_owned() }
    }
}

/// The checkpoint's file.
pub(crate) const CHECKPOINT_FILE: &str = "checkpoint.redb";
/// The folder of a restore inside a data folder, until it has ended.
pub const RESTORE_FOLDER: &str = "restore-unfinished";
/// The second file of the checkpoint, with the same content.
pub(crate) const CHECKPOINT_COPY_FILE: &str = "checkpoint-copy.redb";

/// Failure of the checkpoint store. Damage of its file can show as any of these.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The store reports an error.
    #[error("checkpoint store failed: {0}")]
    Store(#[source] Box<redb::Error>),
    /// The medium failed.
    #[error("checkpoint file failed: {0}")]
    Io(#[from] io::Error),
    /// The content is inconsistent.
    #[error("checkpoint is damaged: {0}")]
    Damaged(&'static str),
    /// A sync of its only file failed, so the content of that file is unknown.
    #[error("checkpoint file could not be synced")]
    Unsynced,
    /// What the checkpoint covers could not be made durable.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl CheckpointError {
    /// Whether the medium failed, so that another attempt may succeed: the file is not known to be damaged.
    pub(crate) fn is_of_medium(&self) -> bool {
        let error = match self {
            Self::Io(error) => error,
            Self::Store(error) => match error.as_ref() {
                redb::Error::Io(error) => error,
                _ => return false,
            },
            Self::Damaged(_) | Self::Unsynced | Self::Log(_) => return false,
        };
        // The file is shorter than its pages say, or not a file of the store.
        !matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
    }
}

/// A backup that cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Another backup runs.
    #[error("another backup is running")]
    Running,
    /// The checkpoint that it begins with cannot be written.
    #[error("no checkpoint can be written: {0}")]
    PutOff(String),
    /// The checkpoint cannot be copied.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The log failed or is closed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Failure of a log. Every later call returns the same error; only a restart helps.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// A write or sync failed: the content of the medium is unknown, so nothing is acknowledged any more.
    #[error("log failed, no further writes are accepted: {0}")]
    Poisoned(#[source] Arc<LogFailure>),
    /// The log was shut down.
    #[error("log is closed")]
    Closed,
}

/// Equal when both report the same failure of the same log.
impl PartialEq for LogError {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Poisoned(one), Self::Poisoned(two)) => Arc::ptr_eq(one, two),
            (Self::Closed, Self::Closed) => true,
            _ => false,
        }
    }
}

impl Eq for LogError {}

/// The operation that ended a log.
#[derive(Debug, thiserror::Error)]
#[error("failed to {attempt}: {cause}")]
pub struct LogFailure {
    /// What was attempted, with the file's name.
    pub attempt: String,
    /// Why it failed.
    #[source]
    pub cause: FailureCause,
}

/// Why an operation of the log failed.
#[derive(Debug, thiserror::Error)]
pub enum FailureCause {
    /// The medium failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The checkpoint store failed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A caller waits for a position that no entry reaches.
    #[error("position {0} was never submitted")]
    NeverSubmitted(Lsn),
}

/// Rejection of an entry; nothing of it was appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The log itself failed or is closed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The producer sent this batch before; it is stored at `base_offset`. Once `lsn` is committed the batch may be
    /// acknowledged again.
    #[error("duplicate of the batch at offset {base_offset}")]
    DuplicateSequence {
        /// Offset of the original's first record.
        base_offset: Offset,
        /// Position of the original's entry; 0 when it was recovered, i.e. committed before the start.
        lsn: Lsn,
    },
    /// The producer's sequence numbers have a gap.
    #[error("producer sequence out of order")]
    OutOfOrderSequence,
    /// A newer instance of the producer was seen.
    #[error("producer epoch is older than one already seen")]
    InvalidProducerEpoch,
    /// The entry is larger than [`crate::LogOptions::entry_bytes_max`].
    #[error("entry of {bytes} bytes exceeds the limit of {bytes_max}")]
    TooLarge {
        /// Size of the entry.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A batch outside of a transaction, of a producer that has a transaction open in the stream.
    #[error("the producer has an open transaction in the stream")]
    TransactionOpen,
    /// The stream has [`crate::LogOptions::transactions_per_stream_max`] transactions that are open, or aborted and kept.
    #[error("the stream has {count_max} open or aborted transactions, which is the limit")]
    TooManyTransactions {
        /// The limit.
        count_max: usize,
    },
}

/// Rejection or failure of a read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is below the stream's start or above its high watermark.
    #[error("offset out of range: the stream holds {start}..{end}")]
    OutOfRange {
        /// First offset kept.
        start: Offset,
        /// High watermark.
        end: Offset,
    },
    /// The stream was deleted.
    #[error("stream was deleted")]
    Deleted,
    /// A file does not hold what was written to it.
    #[error("damage in {file} at byte {position}: {detail}")]
    Damaged {
        /// The file's name inside the data folder.
        file: String,
        /// The position in it.
        position: u64,
        /// The inconsistency found there.
        detail: &'static str,
    },
    /// The medium failed.
    #[error("failed to read {file}: {source}")]
    Io {
        /// The file's name inside the data folder.
        file: String,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },
}

impl ReadError {
    pub(crate) fn io(file: String) -> impl FnOnce(io::Error) -> ReadError {
        move |source| ReadError::Io { file, source: Arc::new(source) }
    }

    /// The name of the file concerned, inside the data folder.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::Damaged { file, .. } | Self::Io { file, .. } => Some(file),
            Self::OutOfRange { .. } | Self::Deleted => None,
        }
    }
}
