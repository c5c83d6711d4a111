//! The log as its users see it: what it keeps, whatever happens to it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod cleaner;
mod compaction;
mod cursors;
mod damage;
mod fuzz;
mod inspect;
mod limits;
mod log;
mod salvage;
mod shorthand;
mod simulator;
