//! Answers that wait for a position of the log, in the order in which they were asked for.

use std::collections::VecDeque;

use inver_broker::Completion;
use inver_storage::Lsn;
use tokio::time::Instant;

use crate::traffic::observe_confirm;

/// A queue of answers by log position.
///
/// Answers leave in the order in which they entered. One that needs no position of its own waits for those before it, so
/// that an answer is never sent before an earlier one. The time that they wait is measured of one at a time: two looks at the
/// clock for each commit that a connection waits for, whatever the number of its messages.
#[derive(Debug, Clone)]
pub struct CommitQueue<T> {
    waiting: VecDeque<(Lsn, T)>,
    /// The position whose time is measured, and since when.
    measured: Option<(Lsn, Instant)>,
}

impl<T> Default for CommitQueue<T> {
    fn default() -> CommitQueue<T> {
        CommitQueue { waiting: VecDeque::new(), measured: None }
    }
}

impl<T> CommitQueue<T> {
    /// Appends an answer that waits for `completion`.
    pub fn push(&mut self, completion: impl Into<Completion>, answer: T) {
        let lsn = completion.into().lsn();
        if let (Some(lsn), None) = (lsn, self.measured) {
            self.measured = Some((lsn, Instant::now()));
        }
        let before = self.waiting.back().map(|(lsn, _)| *lsn);
        self.waiting.push_back((lsn.max(before).unwrap_or(Lsn(0)), answer));
    }

    /// Removes the first answer if the log has committed its position.
    pub fn pop(&mut self, committed: Lsn) -> Option<T> {
        if self.waiting.front()?.0 > committed {
            return None;
        }
        if let Some((_, since)) = self.measured.take_if(|(lsn, _)| *lsn <= committed) {
            observe_confirm(since.elapsed());
        }
        self.waiting.pop_front().map(|(_, answer)| answer)
    }

    /// The position that the first answer waits for.
    pub fn awaits(&self) -> Option<Lsn> {
        self.waiting.front().map(|(lsn, _)| *lsn)
    }

    /// The last answer and its position.
    pub fn last_mut(&mut self) -> Option<(Lsn, &mut T)> {
        self.waiting.back_mut().map(|(lsn, answer)| (*lsn, answer))
    }

    /// Every answer, first to last.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.waiting.iter_mut().map(|(_, answer)| answer)
    }

    /// Number of answers.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no answer waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_leave_in_order_and_not_before_their_position_is_committed() {
        let mut queue = CommitQueue::default();
        queue.push(Lsn(10), 'a');
        queue.push(Completion::Now, 'b');
        queue.push(Lsn(20), 'c');
        queue.push(Lsn(15), 'd');
        assert_eq!((queue.pop(Lsn(9)), queue.awaits()), (None, Some(Lsn(10))));
        assert_eq!(
            (queue.pop(Lsn(10)), queue.pop(Lsn(10)), queue.pop(Lsn(19))),
            (Some('a'), Some('b'), None)
        );
        assert_eq!((queue.awaits(), queue.len()), (Some(Lsn(20)), 2));
        assert_eq!(
            (queue.pop(Lsn(20)), queue.pop(Lsn(20)), queue.pop(Lsn(20))),
            (Some('c'), Some('d'), None)
        );
    }

    #[test]
    fn an_answer_without_a_position_leaves_at_once_when_none_is_before_it() {
        let mut queue = CommitQueue::default();
        queue.push(Completion::Now, 'a');
        assert_eq!(queue.pop(Lsn(0)), Some('a'));
        assert!(queue.is_empty());
    }
}
