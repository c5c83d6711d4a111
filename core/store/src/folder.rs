//! A folder of this machine as a store: a file an object. What is answered holds across a power cut.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Refusal, StoreError};
use crate::key;
use crate::store::{Listed, PAGE_OBJECTS_MAX, Page, Store, WHOLE_BYTES_MAX, behind_the_end, check_range};

/// The folder of files that are being written. No name of an object begins with a dot.
const NEW: &str = ".new";
/// Age of a file in [`NEW`] that no process writes to any more.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// A folder as a store. Several processes may use it at a time, on one machine.
#[derive(Debug, Clone)]
pub struct Folder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    /// Number of the next file in [`NEW`].
    next: AtomicU64,
}

impl Folder {
    /// Opens a folder, and makes it if there is none. Deletes what an ended process left half written.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(root: &Path) -> io::Result<Folder> {
        let new = root.join(NEW);
        let missing: Vec<&Path> = new.ancestors().take_while(|folder| !folder.exists()).collect();
        fs::create_dir_all(&new)?;
        // The name of a folder is on the disk when the folder that it is in is synced.
        for made in missing {
            File::open(parent(made))?.sync_all()?;
        }
        for entry in fs::read_dir(&new)? {
            let entry = entry?;
            // Another process may finish or delete it at this time.
            let age =
                entry.metadata().and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
            if age.is_some_and(|age| age > ABANDONED) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(Folder { shared: Arc::new(Shared { root: root.to_owned(), next: AtomicU64::new(0) }) })
    }

    /// Runs `work` where it may wait for the disk.
    async fn run<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    {
        let shared = self.shared.clone();
        let done = tokio::task::spawn_blocking(move || work(&shared)).await;
        // The runtime ended before the work did, or in the middle of it.
        done.unwrap_or_else(|error| Err(StoreError::Unknown(error.to_string())))
    }
}

/// A failed sync behind a change that readers see: whether it survives a power cut is not known.
fn not_synced(error: &io::Error) -> StoreError {
    StoreError::Unknown(format!("failed to sync: {error}"))
}

/// A failed operation on the place of an object: its folders and the root's.
fn of_place(error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::NotFound => StoreError::Refused(Refusal::Bucket, error.to_string()),
        io::ErrorKind::AlreadyExists => {
            StoreError::request("the name of an object is that of a folder of others, or the other way round")
        }
        _ => StoreError::of_io(error),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Shared {
    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// Opens an object's file, and says how long it is.
    fn open(&self, key: &str) -> Result<(File, u64), StoreError> {
        let file = File::open(self.path(key)).map_err(|error| StoreError::of_io(&error))?;
        let data = file.metadata().map_err(|error| StoreError::of_io(&error))?;
        if data.is_dir() { Err(StoreError::NotFound) } else { Ok((file, data.len())) }
    }

    /// Writes a new file, syncs it, and gives it its name: in place of the file of that name, or only if there is none.
    fn write(&self, key: &str, body: &[u8], replace: bool) -> Result<(), StoreError> {
        let path = self.path(key);
        self.make_folders(key).map_err(|error| of_place(&error))?;
        let (new, mut file) = self.new_file().map_err(|error| of_place(&error))?;
        let written = file.write_all(body).and_then(|()| file.sync_all());
        // A link, unlike a rename, fails where there is a file.
        let place = || if replace { fs::rename(&new, &path) } else { fs::hard_link(&new, &path) };
        let placed = written.and_then(|()| place());
        if !replace || placed.is_err() {
            let _ = fs::remove_file(&new);
        }
        match placed {
            Ok(()) => self.sync_folders(key).map_err(|error| not_synced(&error)),
            // The caller that made it may not have synced it yet, and this one may take it for its own.
            Err(error) if !replace && error.kind() == io::ErrorKind::AlreadyExists && !path.is_dir() => {
                self.sync_folders(key).map_err(|error| not_synced(&error))?;
                Err(StoreError::AlreadyExists)
            }
            Err(error) => Err(of_place(&error)),
        }
    }

    fn new_file(&self) -> io::Result<(PathBuf, File)> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = self.root.join(NEW).join(format!("{}-{number}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                // A process of another machine or container may have the same number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                opened => return opened.map(|file| (path, file)),
            }
        }
    }

    fn make_folders(&self, key: &str) -> io::Result<()> {
        let folder = self.path(key).parent().map(Path::to_owned);
        folder.map_or(Ok(()), fs::create_dir_all)
    }

    /// Syncs every folder from an object's up to the root: another process may have made one, and not synced it yet.
    fn sync_folders(&self, key: &str) -> io::Result<()> {
        let path = self.path(key);
        let mut folders = path.ancestors().skip(1).take_while(|folder| folder.starts_with(&self.root));
        folders.try_for_each(|folder| match File::open(folder) {
            // There is nothing in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder != self.root => Ok(()),
            opened => opened?.sync_all(),
        })
    }

    /// Collects the first `limit` names below `folder`, whose own name with its last `/` is `at`.
    fn walk(&self, at: &str, wanted: &Wanted, found: &mut BTreeMap<String, u64>) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join(at))? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let path = format!("{at}{name}");
            if key::check(&path).is_err() {
                continue;
            }
            // An object that was deleted meanwhile is not there.
            let Ok(data) = entry.metadata() else { continue };
            if data.is_dir() {
                let below = format!("{path}/");
                if wanted.may_hold(&below) {
                    self.walk(&below, wanted, found)?;
                }
            } else if wanted.has(&path) {
                found.insert(path, data.len());
                if found.len() > wanted.limit {
                    found.pop_last();
                }
            }
        }
        Ok(())
    }
}

/// What a list asks for.
struct Wanted {
    prefix: String,
    after: Option<String>,
    /// One more than the page holds.
    limit: usize,
}

impl Wanted {
    fn has(&self, key: &str) -> bool {
        key.starts_with(&self.prefix) && self.after.as_deref().is_none_or(|after| key > after)
    }

    fn may_hold(&self, folder: &str) -> bool {
        folder.starts_with(&self.prefix) || self.prefix.starts_with(folder)
    }
}

#[async_trait]
impl Store for Folder {
    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        key::check(key)?;
        let key = key.to_owned();
        let read = move |shared: &Shared| {
            let (file, bytes) = shared.open(&key)?;
            if bytes > WHOLE_BYTES_MAX {
                return Err(StoreError::Refused(Refusal::TooLarge, format!("the object has {bytes} bytes")));
            }
            read_all(file, bytes)
        };
        self.run(read).await.map_err(of_read)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        key::check(key)?;
        check_range(&range)?;
        let key = key.to_owned();
        let read = move |shared: &Shared| {
            let (mut file, bytes) = shared.open(&key)?;
            if range.start >= bytes {
                return Err(behind_the_end(&range, bytes));
            }
            file.seek(SeekFrom::Start(range.start)).map_err(|error| StoreError::of_io(&error))?;
            read_all(file, range.end.min(bytes) - range.start)
        };
        self.run(read).await.map_err(of_read)
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        key::check(key)?;
        let key = key.to_owned();
        self.run(move |shared| shared.write(&key, &body, true)).await
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        key::check(key)?;
        let key = key.to_owned();
        self.run(move |shared| shared.write(&key, &body, false)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        key::check_prefix(prefix)?;
        let (prefix, limit) = (prefix.to_owned(), limit.clamp(1, PAGE_OBJECTS_MAX));
        let wanted = Wanted { prefix, after: after.map(str::to_owned), limit: limit + 1 };
        let list = move |shared: &Shared| {
            let mut found = BTreeMap::new();
            shared.walk("", &wanted, &mut found).map_err(|error| of_place(&error))?;
            let has_more = found.len() > limit;
            let objects = found.into_iter().take(limit).map(|(key, bytes)| Listed { key, bytes });
            Ok(Page { objects: objects.collect(), has_more })
        };
        self.run(list).await.map_err(of_read)
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        key::check(key)?;
        let key = key.to_owned();
        let delete = move |shared: &Shared| match fs::remove_file(shared.path(&key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::of_io(&error)),
            // Also where there is none: it may have been deleted, and not synced yet.
            _ => shared.sync_folders(&key).map_err(|error| not_synced(&error)),
        };
        self.run(delete).await
    }
}

/// Reading changes nothing, and so has no unknown outcome.
fn of_read(error: StoreError) -> StoreError {
    match error {
        StoreError::Unknown(text) => StoreError::Again(text),
        other => other,
    }
}

/// The next `bytes` bytes of a file.
fn read_all(file: File, bytes: u64) -> Result<Bytes, StoreError> {
    let mut body = Vec::new();
    file.take(bytes).read_to_end(&mut body).map_err(|error| StoreError::of_io(&error))?;
    Ok(body.into())
}
