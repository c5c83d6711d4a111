//! State of the medium in memory: files with their synced and unsynced content, names, and scheduled faults.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Condvar;

use super::random::Random;
use crate::medium::FreeSpace;

/// Writes survive in units of at most this size, or whole, or not at all.
const UNIT_BYTES_MAX: u64 = 600;

/// A fault of one future operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails after a part of its work.
    Fail(io::ErrorKind),
    /// The process stops in the middle of the operation: it and every later one fails until the crash or kill.
    Stop,
}

/// A kind of operation that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// A write to a file.
    Write,
    /// A sync of a file or of the folder.
    Sync,
    /// A change of a file's length.
    Length,
    /// A name created, changed or removed.
    Name,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) files: BTreeMap<u64, Content>,
    pub(super) next_file: u64,
    pub(super) names: BTreeMap<String, u64>,
    pub(super) durable_names: BTreeMap<String, u64>,
    pub(super) name_changes: Vec<NameChange>,
    pub(super) is_locked: bool,
    pub(super) operations: u64,
    pub(super) fault: Option<(u64, Fault)>,
    /// Operations and reads that failed as scheduled.
    pub(super) hits: u64,
    pub(super) reads: u64,
    /// Numbers of the reads that fail.
    pub(super) read_fault: Range<u64>,
    /// Reads wait for `reads_released`.
    pub(super) holds_reads: bool,
    pub(super) held_reads: u64,
    pub(super) reads_released: Arc<Condvar>,
    pub(super) is_stopped: bool,
    /// Crashes and kills so far: a file that was opened before the last one is of a process that ended.
    pub(super) life: u64,
    /// Direct writes are supported.
    pub(super) is_direct: bool,
    /// Bytes that files may take in all; none: without a bound.
    pub(super) capacity: Option<u64>,
    pub(super) random: u64,
    pub(super) trace: u64,
}

#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) now: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) changes: Vec<Change>,
}

#[derive(Clone)]
pub(super) enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone)]
pub(super) enum NameChange {
    Set(String, u64),
    Remove(String),
    Rename(String, String),
}

/// Applies the surviving part of a change that was not synced.
pub(super) fn survive(durable: &mut Vec<u8>, change: Change, random: &mut Random) {
    match random.below(4) {
        // Nothing, or everything.
        0 => {}
        1 | 2 => apply(durable, &change),
        _ => match change {
            Change::Length(_) => {}
            // Any of its units.
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

pub(super) fn apply(content: &mut Vec<u8>, change: &Change) {
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

pub(super) fn apply_name(names: &mut BTreeMap<String, u64>, change: NameChange) {
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

/// Outcome of an operation.
pub(super) enum Outcome {
    Done,
    /// A part of the work, then this error.
    Partly(u64, io::Error),
}

impl State {
    /// Counts an operation and decides its outcome.
    pub(super) fn begin(&mut self, operation: Operation, detail: u64) -> io::Result<Outcome> {
        if self.is_stopped {
            return Err(io::Error::other("process stopped"));
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
                        Outcome::Partly(part, io::Error::other("process stopped"))
                    }
                })
            }
            _ => Ok(Outcome::Done),
        }
    }

    /// Bytes that can still be written, and those in all.
    pub(super) fn free_space(&self) -> Option<FreeSpace> {
        let size = self.capacity?;
        let used: u64 = (self.names.values())
            .filter_map(|id| self.files.get(id))
            .map(|content| content.now.len() as u64)
            .sum();
        Some(FreeSpace { free: size.saturating_sub(used), size })
    }

    /// Rejects the growth of a file beyond the capacity.
    pub(super) fn check_space(&self, file: u64, end: u64) -> io::Result<()> {
        let length = self.files.get(&file).map_or(0, |content| content.now.len() as u64);
        match self.free_space() {
            Some(space) if end.saturating_sub(length) > space.free => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn change_name(&mut self, change: NameChange) -> io::Result<()> {
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

pub(super) fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}
