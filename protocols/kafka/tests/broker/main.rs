//! The plug over a real socket and a real log, spoken to in raw requests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod admin;
mod defects;
mod fetching;
mod groups;
mod producing;
mod sasl;
mod single_node;
mod world;
