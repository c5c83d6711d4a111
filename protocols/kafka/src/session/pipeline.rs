//! The responses owed to a client, in the order of its requests, each with the condition it waits for.

use std::collections::VecDeque;

use inver_broker::Completion;
use inver_driver::Output;
use inver_storage::Lsn;
use tokio::time::Instant;

use crate::codec::frame::{COPIED_BYTES_MAX, Frame};
use crate::codec::text::Str;
use crate::error::ConnectionError;
use crate::ticket::{Claim, Claimed};

/// One response owed.
#[derive(Debug)]
enum Turn {
    /// Complete.
    Ready(Frame),
    /// Complete once the log has committed a position.
    After(Lsn, Frame),
    /// Given by another task.
    Claimed(Claim),
    /// Given to a member by its group's coordinator.
    Member { claim: Claim, group: Str, member_id: Str },
    /// The response to the fetch with this number.
    Fetch(u64),
    /// The response to the share fetch with this number.
    ShareFetch(u64),
}

/// A request: its API key, and when it was taken.
type Asked = Option<(i16, Instant)>;

/// The responses owed.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    turns: VecDeque<(Turn, Asked)>,
    /// The request whose response is pushed next.
    asked: Asked,
    /// Bytes of responses that are encoded and wait for their turn or for a commit.
    bytes: usize,
    /// Of these, bytes that were encoded for them; the rest are stored ones.
    encoded_bytes: usize,
}

impl Pipeline {
    /// Takes a request, whose response is pushed next.
    pub(super) fn begin(&mut self, api_key: i16, now: Instant) {
        self.asked = Some((api_key, now));
    }

    fn push(&mut self, turn: Turn) {
        self.turns.push_back((turn, self.asked));
    }

    fn count(&mut self, frame: &Frame) {
        self.bytes += frame.len();
        self.encoded_bytes += frame.encoded_len();
    }

    pub(super) fn push_ready(&mut self, frame: Frame) {
        self.count(&frame);
        self.push(Turn::Ready(frame));
    }

    pub(super) fn push_after(&mut self, frame: Frame, lsn: Lsn) {
        self.count(&frame);
        self.push(Turn::After(lsn, frame));
    }

    pub(super) fn push_claim(&mut self, claim: Claim) {
        self.push(Turn::Claimed(claim));
    }

    pub(super) fn push_member(&mut self, claim: Claim, group: Str, member_id: Str) {
        self.push(Turn::Member { claim, group, member_id });
    }

    pub(super) fn push_fetch(&mut self, number: u64) {
        self.push(Turn::Fetch(number));
    }

    pub(super) fn push_share_fetch(&mut self, number: u64) {
        self.push(Turn::ShareFetch(number));
    }

    /// Fills in the response to a fetch.
    pub(super) fn fetched(&mut self, number: u64, frame: Frame) {
        self.fill(frame, |turn| matches!(turn, Turn::Fetch(n) if *n == number), Turn::Ready);
    }

    /// Fills in the response to a share fetch, to be sent once what it acknowledged holds.
    pub(super) fn share_fetched(&mut self, number: u64, frame: Frame, completion: Completion) {
        let is_meant = |turn: &Turn| matches!(turn, Turn::ShareFetch(n) if *n == number);
        match completion {
            Completion::Now => self.fill(frame, is_meant, Turn::Ready),
            Completion::At(lsn) => self.fill(frame, is_meant, |frame| Turn::After(lsn, frame)),
        }
    }

    fn fill(&mut self, frame: Frame, is_meant: impl Fn(&Turn) -> bool, fill: impl FnOnce(Frame) -> Turn) {
        let Some(place) = self.turns.iter().position(|(turn, _)| is_meant(turn)) else { return };
        self.count(&frame);
        if let Some((turn, _)) = self.turns.get_mut(place) {
            *turn = fill(frame);
        }
    }

    /// Responses owed.
    pub(super) fn len(&self) -> usize {
        self.turns.len()
    }

    /// Bytes of encoded responses.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Of these, bytes that were encoded for them.
    pub(super) fn encoded_bytes(&self) -> usize {
        self.encoded_bytes
    }

    /// The log position that the next response waits for.
    pub(super) fn awaited_lsn(&self) -> Option<Lsn> {
        match self.turns.front() {
            Some((Turn::After(lsn, _), _)) => Some(*lsn),
            _ => None,
        }
    }

    /// Moves complete responses to `output`, until that holds `bytes_max` bytes, and tells the request of each.
    pub(super) fn advance(
        &mut self,
        committed: Lsn,
        output: &mut Output,
        bytes_max: usize,
        mut answered: impl FnMut(i16, Instant),
    ) -> Result<(), ConnectionError> {
        while output.pending_bytes() < bytes_max {
            let Some((turn, asked)) = self.turns.pop_front() else { break };
            match turn {
                Turn::Ready(frame) => self.emit(frame, output),
                Turn::After(lsn, frame) if lsn <= committed => self.emit(frame, output),
                Turn::Claimed(mut claim) => match claim.take() {
                    Claimed::Frame(frame) => put(frame, output),
                    Claimed::Abandoned => return Err(ConnectionError::Unanswered),
                    Claimed::Waiting => {
                        self.turns.push_front((Turn::Claimed(claim), asked));
                        break;
                    }
                },
                Turn::Member { mut claim, group, member_id } => match claim.take() {
                    Claimed::Frame(frame) => put(frame, output),
                    Claimed::Abandoned => return Err(ConnectionError::Unanswered),
                    Claimed::Waiting => {
                        self.turns.push_front((Turn::Member { claim, group, member_id }, asked));
                        break;
                    }
                },
                turn => {
                    self.turns.push_front((turn, asked));
                    break;
                }
            }
            if let Some((api_key, since)) = asked {
                answered(api_key, since);
            }
        }
        Ok(())
    }

    fn emit(&mut self, frame: Frame, output: &mut Output) {
        self.bytes -= frame.len();
        self.encoded_bytes -= frame.encoded_len();
        put(frame, output);
    }

    /// Releases unused memory.
    pub(super) fn tidy(&mut self) {
        self.turns.shrink_to_fit();
    }

    /// Drops all responses. Returns the members that still waited for theirs, as (group, member id).
    pub(super) fn abandon(&mut self) -> Vec<(Str, Str)> {
        let members = self.turns.drain(..).filter_map(|(turn, _)| match turn {
            Turn::Member { mut claim, group, member_id } => {
                matches!(claim.take(), Claimed::Waiting).then_some((group, member_id))
            }
            _ => None,
        });
        members.collect()
    }
}

/// Appends a response. Large buffers of it reach the socket without a copy.
fn put(frame: Frame, output: &mut Output) {
    for bytes in frame.into_buffers() {
        if bytes.len() <= COPIED_BYTES_MAX {
            output.flat().extend_from_slice(&bytes);
        } else {
            output.push_shared(bytes);
        }
    }
}
