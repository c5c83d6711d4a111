//! The account of the memory that clients make grow, and the gate that it shuts.
//!
//! A layer that keeps bytes for a client draws them from here, in steps: small amounts are free, and what changes within a step
//! touches no shared counter. Above [`SHUT_PERCENT`] of the limit publishers wait at the gate, so that what they hold goes
//! away. At the limit of a share a holder of at least its part is refused more, which one of them always is; those that come
//! late may have their part of it above that limit, as far as there is memory in all.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::gate::{Gate, Shortage};

/// Part of the limit above which publishers are held back.
const SHUT_PERCENT: usize = 80;
/// Part of the limit below which they go on.
const OPEN_PERCENT: usize = 70;
/// What a holder draws and gives back at a time; up to one step is free.
const STEP_BYTES: usize = 64 << 10;

/// What memory is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Beginnings of messages and requests whose rest has not come.
    Input,
    /// Messages of transactions that are not committed.
    Transactions,
    /// Messages of queues in memory, those of sessions included.
    Queues,
    /// Members of consumer groups.
    Groups,
    /// Texts with committed offsets.
    Offsets,
}

impl Share {
    /// All of them.
    pub const ALL: [Share; 5] = [Self::Input, Self::Transactions, Self::Queues, Self::Groups, Self::Offsets];

    /// The most of the limit that one share takes, in percent: none takes what others need.
    const fn percent(self) -> usize {
        match self {
            Self::Input => 40,
            Self::Transactions | Self::Queues => 25,
            Self::Groups | Self::Offsets => 10,
        }
    }

    /// The name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Transactions => "transactions",
            Self::Queues => "queues",
            Self::Groups => "groups",
            Self::Offsets => "offsets",
        }
    }
}

/// There is no more memory for this holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("memory is used up (memory.limit)")]
pub struct NoMemory;

/// The account.
pub struct Memory {
    limit: usize,
    used: [AtomicUsize; Share::ALL.len()],
    total: AtomicUsize,
    /// Holders that have drawn anything, by share.
    holders: [AtomicUsize; Share::ALL.len()],
    gate: Arc<Gate>,
}

impl Memory {
    /// An empty account of so many bytes.
    #[must_use]
    pub fn new(limit: usize, gate: Arc<Gate>) -> Arc<Memory> {
        Arc::new(Memory {
            limit,
            used: Default::default(),
            total: AtomicUsize::new(0),
            holders: Default::default(),
            gate,
        })
    }

    /// Bytes that are held for this.
    #[must_use]
    pub fn used(&self, share: Share) -> usize {
        self.of(&self.used, share).load(Ordering::Relaxed)
    }

    /// Bytes that may be held for this.
    #[must_use]
    pub fn limit(&self, share: Share) -> usize {
        self.limit / 100 * share.percent()
    }

    /// Bytes that are held in all, and that may be.
    #[must_use]
    pub fn total(&self) -> (usize, usize) {
        (self.total.load(Ordering::Relaxed), self.limit)
    }

    /// Whether more than its limit is held for this.
    #[must_use]
    pub fn is_over(&self, share: Share) -> bool {
        self.used(share) > self.limit(share)
    }

    /// A holder that has drawn nothing.
    #[must_use]
    pub fn holder(self: &Arc<Self>, share: Share) -> Held {
        Held { memory: self.clone(), share, drawn: 0 }
    }

    fn of<'a, T>(&self, all: &'a [T; Share::ALL.len()], share: Share) -> &'a T {
        // The array has a place for each.
        &all[share as usize]
    }

    fn draw(&self, share: Share, bytes: usize) {
        self.of(&self.used, share).fetch_add(bytes, Ordering::Relaxed);
        let total = self.total.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if total > self.limit / 100 * SHUT_PERCENT && self.gate.set(Shortage::Memory, true) {
            tracing::warn!(total, limit = self.limit, "memory is low: publishers are held back");
        }
    }

    fn give_back(&self, share: Share, bytes: usize) {
        self.of(&self.used, share).fetch_sub(bytes, Ordering::Relaxed);
        let total = self.total.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        if total < self.limit / 100 * OPEN_PERCENT && self.gate.set(Shortage::Memory, false) {
            tracing::info!(total, limit = self.limit, "memory is free again: publishers go on");
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Memory").field(&self.total()).finish()
    }
}

/// Memory that somebody holds. Gives back what it has drawn when it is dropped.
#[derive(Debug)]
pub struct Held {
    memory: Arc<Memory>,
    share: Share,
    drawn: usize,
}

impl Held {
    /// Holds so many bytes from now on. Fails if that is more than before, the share is used up, and this holder has its
    /// part of it or all memory is used up; then it holds what it held.
    pub fn set(&mut self, bytes: usize) -> Result<(), NoMemory> {
        let wanted = if bytes <= STEP_BYTES { 0 } else { bytes.next_multiple_of(STEP_BYTES) };
        if wanted > self.drawn {
            let more = wanted - self.drawn;
            let (used, limit) = (self.memory.used(self.share) + more, self.memory.limit(self.share));
            let has_its_part = wanted >= limit / self.holders().max(1);
            let (total, most) = self.memory.total();
            if used > limit && (has_its_part || total + more > most) {
                return Err(NoMemory);
            }
        }
        self.force(bytes);
        Ok(())
    }

    /// Holds so many bytes from now on, whatever the limit.
    pub fn force(&mut self, bytes: usize) {
        let wanted = if bytes <= STEP_BYTES { 0 } else { bytes.next_multiple_of(STEP_BYTES) };
        if wanted == self.drawn {
            return;
        }
        let holders = self.memory.of(&self.memory.holders, self.share);
        if self.drawn == 0 {
            holders.fetch_add(1, Ordering::Relaxed);
        } else if wanted == 0 {
            holders.fetch_sub(1, Ordering::Relaxed);
        }
        if wanted > self.drawn {
            self.memory.draw(self.share, wanted - self.drawn);
        } else {
            self.memory.give_back(self.share, self.drawn - wanted);
        }
        self.drawn = wanted;
    }

    fn holders(&self) -> usize {
        self.memory.of(&self.memory.holders, self.share).load(Ordering::Relaxed)
            + usize::from(self.drawn == 0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.force(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn account() -> (Arc<Memory>, Arc<Gate>) {
        let gate = Arc::new(Gate::default());
        (Memory::new(100 * MIB, gate.clone()), gate)
    }

    #[test]
    fn small_amounts_are_free_and_others_are_drawn_in_steps() {
        let (memory, _) = account();
        let mut held = memory.holder(Share::Input);
        held.set(STEP_BYTES).unwrap();
        assert_eq!(memory.used(Share::Input), 0);
        held.set(STEP_BYTES + 1).unwrap();
        assert_eq!(memory.used(Share::Input), 2 * STEP_BYTES);
        held.set(2 * STEP_BYTES).unwrap();
        assert_eq!(memory.total().0, 2 * STEP_BYTES);
        drop(held);
        assert_eq!((memory.used(Share::Input), memory.total().0), (0, 0));
    }

    #[test]
    fn publishers_are_held_back_near_the_limit() {
        let (memory, gate) = account();
        let mut holders: Vec<Held> = Share::ALL.iter().map(|share| memory.holder(*share)).collect();
        holders.iter_mut().for_each(|held| held.force(15 * MIB));
        assert_eq!(gate.shortage(), None, "{memory:?}");
        holders[0].force(21 * MIB);
        assert_eq!(gate.shortage(), Some(Shortage::Memory), "{memory:?}");
        holders[0].force(15 * MIB);
        assert_eq!(gate.shortage(), Some(Shortage::Memory), "within the hysteresis");
        holders.truncate(4);
        assert_eq!(gate.shortage(), None);
    }

    #[test]
    fn who_holds_its_part_of_a_used_up_share_is_refused_more() {
        let (memory, _) = account();
        let (mut large, mut small) = (memory.holder(Share::Input), memory.holder(Share::Input));
        large.set(39 * MIB).unwrap();
        small.set(MIB).unwrap();
        assert_eq!(large.set(40 * MIB), Err(NoMemory));
        assert_eq!(memory.used(Share::Input), 40 * MIB);
        small.set(2 * MIB).unwrap();
        drop(large);
        small.set(40 * MIB).unwrap();
        assert_eq!(small.set(41 * MIB), Err(NoMemory), "alone it has all of it");
    }

    #[test]
    fn somebody_is_always_refused_at_the_limit() {
        let (memory, _) = account();
        let mut holders: Vec<Held> = (0..100).map(|_| memory.holder(Share::Input)).collect();
        let mut refused = 0;
        for bytes in (1..=16).map(|mib| mib * MIB) {
            holders.retain_mut(|held| held.set(bytes).is_ok());
            refused = 100 - holders.len();
            assert!(memory.used(Share::Input) <= memory.limit(Share::Input) + 2 * MIB, "{memory:?}");
        }
        assert!(refused > 0 && !holders.is_empty(), "{refused}");
    }

    #[test]
    fn those_that_come_late_are_refused_at_the_limit_of_all_memory() {
        let (memory, _) = account();
        let mut holders = Vec::new();
        for _ in 0..100 {
            let mut held = memory.holder(Share::Input);
            (1..=16).take_while(|mib| held.set(mib * MIB).is_ok()).count();
            holders.push(held);
        }
        assert!(memory.total().0 > memory.limit(Share::Input), "{memory:?}");
        assert!(memory.total().0 <= 100 * MIB, "{memory:?}");
    }
}
