//! KeyShared: which consumer owns which keys.
//!
//! The hash of a key falls into one of a fixed number of ranges, and each range elects a consumer (rendezvous hashing): one
//! that attaches or leaves moves only its own keys. Beyond a few consumers the elections are kept, so that a message costs
//! the same whatever the number of consumers; a change costs as much as there are ranges.

use std::cell::Cell;
use std::collections::BTreeSet;

use bytes::Bytes;
use inver_storage::batch::Record;
use rustc_hash::FxHashMap;

use super::slots::SlotId;

/// Messages taken out of their order for consumers that did not pull yet.
pub(super) const ASSIGNED_MESSAGES_MAX: usize = 1024;

/// Bytes of an assigned record that is copied. A larger one is read again instead: a copy keeps no batch in memory, and all
/// copies together take four megabytes.
const COPY_BYTES_MAX: usize = 4096;

/// Ranges of keys: a consumer among a thousand owns sixteen of them.
const RANGES: usize = 1 << 14;

/// So many consumers are asked one by one.
const FEW: usize = 8;

/// The consumer that holds messages of a key, or has them assigned, and how many.
#[derive(Default)]
pub(super) struct KeyOwners {
    owners: FxHashMap<u64, (SlotId, usize)>,
    elected: Elected,
    /// Messages assigned to consumers that did not pull them yet.
    pub(super) assigned: usize,
}

impl KeyOwners {
    pub(super) fn owner(&self, key: u64) -> Option<SlotId> {
        self.owners.get(&key).map(|(slot, _)| *slot)
    }

    /// The consumer that is elected for a key nobody has messages of.
    pub(super) fn elect(&self, key: u64) -> Option<SlotId> {
        self.elected.of(range_of(key))
    }

    /// A consumer attaches.
    pub(super) fn join(&mut self, slot: SlotId) {
        self.elected.join(slot);
    }

    /// A consumer leaves.
    pub(super) fn leave(&mut self, slot: SlotId) {
        self.elected.leave(slot);
    }

    /// Counts one more message of this key for a consumer.
    pub(super) fn claim(&mut self, key: u64, slot: SlotId) {
        let owner = self.owners.entry(key).or_insert((slot, 0));
        if owner.0 != slot {
            // The previous owner stopped pulling and still holds some.
            *owner = (slot, 0);
        }
        owner.1 += 1;
    }

    /// Counts one message less.
    pub(super) fn release(&mut self, key: u64, slot: SlotId) {
        if let Some(owner) = self.owners.get_mut(&key)
            && owner.0 == slot
        {
            owner.1 -= 1;
            if owner.1 == 0 {
                self.owners.remove(&key);
            }
        }
    }
}

/// A record's key as a number. Keys that share a number share an owner.
pub(super) fn key_of(record: &Record) -> u64 {
    use std::hash::{BuildHasher, BuildHasherDefault};
    let hasher = BuildHasherDefault::<rustc_hash::FxHasher>::default();
    hasher.hash_one(record.key.as_deref().unwrap_or_default())
}

/// A copy of a small record.
pub(super) fn copy_of(record: &Record) -> Option<Record> {
    let parts = [record.key.as_deref(), record.value.as_deref(), Some(&record.headers)];
    if parts.iter().flatten().map(|part| part.len()).sum::<usize>() > COPY_BYTES_MAX {
        return None;
    }
    let bytes = Bytes::from(parts.map(Option::unwrap_or_default).concat());
    let mut at = 0;
    let [key, value, headers] = parts.map(|part| {
        let part = part.map(|part| bytes.slice(at..at + part.len()));
        at += part.as_ref().map_or(0, Bytes::len);
        part
    });
    Some(Record { key, value, headers: headers.unwrap_or_default(), ..record.clone() })
}

fn range_of(key: u64) -> usize {
    (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - RANGES.trailing_zeros())) as usize
}

/// In the place of a range's consumer: it has to elect one.
const NOBODY: SlotId = SlotId::MAX;

/// The consumers, and whom each range elects.
#[derive(Default)]
struct Elected {
    slots: BTreeSet<SlotId>,
    /// By range; empty while the consumers are few. The ranges of one that left elect again when they are asked: a thousand
    /// that leave at once cost no thousand elections each.
    by_range: Vec<Cell<SlotId>>,
}

impl Elected {
    fn of(&self, range: usize) -> Option<SlotId> {
        let Some(owner) = self.by_range.get(range) else { return elect(range, &self.slots) };
        if owner.get() == NOBODY {
            owner.set(elect(range, &self.slots)?);
        }
        Some(owner.get())
    }

    fn join(&mut self, slot: SlotId) {
        self.slots.insert(slot);
        if self.by_range.is_empty() {
            if self.slots.len() > FEW {
                self.by_range = vec![Cell::new(NOBODY); RANGES];
            }
            return;
        }
        for (range, owner) in self.by_range.iter_mut().enumerate() {
            let before = owner.get_mut();
            if *before != NOBODY && rank(range, slot) > rank(range, *before) {
                *before = slot;
            }
        }
    }

    fn leave(&mut self, slot: SlotId) {
        if !self.slots.remove(&slot) {
            return;
        }
        if self.slots.len() <= FEW {
            self.by_range = Vec::new();
        }
        let own = self.by_range.iter_mut().filter(|owner| owner.get() == slot);
        own.for_each(|owner| owner.set(NOBODY));
    }
}

fn elect(range: usize, slots: &BTreeSet<SlotId>) -> Option<SlotId> {
    slots.iter().copied().max_by_key(|slot| rank(range, *slot))
}

/// The greatest is elected.
fn rank(range: usize, slot: SlotId) -> (u64, SlotId) {
    let mixed = (range as u64 ^ slot.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    ((mixed ^ mixed >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 32, slot)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use inver_storage::batch::{BatchBuilder, records};

    use super::*;

    fn owners(elected: &Elected) -> Vec<Option<SlotId>> {
        (0..RANGES).map(|range| elected.of(range)).collect()
    }

    /// What each range elects when all are asked.
    fn asked(elected: &Elected) -> Vec<Option<SlotId>> {
        (0..RANGES).map(|range| elect(range, &elected.slots)).collect()
    }

    #[test]
    fn kept_elections_are_those_of_all_consumers() {
        let mut elected = Elected::default();
        assert_eq!(elected.of(0), None);
        for slot in 0..40 {
            elected.join(slot);
        }
        assert_eq!(owners(&elected), asked(&elected));
        for slot in [3, 39, 0, 17] {
            let before = owners(&elected);
            elected.leave(slot);
            assert_eq!(owners(&elected), asked(&elected));
            let moved = before.iter().zip(owners(&elected)).filter(|(before, after)| **before != *after);
            assert!(moved.into_iter().all(|(before, _)| *before == Some(slot)), "only its own move");
        }
        (0..36).for_each(|slot| elected.leave(slot));
        assert!(elected.by_range.is_empty(), "few are asked one by one");
        assert_eq!(owners(&elected), asked(&elected));
    }

    #[test]
    fn a_copy_of_a_small_record_is_equal_and_keeps_no_batch() {
        let mut builder = BatchBuilder::new(0);
        builder.push(7, Some(b"key"), &[(b"h", Some(b"1"))], Some(b"value"));
        builder.push(7, None, &[], None);
        builder.push(7, None, &[], Some(&[0; COPY_BYTES_MAX + 1]));
        let all: Vec<Record> = records(builder.finish().bytes()).unwrap().map(Result::unwrap).collect();
        for record in &all[..2] {
            let copy = copy_of(record).unwrap();
            assert_eq!(
                (&copy.key, &copy.value, &copy.headers),
                (&record.key, &record.value, &record.headers)
            );
            assert_eq!((copy.header_count, copy.timestamp_ms), (record.header_count, record.timestamp_ms));
            assert!(copy.value.is_none_or(|copy| copy.as_ptr() != record.value.as_ref().unwrap().as_ptr()));
        }
        assert!(copy_of(&all[2]).is_none());
    }

    #[test]
    fn a_thousand_consumers_are_not_asked_one_by_one() {
        let mut owners = KeyOwners::default();
        (0..1000).for_each(|slot| owners.join(slot));
        assert_eq!(owners.elected.by_range.len(), RANGES, "every range has elected");
        let mut keys: HashMap<SlotId, usize> = HashMap::new();
        for range in 0..RANGES {
            *keys.entry(owners.elected.of(range).unwrap()).or_default() += 1;
        }
        let (least, most) = (keys.values().min().unwrap(), keys.values().max().unwrap());
        assert!(keys.len() == 1000 && *least >= 3 && *most <= 40, "shares of {least} to {most}");
    }
}
