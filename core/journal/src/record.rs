//! The register: a small record a log that says who owns it.

use thiserror::Error;

use crate::object::Owner;
use crate::rules::{Rule, holds};

/// What the register says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Who may append.
    pub owner: Owner,
    /// The owner's name.
    pub node: String,
    /// The number of the oldest object that counts: what is before it is in the snapshot.
    pub floor: u64,
    /// Another number in each version, so that a node knows its own.
    pub version_random: u64,
}

/// Another node owns the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("another node owns the log")]
pub struct NotOwner;

impl Record {
    /// The record with which a node takes over. `random` is new.
    #[must_use]
    pub fn taken_over(&self, node: &str, random: u64) -> Record {
        let owner = Owner { epoch: self.owner.epoch + 1, random };
        Record { owner, node: node.to_owned(), floor: self.floor, version_random: random }
    }

    /// The record with which the owner moves the floor up to `floor` (R6). `random` is new.
    ///
    /// # Errors
    ///
    /// If `owner` is no longer the owner.
    pub fn with_floor(&self, owner: Owner, floor: u64, random: u64) -> Result<Record, NotOwner> {
        if self.owner != owner && holds(Rule::OwnerOfFloor) {
            return Err(NotOwner);
        }
        Ok(Record { floor: floor.max(self.floor), version_random: random, ..self.clone() })
    }
}
