//! Idempotent producers of a stream: the last batches of each, to detect duplicates and gaps.
//!
//! Derived from batch headers alone, so that a replay of the log rebuilds it. The last [`BATCHES_REMEMBERED`] batches of
//! a producer are known, because a client has at most that many in flight.

use std::collections::{HashMap, VecDeque};

use crate::batch::BatchHeader;
use crate::error::SubmitError;
use crate::ids::{Lsn, Offset};

/// Batches remembered per producer.
pub(crate) const BATCHES_REMEMBERED: usize = 5;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    pub(crate) by_id: HashMap<i64, Producer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) epoch: i16,
    /// Time of its last batch, by the broker's clock.
    pub(crate) seen_ms: i64,
    pub(crate) batches: VecDeque<ProducerBatch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerBatch {
    pub(crate) first_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) base: u64,
    /// End of its entry; 0 when recovered. Not stored.
    pub(crate) lsn: u64,
}

/// The sequence `count` further on; sequences wrap from `i32::MAX` to 0.
fn sequence_plus(sequence: i32, count: u32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) % (i64::from(i32::MAX) + 1)) as i32
}

impl Producers {
    /// Accepts a batch that continues the producer's sequence, and markers: the caller that writes one has checked the epoch, and its
    /// entry ends the transaction in other streams too.
    pub(crate) fn check(&self, header: &BatchHeader) -> Result<(), SubmitError> {
        if header.is_control() {
            return Ok(());
        }
        let Some(producer) = self.by_id.get(&header.producer_id) else {
            // A forgotten producer cannot be told from a new one: any sequence is accepted.
            return Ok(());
        };
        if header.producer_epoch < producer.epoch {
            return Err(SubmitError::InvalidProducerEpoch);
        }
        if header.base_sequence < 0 {
            return Ok(());
        }
        if header.producer_epoch > producer.epoch {
            let fresh = header.base_sequence == 0;
            return if fresh { Ok(()) } else { Err(SubmitError::OutOfOrderSequence) };
        }
        let last_sequence = sequence_plus(header.base_sequence, header.last_offset_delta);
        let same = |batch: &&ProducerBatch| {
            batch.first_sequence == header.base_sequence && batch.last_sequence == last_sequence
        };
        if let Some(original) = producer.batches.iter().find(same) {
            return Err(SubmitError::DuplicateSequence {
                base_offset: Offset(original.base),
                lsn: Lsn(original.lsn),
            });
        }
        match producer.batches.back() {
            Some(last) if sequence_plus(last.last_sequence, 1) != header.base_sequence => {
                Err(SubmitError::OutOfOrderSequence)
            }
            _ => Ok(()),
        }
    }

    /// Records an appended batch. Replaying a known one changes nothing.
    pub(crate) fn record(&mut self, header: &BatchHeader, base: u64, lsn: u64, now_ms: i64) {
        let producer = self.by_id.entry(header.producer_id).or_insert_with(|| Producer {
            epoch: header.producer_epoch,
            seen_ms: now_ms,
            batches: VecDeque::new(),
        });
        if producer.batches.back().is_some_and(|last| last.base >= base) {
            return;
        }
        if header.producer_epoch > producer.epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        producer.seen_ms = producer.seen_ms.max(now_ms);
        if header.is_control() || header.base_sequence < 0 {
            return;
        }
        if producer.batches.len() == BATCHES_REMEMBERED {
            producer.batches.pop_front();
        }
        producer.batches.push_back(ProducerBatch {
            first_sequence: header.base_sequence,
            last_sequence: sequence_plus(header.base_sequence, header.last_offset_delta),
            base,
            lsn,
        });
    }

    /// Makes room for one more: removes producers idle since before `expired_ms`, else the longest idle one.
    pub(crate) fn make_room(&mut self, producers_max: usize, expired_ms: i64) {
        if self.by_id.len() < producers_max {
            return;
        }
        self.by_id.retain(|_, producer| producer.seen_ms >= expired_ms);
        while self.by_id.len() >= producers_max.max(1) {
            let longest_idle = self.by_id.iter().min_by_key(|(_, producer)| producer.seen_ms);
            let Some(id) = longest_idle.map(|(id, _)| *id) else { return };
            self.by_id.remove(&id);
        }
    }

    /// All producers, by id.
    pub(crate) fn states(&self) -> Vec<ProducerState> {
        let state = |(id, producer): (&i64, &Producer)| ProducerState {
            id: *id,
            epoch: producer.epoch,
            last_sequence: producer.batches.back().map(|batch| batch.last_sequence),
            seen_ms: producer.seen_ms,
        };
        let mut states: Vec<ProducerState> = self.by_id.iter().map(state).collect();
        states.sort_unstable_by_key(|state| state.id);
        states
    }
}

/// An idempotent producer as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// Its id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// The sequence of its last record, if it sent any in this epoch.
    pub last_sequence: Option<i32>,
    /// Time of its last batch, milliseconds since the epoch by the broker's clock.
    pub seen_ms: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, Compression, ProducerStamp};

    fn header(epoch: i16, base_sequence: i32, count: u32) -> BatchHeader {
        let mut builder = BatchBuilder::new(0);
        for _ in 0..count {
            builder.push(0, None, &[], None);
        }
        let stamp = ProducerStamp { id: 7, epoch, base_sequence, transactional: false, control: false };
        *builder.finish_as(Compression::None, Some(stamp)).header()
    }

    fn duplicate(base: u64, lsn: u64) -> Result<(), SubmitError> {
        Err(SubmitError::DuplicateSequence { base_offset: Offset(base), lsn: Lsn(lsn) })
    }

    #[test]
    fn duplicates_are_detected_and_gaps_rejected() {
        let mut producers = Producers::default();
        for i in 0..6u64 {
            let next = header(0, i as i32 * 2, 2);
            assert_eq!(producers.check(&next), Ok(()));
            producers.record(&next, i * 2, i + 100, 0);
        }
        assert_eq!(producers.check(&header(0, 4, 2)), duplicate(4, 102));
        assert_eq!(producers.check(&header(0, 10, 2)), duplicate(10, 105));
        assert_eq!(producers.check(&header(0, 0, 2)), Err(SubmitError::OutOfOrderSequence));
        assert_eq!(producers.check(&header(0, 13, 1)), Err(SubmitError::OutOfOrderSequence));
        assert_eq!(producers.check(&header(0, 12, 1)), Ok(()));
    }

    #[test]
    fn epochs_only_rise_and_start_at_zero() {
        let mut producers = Producers::default();
        producers.record(&header(3, 5, 1), 0, 0, 0);
        assert_eq!(producers.check(&header(2, 6, 1)), Err(SubmitError::InvalidProducerEpoch));
        assert_eq!(producers.check(&header(4, 6, 1)), Err(SubmitError::OutOfOrderSequence));
        assert_eq!(producers.check(&header(4, 0, 1)), Ok(()));
        producers.record(&header(4, 0, 1), 1, 0, 0);
        assert_eq!(producers.check(&header(3, 6, 1)), Err(SubmitError::InvalidProducerEpoch));
    }

    #[test]
    fn sequences_wrap() {
        let mut producers = Producers::default();
        producers.record(&header(0, i32::MAX - 1, 3), 0, 0, 0);
        assert_eq!(producers.check(&header(0, 1, 1)), Ok(()));
        assert_eq!(producers.check(&header(0, 0, 1)), Err(SubmitError::OutOfOrderSequence));
    }

    #[test]
    fn the_longest_idle_producer_is_forgotten_at_the_limit() {
        let mut producers = Producers::default();
        for id in 0..10 {
            let mut header = header(0, 0, 1);
            header.producer_id = id;
            producers.make_room(4, i64::MIN);
            producers.record(&header, id as u64, 0, 100 - id);
        }
        let mut left: Vec<_> = producers.by_id.keys().copied().collect();
        left.sort_unstable();
        assert_eq!(left.len(), 4);
        assert!(left.contains(&9) && left.contains(&0));
    }
}
