//! Reclaim: trims acknowledged messages from the log, a few times a second instead of once per message.
//!
//! Owns the list of cursors that moved since the last trim. Nothing waits for a trim: after a crash it is repeated.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use inver_storage::{Entry, Log, Offset, Stream, SubmitError};
use parking_lot::Mutex;

/// A reader whose acknowledged messages can be trimmed.
pub(crate) trait Trimmable: Send + Sync {
    /// Unique within the process.
    fn id(&self) -> u64;

    /// Its streams with the position in each; later moves are noted again.
    fn take_moved(&self) -> Vec<(Stream, Offset)>;
}

/// Readers by id, and those that moved.
#[derive(Default)]
pub(crate) struct Reclaim {
    readers: Mutex<HashMap<u64, Weak<dyn Trimmable>>>,
    moved: Mutex<HashSet<u64>>,
}

impl Reclaim {
    /// Adds a reader. What an earlier process acknowledged is trimmed first.
    pub(crate) fn register<T: Trimmable + 'static>(&self, reader: &Arc<T>) {
        let weak: Weak<T> = Arc::downgrade(reader);
        self.readers.lock().insert(reader.id(), weak);
        self.note(reader.id());
    }

    /// Removes a reader.
    pub(crate) fn remove(&self, reader: u64) {
        self.readers.lock().remove(&reader);
        self.moved.lock().remove(&reader);
    }

    /// Notes that a reader's position moved.
    pub(crate) fn note(&self, reader: u64) {
        self.moved.lock().insert(reader);
    }

    /// Trims what was acknowledged since the last call.
    pub(crate) fn trim(&self, log: &Log) -> Result<(), SubmitError> {
        let mut moved: Vec<u64> = std::mem::take(&mut *self.moved.lock()).into_iter().collect();
        if moved.is_empty() {
            return Ok(());
        }
        // The same readers make the same entry.
        moved.sort_unstable();
        let readers: Vec<Arc<dyn Trimmable>> = {
            let readers = self.readers.lock();
            moved.iter().filter_map(|id| readers.get(id)?.upgrade()).collect()
        };
        let mut entry = Entry::new();
        let mut any = false;
        for reader in readers {
            for (stream, position) in reader.take_moved() {
                if position > stream.start() {
                    entry.trim(&stream, position);
                    any = true;
                }
            }
        }
        if any { log.submit(entry).map(|_| ()) } else { Ok(()) }
    }
}
