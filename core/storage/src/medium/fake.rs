//! A medium in memory that does its worst within what [`super`] promises: at a crash it keeps any part of what was not
//! synced, tears writes, forgets names that were not synced; on command it fails an operation, or stops the world in
//! the middle of one. All choices come from a seed.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Medium, MediumFile};
use crate::append::BLOCK_BYTES;

/// Writes survive in units of this size at the least, or whole, or not at all.
const UNIT_BYTES_MAX: u64 = 600;

/// A small generator of numbers that a seed determines (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end` (0 when `end` is).
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.any() % end }
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// What happens to one operation to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails, having done a part of what it should.
    Fail(io::ErrorKind),
    /// The process is over in the middle of it: it and everything after it fails until [`FakeMedium::crash`].
    Stop,
}

/// The kinds of operation that change something, for faults aimed at one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A write to a file.
    Write,
    /// A sync of a file or of the folder.
    Sync,
    /// A file's length.
    Length,
    /// A name made, changed or removed.
    Name,
}

/// A folder in memory. Clones share it.
#[derive(Clone)]
pub struct FakeMedium {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<u64, Content>,
    next_file: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    name_changes: Vec<NameChange>,
    is_locked: bool,
    operations: u64,
    fault: Option<(u64, Fault)>,
    /// Faults that hit.
    hits: u64,
    reads: u64,
    /// These reads fail.
    read_fault: Range<u64>,
    is_stopped: bool,
    /// Syncs lie: for tests that must notice.
    skips_syncs: bool,
    /// Direct writes are taken.
    is_direct: bool,
    random: u64,
    trace: u64,
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone)]
enum NameChange {
    Set(String, u64),
    Remove(String),
    Rename(String, String),
}

impl FakeMedium {
    /// An empty folder whose choices come from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State { random: seed, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Operations that changed something, so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// A digest of all operations so far: equal when two runs did the same.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.state.lock().trace
    }

    /// Lets the operation after `operations` more go wrong.
    pub fn schedule(&self, operations: u64, fault: Fault) {
        let mut state = self.state.lock();
        state.fault = Some((state.operations + operations, fault));
    }

    /// Lets `count` reads fail, after `reads` more.
    pub fn schedule_reads(&self, reads: u64, count: u64) {
        let mut state = self.state.lock();
        state.read_fault = state.reads + reads..state.reads + reads + count;
    }

    /// Operations and reads that went wrong so far, as scheduled.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.state.lock().hits
    }

    /// The names of all files.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state.lock().names.keys().cloned().collect()
    }

    /// The process is over: everything fails until [`FakeMedium::crash`] or [`FakeMedium::kill`].
    pub fn stop(&self) {
        self.state.lock().is_stopped = true;
    }

    /// From now on a sync does nothing but say so.
    pub fn skip_syncs(&self) {
        self.state.lock().skips_syncs = true;
    }

    /// The power fails: what was not synced survives in part.
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
        // Names are kept by a journal, i.e. in order; how far it got is open.
        let changes = std::mem::take(&mut state.name_changes);
        let kept = random.below(changes.len() as u64 + 1) as usize;
        for change in changes.into_iter().take(kept) {
            apply_name(&mut state.durable_names, change);
        }
        state.names = state.durable_names.clone();
        state.random = random.any();
        state.is_locked = false;
        state.is_stopped = false;
        state.fault = None;
        state.read_fault = 0..0;
    }

    /// The process ends, the power stays: everything written is there.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        state.is_locked = false;
        state.is_stopped = false;
        state.fault = None;
        state.read_fault = 0..0;
    }

    /// From now on direct writes are taken, if they are aligned.
    pub fn take_direct(&self) {
        self.state.lock().is_direct = true;
    }

    /// A copy of the folder as it is now, with nothing left to sync.
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

    /// Replaces a file's bytes, durably; makes it if it is not there.
    pub fn set_content(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state.lock();
        let fresh = state.next_file + 1;
        let id = *state.names.entry(name.to_owned()).or_insert(fresh);
        state.next_file = state.next_file.max(id);
        state.durable_names.insert(name.to_owned(), id);
        state.files.insert(id, Content { now: bytes.clone(), durable: bytes, changes: Vec::new() });
    }

    /// Removes a file, durably.
    pub fn lose(&self, name: &str) {
        let mut state = self.state.lock();
        state.names.remove(name);
        state.durable_names.remove(name);
    }
}

/// What is left of a change that was not synced.
fn survive(durable: &mut Vec<u8>, change: Change, random: &mut Random) {
    match random.below(4) {
        // Nothing, or all of it.
        0 => {}
        1 | 2 => apply(durable, &change),
        _ => match change {
            Change::Length(_) => {}
            // Any of its parts.
            Change::Write { at, bytes } => {
                let unit = 1 + random.below(UNIT_BYTES_MAX) as usize;
                for (index, part) in bytes.chunks(unit).enumerate() {
                    if random.once_in(2) {
                        apply(durable, &Change::Write { at: at + index * unit, bytes: part.to_vec() });
                    }
                }
            }
        },
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => content.resize(*length, 0),
        Change::Write { at, bytes } => {
            let end = at + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            if let Some(place) = content.get_mut(*at..end) {
                place.copy_from_slice(bytes);
            }
        }
    }
}

fn apply_name(names: &mut BTreeMap<String, u64>, change: NameChange) {
    match change {
        NameChange::Set(name, id) => {
            names.insert(name, id);
        }
        NameChange::Remove(name) => {
            names.remove(&name);
        }
        NameChange::Rename(from, to) => {
            if let Some(id) = names.remove(&from) {
                names.insert(to, id);
            }
        }
    }
}

/// How far an operation gets.
enum Outcome {
    Done,
    /// A part of it, then this error.
    Partly(u64, io::Error),
}

impl State {
    /// Counts an operation and finds out how it ends.
    fn begin(&mut self, operation: Operation, detail: u64) -> io::Result<Outcome> {
        if self.is_stopped {
            return Err(io::Error::other("the process is over"));
        }
        self.operations += 1;
        let mut digest = Random::new(self.trace ^ (operation as u64) << 60 ^ detail);
        self.trace = digest.any();
        match self.fault {
            Some((at, fault)) if at <= self.operations => {
                self.fault = None;
                self.hits += 1;
                let part = Random::new(self.random ^ self.operations).any();
                Ok(match fault {
                    Fault::Fail(kind) => Outcome::Partly(part, kind.into()),
                    Fault::Stop => {
                        self.is_stopped = true;
                        Outcome::Partly(part, io::Error::other("the process is over"))
                    }
                })
            }
            _ => Ok(Outcome::Done),
        }
    }

    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        match self.begin(Operation::Name, 0)? {
            Outcome::Done => {
                apply_name(&mut self.names, change.clone());
                self.name_changes.push(change);
                Ok(())
            }
            Outcome::Partly(_, error) => Err(error),
        }
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Medium for FakeMedium {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state.lock().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        let id = *self.state.lock().names.get(name).ok_or_else(not_found)?;
        Ok(Arc::new(FakeFile { medium: self.clone(), id, is_direct: false }))
    }

    fn open_direct(&self, name: &str) -> io::Result<Option<Arc<dyn MediumFile>>> {
        let state = self.state.lock();
        let id = *state.names.get(name).ok_or_else(not_found)?;
        let file: Arc<dyn MediumFile> = Arc::new(FakeFile { medium: self.clone(), id, is_direct: true });
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
        drop(state);
        Ok(Arc::new(FakeFile { medium: self.clone(), id, is_direct: false }))
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
            Outcome::Done if state.skips_syncs => {}
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

struct FakeFile {
    medium: FakeMedium,
    id: u64,
    /// Only whole blocks.
    is_direct: bool,
}

/// What is refused as a real medium would.
fn check_aligned(position: u64, pieces: &[(*const u8, usize)]) -> io::Result<()> {
    let is_aligned = |value: usize| value.is_multiple_of(BLOCK_BYTES);
    let holds = pieces.iter().all(|(place, length)| is_aligned(place.addr()) && is_aligned(*length));
    if holds && position.is_multiple_of(BLOCK_BYTES as u64) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not whole blocks"))
}

impl FakeFile {
    fn change(&self, operation: Operation, change: Change) -> io::Result<()> {
        let mut state = self.medium.state.lock();
        let detail = match &change {
            Change::Write { at, bytes } => self.id << 40 ^ *at as u64 ^ (bytes.len() as u64) << 20,
            Change::Length(length) => self.id << 40 ^ *length as u64,
        };
        let outcome = state.begin(operation, detail)?;
        let content = state.files.get_mut(&self.id).ok_or_else(not_found)?;
        let (change, result) = match outcome {
            Outcome::Done => (Some(change), Ok(())),
            Outcome::Partly(part, error) => match change {
                Change::Write { at, mut bytes } => {
                    bytes.truncate((part % (bytes.len() as u64 + 1)) as usize);
                    (Some(Change::Write { at, bytes }), Err(error))
                }
                Change::Length(_) => (None, Err(error)),
            },
        };
        if let Some(change) = change {
            apply(&mut content.now, &change);
            content.changes.push(change);
        }
        result
    }
}

impl MediumFile for FakeFile {
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        if self.is_direct {
            check_aligned(position, &[(into.as_ptr(), into.len())])?;
        }
        let mut state = self.medium.state.lock();
        if state.is_stopped {
            return Err(io::Error::other("the process is over"));
        }
        state.reads += 1;
        if state.read_fault.contains(&state.reads) {
            state.hits += 1;
            return Err(io::Error::other("the medium cannot read this"));
        }
        let content = state.files.get(&self.id).ok_or_else(not_found)?;
        let rest = content.now.get(position as usize..).unwrap_or_default();
        let length = rest.len().min(into.len());
        if let (Some(into), Some(rest)) = (into.get_mut(..length), rest.get(..length)) {
            into.copy_from_slice(rest);
        }
        Ok(length)
    }

    fn write_at(&self, position: u64, pieces: &[io::IoSlice<'_>]) -> io::Result<()> {
        if self.is_direct {
            let places: Vec<_> = pieces.iter().map(|piece| (piece.as_ptr(), piece.len())).collect();
            check_aligned(position, &places)?;
        }
        let mut bytes = Vec::new();
        for piece in pieces {
            bytes.extend_from_slice(piece);
        }
        self.change(Operation::Write, Change::Write { at: position as usize, bytes })
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.medium.state.lock();
        let outcome = state.begin(Operation::Sync, self.id)?;
        let skips = state.skips_syncs;
        let random = state.random;
        let content = state.files.get_mut(&self.id).ok_or_else(not_found)?;
        match outcome {
            Outcome::Done if skips => Ok(()),
            Outcome::Done => {
                for change in std::mem::take(&mut content.changes) {
                    apply(&mut content.durable, &change);
                }
                Ok(())
            }
            Outcome::Partly(part, error) => {
                // Some of it reached the medium, and the rest is forgotten, as kernels do after a failed sync.
                let mut random = Random::new(random ^ part);
                for change in std::mem::take(&mut content.changes) {
                    survive(&mut content.durable, change, &mut random);
                }
                Err(error)
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.medium.state.lock();
        Ok(state.files.get(&self.id).ok_or_else(not_found)?.now.len() as u64)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Operation::Length, Change::Length(length as usize))
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        if self.len()? >= length {
            return Ok(());
        }
        self.set_len(length)
    }
}

impl fmt::Debug for FakeMedium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeMedium")
    }
}

impl fmt::Debug for FakeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FakeFile({})", self.id)
    }
}
