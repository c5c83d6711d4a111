//! What the log needs of the thing it is stored on: one flat folder of files.
//!
//! The one seam between the log and the world's disks. [`Files`] is a folder of the file system; [`fake`] is one in
//! memory that loses what was not synced, tears writes and fails on command.
//!
//! What is assumed of a medium: a completed [`MediumFile::sync`] makes all earlier writes and lengths of that file
//! survive the loss of power; a completed [`Medium::sync_folder`] does so for names; writes that were not synced
//! may survive in any part and order, in units no smaller than a byte; bytes of a file that were never written
//! read as zero.

pub mod fake;
mod files;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

pub use self::files::Files;
pub(crate) use self::files::LOCK_FILE;

/// A flat folder of files.
pub trait Medium: Send + Sync + Debug {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file that exists, for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>>;
    /// Opens a file that exists for reading and writing past the page cache, whole blocks of 4 KiB from memory that is
    /// as aligned. `None` where that cannot be done.
    fn open_direct(&self, name: &str) -> io::Result<Option<Arc<dyn MediumFile>>>;
    /// Makes a new, empty file; fails when the name is taken.
    fn create(&self, name: &str) -> io::Result<Arc<dyn MediumFile>>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes names survive.
    fn sync_folder(&self) -> io::Result<()>;
    /// Takes the folder for this process until the guard is dropped; `WouldBlock` when another has it.
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>>;
    /// Where this is, for messages.
    fn describe(&self) -> String;
}

/// An open file.
pub trait MediumFile: Send + Sync + Debug {
    /// Reads up to the buffer's length at a position; less only at the file's end.
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Writes all of the pieces, one after the other, at a position.
    fn write_at(&self, position: u64, pieces: &[io::IoSlice<'_>]) -> io::Result<()>;
    /// Makes content and length survive.
    fn sync(&self) -> io::Result<()>;
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// No bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|length| length == 0)
    }
    /// Cuts or extends (with zero bytes).
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Reserves room up to a length, so that writes below it do not run out of space. The file then has this length.
    fn allocate(&self, length: u64) -> io::Result<()>;
}
