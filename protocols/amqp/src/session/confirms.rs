//! Publisher confirms (RabbitMQ's `confirm` class): which publishes are answered when the log has them.
//!
//! A unflushed's publishes wait for the unflushed's position in the log; bursts are in the order of their positions, so the
//! confirms of a channel go out in the order of its publishes and coalesce into one `basic.ack` with `multiple` a turn.

use std::collections::VecDeque;

use inver_broker::Completion;
use inver_storage::Lsn;

use crate::codec::write;

/// How the broker answers a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// `basic.ack`
    Ack,
    /// `basic.nack`: a queue that it was routed to refuses more messages.
    Nack,
}

/// Publishes of a channel that follow each other and are answered alike, up to and with a sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The last of them.
    pub(super) through: u64,
    /// The answer.
    pub(super) answer: Answer,
}

/// A channel's side: numbers its publishes and sends the answers.
#[derive(Debug, Default)]
pub(super) struct ChannelConfirms {
    /// Whether `confirm.select` was said.
    pub(super) enabled: bool,
    /// The number of the last publish.
    last: u64,
    /// Up to and with this one all were answered, `ready` included.
    answered: u64,
    /// This turn's publishes.
    unflushed: Vec<Run>,
    /// Up to and with this one an ack is due and not written yet, if it is beyond what was written.
    ready: Option<u64>,
    written: u64,
}

impl ChannelConfirms {
    /// Numbers a publish. True if it is the first since the last unflushed was taken.
    pub(super) fn count(&mut self, answer: Answer) -> bool {
        self.last += 1;
        let first = self.unflushed.is_empty();
        match self.unflushed.last_mut() {
            Some(run) if run.answer == answer && answer == Answer::Ack => run.through = self.last,
            _ => self.unflushed.push(Run { through: self.last, answer }),
        }
        first
    }

    /// How many publishes were not answered yet.
    pub(super) fn outstanding(&self) -> u64 {
        self.last - self.answered
    }

    /// Takes what was published since the last time.
    pub(super) fn take_unflushed(&mut self) -> std::vec::Drain<'_, Run> {
        self.unflushed.drain(..)
    }

    /// Answers a run. An ack is held until [`ChannelConfirms::write`], so that others join it; true if it is the first held.
    pub(super) fn answer(&mut self, run: Run, channel: u16, out: &mut Vec<u8>) -> bool {
        self.answered = run.through;
        match run.answer {
            Answer::Ack => self.ready.replace(run.through).is_none(),
            Answer::Nack => {
                self.write(channel, out);
                write::nack(out, channel, run.through, false);
                self.written = run.through;
                false
            }
        }
    }

    /// Writes the ack that is held, if one is.
    pub(super) fn write(&mut self, channel: u16, out: &mut Vec<u8>) {
        if let Some(through) = self.ready.take() {
            write::ack(out, channel, through, through > self.written + 1);
            self.written = through;
        }
    }
}

/// A run of one channel that waits for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    /// The position.
    pub(super) lsn: Lsn,
    /// The channel's number.
    pub(super) channel: u16,
    /// Tells a channel from an earlier one of the same number.
    pub(super) incarnation: u64,
    /// What to answer.
    pub(super) run: Run,
}

/// The connection's side: runs in the order of their positions.
#[derive(Debug, Default)]
pub(super) struct PendingConfirms {
    waiting: VecDeque<Waiting>,
}

impl PendingConfirms {
    /// Adds a run of a unflushed that lies at `lsn`; a unflushed that did not go to the log has none, and waits for those before
    /// it, so that `multiple` never covers an unwritten one.
    pub(super) fn push(&mut self, done: Completion, channel: u16, incarnation: u64, run: Run) {
        let before = self.waiting.back().map(|waiting| waiting.lsn);
        let lsn = done.lsn().max(before).unwrap_or(Lsn(0));
        self.waiting.push_back(Waiting { lsn, channel, incarnation, run });
    }

    /// Takes the next run that the log has.
    pub(super) fn pop(&mut self, committed: Lsn) -> Option<Waiting> {
        if self.waiting.front()?.lsn <= committed { self.waiting.pop_front() } else { None }
    }

    /// The position that is waited for first.
    pub(super) fn next(&self) -> Option<Lsn> {
        self.waiting.front().map(|waiting| waiting.lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Method;
    use crate::codec::frame::{self, Next};

    fn methods(out: &[u8]) -> Vec<String> {
        let (mut at, mut all) = (0, Vec::new());
        while let Next::Frame(frame, used) = frame::next(&out[at..], 8192).unwrap() {
            all.push(match Method::decode(frame.payload).unwrap() {
                Method::BasicAck { delivery_tag, multiple } => format!("ack {delivery_tag} {multiple}"),
                Method::BasicNack { delivery_tag, multiple, .. } => format!("nack {delivery_tag} {multiple}"),
                other => panic!("{other:?}"),
            });
            at += used;
        }
        all
    }

    #[test]
    fn acks_of_a_turn_are_one_and_never_run_ahead_of_a_nack() {
        let (mut confirms, mut out) = (ChannelConfirms::default(), Vec::new());
        for answer in [Answer::Ack, Answer::Ack, Answer::Nack, Answer::Nack, Answer::Ack, Answer::Ack] {
            confirms.count(answer);
        }
        let runs: Vec<Run> = confirms.take_unflushed().collect();
        assert_eq!(confirms.outstanding(), 6);
        runs.into_iter().for_each(|run| _ = confirms.answer(run, 1, &mut out));
        confirms.count(Answer::Ack);
        let more: Vec<Run> = confirms.take_unflushed().collect();
        assert!(!confirms.answer(more[0], 1, &mut out), "joins the one held");
        confirms.write(1, &mut out);
        assert_eq!(methods(&out), ["ack 2 true", "nack 3 false", "nack 4 false", "ack 7 true"]);
        out.clear();
        confirms.count(Answer::Ack);
        let run = confirms.take_unflushed().next().unwrap();
        assert!(confirms.answer(run, 1, &mut out));
        confirms.write(1, &mut out);
        assert_eq!(methods(&out), ["ack 8 false"]);
        assert_eq!(confirms.outstanding(), 0);
    }

    #[test]
    fn what_did_not_go_to_the_log_waits_for_what_did() {
        let mut queue = PendingConfirms::default();
        let run = |through| Run { through, answer: Answer::Ack };
        queue.push(Completion::At(Lsn(100)), 1, 0, run(1));
        queue.push(Completion::Now, 1, 0, run(2));
        assert_eq!(queue.pop(Lsn(99)), None);
        assert_eq!(queue.next(), Some(Lsn(100)));
        assert_eq!(queue.pop(Lsn(100)).unwrap().run.through, 1);
        assert_eq!(queue.pop(Lsn(100)).unwrap().run.through, 2);
        queue.push(Completion::Now, 1, 0, run(3));
        assert!(queue.pop(Lsn(0)).is_some(), "at once when nothing is before it");
    }
}
