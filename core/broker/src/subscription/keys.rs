//! KeyShared: which consumer has which keys.

use inver_storage::batch::Record;
use rustc_hash::FxHashMap;

use super::slots::SlotId;

/// Messages taken out of their order for consumers that did not ask yet.
pub(super) const AHEAD_MESSAGES_MAX: usize = 1024;

/// Who has messages of a key in hand, or set aside, and how many.
#[derive(Default)]
pub(super) struct Keys {
    owners: FxHashMap<u64, (SlotId, usize)>,
    /// Messages set aside, in all.
    pub(super) ahead: usize,
}

impl Keys {
    pub(super) fn owner(&self, key: u64) -> Option<SlotId> {
        self.owners.get(&key).map(|(slot, _)| *slot)
    }

    /// One more message of this key is a consumer's.
    pub(super) fn claim(&mut self, key: u64, slot: SlotId) {
        let owner = self.owners.entry(key).or_insert((slot, 0));
        if owner.0 != slot {
            // The one before took no more messages and still holds some.
            *owner = (slot, 0);
        }
        owner.1 += 1;
    }

    /// One message less.
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

/// A record's key, as a number. Two keys of one number go the same way.
pub(super) fn key_of(record: &Record) -> u64 {
    use std::hash::{BuildHasher, BuildHasherDefault};
    let hasher = BuildHasherDefault::<rustc_hash::FxHasher>::default();
    hasher.hash_one(record.key.as_deref().unwrap_or_default())
}

/// Whose turn it is by the key alone. Rendezvous hashing: a consumer that comes or goes moves only its own keys.
pub(super) fn elect(key: u64, slots: impl Iterator<Item = SlotId>) -> Option<SlotId> {
    let weight = |slot: SlotId| {
        let mixed = (key ^ slot.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        mixed.rotate_left(32)
    };
    slots.max_by_key(|slot| weight(*slot))
}
