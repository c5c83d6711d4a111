//! A consumer group of the classic protocol, as a state machine.
//!
//! ```text
//!            join                    all have joined, or timeout
//!   Empty ───────────▶ Preparing ─────────────────────────────────────▶ Completing
//!     ▲                 ▲     ▲                                             │ the leader's assignment
//!     │ no member left  │     │ join, leave, expiry                         ▼
//!     └─────────────────┘     └───────────────────────────────────────── Stable
//! ```
//!
//! Owns the members, their sessions and the rebalance. Does not own time, randomness or I/O: the current time and new
//! member ids are passed in; responses and the need to persist are returned as [`Effects`].
//!
//! Invariants: every join and sync gets exactly one response; a generation is not reused while one of its members is
//! known; metadata and assignments are opaque, so that any protocol type works (consumers, Connect, Schema Registry).
//!
//! `state` holds the group; each other file adds the transitions of one kind.

mod effects;
mod join;
mod leave;
mod member;
mod seeded_bugs;
mod snapshot;
mod state;
mod sync;
#[cfg(test)]
mod tests;
mod timeouts;

pub(crate) use self::effects::{Effects, Joined, Synced};
pub(crate) use self::join::Join;
pub(crate) use self::leave::Leave;
pub(crate) use self::member::MemberProtocol;
pub(crate) use self::state::{Group, State};
pub(crate) use self::sync::Sync;
