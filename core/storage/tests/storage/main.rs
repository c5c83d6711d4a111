//! The public behaviour of the log, under faults and crashes.

#![allow(clippy::disallowed_methods, reason = "tests measure real time")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue has failed")]

mod checkpoint_copy;
mod checkpoint_damage;
mod cleaner;
mod compaction;
mod compaction_times;
mod cursors;
mod damage;
mod fuzz;
mod inspect;
mod limits;
mod log;
mod metrics;
mod retention;
mod salvage;
mod shorthand;
mod simulator;
mod space;
mod transactions;
