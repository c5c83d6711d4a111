//! A consumer group whose assignment the broker makes (KIP-848), as a state machine.
//!
//! Members tell by heartbeats what they subscribe to and what they own. A change of the members, their subscriptions or
//! the topics is a new *epoch* of the group, for which an assignor makes a *target* for each member. A member goes to its
//! target in steps of its own: it gives up what is not in it, which it confirms, and gets what nobody owns any more. Nobody
//! waits for another member but for the partitions that it gets from it.
//!
//! Owns the members, their sessions, the target and who owns what. Does not own time, topics or I/O: all are passed in, and
//! what is to be stored is returned as [`Changes`].
//!
//! Invariants: a partition has one owner; the group's epoch never goes back, and a member's does only when it joins again or
//! leaves for now; the epoch of a member that has to give up something does not change before it confirmed that.

mod assignor;
mod changes;
mod group;
mod heartbeat;
mod member;
mod partitions;
mod reconcile;
mod snapshot;
#[cfg(test)]
mod tests;

pub(crate) use self::assignor::Assignor;
pub(crate) use self::changes::{Answer, Changes, Refusal};
pub(crate) use self::group::{ConsumerGroup, ConsumerState, Topics};
pub(crate) use self::heartbeat::{Heartbeat, JOIN, LEAVE, LEAVE_FOR_NOW};
pub(crate) use self::member::ConsumerMember;
pub(crate) use self::partitions::{Partitions, by_topic, of_topics};
pub(crate) use self::snapshot::split_key;
