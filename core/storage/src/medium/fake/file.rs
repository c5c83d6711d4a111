//! A file of the medium in memory.

use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::random::Random;
use super::state::{Change, Operation, Outcome, State, apply, not_found, survive};
use crate::medium::{BLOCK_BYTES, MediumFile};

pub(super) struct FakeFile {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) id: u64,
    /// The life of the process that opened it.
    pub(super) life: u64,
    /// Accepts whole blocks only.
    pub(super) is_direct: bool,
}

/// Rejects unaligned access, as a real medium does.
fn check_aligned(position: u64, pieces: &[(*const u8, usize)]) -> io::Result<()> {
    let is_aligned = |value: usize| value.is_multiple_of(BLOCK_BYTES);
    let holds = pieces.iter().all(|(place, length)| is_aligned(place.addr()) && is_aligned(*length));
    if holds && position.is_multiple_of(BLOCK_BYTES as u64) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not whole blocks"))
}

impl FakeFile {
    /// The state, while the process that opened the file lives.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock();
        if state.is_stopped || state.life != self.life {
            return Err(io::Error::other("process stopped"));
        }
        Ok(state)
    }

    fn change(&self, operation: Operation, change: Change) -> io::Result<()> {
        let mut state = self.state()?;
        let detail = match &change {
            Change::Write { at, bytes } => self.id << 40 ^ *at as u64 ^ (bytes.len() as u64) << 20,
            Change::Length(length) => self.id << 40 ^ *length as u64,
        };
        let end = match &change {
            Change::Write { at, bytes } => at + bytes.len(),
            Change::Length(length) => *length,
        };
        state.check_space(self.id, end as u64)?;
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
        let mut state = self.state()?;
        let released = state.reads_released.clone();
        while state.holds_reads {
            state.held_reads += 1;
            released.wait(&mut state);
            state.held_reads -= 1;
        }
        state.reads += 1;
        if state.read_fault.contains(&state.reads) {
            state.hits += 1;
            return Err(io::Error::other("read failed as scheduled"));
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
        let mut state = self.state()?;
        let outcome = state.begin(Operation::Sync, self.id)?;
        let random = state.random;
        let content = state.files.get_mut(&self.id).ok_or_else(not_found)?;
        match outcome {
            Outcome::Done => {
                for change in std::mem::take(&mut content.changes) {
                    apply(&mut content.durable, &change);
                }
                Ok(())
            }
            Outcome::Partly(part, error) => {
                // A part reached the medium; the rest is marked as clean and lost, as kernels do after a failed sync.
                let mut random = Random::new(random ^ part);
                for change in std::mem::take(&mut content.changes) {
                    survive(&mut content.durable, change, &mut random);
                }
                Err(error)
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.state.lock();
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

impl fmt::Debug for FakeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FakeFile({})", self.id)
    }
}
