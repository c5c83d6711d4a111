//! Buffers that a session uses within a turn, lent by its thread: an idle session holds one pointer.
//!
//! Bound: a thread keeps [`SPARE_MAX`] spare ones.

use std::cell::RefCell;

use bytes::Bytes;
use inver_broker::HeaderWriter;

use crate::codec::PropertiesBuf;

/// Buffers and gathered changes of one turn.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) headers: HeaderWriter,
    pub(super) properties: PropertiesBuf,
    /// Offsets of inbox messages to acknowledge.
    pub(super) acked: Vec<u64>,
    /// Offsets of inbox messages acknowledged by PUBREC, and the rows that store their released packet identifiers.
    pub(super) released_offsets: Vec<u64>,
    pub(super) released: Vec<(Bytes, Bytes)>,
}

impl Scratch {
    fn is_clear(&self) -> bool {
        self.acked.is_empty() && self.released_offsets.is_empty() && self.released.is_empty()
    }
}

/// Spare buffers that a thread keeps.
const SPARE_MAX: usize = 4;

thread_local! {
    #[expect(clippy::vec_box, reason = "sessions hold the boxes")]
    static SPARE: RefCell<Vec<Box<Scratch>>> = const { RefCell::new(Vec::new()) };
}

/// A [`Scratch`] on loan for a turn, taken on first use.
#[derive(Default)]
pub(super) struct ScratchLease(Option<Box<Scratch>>);

impl ScratchLease {
    pub(super) fn get(&mut self) -> &mut Scratch {
        self.0.get_or_insert_with(|| SPARE.with_borrow_mut(Vec::pop).unwrap_or_default())
    }

    /// The scratch if changes are gathered in it.
    pub(super) fn gathered(&mut self) -> Option<&mut Scratch> {
        self.0.as_deref_mut().filter(|scratch| !scratch.is_clear())
    }

    /// Returns the scratch to the thread unless changes are gathered in it.
    pub(super) fn give_back(&mut self) {
        if let Some(scratch) = self.0.take_if(|scratch| scratch.is_clear()) {
            SPARE.with_borrow_mut(|spare| {
                if spare.len() < SPARE_MAX {
                    spare.push(scratch);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_with_gathered_changes_is_not_given_back() {
        let mut lease = ScratchLease::default();
        lease.get().acked.push(1);
        lease.give_back();
        assert_eq!(lease.gathered().map(|scratch| scratch.acked.clone()), Some(vec![1]));
        lease.get().acked.clear();
        lease.give_back();
        assert!(lease.0.is_none());
    }
}
