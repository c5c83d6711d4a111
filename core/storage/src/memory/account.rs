//! What one connection holds, as far as the connection can be ended to get it back.
//!
//! Beginnings of messages, transactions and bytes that a client does not take wait for the client alone, which may leave them
//! for ever. Near a limit the accounts that hold most for longest are ended, so that the others go on; meanwhile an account
//! that has its part is not to grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::{Memory, Share};

/// The shares of an account, which it is ended for.
pub(super) const ENDED_FOR: [Share; 3] = [Share::Input, Share::Transactions, Share::Output];

/// Whose memory an account is.
pub trait Holder: Send + Sync {
    /// The user or the network that it belongs to: all accounts of one are compared with all of another.
    fn party(&self) -> u64;

    /// Has it end, so that its memory is free. Must not block.
    fn evict(&self);
}

/// An account as the search for those that hold most sees it.
pub(super) struct Claim {
    pub(super) holder: Arc<dyn Holder>,
    /// What is held of [`ENDED_FOR`].
    bytes: [AtomicUsize; ENDED_FOR.len()],
    /// When it last held less than before, in milliseconds of the memory's own time.
    since_ms: AtomicU64,
    is_evicted: AtomicBool,
    /// What it held when it was told to end.
    leaving: [AtomicUsize; ENDED_FOR.len()],
}

impl Claim {
    /// Bytes that are held of a share, or of all.
    pub(super) fn bytes(&self, of: Option<Share>) -> usize {
        let bytes = ENDED_FOR.iter().zip(&self.bytes);
        bytes
            .filter(|(share, _)| of.is_none_or(|of| of == **share))
            .map(|(_, b)| b.load(Ordering::Relaxed))
            .sum()
    }

    pub(super) fn since_ms(&self) -> u64 {
        self.since_ms.load(Ordering::Relaxed)
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.is_evicted.load(Ordering::Relaxed)
    }

    /// Told to end. What it holds counts as leaving until it has.
    pub(super) fn evict(&self) -> [usize; ENDED_FOR.len()] {
        self.is_evicted.store(true, Ordering::Relaxed);
        std::array::from_fn(|at| {
            let bytes = self.bytes.get(at).map_or(0, |bytes| bytes.load(Ordering::Relaxed));
            self.leaving.get(at).into_iter().for_each(|leaving| leaving.store(bytes, Ordering::Relaxed));
            bytes
        })
    }

    /// What counts as leaving.
    pub(super) fn leaving(&self) -> [usize; ENDED_FOR.len()] {
        std::array::from_fn(|at| self.leaving.get(at).map_or(0, |bytes| bytes.load(Ordering::Relaxed)))
    }
}

/// The account of a connection. Gives back what it has drawn when it is dropped.
pub struct Account {
    memory: Arc<Memory>,
    claim: Arc<Claim>,
    id: u64,
    drawn: [usize; ENDED_FOR.len()],
}

impl Account {
    pub(super) fn new(memory: Arc<Memory>, holder: Arc<dyn Holder>) -> Account {
        let claim = Arc::new(Claim {
            holder,
            bytes: Default::default(),
            since_ms: AtomicU64::new(memory.now_ms()),
            is_evicted: AtomicBool::new(false),
            leaving: Default::default(),
        });
        let id = memory.claims.enter(&claim);
        Account { memory, claim, id, drawn: [0; ENDED_FOR.len()] }
    }

    /// Holds so many bytes of input, of transactions and of output from now on.
    pub fn set(&mut self, input: usize, transactions: usize, output: usize) {
        let steps = [input, transactions, output].map(|bytes| self.memory.steps(bytes));
        if steps == self.drawn {
            return;
        }
        let (before, after) = (self.drawn.iter().sum::<usize>(), steps.iter().sum::<usize>());
        if after < before || before == 0 {
            self.claim.since_ms.store(self.memory.now_ms(), Ordering::Relaxed);
        }
        for (bytes, of) in steps.iter().zip(&self.claim.bytes) {
            of.store(*bytes, Ordering::Relaxed);
        }
        if (before == 0) != (after == 0) {
            self.memory.claims.count(after > 0);
        }
        for ((share, drawn), wanted) in ENDED_FOR.iter().zip(self.drawn).zip(steps) {
            self.change(*share, drawn, wanted);
        }
        self.drawn = steps;
        self.memory.take_back();
    }

    fn change(&self, share: Share, before: usize, after: usize) {
        if after > before {
            self.memory.draw(share, after - before);
        } else if after < before {
            self.memory.give_back(share, before - after);
        }
    }

    /// Whether more of the client's input may be kept now. Otherwise the client is not read, until others have left.
    #[must_use]
    pub fn may_grow(&self) -> bool {
        let held = self.claim.bytes(None);
        // A client that holds nothing may be a consumer whose acknowledgement frees what others hold.
        if held == 0 || !self.memory.is_tight() {
            return true;
        }
        let (total, limit) = self.memory.total();
        let claims = self.memory.claims.counted();
        let has_its_part = held >= self.memory.limit(Share::Input) / claims.max(1);
        total < limit && (claims <= 1 || !has_its_part)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.set(0, 0, 0);
        self.memory.claims.leave(self.id);
    }
}
