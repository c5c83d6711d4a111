//! Publisher confirms (RabbitMQ's `confirm` class): which publishes are confirmed once the log has committed them.
//!
//! The publishes of a write batch wait for the batch's log position. Batches are in the order of their positions, so a
//! channel's confirms are sent in the order of its publishes, and those of a turn become one `basic.ack` with
//! `multiple`.

use inver_driver::CommitQueue;

use crate::codec::write;

/// The confirm of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// `basic.ack`
    Ack,
    /// `basic.nack`: a queue that the message was routed to rejects publishes at its length limit.
    Nack,
}

/// Consecutive publishes of a channel with the same confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The sequence number of the last one.
    pub(super) through: u64,
    /// The confirm.
    pub(super) answer: Answer,
}

/// The confirms of a channel: numbers its publishes and writes their confirms.
#[derive(Debug, Default)]
pub(super) struct ChannelConfirms {
    /// Whether `confirm.select` was received.
    pub(super) enabled: bool,
    /// The sequence number of the last publish.
    last: u64,
    /// All publishes up to this one are answered, those covered by `ready` included.
    answered: u64,
    /// Publishes of this turn.
    unflushed: Vec<Run>,
    /// An ack up to this publish is due and not written yet.
    ready: Option<u64>,
    written: u64,
}

impl ChannelConfirms {
    /// Numbers a publish. True if it is the first since the last [`take_unflushed`](Self::take_unflushed).
    pub(super) fn count(&mut self, answer: Answer) -> bool {
        self.last += 1;
        let first = self.unflushed.is_empty();
        match self.unflushed.last_mut() {
            Some(run) if run.answer == answer && answer == Answer::Ack => run.through = self.last,
            _ => self.unflushed.push(Run { through: self.last, answer }),
        }
        first
    }

    /// The number of publishes not answered yet.
    pub(super) fn outstanding(&self) -> u64 {
        self.last - self.answered
    }

    /// Takes the publishes of this turn.
    pub(super) fn take_unflushed(&mut self) -> std::vec::Drain<'_, Run> {
        self.unflushed.drain(..)
    }

    /// Answers a run. An ack is held until [`write`](Self::write), so that others join it; true if it is the first
    /// held.
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

    /// Writes the ack held, if any.
    pub(super) fn write(&mut self, channel: u16, out: &mut Vec<u8>) {
        if let Some(through) = self.ready.take() {
            write::ack(out, channel, through, through > self.written + 1);
            self.written = through;
        }
    }
}

/// A run of a channel that waits for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    /// The channel's number.
    pub(super) channel: u16,
    /// Distinguishes channels that had the same number.
    pub(super) incarnation: u64,
    /// The publishes to confirm.
    pub(super) run: Run,
}

/// The runs of a connection that wait for the log. One that has nothing to wait for waits for the runs before it, so that
/// a `multiple` ack never covers a publish that is not committed.
pub(super) type PendingConfirms = CommitQueue<Waiting>;

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
    fn acks_of_a_turn_coalesce_and_never_precede_an_earlier_nack() {
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
}
