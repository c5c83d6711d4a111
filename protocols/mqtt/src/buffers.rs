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
    static OUTPUT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
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

/// An empty output buffer.
pub(crate) fn take_output() -> Vec<u8> {
    OUTPUT.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives an output buffer back.
pub(crate) fn give_output(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > SPARE_OUTPUT_BYTES_MAX {
        return;
    }
    buffer.clear();
    OUTPUT.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    });
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
