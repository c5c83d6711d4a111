//! Where the bindings that lead to a queue or an exchange come from, so that what goes away finds its own bindings and
//! walks over nobody else's.

use std::hash::BuildHasher;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustc_hash::FxBuildHasher;

use super::{Bound, Exchange};
use crate::bag::{Bag, Hashed};

/// One for each binding in the table of an exchange, whose lock is taken before this one's.
#[derive(Default)]
pub(crate) struct Origins(Mutex<Bag<Origin>>);

/// A binding, as its exchange finds it again.
pub(crate) struct Origin {
    pub(super) exchange: Weak<Exchange>,
    pub(super) hash: u64,
    pub(super) key: Box<[u8]>,
    pub(super) slashed: bool,
}

impl Origin {
    fn new(exchange: &Arc<Exchange>, bound: &Bound) -> Origin {
        let (key, slashed) = (bound.key.clone(), bound.slashed);
        Origin { exchange: Arc::downgrade(exchange), hash: bound.hash(), key, slashed }
    }

    fn is(&self, exchange: &Exchange, bound: &Bound) -> bool {
        std::ptr::eq(self.exchange.as_ptr(), exchange)
            && self.hash == bound.hash()
            && self.key == bound.key
            && self.slashed == bound.slashed
    }
}

impl Origins {
    pub(super) fn note(&self, exchange: &Arc<Exchange>, bound: &Bound) {
        self.0.lock().insert(Origin::new(exchange, bound));
    }

    /// One binding is gone.
    pub(super) fn forget(&self, exchange: &Exchange, bound: &Bound) {
        let mut is_left = true;
        let is_it = |origin: &Origin| origin.is(exchange, bound) && std::mem::take(&mut is_left);
        self.0.lock().remove(hash(exchange, bound.hash()), is_it);
    }

    /// Takes all, to be let go of.
    pub(super) fn take(&self) -> Bag<Origin> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Hashed for Origin {
    fn hash(&self) -> u64 {
        hash(self.exchange.as_ptr(), self.hash)
    }
}

fn hash(exchange: *const Exchange, bound: u64) -> u64 {
    FxBuildHasher.hash_one((exchange, bound))
}
