//! KeyShared: which consumer owns which keys.

use inver_storage::batch::Record;
use rustc_hash::FxHashMap;

use super::slots::SlotId;

/// Messages taken out of their order for consumers that did not pull yet.
pub(super) const ASSIGNED_MESSAGES_MAX: usize = 1024;

/// The consumer that holds messages of a key, or has them assigned, and how many.
#[derive(Default)]
pub(super) struct KeyOwners {
    owners: FxHashMap<u64, (SlotId, usize)>,
    /// Messages assigned to consumers that did not pull them yet.
    pub(super) assigned: usize,
}

impl KeyOwners {
    pub(super) fn owner(&self, key: u64) -> Option<SlotId> {
        self.owners.get(&key).map(|(slot, _)| *slot)
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

/// The owner by the key alone (rendezvous hashing): a consumer that attaches or leaves moves only its own keys.
pub(super) fn elect(key: u64, slots: impl Iterator<Item = SlotId>) -> Option<SlotId> {
    let weight = |slot: SlotId| {
        let mixed = (key ^ slot.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        mixed.rotate_left(32)
    };
    slots.max_by_key(|slot| weight(*slot))
}
