//! Parts that most sessions never need, allocated on first use: an idle session holds one pointer for each.

use std::collections::VecDeque;

use inver_broker::Publisher;

use crate::map::ORIGIN;

/// A queue that holds no memory while it is empty.
#[expect(clippy::box_collection, reason = "an empty queue is one pointer")]
pub(super) struct LazyQueue<T>(Option<Box<VecDeque<T>>>);

impl<T> Default for LazyQueue<T> {
    fn default() -> Self {
        LazyQueue(None)
    }
}

impl<T> LazyQueue<T> {
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

/// The session's publisher, created by the first publish.
#[derive(Default)]
pub(super) struct LazyPublisher(Option<Box<Publisher>>);

impl LazyPublisher {
    pub(super) fn of(&mut self, session: &inver_broker::Session) -> &mut Publisher {
        self.0.get_or_insert_with(|| {
            let publisher = Publisher::new(session.namespace().clone(), session.publisher_id(ORIGIN));
            Box::new(publisher.with_permissions(session.permissions().clone()))
        })
    }

    pub(super) fn begin_turn(&mut self) {
        self.0.iter_mut().for_each(|publisher| publisher.begin_turn());
    }

    /// What the publishes of the turn cost.
    pub(super) fn cost(&self) -> usize {
        self.0.as_deref().map_or(0, Publisher::cost)
    }

    /// Whether what was flushed is still on its way to its receivers.
    pub(super) fn has_more_to_deliver(&self) -> bool {
        self.0.as_deref().is_some_and(Publisher::has_more_to_deliver)
    }

    /// Delivers a slice of it. Whether there was anything to deliver.
    pub(super) fn deliver_slice(&mut self) -> bool {
        self.0.as_deref_mut().is_some_and(Publisher::deliver_slice)
    }

    /// The publisher if its write batch is not empty.
    pub(super) fn in_use(&mut self) -> Option<&mut Publisher> {
        self.0.as_deref_mut().filter(|publisher| !publisher.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_queue_holds_no_memory() {
        let mut queue = LazyQueue::default();
        assert!(queue.is_empty() && queue.pop_front().is_none());
        queue.push_back(2);
        queue.push_front(1);
        assert_eq!(queue.pop_front(), Some(1));
        queue.retain(|_| false);
        assert!(queue.is_empty());
        assert_eq!(size_of::<LazyQueue<u64>>(), size_of::<usize>());
    }
}
