//! Changing the register where it lies in the store too: versions with numbers, each created only if absent.

use crate::rules::{Rule, holds};

/// One change of the register, from the version that was read to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Swap {
    to: u64,
    /// The number in the record by which it is known.
    random: u64,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Creating,
    Listing,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapAsk {
    /// Create this version if it is absent and tell [`Swap::created`]; or, if it was not, read it and tell [`Swap::read`].
    Create(u64),
    /// List the versions behind this one and tell [`Swap::listed`].
    ListBehind(u64),
}

/// How a change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// It goes on.
    NotYet,
    /// The record is the newest version.
    Yes,
    /// Another one was written first.
    Lost,
}

impl Swap {
    /// A change from version `from` to a record with this number in it.
    #[must_use]
    pub const fn new(from: u64, random: u64) -> Swap {
        Swap { to: from + 1, random, phase: Phase::Creating }
    }

    /// What is to be done next.
    #[must_use]
    pub const fn ask(&self) -> SwapAsk {
        match self.phase {
            Phase::Creating => SwapAsk::Create(self.to),
            Phase::Listing => SwapAsk::ListBehind(self.to),
        }
    }

    /// The store says that it created the version. It may be one that was deleted long ago, behind which there are newer.
    pub fn created(&mut self) -> Swapped {
        if !holds(Rule::NewestVersion) {
            return Swapped::Yes;
        }
        self.phase = Phase::Listing;
        Swapped::NotYet
    }

    /// The number in the record that is at the version, if there is one, after a create that was refused or had no answer.
    pub fn read(&mut self, random: Option<u64>) -> Swapped {
        match random {
            None => Swapped::NotYet,
            Some(random) if random == self.random && holds(Rule::OwnVersion) => self.created(),
            Some(_) => Swapped::Lost,
        }
    }

    /// The lowest version behind, if there is one.
    #[must_use]
    pub fn listed(&self, behind: Option<u64>) -> Swapped {
        if behind.is_some() { Swapped::Lost } else { Swapped::Yes }
    }
}
