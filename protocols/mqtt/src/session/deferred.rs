//! Answers deferred until the log has committed: encoded PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK packets in
//! their order [MQTT-4.6.0-2], [MQTT-4.6.0-3].
//!
//! All answers of a turn wait for one log position.

use inver_broker::Completion;
use inver_driver::{CommitQueue, observe_request};
use inver_storage::Lsn;
use tokio::time::Instant;

/// Deferred answers of a connection; one pointer while it is idle.
#[derive(Debug, Default)]
pub(crate) struct Deferred(Option<Box<Answers>>);

#[derive(Debug, Default)]
struct Answers {
    bytes: Vec<u8>,
    /// Bytes before this index are released.
    head: usize,
    groups: CommitQueue<Group>,
    turn: Group,
    /// The log position that this turn's answers wait for.
    turn_lsn: Option<Lsn>,
    turns_ended: u64,
    turns_released: u64,
    /// A request whose time is measured: its name, its turn, and since when.
    request: Option<(&'static str, u64, Instant)>,
}

/// The answers of one turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Group {
    /// Index after their last byte.
    end: usize,
    /// Messages of the client that they complete.
    completed: usize,
    turn: u64,
}

impl Deferred {
    fn answers(&mut self) -> &mut Answers {
        self.0.get_or_insert_default()
    }

    /// The buffer for this turn's answers.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.answers().bytes
    }

    /// Counts one more message of the client that this turn's answers complete.
    pub(crate) fn completes_one(&mut self) {
        self.answers().turn.completed += 1;
    }

    /// Makes this turn's answers wait for this completion too.
    pub(crate) fn wait_for(&mut self, completion: Completion) {
        if let Completion::At(lsn) = completion {
            let turn_lsn = &mut self.answers().turn_lsn;
            *turn_lsn = (*turn_lsn).max(Some(lsn));
        }
    }

    /// Measures the time until this turn's answers are released, as that of a request, unless another one is measured.
    pub(crate) fn measure(&mut self, request: &'static str, since: Instant) {
        let answers = self.answers();
        let turn = answers.turns_ended + 1;
        answers.request.get_or_insert((request, turn, since));
    }

    /// This turn's number, for [`Self::is_released`].
    pub(crate) fn turn(&mut self) -> u64 {
        self.answers().turns_ended + 1
    }

    /// Whether the answers of that turn are written.
    pub(crate) fn is_released(&self, turn: u64) -> bool {
        self.0.as_ref().is_none_or(|answers| turn <= answers.turns_released)
    }

    /// Closes this turn's group of answers.
    pub(crate) fn end_turn(&mut self) {
        self.0.iter_mut().for_each(|answers| answers.end_turn());
    }

    /// Drops this turn's answers: the log did not take what they answer.
    pub(crate) fn drop_turn(&mut self) {
        self.0.iter_mut().for_each(|answers| answers.drop_turn());
    }

    /// The log position that the oldest answers wait for.
    pub(crate) fn waits_for(&self) -> Option<Lsn> {
        self.0.as_ref()?.groups.awaits()
    }

    /// Bytes that are not released.
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |answers| answers.bytes.len() - answers.head)
    }

    /// Moves committed answers to `out`; returns how many messages of the client they complete.
    pub(crate) fn release(&mut self, committed: Lsn, out: &mut Vec<u8>) -> usize {
        let Some(answers) = &mut self.0 else { return 0 };
        let completed = answers.release(committed, out);
        if let Some((request, _, since)) =
            answers.request.take_if(|(_, turn, _)| *turn <= answers.turns_released)
        {
            observe_request(request, since.elapsed());
        }
        completed
    }

    /// Releases the memory of an idle connection. Turn numbers from before lose their meaning.
    pub(crate) fn shrink(&mut self) {
        let idle = |answers: &mut Box<Answers>| {
            answers.bytes.is_empty()
                && answers.groups.is_empty()
                && answers.turn == Group::default()
                && answers.turn_lsn.is_none()
                && answers.request.is_none()
        };
        self.0.take_if(idle);
    }
}

impl Answers {
    fn end_turn(&mut self) {
        self.turns_ended += 1;
        let group = Group { end: self.bytes.len(), turn: self.turns_ended, ..std::mem::take(&mut self.turn) };
        let lsn = self.turn_lsn.take();
        match self.groups.last_mut() {
            None if lsn.is_none() && self.head == group.end => self.turns_released = self.turns_ended,
            // No later position to wait for: join the group before.
            Some((last_lsn, last)) if lsn.is_none_or(|lsn| lsn <= last_lsn) => {
                *last = Group { completed: last.completed + group.completed, ..group };
            }
            _ => self.groups.push(lsn, group),
        }
    }

    fn drop_turn(&mut self) {
        let before = self.groups.last_mut().map_or(self.head, |(_, group)| group.end);
        self.bytes.truncate(before);
        self.turn = Group::default();
        self.turn_lsn = None;
    }

    fn release(&mut self, committed: Lsn, out: &mut Vec<u8>) -> usize {
        let mut completed = 0;
        let mut end = self.head;
        while let Some(group) = self.groups.pop(committed) {
            end = group.end;
            completed += group.completed;
            self.turns_released = group.turn;
        }
        out.extend_from_slice(self.bytes.get(self.head..end).unwrap_or_default());
        self.head = end;
        if self.groups.is_empty() && self.head == self.bytes.len() {
            self.bytes.clear();
            self.head = 0;
            if self.bytes.capacity() > IDLE_BYTES_MAX {
                self.bytes = Vec::new();
            }
        } else if self.head >= COMPACT_BYTES_MIN && self.head * 2 >= self.bytes.len() {
            self.bytes.drain(..self.head);
            self.groups.iter_mut().for_each(|group| group.end -= self.head);
            self.head = 0;
        }
        completed
    }
}

/// Buffer capacity that an idle connection keeps.
const IDLE_BYTES_MAX: usize = 256;

/// Size from which released bytes are removed from the buffer.
const COMPACT_BYTES_MIN: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(deferred: &mut Deferred, answer: &[u8], lsn: Option<u64>) -> u64 {
        deferred.bytes().extend_from_slice(answer);
        deferred.completes_one();
        deferred.wait_for(lsn.map(Lsn).into());
        let turn = deferred.turn();
        deferred.end_turn();
        turn
    }

    #[test]
    fn answers_are_released_in_order_when_committed() {
        let (mut deferred, mut out) = (Deferred::default(), Vec::new());
        let first = turn(&mut deferred, b"a", Some(10));
        turn(&mut deferred, b"b", None);
        let third = turn(&mut deferred, b"c", Some(20));
        assert_eq!(deferred.waits_for(), Some(Lsn(10)));
        assert_eq!(deferred.release(Lsn(9), &mut out), 0);
        assert_eq!(deferred.release(Lsn(10), &mut out), 2);
        assert_eq!(out, b"ab");
        assert!(deferred.is_released(first) && !deferred.is_released(third));
        assert_eq!((deferred.len(), deferred.waits_for()), (1, Some(Lsn(20))));
        assert_eq!(deferred.release(Lsn(30), &mut out), 1);
        assert!(deferred.is_released(third));
        assert_eq!(out, b"abc");
        turn(&mut deferred, b"d", None);
        assert_eq!((deferred.waits_for(), deferred.release(Lsn(0), &mut out)), (Some(Lsn(0)), 1));
    }

    #[test]
    fn an_idle_connection_keeps_no_answers() {
        let (mut deferred, mut out) = (Deferred::default(), Vec::new());
        deferred.bytes().push(b'0');
        deferred.shrink();
        let first = turn(&mut deferred, b"a", Some(1));
        deferred.shrink();
        assert!(!deferred.is_released(first), "it is not committed");
        deferred.release(Lsn(1), &mut out);
        deferred.shrink();
        assert!(deferred.0.is_none() && deferred.is_released(first) && out == b"0a");
        let again = turn(&mut deferred, b"b", Some(2));
        assert!(!deferred.is_released(again));
    }

    #[test]
    fn an_empty_turn_is_released_at_once() {
        let mut deferred = Deferred::default();
        let number = deferred.turn();
        deferred.end_turn();
        assert!(deferred.is_released(number));
    }

    #[test]
    fn answers_of_a_turn_that_the_log_refused_are_never_sent() {
        let mut deferred = Deferred::default();
        deferred.bytes().push(1);
        deferred.wait_for(Completion::At(Lsn(10)));
        deferred.end_turn();
        deferred.bytes().push(2);
        deferred.completes_one();
        deferred.drop_turn();
        deferred.end_turn();
        let mut out = Vec::new();
        assert_eq!((deferred.release(Lsn(100), &mut out), &*out), (0, &[1][..]));
        deferred.bytes().push(3);
        deferred.drop_turn();
        deferred.end_turn();
        assert_eq!((deferred.release(Lsn(100), &mut out), &*out), (0, &[1][..]));
    }

    #[test]
    fn released_bytes_are_removed() {
        let (mut deferred, mut out) = (Deferred::default(), Vec::new());
        for lsn in 0..10_000u64 {
            turn(&mut deferred, b"four", Some(lsn + 1));
            if lsn >= 100 {
                deferred.release(Lsn(lsn - 100), &mut out);
            }
        }
        deferred.release(Lsn(10_000), &mut out);
        assert_eq!(out.len(), 40_000);
        assert!(deferred.bytes().capacity() <= 2 * COMPACT_BYTES_MIN + 8 * 400);
    }
}
