//! Why a store did not do what it was asked.

use std::io;

use thiserror::Error;

/// Why a store did not do what it was asked. What the caller may do follows from the variant alone.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// There is no object of that name.
    #[error("there is no such object")]
    NotFound,
    /// A create found an object of that name. It may be the caller's own, of an earlier attempt that was not answered: only
    /// reading it tells.
    #[error("the object exists already")]
    AlreadyExists,
    /// The store did not do it, and may do it later: it is busy, or cannot be reached.
    #[error("try again: {0}")]
    Again(String),
    /// The store did not do it: another request for this name is under way, and it is not decided yet which comes first.
    #[error("another request for this name is under way: {0}")]
    Conflict(String),
    /// A request that changes something was sent, and its answer was lost. The change may have been made, may be made later,
    /// or never.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// The store does not do it, however often it is asked.
    #[error("refused: {1}")]
    Refused(Refusal, String),
}

/// What must change before a refused request can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The credentials are wrong, or do not permit it.
    Credentials,
    /// There is no such bucket or folder.
    Bucket,
    /// The bucket is in another region.
    Region,
    /// The clock of this machine differs from the store's.
    Clock,
    /// The object is longer than what is read at once.
    TooLarge,
    /// The request is not one that the store accepts.
    Request,
    /// The answer is not one of S3.
    Answer,
}

impl StoreError {
    /// Whether repeating the same request can succeed. A create that is repeated may find the object that it made itself.
    #[must_use]
    pub fn is_worth_repeating(&self) -> bool {
        matches!(self, StoreError::Again(_) | StoreError::Conflict(_) | StoreError::Unknown(_))
    }

    /// A request that cannot be right.
    pub(crate) fn request(text: impl Into<String>) -> StoreError {
        StoreError::Refused(Refusal::Request, text.into())
    }

    /// A failed operation on a file, which changed nothing.
    pub(crate) fn of_io(error: &io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::NotFound => StoreError::NotFound,
            io::ErrorKind::AlreadyExists => StoreError::AlreadyExists,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StoreError::Refused(Refusal::Credentials, error.to_string())
            }
            io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
                StoreError::request(error.to_string())
            }
            _ => StoreError::Again(error.to_string()),
        }
    }
}
