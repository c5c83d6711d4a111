//! Retained values: the last message of an address, for those who subscribe later.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use inver_storage::Entry;
use inver_storage::batch::{Record, records};
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::address::{Address, Filter, Form, Step};
use crate::catalog;
use crate::clock::now_ms;
use crate::message::expires_ms;

/// Addresses looked at in one step of a scan, so that a filter that matches little does not hold up others.
const SCAN_STEP_MAX: usize = 4096;

/// The table. Keys are slashed addresses, values batches of one record.
pub struct Retained {
    values: RwLock<BTreeMap<Vec<u8>, Bytes>>,
    /// Held from the log's order being fixed until memory has it.
    order: Mutex<()>,
    prefix: Vec<u8>,
}

/// Where a scan goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanFrom(Vec<u8>);

impl Retained {
    pub(crate) fn new(prefix: Vec<u8>, recovered: Vec<(Vec<u8>, Bytes)>) -> Retained {
        Retained { values: RwLock::new(recovered.into_iter().collect()), order: Mutex::default(), prefix }
    }

    /// Taken around [`put_in`](Self::put_in), the submit and [`apply`](Self::apply), so that memory and log
    /// agree on which of two values was the last.
    pub(crate) fn in_order(&self) -> MutexGuard<'_, ()> {
        self.order.lock()
    }

    pub(crate) fn put_in(&self, changes: &[(Vec<u8>, Option<Bytes>)], entry: &mut Entry) {
        for (address, value) in changes {
            let key = [&self.prefix[..], address].concat().into();
            match value {
                Some(value) => entry.put(catalog::RETAINED, key, value.clone()),
                None => entry.delete(catalog::RETAINED, key),
            }
        }
    }

    pub(crate) fn apply(&self, changes: Vec<(Vec<u8>, Option<Bytes>)>) {
        if changes.is_empty() {
            return;
        }
        let mut values = self.values.write();
        for (address, value) in changes {
            match value {
                Some(value) => values.insert(address, value),
                None => values.remove(&address),
            };
        }
    }

    /// How many addresses have a value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.read().len()
    }

    /// Whether none has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values whose address the filter matches, at most `max` more into `into`; expired ones are left out.
    /// Returns where to go on, or none at the end.
    pub fn scan(
        &self,
        filter: &Filter,
        from: Option<&ScanFrom>,
        max: usize,
        into: &mut Vec<Record>,
    ) -> Option<ScanFrom> {
        let values = self.values.read();
        if let Some(address) = filter.as_address() {
            into.extend(values.get(&address.write(Form::Slashed)).and_then(alive));
            return None;
        }
        let prefix = literal_prefix(filter);
        let start = match from {
            Some(ScanFrom(key)) => Bound::Excluded(key.as_slice()),
            None => Bound::Included(prefix.as_slice()),
        };
        let mut found = 0;
        for (looked_at, (key, value)) in values.range::<[u8], _>((start, Bound::Unbounded)).enumerate() {
            if !key.starts_with(&prefix) {
                return None;
            }
            if filter.matches(&Address::parse(Form::Slashed, key))
                && let Some(record) = alive(value)
            {
                into.push(record);
                found += 1;
            }
            if found >= max || looked_at >= SCAN_STEP_MAX {
                return Some(ScanFrom(key.clone()));
            }
        }
        None
    }
}

fn alive(batch: &Bytes) -> Option<Record> {
    let record = records(batch).ok()?.next()?.ok()?;
    expires_ms(&record).is_none_or(|at| at > now_ms()).then_some(record)
}

/// The slashed text that every match begins with.
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
