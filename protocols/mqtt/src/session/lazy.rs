//! What most connections never need, or only within a turn: a pointer each, nothing behind it while it is not used.

use std::cell::RefCell;
use std::collections::VecDeque;

use bytes::Bytes;
use inver_broker::{HeaderWriter, Publisher};

use crate::codec::PropertiesBuf;
use crate::map::ORIGIN;

/// A queue that is gone while it is empty.
#[expect(clippy::box_collection, reason = "a pointer is all that an empty one holds")]
pub(super) struct Queue<T>(Option<Box<VecDeque<T>>>);

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue(None)
    }
}

impl<T> Queue<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn push_back(&mut self, item: T) {
        self.0.get_or_insert_default().push_back(item);
    }

    pub(super) fn push_front(&mut self, item: T) {
        self.0.get_or_insert_default().push_front(item);
    }

    pub(super) fn pop_front(&mut self) -> Option<T> {
        let item = self.0.as_mut()?.pop_front();
        self.0.take_if(|queue| queue.is_empty());
        item
    }

    pub(super) fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        if let Some(queue) = &mut self.0 {
            queue.retain(keep);
        }
        self.0.take_if(|queue| queue.is_empty());
    }
}

/// A publisher, made by the first publish.
#[derive(Default)]
pub(super) struct LazyPublisher(Option<Box<Publisher>>);

impl LazyPublisher {
    /// The publisher of this session.
    pub(super) fn of(&mut self, session: &inver_broker::Session) -> &mut Publisher {
        self.0.get_or_insert_with(|| {
            Box::new(Publisher::new(session.namespace().clone(), session.publisher_id(ORIGIN)))
        })
    }

    /// The publisher, if it has something in hand.
    pub(super) fn in_use(&mut self) -> Option<&mut Publisher> {
        self.0.as_deref_mut().filter(|publisher| !publisher.is_empty())
    }
}

/// What a turn needs and leaves empty.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) headers: HeaderWriter,
    pub(super) properties: PropertiesBuf,
    /// Messages of the inbox to acknowledge.
    pub(super) acked: Vec<u64>,
    /// Messages of the inbox that PUBREC acknowledged, and what is kept of them.
    pub(super) released_offsets: Vec<u64>,
    pub(super) released: Vec<(Bytes, Bytes)>,
}

impl Scratch {
    fn is_clear(&self) -> bool {
        self.acked.is_empty() && self.released_offsets.is_empty() && self.released.is_empty()
    }
}

/// Spare ones that a thread keeps.
const SPARE_MAX: usize = 4;

thread_local! {
    // Boxes: they go to connections and come back.
    #[expect(clippy::vec_box, reason = "what is lent is a pointer")]
    static SPARE: RefCell<Vec<Box<Scratch>>> = const { RefCell::new(Vec::new()) };
}

/// A [`Scratch`] for the time of a turn.
#[derive(Default)]
pub(super) struct Lent(Option<Box<Scratch>>);

impl Lent {
    pub(super) fn get(&mut self) -> &mut Scratch {
        self.0.get_or_insert_with(|| SPARE.with_borrow_mut(Vec::pop).unwrap_or_default())
    }

    /// What was gathered, if anything was.
    pub(super) fn gathered(&mut self) -> Option<&mut Scratch> {
        self.0.as_deref_mut().filter(|scratch| !scratch.is_clear())
    }

    /// The turn is over.
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
    fn a_queue_that_is_empty_is_gone() {
        let mut queue = Queue::default();
        assert!(queue.is_empty() && queue.pop_front().is_none());
        queue.push_back(2);
        queue.push_front(1);
        assert_eq!(queue.pop_front(), Some(1));
        queue.retain(|_| false);
        assert!(queue.is_empty());
        assert_eq!(size_of::<Queue<u64>>(), size_of::<usize>());
    }

    #[test]
    fn what_was_gathered_is_not_given_back() {
        let mut lent = Lent::default();
        lent.get().acked.push(1);
        lent.give_back();
        assert_eq!(lent.gathered().map(|scratch| scratch.acked.clone()), Some(vec![1]));
        lent.get().acked.clear();
        lent.give_back();
        assert!(lent.0.is_none());
    }
}
