//! Buffers of a thread, lent to a connection while it has a use for them.
//!
//! A turn never waits, so a thread needs one read buffer however many connections it serves. Output buffers stay with a
//! connection while its socket takes no more.

use std::cell::RefCell;

use crate::output::Output;

/// Spare output buffers that a thread keeps.
const SPARE_OUTPUTS_MAX: usize = 8;

/// Capacity above which an output buffer is freed instead of kept.
const SPARE_OUTPUT_BYTES_MAX: usize = 512 * 1024;

thread_local! {
    static READ: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static TOKENS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    #[expect(clippy::vec_box, reason = "a connection holds a pointer")]
    static OUTPUTS: RefCell<Vec<Box<Output>>> = const { RefCell::new(Vec::new()) };
}

/// The thread's read buffer, as long as a turn needed it before.
pub(crate) fn take_read() -> Vec<u8> {
    READ.take()
}

/// Returns the read buffer.
pub(crate) fn give_read(buffer: Vec<u8>) {
    READ.set(buffer);
}

/// The thread's list for the tokens of a mailbox.
pub(crate) fn take_tokens() -> Vec<u64> {
    TOKENS.take()
}

/// Returns the list.
pub(crate) fn give_tokens(tokens: Vec<u64>) {
    TOKENS.set(tokens);
}

/// An empty output buffer.
pub(crate) fn take_output() -> Box<Output> {
    OUTPUTS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Returns an output buffer, which is emptied.
pub(crate) fn give_output(mut output: Box<Output>) {
    output.clear();
    if output.capacity() > SPARE_OUTPUT_BYTES_MAX {
        return;
    }
    OUTPUTS.with_borrow_mut(|spare| {
        if spare.len() < SPARE_OUTPUTS_MAX {
            spare.push(output);
        }
    });
}
