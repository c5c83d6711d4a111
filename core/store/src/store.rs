//! What every store does.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::StoreError;

/// Bytes of the longest object that [`Store::get`] reads, and of the longest range: what is longer is read in ranges.
pub const WHOLE_BYTES_MAX: u64 = 64 << 20;

/// Objects of the longest [`Page`].
pub const PAGE_OBJECTS_MAX: usize = 1000;

/// An object, as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub key: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Some objects of a list, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The objects.
    pub objects: Vec<Listed>,
    /// Whether there may be more after the last one; never without a last one.
    pub has_more: bool,
}

/// Objects under names ([`crate::key`]).
///
/// Each call is one request, a list rarely more. None is repeated here, and each of a bucket ends within the store's timeout. Every method refuses a name
/// that is none with [`StoreError::Refused`]; the other errors are those of [`StoreError`] as far as they are not named.
#[async_trait]
pub trait Store: Send + Sync {
    /// Reads an object of at most [`WHOLE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] with [`Refusal::TooLarge`](crate::Refusal::TooLarge).
    async fn get(&self, key: &str) -> Result<Bytes, StoreError>;

    /// Reads at most [`WHOLE_BYTES_MAX`] bytes of an object: those of `range` that it has.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] for a range that is empty, too long, or begins at the object's end
    /// or behind it.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// Stores an object, in place of one of that name. Readers see the old one or the new one, whole.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] where the answer was lost.
    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError>;

    /// Stores an object if there is none of that name. Of any number of creates of one name, by any process, one succeeds.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`]; [`StoreError::Unknown`] where the answer was lost.
    async fn create(&self, key: &str, body: Bytes) -> Result<(), StoreError>;

    /// Lists objects whose names begin with `prefix` and come after `after`: at most `limit`, which is 1 to [`PAGE_OBJECTS_MAX`]
    /// or is taken for the nearer one. Those of one folder are in the order of their names' bytes; a service whose bucket is a
    /// file system may put a folder beside objects elsewhere.
    ///
    /// # Errors
    /// None of its own.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError>;

    /// Deletes an object; that there is none is success.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] where the answer was lost.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;
}

/// Checks the range of [`Store::get_range`], apart from the object's length.
pub(crate) fn check_range(range: &Range<u64>) -> Result<(), StoreError> {
    match range.end.checked_sub(range.start) {
        Some(1..=WHOLE_BYTES_MAX) => Ok(()),
        _ => Err(StoreError::request(format!("the range {range:?} is empty or too long"))),
    }
}

/// The error of a range that begins where the object has ended.
pub(crate) fn behind_the_end(range: &Range<u64>, bytes: u64) -> StoreError {
    StoreError::request(format!("the range {range:?} begins behind the object, which has {bytes} bytes"))
}
