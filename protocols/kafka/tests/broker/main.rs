//! The protocol over a real socket and a real log, in raw requests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod admin;
mod defects;
mod fetching;
mod groups;
mod parity;
mod producing;
mod sasl;
mod single_node;
mod stalling;
mod test_broker;
