//! The medium: the storage that the log needs, one flat folder of files.
//!
//! This is the only interface between the log and the disk. [`Files`] is a folder of the file system; the module `fake`
//! (feature `testing`) is a folder in memory that loses unsynced writes, tears writes and fails on command.
//!
//! Assumptions: a completed [`MediumFile::sync`] makes all earlier writes and lengths of that file survive the loss of
//! power; a completed [`Medium::sync_folder`] does so for names; unsynced writes may survive in any part and order, in
//! units no smaller than a byte; bytes of a file that were never written read as zero.

#[cfg(feature = "testing")]
pub mod fake;
mod files;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

pub use self::files::Files;
pub(crate) use self::files::LOCK_FILE;

/// Direct writes start, end and are placed in memory at multiples of this.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// Space of the place that the folder is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeSpace {
    /// Bytes that can still be written.
    pub free: u64,
    /// Bytes in all.
    pub size: u64,
}

/// A flat folder of files.
pub trait Medium: Send + Sync + Debug {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file that exists, for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>>;
    /// Opens a file that exists for direct reads and writes (`O_DIRECT`), in whole blocks of 4 KiB from memory with that
    /// alignment. `None` where this is not supported.
    fn open_direct(&self, name: &str) -> io::Result<Option<Arc<dyn MediumFile>>>;
    /// Creates an empty file; fails if the name exists.
    fn create(&self, name: &str) -> io::Result<Arc<dyn MediumFile>>;
    /// The length of a file that exists.
    fn file_bytes(&self, name: &str) -> io::Result<u64> {
        self.open(name)?.len()
    }
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Renames a file, replacing a file of the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes all changes of names survive the loss of power.
    fn sync_folder(&self) -> io::Result<()>;
    /// Locks the folder for this process until the guard is dropped; `WouldBlock` if another process holds the lock.
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>>;
    /// The space of the place; `None` where there is no bound or it is not known.
    fn free_space(&self) -> io::Result<Option<FreeSpace>> {
        Ok(None)
    }
    /// Description of the place, for messages.
    fn describe(&self) -> String;
}

/// An open file.
pub trait MediumFile: Send + Sync + Debug {
    /// Reads up to the buffer's length at a position; fewer bytes only at the file's end.
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Writes all of the pieces, one after the other, at a position.
    fn write_at(&self, position: u64, pieces: &[io::IoSlice<'_>]) -> io::Result<()>;
    /// Makes content and length survive the loss of power.
    fn sync(&self) -> io::Result<()>;
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|length| length == 0)
    }
    /// Truncates the file, or extends it with zero bytes.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Reserves space up to a length, so that writes below it do not run out of space. The file then has this length.
    fn allocate(&self, length: u64) -> io::Result<()>;
}
