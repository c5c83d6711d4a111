//! Lists that a thread lends to a connection for the time of a turn.

use std::cell::RefCell;

use inver_broker::{Delivery, LiveBatch};

/// Spare buffers that a thread keeps of each kind.
const SPARE_MAX: usize = 8;

thread_local! {
    static DELIVERIES: RefCell<Vec<Vec<Delivery>>> = const { RefCell::new(Vec::new()) };
    static BATCHES: RefCell<Vec<Vec<LiveBatch>>> = const { RefCell::new(Vec::new()) };
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
