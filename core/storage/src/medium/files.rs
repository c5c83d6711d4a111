//! The medium on a folder of the file system.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{FreeSpace, Medium, MediumFile};

/// Pieces per system call, the limit of the kernel.
const PIECES_MAX: usize = 1024;
/// The lock file. It is never removed; only the lock on it counts.
pub(crate) const LOCK_FILE: &str = "lock";

/// A folder of the file system.
#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
}

impl Files {
    /// Uses a folder; creates it if it does not exist.
    pub fn new(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }
}

impl Medium for Files {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.dir.join(name))?;
        Ok(Arc::new(OneFile(file)))
    }

    #[cfg(target_os = "linux")]
    fn open_direct(&self, name: &str) -> io::Result<Option<Arc<dyn MediumFile>>> {
        use std::os::unix::fs::OpenOptionsExt;
        let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let opened = OpenOptions::new().read(true).write(true).custom_flags(direct).open(self.dir.join(name));
        match opened {
            Ok(file) => Ok(Some(Arc::new(OneFile(file)))),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
            Err(error) => Err(error),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn open_direct(&self, _: &str) -> io::Result<Option<Arc<dyn MediumFile>>> {
        Ok(None)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.dir.join(name))?;
        Ok(Arc::new(OneFile(file)))
    }

    fn file_bytes(&self, name: &str) -> io::Result<u64> {
        Ok(std::fs::metadata(self.dir.join(name))?.len())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.dir.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        let path = self.dir.join(LOCK_FILE);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn free_space(&self) -> io::Result<Option<FreeSpace>> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        // Some file systems have no sizes.
        Ok((stat.f_blocks > 0).then(|| FreeSpace {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            size: stat.f_blocks.saturating_mul(stat.f_frsize),
        }))
    }

    fn describe(&self) -> String {
        self.dir.display().to_string()
    }
}

#[derive(Debug)]
struct OneFile(File);

impl MediumFile for OneFile {
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, position + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, position: u64, pieces: &[io::IoSlice<'_>]) -> io::Result<()> {
        let mut position = position;
        for group in pieces.chunks(PIECES_MAX) {
            if let [piece] = group {
                self.0.write_all_at(piece, position)?;
                position += piece.len() as u64;
                continue;
            }
            let total: usize = group.iter().map(|piece| piece.len()).sum();
            let mut done = loop {
                match rustix::io::pwritev(&self.0, group, position) {
                    Ok(done) => break done,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            };
            if done < total {
                done = write_rest(&self.0, position, group, done)?;
            }
            position += done as u64;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, length) {
            Ok(()) => Ok(()),
            // Not supported by the file system: use a sparse file, without a guarantee of space.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => self.0.set_len(length),
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes the rest after a short write, piece by piece.
fn write_rest(file: &File, position: u64, group: &[io::IoSlice<'_>], done: usize) -> io::Result<usize> {
    let mut at = 0;
    for piece in group {
        let end = at + piece.len();
        if end > done {
            let skip = done.saturating_sub(at);
            let rest = piece.get(skip..).unwrap_or_default();
            file.write_all_at(rest, position + (at + skip) as u64)?;
        }
        at = end;
    }
    Ok(at)
}
