#![no_main]

#[path = "../../core/test-support/session_fuzz.rs"]
mod session_fuzz;
#[path = "../../protocols/mqtt/tests/session_fuzz/messages.rs"]
mod messages;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| session_fuzz::run(&messages::DIALECT, bytes));
