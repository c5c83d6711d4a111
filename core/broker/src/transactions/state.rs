//! The state of one transaction: a plain value, without the log and the clock.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::error::TransactionError;
use crate::committed_offsets::CommittedOffset;

/// See [`State::deadline_ms`].
pub(super) const NO_DEADLINE: i64 = i64::MAX;

/// The last epoch of a producer id; one more is for the marker that fences it.
const EPOCH_LAST: i16 = i16::MAX - 1;

/// A producer: its id, and which of its instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
}

/// The state of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionState {
    /// None was begun since its id was given to the producer.
    Empty = 0,
    /// It is open.
    Open = 1,
    /// The last one was committed.
    Committed = 2,
    /// The last one was aborted.
    Aborted = 3,
    /// It is about to be committed.
    Committing = 4,
    /// It is about to be aborted.
    Aborting = 5,
}

/// What an open transaction changes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    Partition { stream: u64, topic: Arc<str>, index: u32 },
    Group { group: String },
    Offset { group: String, topic: String, partition: u32, offset: CommittedOffset },
}

/// Bytes of an entry around a key, and the row with it: more than there are.
const ROW_BYTES: usize = 48;

impl Part {
    /// Bytes that it takes in the entry that ends the transaction, without the id; a little more.
    fn bytes(&self) -> usize {
        match self {
            // Its row is deleted, and a marker names its stream.
            Part::Partition { .. } => 2 * ROW_BYTES,
            Part::Group { group } => ROW_BYTES + group.len(),
            Part::Offset { group, topic, offset, .. } => offset_bytes(group, topic, offset),
        }
    }
}

/// An offset's row is deleted, and the row of the committed offset written.
fn offset_bytes(group: &str, topic: &str, offset: &CommittedOffset) -> usize {
    2 * (ROW_BYTES + group.len() + topic.len()) + offset.metadata.as_ref().map_or(0, String::len)
}

pub(super) struct State {
    pub(super) producer: Producer,
    /// The producer before the last change of epoch, which may repeat what led to it.
    pub(super) previous: Option<Producer>,
    pub(super) timeout_ms: i32,
    pub(super) state: TransactionState,
    pub(super) started_ms: i64,
    pub(super) updated_ms: i64,
    /// Streams, with topic and partition.
    pub(super) partitions: BTreeMap<u64, (Arc<str>, u32)>,
    pub(super) groups: BTreeSet<String>,
    /// By group, topic and partition.
    pub(super) offsets: BTreeMap<(String, String, u32), CommittedOffset>,
    /// Bytes of its parts at its end, without its id, which each of them names.
    pub(super) part_bytes: usize,
    /// It is being committed (true) or aborted. Not stored.
    pub(super) ending: Option<bool>,
    /// Its id has expired. Not stored.
    pub(super) is_removed: bool,
}

impl State {
    pub(super) fn new(producer: Producer, timeout_ms: i32, now_ms: i64) -> State {
        State {
            producer,
            previous: None,
            timeout_ms,
            state: TransactionState::Empty,
            started_ms: 0,
            updated_ms: now_ms,
            partitions: BTreeMap::new(),
            groups: BTreeSet::new(),
            offsets: BTreeMap::new(),
            part_bytes: 0,
            ending: None,
            is_removed: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == TransactionState::Open
    }

    /// When an open transaction is aborted.
    pub(super) fn deadline_ms(&self) -> Option<i64> {
        self.is_open().then(|| self.started_ms.saturating_add(i64::from(self.timeout_ms)))
    }

    /// Its parts so far.
    pub(super) fn count(&self) -> usize {
        self.partitions.len() + self.groups.len() + self.offsets.len()
    }

    /// Bytes of its parts at its end.
    pub(super) fn end_bytes(&self, id: &str) -> usize {
        self.part_bytes + self.count() * id.len()
    }

    /// Parts, and bytes at its end, that others add to those it has.
    pub(super) fn growth<'p>(&self, id: &str, parts: impl Iterator<Item = &'p Part>) -> (usize, usize) {
        parts.fold((0, 0), |(count, bytes), part| match self.known_bytes(part) {
            Some(known) => (count, bytes + part.bytes().saturating_sub(known)),
            None => (count + 1, bytes + part.bytes() + id.len()),
        })
    }

    /// Bytes of the part that another one replaces.
    fn known_bytes(&self, part: &Part) -> Option<usize> {
        match part {
            Part::Partition { stream, .. } => self.partitions.contains_key(stream).then(|| part.bytes()),
            Part::Group { group } => self.groups.contains(group).then(|| part.bytes()),
            Part::Offset { group, topic, partition, .. } => {
                let known = self.offsets.get(&(group.clone(), topic.clone(), *partition))?;
                Some(offset_bytes(group, topic, known))
            }
        }
    }

    /// Whether it has the part as it is: an offset replaces another.
    pub(super) fn has(&self, part: &Part) -> bool {
        !matches!(part, Part::Offset { .. }) && self.known_bytes(part).is_some()
    }

    /// Removes the offsets in a topic; those removed.
    pub(super) fn remove_offsets_of(&mut self, topic: &str) -> Vec<(String, u32)> {
        let is_of_topic = |(_, of, _): &(String, String, u32)| of == topic;
        let removed = self.offsets.extract_if(.., |key, _| is_of_topic(key));
        let mut offsets = Vec::new();
        let mut bytes = 0;
        for ((group, topic, partition), offset) in removed {
            bytes += offset_bytes(&group, &topic, &offset);
            offsets.push((group, partition));
        }
        self.part_bytes -= bytes;
        offsets
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = Part> {
        let partitions = self.partitions.iter().map(|(stream, (topic, index))| Part::Partition {
            stream: *stream,
            topic: topic.clone(),
            index: *index,
        });
        let groups = self.groups.iter().map(|group| Part::Group { group: group.clone() });
        let offsets = self.offsets.iter().map(|((group, topic, partition), offset)| Part::Offset {
            group: group.clone(),
            topic: topic.clone(),
            partition: *partition,
            offset: offset.clone(),
        });
        partitions.chain(groups).chain(offsets)
    }

    /// Adds a part. Whether a group's offset in a partition is new in it.
    pub(super) fn add(&mut self, part: Part) -> bool {
        let known = self.known_bytes(&part).unwrap_or(0);
        self.part_bytes = self.part_bytes + part.bytes() - known;
        match part {
            Part::Partition { stream, topic, index } => {
                self.partitions.insert(stream, (topic, index));
                false
            }
            Part::Group { group } => {
                self.groups.insert(group);
                false
            }
            Part::Offset { group, topic, partition, offset } => {
                self.offsets.insert((group, topic, partition), offset).is_none()
            }
        }
    }

    /// Checks that a producer holds it, and that it is not being ended.
    pub(super) fn check(&self, producer: Producer) -> Result<(), TransactionError> {
        self.check_holder(producer)?;
        if self.ending.is_some() { Err(TransactionError::Ending) } else { Ok(()) }
    }

    fn check_holder(&self, producer: Producer) -> Result<(), TransactionError> {
        if self.is_removed || producer.id != self.producer.id {
            return Err(TransactionError::UnknownProducer);
        }
        if producer.epoch != self.producer.epoch {
            return Err(TransactionError::Fenced);
        }
        Ok(())
    }

    /// Whether ending it has been done before, so that it is answered again.
    pub(super) fn check_end(
        &self,
        producer: Producer,
        is_commit: bool,
        bumps: bool,
    ) -> Result<bool, TransactionError> {
        let ended_as = match self.state {
            TransactionState::Committed => Some(true),
            TransactionState::Aborted => Some(false),
            _ => None,
        };
        let is_same_end = ended_as == Some(is_commit) && self.ending.is_none();
        // As at the beginning: the epoch of the marker that fenced the last one is not given out.
        let has_left = self.producer.epoch <= EPOCH_LAST;
        if bumps && is_same_end && self.previous == Some(producer) && !self.is_removed && has_left {
            return Ok(true);
        }
        self.check(producer)?;
        match self.state {
            TransactionState::Open => Ok(false),
            // Something may have been sent that never arrived: the epoch changes.
            _ if bumps && !is_commit => Ok(false),
            _ if !bumps && is_same_end => Ok(true),
            _ => Err(TransactionError::InvalidState),
        }
    }

    /// Whether the producer that asks for its next epoch gets the present one again, as it asked before.
    pub(super) fn check_begin(&self, expected: Option<Producer>) -> Result<bool, TransactionError> {
        if self.ending.is_some() {
            return Err(TransactionError::Ending);
        }
        match expected {
            _ if self.is_removed => Err(TransactionError::Ending),
            None => Ok(false),
            Some(expected) if expected == self.producer => Ok(false),
            Some(expected) if self.previous == Some(expected) && !self.is_open() => {
                // The epoch of a marker that fenced the last one: none is left to fence this one.
                Ok(self.producer.epoch <= EPOCH_LAST)
            }
            Some(_) => Err(TransactionError::Fenced),
        }
    }

    /// The epoch of the marker that fences the producer.
    pub(super) fn fencing_epoch(&self) -> i16 {
        self.producer.epoch.saturating_add(1)
    }

    /// Whether the next epoch needs a new producer id.
    pub(super) fn is_exhausted(&self) -> bool {
        self.producer.epoch >= EPOCH_LAST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Producer = Producer { id: 1, epoch: 3 };
    const NEXT: Producer = Producer { id: 1, epoch: 4 };

    fn state(state: TransactionState, previous: Option<Producer>) -> State {
        State { state, previous, ..State::new(NEXT, 1000, 0) }
    }

    #[test]
    fn an_end_is_answered_again_and_otherwise_needs_an_open_transaction() {
        use TransactionError::{Fenced, InvalidState, UnknownProducer};
        let end = |of: TransactionState, producer, is_commit, bumps| {
            state(of, Some(FIRST)).check_end(producer, is_commit, bumps)
        };
        assert_eq!(end(TransactionState::Open, NEXT, true, false), Ok(false));
        assert_eq!(end(TransactionState::Open, FIRST, true, true), Err(Fenced));
        assert_eq!(
            end(TransactionState::Open, Producer { id: 2, epoch: 4 }, true, true),
            Err(UnknownProducer)
        );
        assert_eq!(end(TransactionState::Committed, NEXT, true, false), Ok(true));
        assert_eq!(end(TransactionState::Committed, NEXT, false, false), Err(InvalidState));
        assert_eq!(end(TransactionState::Empty, NEXT, true, false), Err(InvalidState));
        assert_eq!(end(TransactionState::Committed, FIRST, true, true), Ok(true));
        assert_eq!(end(TransactionState::Committed, FIRST, false, true), Err(Fenced));
        assert_eq!(end(TransactionState::Committed, NEXT, true, true), Err(InvalidState));
        assert_eq!(end(TransactionState::Empty, NEXT, false, true), Ok(false));
        // Aborted after its timeout in the last epoch.
        let fenced = State {
            producer: Producer { id: 1, epoch: i16::MAX },
            ..state(TransactionState::Aborted, Some(FIRST))
        };
        assert_eq!(fenced.check_end(FIRST, false, true), Err(Fenced));
        let ending = State { ending: Some(true), ..state(TransactionState::Open, None) };
        assert_eq!(ending.check_end(NEXT, true, true), Err(TransactionError::Ending));
    }

    #[test]
    fn a_producer_that_asks_again_keeps_its_epoch() {
        let begin = |of: TransactionState, expected| state(of, Some(FIRST)).check_begin(expected);
        assert_eq!(begin(TransactionState::Open, None), Ok(false));
        assert_eq!(begin(TransactionState::Empty, Some(NEXT)), Ok(false));
        assert_eq!(begin(TransactionState::Empty, Some(FIRST)), Ok(true));
        assert_eq!(begin(TransactionState::Open, Some(FIRST)), Err(TransactionError::Fenced));
        let fenced = State {
            producer: Producer { id: 1, epoch: i16::MAX },
            ..state(TransactionState::Aborted, Some(FIRST))
        };
        assert_eq!(fenced.check_begin(Some(FIRST)), Ok(false));
        let old = Producer { id: 1, epoch: 2 };
        assert_eq!(begin(TransactionState::Empty, Some(old)), Err(TransactionError::Fenced));
    }
}
