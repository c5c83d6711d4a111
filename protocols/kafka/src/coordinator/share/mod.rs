//! A share group (KIP-932), as a state machine.
//!
//! Members tell by heartbeats which topics they subscribe to, and every member is given all partitions of these: the records
//! are shared by the subscription of the group's name on each topic, not the partitions. So a change of the members moves
//! nothing, and nobody waits for anybody.
//!
//! Owns the members and their sessions. Does not own time, topics or I/O, nor the records: these are the broker's
//! subscription's, and what members acquired of it is [`crate::share`]'s. Members are not stored: after a restart each is told
//! that it is unknown, and joins again.

mod group;
mod locks;
#[cfg(test)]
mod tests;

pub(crate) use self::group::{ShareAnswer, ShareBeat, ShareGroup, ShareMember, ShareState};
pub(crate) use self::locks::{LockRegistry, RecordLocks};
