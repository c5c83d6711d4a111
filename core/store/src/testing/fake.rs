//! A store in memory that is busy, undecided, loses answers and does things late, as its seed says.

use std::collections::BTreeMap;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::error::StoreError;
use crate::key;
use crate::store::{Listed, PAGE_OBJECTS_MAX, Page, Store, behind_the_end, check_range};

/// Calls after which the latest change that was not answered is made.
const LATE_CALLS_MAX: u64 = 20;

/// How many of a hundred calls fail, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Calls that a busy store does not carry out (S3's 503).
    pub busy: u64,
    /// Creates that the store leaves undecided, and does not carry out (S3's 409).
    pub conflict: u64,
    /// Changes that are made and not answered.
    pub lost: u64,
    /// Changes that are not answered, and made after some later calls.
    pub late: u64,
    /// Changes that are neither made nor answered.
    pub never: u64,
}

/// What a store does wrong, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// A create replaces an object that exists.
    CreateReplaces,
    /// A create that is refused deletes the object.
    RefusedCreateDeletes,
    /// A list does not show the newest object.
    ListIsBehind,
    /// A list does not begin behind the name that it is asked for.
    ListFromTheStart,
    /// A range is read from its start to the object's end.
    RangeToTheEnd,
    /// A deleted object stays.
    DeleteKeeps,
}

#[derive(Clone)]
enum Change {
    Put(String, Bytes),
    Create(String, Bytes),
    Delete(String),
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    newest: Option<String>,
    /// Changes with the number of the call after which they are made.
    late: Vec<(u64, Change)>,
    calls: u64,
    random: u64,
}

/// A store in memory.
pub struct Fake {
    faults: Faults,
    defect: Option<Defect>,
    state: Mutex<State>,
}

impl Fake {
    /// A store with faults; the order of calls and the seed decide which of them fail.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Fake {
        Fake { faults, defect: None, state: Mutex::new(State { random: seed, ..State::default() }) }
    }

    /// A store without faults that does one thing wrong.
    #[must_use]
    pub fn with_defect(defect: Defect) -> Fake {
        Fake { defect: Some(defect), ..Fake::new(0, Faults::default()) }
    }

    /// Makes all changes that are late.
    pub fn settle(&self) {
        let mut state = self.state.lock();
        state.calls += LATE_CALLS_MAX;
        state.make_late_changes(self.defect);
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut state = self.state.lock();
        let chance = state.begin(self.defect);
        if chance < self.faults.busy { Err(busy()) } else { read(&state) }
    }

    fn change(&self, change: Change) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let mut chance = state.begin(self.defect);
        let mut is = |percent: u64| {
            let is = chance < percent;
            chance = chance.wrapping_sub(percent);
            is
        };
        let Faults { busy: is_busy, conflict, lost, late, never } = self.faults;
        if is(is_busy) {
            return Err(busy());
        }
        if is(conflict) && matches!(change, Change::Create(..)) {
            return Err(StoreError::Conflict("409 ConditionalRequestConflict".into()));
        }
        if is(lost) {
            // An answer that says no is lost as well.
            let _ = state.make(change, self.defect);
            return Err(StoreError::Unknown("the answer was lost".into()));
        }
        if is(late) {
            let after = state.calls + 1 + state.below(LATE_CALLS_MAX);
            state.late.push((after, change));
            return Err(StoreError::Unknown("the request is late".into()));
        }
        if is(never) {
            return Err(StoreError::Unknown("the request was lost".into()));
        }
        state.make(change, self.defect)
    }
}

fn busy() -> StoreError {
    StoreError::Again("503 SlowDown".into())
}

impl State {
    /// Begins a call: makes the changes that are due, and gives a number below 100.
    fn begin(&mut self, defect: Option<Defect>) -> u64 {
        self.calls += 1;
        self.make_late_changes(defect);
        self.below(100)
    }

    fn make_late_changes(&mut self, defect: Option<Defect>) {
        let (due, late) =
            std::mem::take(&mut self.late).into_iter().partition(|(after, _)| *after <= self.calls);
        self.late = late;
        let due: Vec<(u64, Change)> = due;
        for (_, change) in due {
            // A late create that finds an object changes nothing.
            let _ = self.make(change, defect);
        }
    }

    /// A random number below `end` (SplitMix64).
    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn make(&mut self, change: Change, defect: Option<Defect>) -> Result<(), StoreError> {
        match change {
            Change::Create(key, _)
                if defect != Some(Defect::CreateReplaces) && self.objects.contains_key(&key) =>
            {
                if defect == Some(Defect::RefusedCreateDeletes) {
                    self.objects.remove(&key);
                }
                return Err(StoreError::AlreadyExists);
            }
            Change::Put(key, body) | Change::Create(key, body) => {
                self.newest = Some(key.clone());
                self.objects.insert(key, body);
            }
            Change::Delete(_) if defect == Some(Defect::DeleteKeeps) => {}
            Change::Delete(key) => {
                self.objects.remove(&key);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Fake {
    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        key::check(key)?;
        self.read(|state| state.objects.get(key).cloned().ok_or(StoreError::NotFound))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        key::check(key)?;
        check_range(&range)?;
        self.read(|state| {
            let object = state.objects.get(key).ok_or(StoreError::NotFound)?;
            let bytes = object.len() as u64;
            if range.start >= bytes {
                return Err(behind_the_end(&range, bytes));
            }
            let end = if self.has(Defect::RangeToTheEnd) { bytes } else { range.end.min(bytes) };
            Ok(object.slice(range.start as usize..end as usize))
        })
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        key::check(key)?;
        self.change(Change::Put(key.to_owned(), body))
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        key::check(key)?;
        self.change(Change::Create(key.to_owned(), body))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        key::check_prefix(prefix)?;
        let limit = limit.clamp(1, PAGE_OBJECTS_MAX);
        self.read(|state| {
            let after = after.filter(|_| !self.has(Defect::ListFromTheStart));
            let hidden = state.newest.as_ref().filter(|_| self.has(Defect::ListIsBehind));
            let mut found: Vec<Listed> = state
                .objects
                .iter()
                .filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after))
                .filter(|(key, _)| Some(*key) != hidden)
                .take(limit + 1)
                .map(|(key, body)| Listed { key: key.clone(), bytes: body.len() as u64 })
                .collect();
            let has_more = found.len() > limit;
            found.truncate(limit);
            Ok(Page { objects: found, has_more })
        })
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        key::check(key)?;
        self.change(Change::Delete(key.to_owned()))
    }
}
