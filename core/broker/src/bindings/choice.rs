//! Exchanges that give each message to one of their bindings: by a hash, or by chance.
//!
//! Hashes are of names and keys only, so that a message takes the same way after a restart.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{BindTarget, Binding};
use crate::bag::Bag;

/// The largest weight of a binding.
pub(crate) const WEIGHT_MAX: u32 = 1_000_000;

/// The weight that a binding key says; none if it is none.
pub(super) fn weight_of(key: &[u8]) -> Option<u32> {
    let weight = std::str::from_utf8(key).ok()?.parse::<u64>().ok()?;
    let weight = u32::try_from(weight).map_or(WEIGHT_MAX, |weight| weight.min(WEIGHT_MAX));
    (weight > 0).then_some(weight)
}

/// Mixes all bits of a number into all bits (the finalizer of SplitMix64).
const fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The hash of a text (FNV-1a, mixed).
pub(super) fn hash_of(text: &[u8]) -> u64 {
    let hash = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mixed(hash)
}

fn hash_of_target<T: BindTarget>(binding: &Binding<T>) -> u64 {
    let hash = Cell::new(0);
    binding.target.named(&mut |name| hash.set(hash_of(name.as_bytes())));
    hash.get()
}

/// The binding that a value belongs to, by weighted rendezvous hashing: when a binding comes or goes, only what belongs to it
/// moves.
pub(super) fn by_weight<'a, T: BindTarget>(
    bindings: &'a Bag<Binding<T>>,
    value: &[u8],
) -> Option<&'a Binding<T>> {
    let value = hash_of(value);
    let scored = |binding: &'a Binding<T>| {
        let target = hash_of_target(binding);
        let hash = mixed(value ^ target);
        // In (0, 1]: 53 bits are what a float holds.
        let share = ((hash >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        let weight = f64::from(weight_of(&binding.key).unwrap_or(1));
        (weight / -share.ln().min(-f64::MIN_POSITIVE), target, binding)
    };
    bindings
        .iter()
        .map(scored)
        .max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
        .map(|(.., binding)| binding)
}

/// The binding of a hash modulo their number.
pub(super) fn by_modulus<'a, T: BindTarget>(
    bindings: &'a Bag<Binding<T>>,
    routing_key: &[u8],
) -> Option<&'a Binding<T>> {
    let mut all: Vec<&Binding<T>> = bindings.iter().collect();
    let place = |binding: &&Binding<T>| (hash_of_target(binding), binding.key.clone());
    all.sort_by_cached_key(place);
    let at = hash_of(routing_key).checked_rem(all.len() as u64)?;
    all.get(usize::try_from(at).ok()?).copied()
}

/// Bindings of which each message takes one by chance.
pub(crate) struct Chances<T> {
    pub(super) bindings: Bag<Binding<T>>,
    /// Messages so far: the source of chance, so that a run can be repeated.
    drawn: AtomicU64,
}

impl<T> Default for Chances<T> {
    fn default() -> Self {
        Chances { bindings: Bag::default(), drawn: AtomicU64::new(0) }
    }
}

impl<T: BindTarget> Chances<T> {
    pub(super) fn draw(&self) -> Option<&Binding<T>> {
        let drawn = self.drawn.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let count = self.bindings.len() as u64;
        let at = mixed(drawn).checked_rem(count)?;
        self.bindings.iter().nth(usize::try_from(at).ok()?)
    }
}
