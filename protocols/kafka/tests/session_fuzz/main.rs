//! Fuzzing of Kafka sessions, in a bounded form; `fuzz/run` has the long one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod messages;
#[path = "../../../../core/test-support/session_fuzz.rs"]
mod session_fuzz;

#[test]
fn sessions_survive_any_order_of_messages() {
    session_fuzz::run_some(&messages::DIALECT, 150);
}
