//! A medium in memory that behaves as badly as [`super`] permits.
//!
//! At a crash it keeps any part of the unsynced writes, tears writes, and loses unsynced names; on command it fails an
//! operation, or stops the process in the middle of one. A seed determines all choices.

mod file;
mod random;
mod state;

use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use self::file::FakeFile;
pub use self::random::Random;
pub use self::state::Fault;
use self::state::{Content, NameChange, Operation, Outcome, State, apply_name, not_found, survive};
use super::{FreeSpace, Medium, MediumFile};

/// A folder in memory. Clones share it.
#[derive(Clone)]
pub struct FakeMedium {
    state: Arc<Mutex<State>>,
}

impl FakeMedium {
    /// Creates an empty folder. The seed determines all choices.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State { random: seed, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Number of operations so far that changed something.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// A digest of all operations so far, equal for two runs with the same operations.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.state.lock().trace
    }

    /// Schedules a fault after `operations` more operations.
    pub fn schedule(&self, operations: u64, fault: Fault) {
        let mut state = self.state.lock();
        state.fault = Some((state.operations + operations, fault));
    }

    /// Makes `count` reads fail, after `reads` more.
    pub fn schedule_reads(&self, reads: u64, count: u64) {
        let mut state = self.state.lock();
        state.read_fault = state.reads + reads..state.reads + reads + count;
    }

    /// Makes reads wait until [`release_reads`](Self::release_reads).
    pub fn hold_reads(&self) {
        self.state.lock().holds_reads = true;
    }

    /// Lets the reads that wait go on, and those that follow.
    pub fn release_reads(&self) {
        let mut state = self.state.lock();
        state.holds_reads = false;
        state.reads_released.notify_all();
    }

    /// Number of reads that wait.
    #[must_use]
    pub fn held_reads(&self) -> u64 {
        self.state.lock().held_reads
    }

    /// Number of operations and reads that failed so far as scheduled.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.state.lock().hits
    }

    /// The names of all files.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state.lock().names.keys().cloned().collect()
    }

    /// Stops the process: everything fails until [`FakeMedium::crash`] or [`FakeMedium::kill`].
    pub fn stop(&self) {
        self.state.lock().is_stopped = true;
    }

    /// Simulates a loss of power: unsynced changes survive in part.
    pub fn crash(&self) {
        let mut state = self.state.lock();
        let mut random = Random::new(state.random ^ state.operations);
        for content in state.files.values_mut() {
            let changes = std::mem::take(&mut content.changes);
            for change in changes {
                survive(&mut content.durable, change, &mut random);
            }
            content.now = content.durable.clone();
        }
        // Names are journalled, i.e. survive in order, up to any point.
        let changes = std::mem::take(&mut state.name_changes);
        let kept = random.below(changes.len() as u64 + 1) as usize;
        for change in changes.into_iter().take(kept) {
            apply_name(&mut state.durable_names, change);
        }
        state.names = state.durable_names.clone();
        state.random = random.any();
        state.life += 1;
        state.is_locked = false;
        state.is_stopped = false;
        state.fault = None;
        state.read_fault = 0..0;
    }

    /// Simulates the end of the process without a loss of power: all writes survive.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        state.life += 1;
        state.is_locked = false;
        state.is_stopped = false;
        state.fault = None;
        state.read_fault = 0..0;
    }

    /// Supports direct writes from now on, if they are aligned.
    pub fn take_direct(&self) {
        self.state.lock().is_direct = true;
    }

    /// Bounds the bytes of all files; none: without a bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// A copy of the folder as it is now, with everything synced.
    #[must_use]
    pub fn image(&self) -> FakeMedium {
        let state = self.state.lock();
        let mut copy = State { random: state.random, next_file: state.next_file, ..State::default() };
        copy.names = state.names.clone();
        copy.durable_names = state.names.clone();
        for (id, content) in &state.files {
            let durable = content.now.clone();
            copy.files.insert(*id, Content { now: durable.clone(), durable, changes: Vec::new() });
        }
        FakeMedium { state: Arc::new(Mutex::new(copy)) }
    }

    /// A file's bytes.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        state.files.get(state.names.get(name)?).map(|content| content.now.clone())
    }

    /// Replaces a file's bytes durably; creates the file if it does not exist.
    pub fn set_content(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state.lock();
        let fresh = state.next_file + 1;
        let id = *state.names.entry(name.to_owned()).or_insert(fresh);
        state.next_file = state.next_file.max(id);
        state.durable_names.insert(name.to_owned(), id);
        state.files.insert(id, Content { now: bytes.clone(), durable: bytes, changes: Vec::new() });
    }

    /// Removes a file durably.
    pub fn lose(&self, name: &str) {
        let mut state = self.state.lock();
        state.names.remove(name);
        state.durable_names.remove(name);
    }
}

impl Medium for FakeMedium {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state.lock().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        let state = self.state.lock();
        let id = *state.names.get(name).ok_or_else(not_found)?;
        Ok(Arc::new(FakeFile { state: self.state.clone(), id, life: state.life, is_direct: false }))
    }

    fn open_direct(&self, name: &str) -> io::Result<Option<Arc<dyn MediumFile>>> {
        let state = self.state.lock();
        let id = *state.names.get(name).ok_or_else(not_found)?;
        let file = FakeFile { state: self.state.clone(), id, life: state.life, is_direct: true };
        let file: Arc<dyn MediumFile> = Arc::new(file);
        Ok(state.is_direct.then_some(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        let mut state = self.state.lock();
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.next_file += 1;
        let id = state.next_file;
        state.change_name(NameChange::Set(name.to_owned(), id))?;
        state.files.insert(id, Content::default());
        Ok(Arc::new(FakeFile { state: self.state.clone(), id, life: state.life, is_direct: false }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.names.contains_key(name) {
            return Err(not_found());
        }
        state.change_name(NameChange::Remove(name.to_owned()))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.names.contains_key(from) {
            return Err(not_found());
        }
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        match state.begin(Operation::Sync, 0)? {
            Outcome::Done => {
                state.name_changes.clear();
                state.durable_names = state.names.clone();
            }
            Outcome::Partly(_, error) => return Err(error),
        }
        Ok(())
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.state.lock();
        if state.is_locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.is_locked = true;
        Ok(Box::new(Guard(self.clone())))
    }

    fn free_space(&self) -> io::Result<Option<FreeSpace>> {
        Ok(self.state.lock().free_space())
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

struct Guard(FakeMedium);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.state.lock().is_locked = false;
    }
}

impl fmt::Debug for FakeMedium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeMedium")
    }
}
