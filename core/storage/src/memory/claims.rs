//! The accounts of all connections, and which of them end when memory is low.
//!
//! First the parties are found that hold at least their part of what is held: users, or networks of clients without one. Of
//! their accounts those that hold at least half the average end, those first that hold most for longest (bytes × time), until
//! enough is free. A party or an account that holds less is left alone while there are such.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::Share;
use super::account::{Claim, ENDED_FOR};

/// Bounds of the time for which an account counts as holding what it holds.
const AGE_MS: (u64, u64) = (100, 60_000);

/// The accounts.
#[derive(Default)]
pub(super) struct Claims {
    all: Mutex<HashMap<u64, Arc<Claim>>>,
    last_id: AtomicU64,
    /// Accounts that hold anything that they are ended for.
    counted: AtomicUsize,
    /// Bytes of accounts that were told to end and have not, by share.
    leaving: [AtomicUsize; ENDED_FOR.len()],
}

impl Claims {
    pub(super) fn enter(&self, claim: &Arc<Claim>) -> u64 {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed);
        self.all.lock().insert(id, claim.clone());
        id
    }

    pub(super) fn leave(&self, id: u64) {
        let mut all = self.all.lock();
        let Some(claim) = all.remove(&id) else { return };
        for (leaving, bytes) in self.leaving.iter().zip(claim.leaving()) {
            leaving.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn count(&self, holds: bool) {
        if holds {
            self.counted.fetch_add(1, Ordering::Relaxed);
        } else {
            self.counted.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn counted(&self) -> usize {
        self.counted.load(Ordering::Relaxed)
    }

    /// Bytes that leave with accounts that were told to end.
    pub(super) fn leaving_bytes(&self, of: Option<Share>) -> usize {
        let leaving = ENDED_FOR.iter().zip(&self.leaving);
        leaving
            .filter(|(share, _)| of.is_none_or(|of| of == **share))
            .map(|(_, b)| b.load(Ordering::Relaxed))
            .sum()
    }

    /// The accounts, unless somebody else looks at them now.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, HashMap<u64, Arc<Claim>>>> {
        self.all.try_lock()
    }

    /// Tells accounts to end until so many bytes of a share, or of all, leave.
    pub(super) fn evict(
        &self,
        all: &HashMap<u64, Arc<Claim>>,
        of: Option<Share>,
        bytes: usize,
        now_ms: u64,
    ) -> Vec<Arc<Claim>> {
        let candidates = all.values().filter(|claim| !claim.is_evicted()).filter_map(|claim| {
            let bytes = claim.bytes(of);
            let age_ms = now_ms.saturating_sub(claim.since_ms()).clamp(AGE_MS.0, AGE_MS.1);
            let weight = bytes as u64 * age_ms;
            (bytes > 0).then(|| Candidate {
                claim: claim.clone(),
                party: claim.holder.party(),
                bytes,
                weight,
            })
        });
        let chosen = choose(candidates.collect(), bytes);
        for Candidate { claim, .. } in &chosen {
            for (leaving, bytes) in self.leaving.iter().zip(claim.evict()) {
                leaving.fetch_add(bytes, Ordering::Relaxed);
            }
        }
        chosen.into_iter().map(|candidate| candidate.claim).collect()
    }
}

struct Candidate<C> {
    claim: C,
    party: u64,
    bytes: usize,
    /// Bytes by the time for which they are held.
    weight: u64,
}

/// The candidates that end so that so many bytes are free.
fn choose<C>(mut rest: Vec<Candidate<C>>, bytes: usize) -> Vec<Candidate<C>> {
    let (mut chosen, mut freed) = (Vec::new(), 0);
    while freed < bytes && !rest.is_empty() {
        let mut parties: HashMap<u64, usize> = HashMap::new();
        rest.iter().for_each(|candidate| *parties.entry(candidate.party).or_default() += candidate.bytes);
        let part = rest.iter().map(|candidate| candidate.bytes).sum::<usize>() / parties.len();
        let is_above =
            |candidate: &Candidate<C>| parties.get(&candidate.party).is_some_and(|held| *held >= part);
        let (above, below): (Vec<_>, Vec<_>) = rest.into_iter().partition(is_above);
        let average = above.iter().map(|candidate| candidate.bytes).sum::<usize>() / above.len().max(1);
        let (mut large, small): (Vec<_>, Vec<_>) =
            above.into_iter().partition(|candidate| candidate.bytes >= average / 2);
        large.sort_unstable_by_key(|candidate| std::cmp::Reverse(candidate.weight));
        rest = below;
        rest.extend(small);
        for candidate in large {
            if freed < bytes {
                freed += candidate.bytes;
                chosen.push(candidate);
            } else {
                rest.push(candidate);
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(claim: u32, party: u64, bytes: usize, age_s: u64) -> Candidate<u32> {
        Candidate { claim, party, bytes, weight: bytes as u64 * age_s }
    }

    fn chosen(candidates: Vec<Candidate<u32>>, bytes: usize) -> Vec<u32> {
        choose(candidates, bytes).into_iter().map(|candidate| candidate.claim).collect()
    }

    #[test]
    fn who_holds_most_for_longest_ends_first() {
        let all = || vec![candidate(0, 1, 100, 1), candidate(1, 1, 90, 30), candidate(2, 1, 10, 60)];
        assert_eq!(chosen(all(), 1), [1], "longest among the large");
        assert_eq!(chosen(all(), 91), [1, 0]);
        assert_eq!(chosen(all(), 191), [1, 0, 2], "in the end all");
        assert_eq!(chosen(all(), 0), [0; 0]);
    }

    #[test]
    fn many_small_ones_of_one_party_end_before_a_large_one_of_another() {
        let mut all: Vec<_> = (0..100).map(|number| candidate(number, 1, 10, 2)).collect();
        all.push(candidate(1000, 2, 400, 50));
        let chosen = chosen(all, 500);
        assert_eq!(chosen.len(), 50);
        assert!(!chosen.contains(&1000));
    }

    #[test]
    fn a_small_one_is_left_alone_however_old() {
        let mut all: Vec<_> = (0..10).map(|number| candidate(number, 1, 1000, 1)).collect();
        all.push(candidate(1000, 1, 100, 60));
        assert!(!chosen(all, 5000).contains(&1000));
    }
}
