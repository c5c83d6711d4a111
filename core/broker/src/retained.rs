//! Retained values: the last message of an address, for later subscribers.
//!
//! Owns the values in memory and their rows, which agree. Bounded by number and bytes; expired values are left out and
//! deleted in steps.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use inver_storage::batch::{Record, records};
use inver_storage::{Entry, Log, SubmitError};
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::address::{Address, Filter, Form, Step};
use crate::clock::Clock;
use crate::limits::{self, LimitReached, Limits};
use crate::message::expires_ms;
use crate::rows;

/// Addresses visited in one step of a scan, so that a filter with few matches does not delay other work.
const SCAN_STEP_MAX: usize = 4096;

/// Values visited in one step of the search for expired ones.
const SWEEP_STEP_MAX: usize = 16 * 1024;

/// The retained values of a namespace: slashed addresses with batches of one record.
pub struct Retained {
    values: RwLock<Values>,
    /// The last address visited by the search for expired values.
    swept_to: Mutex<Vec<u8>>,
    /// Held from the submission of a change until it is in memory.
    order: Mutex<()>,
    prefix: Vec<u8>,
    clock: Clock,
}

#[derive(Default)]
struct Values {
    by_address: BTreeMap<Vec<u8>, Bytes>,
    /// Bytes of values and addresses.
    bytes: u64,
}

impl Values {
    fn set(&mut self, address: Vec<u8>, value: Option<Bytes>) {
        let address_bytes = address.len() as u64;
        let before = match value {
            Some(value) => {
                self.bytes += address_bytes + value.len() as u64;
                self.by_address.insert(address, value)
            }
            None => self.by_address.remove(&address),
        };
        self.bytes -= before.map_or(0, |before| address_bytes + before.len() as u64);
    }
}

/// Addresses with their values, and the address to go on behind.
pub type RetainedPart = (Vec<(Vec<u8>, Record)>, Option<Vec<u8>>);

/// The continuation of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanFrom(Vec<u8>);

impl Retained {
    pub(crate) fn new(prefix: Vec<u8>, clock: Clock, recovered: Vec<(Vec<u8>, Bytes)>) -> Retained {
        let mut values = Values::default();
        recovered.into_iter().for_each(|(address, value)| values.set(address, Some(value)));
        Retained {
            values: RwLock::new(values),
            swept_to: Mutex::default(),
            order: Mutex::default(),
            prefix,
            clock,
        }
    }

    /// Checks the bounds for a value of `bytes` bytes.
    pub(crate) fn room_for(&self, address: &[u8], bytes: usize, limits: &Limits) -> Result<(), LimitReached> {
        let values = self.values.read();
        let before = values.by_address.get(address).map(|before| (address.len() + before.len()) as u64);
        if before.is_none() {
            limits::check("retained values", values.by_address.len(), limits.retained_values_max)?;
        }
        let after = values.bytes - before.unwrap_or(0) + (address.len() + bytes) as u64;
        let max = limits.retained_bytes_max;
        if after > max { Err(LimitReached { what: "bytes of retained values", max }) } else { Ok(()) }
    }

    /// Deletes expired values among the next [`SWEEP_STEP_MAX`].
    pub(crate) fn expire(&self, log: &Log) -> Result<(), SubmitError> {
        let _order = self.in_order();
        let now_ms = self.clock.steady_ms();
        let mut swept_to = self.swept_to.lock();
        let mut changes = Vec::new();
        let mut last = Vec::new();
        {
            let values = self.values.read();
            let from = Bound::Excluded(swept_to.as_slice());
            let from = if swept_to.is_empty() { Bound::Unbounded } else { from };
            let next = values.by_address.range::<[u8], _>((from, Bound::Unbounded)).take(SWEEP_STEP_MAX);
            let mut count = 0;
            for (address, value) in next {
                count += 1;
                if live_record(value, now_ms).is_none() {
                    changes.push((address.clone(), None));
                }
                if count == SWEEP_STEP_MAX {
                    last.clone_from(address);
                }
            }
        }
        *swept_to = last;
        if changes.is_empty() {
            return Ok(());
        }
        let mut entry = Entry::new();
        self.put_in(&changes, &mut entry);
        log.submit(entry)?;
        self.apply(changes);
        Ok(())
    }

    /// Held around [`put_in`](Self::put_in), the submit and [`apply`](Self::apply), so that memory and log agree on the
    /// order of two values.
    pub(crate) fn in_order(&self) -> MutexGuard<'_, ()> {
        self.order.lock()
    }

    pub(crate) fn put_in(&self, changes: &[(Vec<u8>, Option<Bytes>)], entry: &mut Entry) {
        for (address, value) in changes {
            let key = [&self.prefix[..], address].concat().into();
            match value {
                Some(value) => entry.put(rows::RETAINED, key, value.clone()),
                None => entry.delete(rows::RETAINED, key),
            }
        }
    }

    pub(crate) fn apply(&self, changes: Vec<(Vec<u8>, Option<Bytes>)>) {
        if changes.is_empty() {
            return;
        }
        let mut values = self.values.write();
        for (address, value) in changes {
            values.set(address, value);
        }
    }

    /// Forgets all of them; the keys of their rows, which the caller deletes.
    pub(crate) fn take_keys(&self) -> Vec<Bytes> {
        let _order = self.in_order();
        let values = std::mem::take(&mut *self.values.write());
        values.by_address.into_keys().map(|address| [&self.prefix[..], &address].concat().into()).collect()
    }

    /// The number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.read().by_address.len()
    }

    /// Bytes of the addresses and values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.values.read().bytes
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds to `into` the values whose address the filter matches, at most `max`; expired ones are left out. Returns the
    /// continuation, or none at the end.
    pub fn scan(
        &self,
        filter: &Filter,
        from: Option<&ScanFrom>,
        max: usize,
        into: &mut Vec<Record>,
    ) -> Option<ScanFrom> {
        if from.is_none() {
            // A message routed before the filter was bound is stored after this: see `Publisher::flush`.
            drop(self.in_order());
        }
        let now_ms = self.clock.steady_ms();
        let values = &self.values.read().by_address;
        if let Some(address) = filter.as_address() {
            into.extend(
                values.get(&address.write(Form::Slashed)).and_then(|value| live_record(value, now_ms)),
            );
            return None;
        }
        let prefix = literal_prefix(filter);
        let start = match from {
            Some(ScanFrom(key)) => Bound::Excluded(key.as_slice()),
            None => Bound::Included(prefix.as_slice()),
        };
        let mut found = 0;
        for (visited, (key, value)) in values.range::<[u8], _>((start, Bound::Unbounded)).enumerate() {
            if !key.starts_with(&prefix) {
                return None;
            }
            if filter.matches(&Address::parse(Form::Slashed, key))
                && let Some(record) = live_record(value, now_ms)
            {
                into.push(record);
                found += 1;
            }
            if found >= max || visited >= SCAN_STEP_MAX {
                return Some(ScanFrom(key.clone()));
            }
        }
        None
    }
}

impl Retained {
    /// The addresses that a filter matches and their values, in the order of the addresses, behind the address `after`, at
    /// most `max`; expired values are left out. Visits at most `visited_max` addresses. Returns the address to go on
    /// behind, too; none at the end.
    #[must_use]
    pub fn list(
        &self,
        filter: &Filter,
        after: Option<&[u8]>,
        max: usize,
        visited_max: usize,
    ) -> RetainedPart {
        let now_ms = self.clock.steady_ms();
        let mut found = Vec::new();
        if let Some(address) = filter.as_address() {
            let address = address.write(Form::Slashed);
            let value = self.values.read().by_address.get(&address).and_then(|v| live_record(v, now_ms));
            let behind = after.is_none_or(|after| address.as_slice() > after);
            found.extend(value.filter(|_| behind).map(|record| (address, record)));
            return (found, None);
        }
        let prefix = literal_prefix(filter);
        let (mut last, mut visited) = (after.map(<[u8]>::to_vec), 0);
        loop {
            let values = &self.values.read().by_address;
            let from = last.clone();
            let start = match &from {
                Some(from) if *from >= prefix => Bound::Excluded(from.as_slice()),
                _ => Bound::Included(prefix.as_slice()),
            };
            let step = values.range::<[u8], _>((start, Bound::Unbounded)).take(SCAN_STEP_MAX);
            let (mut seen, mut at) = (0, None);
            for (address, value) in step {
                if !address.starts_with(&prefix) {
                    return (found, None);
                }
                seen += 1;
                at = Some(address);
                if filter.matches(&Address::parse(Form::Slashed, address))
                    && let Some(record) = live_record(value, now_ms)
                {
                    if found.len() >= max {
                        return (found, last);
                    }
                    found.push((address.clone(), record));
                    last = Some(address.clone());
                }
            }
            visited += seen;
            if seen < SCAN_STEP_MAX {
                return (found, None);
            }
            last = at.cloned();
            if visited >= visited_max {
                return (found, last);
            }
        }
    }
}

fn live_record(batch: &Bytes, now_ms: i64) -> Option<Record> {
    let record = records(batch).ok()?.next()?.ok()?;
    expires_ms(&record).is_none_or(|at| at > now_ms).then_some(record)
}

/// The slashed text that every matching address begins with.
fn literal_prefix(filter: &Filter) -> Vec<u8> {
    let literal: Vec<Box<[u8]>> = filter
        .steps()
        .iter()
        .map_while(|s| match s {
            Step::Literal(l) => Some(l.clone()),
            Step::One | Step::Many => None,
        })
        .collect();
    if literal.is_empty() { Vec::new() } else { Address::from_levels(literal).write(Form::Slashed) }
}
