//! Origins: for each queue and exchange, the bindings that lead to it, so that deleting it finds its own bindings and
//! walks over no others.
//!
//! Changed and followed under the topology lock of the namespace, which is why the lock of an exchange's table may be
//! taken before the one here, and after it.

use std::hash::BuildHasher;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::bag::{Bag, Hashed};
use crate::bindings::{BindTarget, Binding};
use crate::exchange::{Exchange, RouteTarget};

use super::listing::BindingInfo;

/// The origins of all targets, by the target's identity. Inboxes have none: a session knows its own bindings.
#[derive(Default)]
pub(super) struct Origins(Mutex<FxHashMap<usize, Bag<Origin>>>);

/// A binding, as its exchange finds it.
pub(super) struct Origin {
    exchange: Weak<Exchange>,
    hash: u64,
    key: Box<[u8]>,
    slashed: bool,
}

impl Origin {
    pub(super) fn new(exchange: &Arc<Exchange>, binding: &Binding<RouteTarget>) -> Origin {
        let (key, slashed) = (binding.key.clone(), binding.slashed);
        Origin { exchange: Arc::downgrade(exchange), hash: binding.hash(), key, slashed }
    }

    fn is(&self, exchange: &Exchange, binding: &Binding<RouteTarget>) -> bool {
        std::ptr::eq(self.exchange.as_ptr(), exchange)
            && self.hash == binding.hash()
            && self.key == binding.key
            && self.slashed == binding.slashed
    }
}

impl Origins {
    /// Adds the origin of a binding to this target.
    pub(super) fn add(&self, target: usize, origin: Origin) {
        self.0.lock().entry(target).or_default().insert(origin);
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    /// Removes the origin of a binding.
    pub(super) fn remove(&self, exchange: &Exchange, binding: &Binding<RouteTarget>) {
        let target = binding.target.identity();
        let mut origins = self.0.lock();
        let Some(of_target) = origins.get_mut(&target) else { return };
        let mut is_first = true;
        let is_it = |origin: &Origin| origin.is(exchange, binding) && std::mem::take(&mut is_first);
        of_target.remove(hash(exchange, binding.hash()), is_it);
        if of_target.is_empty() {
            origins.remove(&target);
        }
    }

    /// Removes all bindings that lead to a target, with their origins.
    pub(super) fn unbind_all(&self, target: &RouteTarget) {
        let identity = target.identity();
        let Some(origins) = self.0.lock().remove(&identity) else { return };
        for origin in origins.iter() {
            let Some(exchange) = origin.exchange.upgrade() else { continue };
            let is_it = |b: &Binding<RouteTarget>| b.target.identity() == identity && b.key == origin.key;
            exchange.remove(origin.hash, origin.slashed, &origin.key, is_it);
        }
    }

    /// Calls `found` with the exchange and the row of each binding that leads to a target.
    pub(super) fn for_each_to(
        &self,
        target: &RouteTarget,
        mut found: impl FnMut(&Arc<Exchange>, Option<u64>),
    ) {
        let all = self.0.lock();
        for origin in all.get(&target.identity()).into_iter().flat_map(Bag::iter) {
            if let Some(exchange) = origin.exchange.upgrade() {
                let row = exchange.row_of(target, origin.hash, origin.slashed, &origin.key);
                found(&exchange, row);
            }
        }
    }
}

impl Origins {
    /// The bindings that lead to a target, of the first `max` places behind the first `skip`, and whether there are more.
    pub(super) fn bindings_to(
        &self,
        target: &RouteTarget,
        skip: usize,
        max: usize,
    ) -> (Vec<BindingInfo>, bool) {
        let identity = target.identity();
        let mut visited = 0;
        let found: Vec<_> = {
            let all = self.0.lock();
            let of_target = all.get(&identity).into_iter().flat_map(Bag::iter).skip(skip).take(max);
            let of_target = of_target.inspect(|_| visited += 1);
            let found =
                of_target.filter_map(|o| Some((o.exchange.upgrade()?, o.hash, o.key.clone(), o.slashed)));
            found.collect()
        };
        let mut bindings = Vec::new();
        for (source, hash, key, slashed) in found {
            if let Some((arguments, durable)) = source.binding_info(target, hash, slashed, &key) {
                bindings.push(BindingInfo { source, key, slashed, arguments, durable });
            }
        }
        (bindings, visited == max)
    }
}

impl Hashed for Origin {
    fn hash(&self) -> u64 {
        hash(self.exchange.as_ptr(), self.hash)
    }
}

fn hash(exchange: *const Exchange, binding: u64) -> u64 {
    FxBuildHasher.hash_one((exchange.addr(), binding))
}
