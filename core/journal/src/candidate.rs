//! Taking over: read what there is, fence the old owner, and be sure that nobody else has taken over meanwhile.

use crate::object::{Header, Owner};
use crate::rules::{Rule, holds};
use crate::walk::{Passed, Walk};

/// A node whose epoch is in the register and which is to append.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    owner: Owner,
    window: usize,
    walk: Walk,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Reads the journal to its end.
    Reading,
    /// Has sent its fence.
    Fencing,
    /// Its fence is stored; asks the register.
    Fenced,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Read the object of this number and tell [`Candidate::read`].
    Read(u64),
    /// Create a fence of this number if there is none, and tell [`Candidate::fence_created`]; or, if it was not, read it.
    Fence {
        /// Its number.
        number: u64,
        /// The number at which reading goes on.
        resume: u64,
    },
    /// Read the register and tell [`Candidate::register`].
    Register,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Its body is next in the log.
    Apply,
    /// It has nothing for the log.
    GoOn,
    /// A later owner has fenced: this node is no longer a candidate, for good.
    NotOwner,
}

/// What the register said about a fenced journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// This node is the owner and may serve.
    Owner(Opened),
    /// Another one is, for good.
    NotOwner,
}

/// A journal that was taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The number of the new owner's first object.
    pub number: u64,
}

impl Candidate {
    /// A node that the register names as owner and that reads from `walk` on: from the floor that the register had then, or
    /// from further on if it has read before. `window` is that of all nodes.
    #[must_use]
    pub const fn new(owner: Owner, window: usize, walk: Walk) -> Candidate {
        Candidate { owner, window, walk, phase: Phase::Reading }
    }

    /// What is to be done next.
    #[must_use]
    pub fn ask(&self) -> Ask {
        let number = self.walk.next();
        match self.phase {
            Phase::Reading => Ask::Read(number),
            Phase::Fencing => Ask::Fence { number, resume: self.resume() },
            Phase::Fenced => Ask::Register,
        }
    }

    /// What is at the number that was asked for, or at that of the fence if its create was refused or had no answer.
    pub fn read(&mut self, header: Option<&Header>) -> Read {
        let Some(header) = header else {
            // The end. Behind it the old owner may have a window of objects under way, this one among them.
            self.phase = if holds(Rule::Fence) { Phase::Fencing } else { Phase::Fenced };
            return Read::GoOn;
        };
        if header.owner == self.owner {
            self.phase = Phase::Fenced;
            return Read::GoOn;
        }
        if header.owner.epoch > self.owner.epoch {
            return Read::NotOwner;
        }
        self.phase = Phase::Reading;
        match self.walk.pass(header) {
            Passed::Entries => Read::Apply,
            Passed::Fence => Read::GoOn,
        }
    }

    /// The store says that it created the fence.
    pub fn fence_created(&mut self) {
        self.phase = Phase::Fenced;
    }

    /// Whom the register names, read after the fence was stored (R5).
    #[must_use]
    pub fn register(&self, owner: Owner) -> Registered {
        if owner != self.owner && holds(Rule::OwnerOfFence) {
            return Registered::NotOwner;
        }
        let number = if holds(Rule::Fence) { self.resume() } else { self.walk.next() };
        Registered::Owner(Opened { number })
    }

    /// Behind everything that the old owner may still store.
    fn resume(&self) -> u64 {
        let beyond = if holds(Rule::Jump) { self.window as u64 } else { 0 };
        self.walk.next() + beyond + 1
    }
}
