//! Responses in the order of their requests, each with what it still waits for.

use std::collections::VecDeque;

use inver_storage::Lsn;

use crate::codec::frame::{Frame, Output};
use crate::codec::text::Str;
use crate::error::ConnectionError;
use crate::ticket::{Claim, Claimed};

/// What one response waits for.
#[derive(Debug)]
enum Turn {
    /// Nothing.
    Ready(Frame),
    /// The log's commit.
    After(Lsn, Frame),
    /// Someone else's answer.
    Claimed(Claim),
    /// A group's answer for a member.
    Member { claim: Claim, group: Str, member_id: Str },
    /// The fetch of that number.
    Fetch(u64),
}

/// The responses that are owed.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    turns: VecDeque<Turn>,
    /// Of responses that are there and wait for their turn or for a commit.
    bytes: usize,
}

impl Pipeline {
    pub(super) fn push_ready(&mut self, frame: Frame) {
        self.bytes += frame.len();
        self.turns.push_back(Turn::Ready(frame));
    }

    pub(super) fn push_after(&mut self, frame: Frame, lsn: Lsn) {
        self.bytes += frame.len();
        self.turns.push_back(Turn::After(lsn, frame));
    }

    pub(super) fn push_claim(&mut self, claim: Claim) {
        self.turns.push_back(Turn::Claimed(claim));
    }

    pub(super) fn push_member(&mut self, claim: Claim, group: Str, member_id: Str) {
        self.turns.push_back(Turn::Member { claim, group, member_id });
    }

    pub(super) fn push_fetch(&mut self, number: u64) {
        self.turns.push_back(Turn::Fetch(number));
    }

    /// The response to a fetch is there.
    pub(super) fn fetched(&mut self, number: u64, frame: Frame) {
        let turn = self.turns.iter_mut().find(|turn| matches!(turn, Turn::Fetch(n) if *n == number));
        if let Some(turn) = turn {
            self.bytes += frame.len();
            *turn = Turn::Ready(frame);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.turns.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn awaited_lsn(&self) -> Option<Lsn> {
        match self.turns.front() {
            Some(Turn::After(lsn, _)) => Some(*lsn),
            _ => None,
        }
    }

    /// Moves what is ready to `output`, until that holds `bytes_max`.
    pub(super) fn advance(
        &mut self,
        committed: Lsn,
        output: &mut Output,
        bytes_max: usize,
    ) -> Result<(), ConnectionError> {
        while output.pending_bytes() < bytes_max {
            match self.turns.pop_front() {
                Some(Turn::Ready(frame)) => self.emit(frame, output),
                Some(Turn::After(lsn, frame)) if lsn <= committed => self.emit(frame, output),
                Some(Turn::Claimed(claim)) => match claim.take() {
                    Claimed::Frame(frame) => output.push(frame),
                    Claimed::Abandoned => return Err(ConnectionError::Unanswered),
                    Claimed::Waiting => {
                        self.turns.push_front(Turn::Claimed(claim));
                        break;
                    }
                },
                Some(Turn::Member { claim, group, member_id }) => match claim.take() {
                    Claimed::Frame(frame) => output.push(frame),
                    Claimed::Abandoned => return Err(ConnectionError::Unanswered),
                    Claimed::Waiting => {
                        self.turns.push_front(Turn::Member { claim, group, member_id });
                        break;
                    }
                },
                Some(turn) => {
                    self.turns.push_front(turn);
                    break;
                }
                None => break,
            }
        }
        Ok(())
    }

    fn emit(&mut self, frame: Frame, output: &mut Output) {
        self.bytes -= frame.len();
        output.push(frame);
    }

    pub(super) fn tidy(&mut self) {
        self.turns.shrink_to_fit();
    }

    /// The connection is gone: the members whose answers nobody will hear.
    pub(super) fn abandon(&mut self) -> Vec<(Str, Str, Claim)> {
        let members = self.turns.drain(..).filter_map(|turn| match turn {
            Turn::Member { claim, group, member_id } if claim.is_waiting() => Some((group, member_id, claim)),
            _ => None,
        });
        members.collect()
    }
}
