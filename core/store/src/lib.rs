//! Objects under names: an S3 bucket, or a folder in its place.
//!
//! What is asked of a store is little, so that many will do: a whole object is put or read, a part of it is read, an object
//! is created *only if it is absent*, names are listed, an object is deleted. A create that is answered holds; a read and a
//! list show what was answered before. There is no compare-and-swap by ETag: stores differ in how they do it, and numbered
//! objects that are created once do the same.
//!
//! | module | owns |
//! |---|---|
//! | [`Store`] | what every store does |
//! | [`StoreError`] | why something was not done: may it be repeated, and may it have been done all the same |
//! | [`key`] | which names there are |
//! | [`S3`] | a bucket, by the `object_store` crate over a connection pool of this crate |
//! | [`Folder`] | a folder of this machine, synced |
//! | [`check()`] | whether a store does what is asked of it |
//!
//! Does not know what the objects hold, and repeats nothing by itself: the caller knows what a repeat means.

#![warn(missing_docs)]

mod check;
mod error;
mod folder;
pub mod key;
mod s3;
mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use check::{Checked, Failure, Finding, RACERS, check};
pub use error::{Refusal, StoreError};
pub use folder::Folder;
pub use s3::{Credentials, S3, S3Options};
pub use store::{Listed, PAGE_OBJECTS_MAX, Page, Store, WHOLE_BYTES_MAX};
