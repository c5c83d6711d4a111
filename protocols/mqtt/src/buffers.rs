//! Buffers that a connection has only while it needs them: an idle connection holds none.
//!
//! A turn takes a read buffer when there is something to read and gives it back at its end, without waiting in
//! between; so a thread needs few, however many connections it serves.

use std::cell::RefCell;

use inver_broker::{Delivery, LiveBatch};

/// What is read at a time.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// Spare buffers that a thread keeps of each kind.
const SPARE_MAX: usize = 8;

/// An output buffer of more than this is not kept.
const SPARE_OUTPUT_BYTES_MAX: usize = 512 * 1024;

thread_local! {
    static READ: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static DELIVERIES: RefCell<Vec<Vec<Delivery>>> = const { RefCell::new(Vec::new()) };
    static BATCHES: RefCell<Vec<Vec<LiveBatch>>> = const { RefCell::new(Vec::new()) };
    // Boxes: they go to connections and come back.
    #[expect(clippy::vec_box, reason = "what is lent is a pointer")]
    static OUTPUT: RefCell<Vec<Box<Output>>> = const { RefCell::new(Vec::new()) };
    static TOKENS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// A read buffer of [`READ_BYTES`].
pub(crate) fn take_read() -> Box<[u8]> {
    READ.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; READ_BYTES].into_boxed_slice())
}

/// Gives a read buffer back.
pub(crate) fn give_read(buffer: Box<[u8]>) {
    READ.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    });
}

/// What is to be written.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) bytes: Vec<u8>,
    /// Bytes of it that were written.
    pub(crate) written: usize,
}

/// An empty output buffer.
pub(crate) fn take_output() -> Box<Output> {
    OUTPUT.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives an output buffer back.
pub(crate) fn give_output(mut buffer: Box<Output>) {
    if buffer.bytes.capacity() > SPARE_OUTPUT_BYTES_MAX {
        return;
    }
    buffer.bytes.clear();
    buffer.written = 0;
    OUTPUT.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    });
}

/// A list for the tokens of a mailbox.
pub(crate) fn take_tokens() -> Vec<u64> {
    TOKENS.take()
}

/// Gives the list back.
pub(crate) fn give_tokens(list: Vec<u64>) {
    TOKENS.set(list);
}

/// An empty list for messages that are pulled.
pub(crate) fn take_deliveries() -> Vec<Delivery> {
    DELIVERIES.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a list back.
pub(crate) fn give_deliveries(mut list: Vec<Delivery>) {
    list.clear();
    DELIVERIES.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX {
            spare.push(list);
        }
    });
}

/// An empty list for batches that are pulled.
pub(crate) fn take_batches() -> Vec<LiveBatch> {
    BATCHES.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a list back.
pub(crate) fn give_batches(mut list: Vec<LiveBatch>) {
    list.clear();
    BATCHES.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX {
            spare.push(list);
        }
    });
}
