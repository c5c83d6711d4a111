//! Tests of the protocol over a real socket and a real log, by a client that exchanges packets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod access;
mod authentication;
mod bridges;
mod connecting;
mod fanout;
mod functions;
mod limits;
mod log_failure;
mod publishing;
mod rewriting;
mod sessions;
mod stalling;
mod subscribing;
mod support;
mod sys;
mod wills;
