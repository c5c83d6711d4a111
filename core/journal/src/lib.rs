//! The journal of a log in an object store: what one node has appended there, and how another takes over.
//!
//! A commit group is acknowledged once an object with its bytes is in the store. Objects are numbered 0, 1, 2, … and created
//! only if absent, so that two nodes that both take themselves for the owner meet at a number, and one of them learns it from
//! the store. No clock and no lease decides who may append.
//!
//! | | rule | where |
//! |---|---|---|
//! | R1 | A group is acknowledged when its object and all before it are stored. | [`Writer::confirm`] |
//! | R2 | At most a window of objects is under way, counted from the lowest that is not confirmed. | [`Writer::has_room`] |
//! | R3 | A new owner creates a fence at the first free number; reading goes on behind what the old one may still have under way. | [`Candidate`] |
//! | R4 | That an object exists is not believed: it is read. One's own is success. | [`Writer::found`], [`Candidate::read`] |
//! | R5 | Before acknowledging, and after fencing, the register says that the node is the owner still. | [`Writer::confirm`], [`Candidate::register`] |
//! | R6 | The floor moves in the register, by its owner. Objects are deleted below the floor only. | [`Record::with_floor`] |
//! | R7 | A node that is no longer the owner stops for good. | [`Confirmed::NotOwner`], [`Found::NotOwner`] |
//!
//! What is here are state machines without I/O: a caller carries out what they ask for, in any order, and tells them the
//! answers. The same functions run under a model checker that tries every order, and finds each rule that is left out.
//!
//! Does not know what the bytes of a group mean, and talks to no store.

#![warn(missing_docs)]

mod candidate;
mod object;
mod record;
pub mod rules;
mod swap;
mod walk;
mod writer;

pub use candidate::{Ask, Candidate, Opened, Read, Registered};
pub use object::{Damaged, HEADER_BYTES, Header, Kind, LogId, Owner, decode, encode};
pub use record::{NotOwner, Record};
pub use swap::{Swap, SwapAsk, Swapped};
pub use walk::{Passed, Walk};
pub use writer::{CONFIRM_MS_MAX, Confirmed, Found, Known, Writer};
