//! The protocol over a real socket and a real log, at the level of frames.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod access;
mod client;
mod confirms;
mod dead_letters;
mod declaring;
mod exchanges;
mod handshake;
mod limits;
mod log_failure;
mod messages;
mod owning;
mod pressure;
mod refusals;
mod server;
mod stalling;
mod subscriptions;
mod verbs;
