//! Reading the journal in order.

use crate::object::{Header, Kind};
use crate::rules::{Rule, holds};

/// A place in the journal: the number of the object to read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Walk {
    next: u64,
}

/// What an object means to who reads on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// Its body is next in the log.
    Entries,
    /// An owner began here.
    Fence,
}

impl Walk {
    /// Reads from a number on: the floor of the register, or what was read last.
    #[must_use]
    pub const fn from(next: u64) -> Walk {
        Walk { next }
    }

    /// The number to read. If there is none, nothing was stored behind.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Goes on behind the object of this number. What an old owner stores late between a fence and the number at which
    /// reading goes on is never read.
    pub fn pass(&mut self, header: &Header) -> Passed {
        match header.kind {
            Kind::Entries => {
                self.next += 1;
                Passed::Entries
            }
            Kind::Fence { resume } => {
                self.next = if holds(Rule::Jump) { resume } else { self.next + 1 };
                Passed::Fence
            }
        }
    }
}
