//! The model: a plain description of the content of a log, with which the real log is compared.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use inver_storage::{Compaction, ProducerStamp};

/// Batches remembered per producer.
const BATCHES_REMEMBERED: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelRecord {
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
}

/// One change, as the model applies it.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// `stamp`: producer fields, in the first destination only.
    Batch {
        stream: u64,
        base: u64,
        records: Vec<ModelRecord>,
        stamp: Option<ProducerStamp>,
    },
    CreateStream(u64),
    DeleteStream(u64),
    Compact(u64, Option<Compaction>),
    Trim(u64, u64),
    Put(u8, u64),
    Delete(u8),
    CreateCursor(u64, u64),
    DeleteCursor(u64),
    Ack(u64, u64, u64),
    Returned(u64, u64),
    Seek(u64, u64),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ModelProducer {
    pub(crate) epoch: i16,
    /// First and last sequence, base offset.
    pub(crate) batches: VecDeque<(i32, i32, u64)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ModelStream {
    pub(crate) start: u64,
    pub(crate) records: Vec<ModelRecord>,
    pub(crate) compaction: Option<Compaction>,
    pub(crate) producers: BTreeMap<i64, ModelProducer>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ModelCursor {
    pub(crate) acked: BTreeSet<u64>,
    pub(crate) counts: BTreeMap<u64, u32>,
    /// Position of the last seek; everything below counts as acknowledged.
    pub(crate) from: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) streams: BTreeMap<u64, ModelStream>,
    pub(crate) cursors: BTreeMap<u64, ModelCursor>,
    pub(crate) state: BTreeMap<u8, u64>,
}

/// The expected result of a producer's batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    Duplicate(u64),
    OutOfOrder,
    OldEpoch,
}

impl Model {
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Batch { stream, base, records, stamp } => {
                if let Some(stream) = self.streams.get_mut(stream) {
                    assert_eq!(stream.records.len() as u64, *base);
                    stream.records.extend(records.iter().cloned());
                    if let Some(stamp) = stamp {
                        stream.note_producer(stamp, records.len(), *base);
                    }
                }
            }
            Change::CreateStream(id) => {
                self.streams.insert(*id, ModelStream::default());
            }
            Change::DeleteStream(id) => {
                self.streams.remove(id);
            }
            Change::Compact(id, policy) => {
                if let Some(stream) = self.streams.get_mut(id) {
                    stream.compaction = *policy;
                }
            }
            Change::Trim(id, to) => {
                if let Some(stream) = self.streams.get_mut(id) {
                    stream.start = stream.start.max((*to).min(stream.records.len() as u64));
                }
            }
            Change::Put(key, value) => {
                self.state.insert(*key, *value);
            }
            Change::Delete(key) => {
                self.state.remove(key);
            }
            Change::CreateCursor(id, at) => {
                self.cursors.insert(*id, ModelCursor { from: *at, ..ModelCursor::default() });
            }
            Change::DeleteCursor(id) => {
                self.cursors.remove(id);
            }
            Change::Ack(id, start, end) => {
                if let Some(cursor) = self.cursors.get_mut(id) {
                    for offset in *start..*end {
                        cursor.acked.insert(offset);
                        cursor.counts.remove(&offset);
                    }
                }
            }
            Change::Returned(id, offset) => {
                if let Some(cursor) = self.cursors.get_mut(id)
                    && *offset >= cursor.position()
                    && !cursor.acked.contains(offset)
                {
                    *cursor.counts.entry(*offset).or_default() += 1;
                }
            }
            Change::Seek(id, to) => {
                if let Some(cursor) = self.cursors.get_mut(id) {
                    *cursor = ModelCursor { from: *to, ..ModelCursor::default() };
                }
            }
        }
    }
}

impl ModelCursor {
    pub(crate) fn position(&self) -> u64 {
        (self.from..).find(|offset| !self.acked.contains(offset)).unwrap()
    }

    pub(crate) fn above(&self) -> Vec<u64> {
        let position = self.position();
        self.acked.iter().copied().filter(|offset| *offset > position).collect()
    }
}

impl ModelStream {
    fn note_producer(&mut self, stamp: &ProducerStamp, count: usize, base: u64) {
        let producer = self.producers.entry(stamp.id).or_default();
        if stamp.epoch > producer.epoch {
            *producer = ModelProducer { epoch: stamp.epoch, batches: VecDeque::new() };
        }
        if producer.batches.len() == BATCHES_REMEMBERED {
            producer.batches.pop_front();
        }
        let last = stamp.base_sequence + count as i32 - 1;
        producer.batches.push_back((stamp.base_sequence, last, base));
    }

    pub(crate) fn judge(&self, stamp: &ProducerStamp, count: usize) -> Verdict {
        let Some(producer) = self.producers.get(&stamp.id) else { return Verdict::Accepted };
        let first = stamp.base_sequence;
        let last = first + count as i32 - 1;
        if stamp.epoch < producer.epoch {
            return Verdict::OldEpoch;
        }
        if stamp.epoch > producer.epoch {
            return if first == 0 { Verdict::Accepted } else { Verdict::OutOfOrder };
        }
        if let Some(known) = producer.batches.iter().find(|known| (known.0, known.1) == (first, last)) {
            return Verdict::Duplicate(known.2);
        }
        match producer.batches.back() {
            Some(known) if known.1 + 1 != first => Verdict::OutOfOrder,
            _ => Verdict::Accepted,
        }
    }

    /// Whether compaction may have dropped a record: a later record has its key, or it is an expired tombstone.
    pub(crate) fn may_lack(&self, offset: u64, tombstones_to_ms: i64) -> bool {
        let Some(record) = self.records.get(offset as usize) else { return false };
        let Some(key) = &record.key else { return false };
        let later = self.records.get(offset as usize + 1..).unwrap();
        let is_replaced = later.iter().any(|later| later.key.as_ref() == Some(key));
        is_replaced || (record.value.is_none() && record.timestamp_ms < tombstones_to_ms)
    }
}
