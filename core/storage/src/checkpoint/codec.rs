//! Encoding of a checkpoint's values. Each begins with a version byte.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::cursor::{AckedRanges, CursorState};
use crate::format::Fields;
use crate::stream::producers::{BATCHES_REMEMBERED, Producer, ProducerBatch, Producers};
use crate::stream::transactions::{Aborted, Open, Transactions};

const VERSION: u8 = 1;
/// Version of a stream that has, or had, transactions.
const TRANSACTIONS_VERSION: u8 = 2;

/// The log as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) log_id: u128,
    /// Replay position.
    pub(crate) lsn: u64,
    /// Everything below was on the medium when the checkpoint was taken.
    pub(crate) durable: u64,
    pub(crate) next_stream: u64,
    pub(crate) next_cursor: u64,
    pub(crate) next_cleaned: u64,
}

impl Meta {
    pub(crate) const KEY: &'static [u8] = b"log";

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.log_id.to_le_bytes());
        for field in [self.lsn, self.durable, self.next_stream, self.next_cursor, self.next_cleaned] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = versioned(bytes)?;
        Some(Self {
            log_id: u128::from_le_bytes(fields.array()?),
            lsn: fields.u64()?,
            durable: fields.u64()?,
            next_stream: fields.u64()?,
            next_cursor: fields.u64()?,
            next_cleaned: fields.u64()?,
        })
    }
}

/// A segment file of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRecord {
    pub(crate) is_sealed: bool,
    pub(crate) base: u64,
    pub(crate) entries_end: u64,
    pub(crate) max_timestamp: i64,
}

impl SegmentRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.is_sealed)];
        out.extend_from_slice(&self.base.to_le_bytes());
        out.extend_from_slice(&self.entries_end.to_le_bytes());
        out.extend_from_slice(&self.max_timestamp.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = versioned(bytes)?;
        Some(Self {
            is_sealed: fields.u8()? != 0,
            base: fields.u64()?,
            entries_end: fields.u64()?,
            max_timestamp: fields.i64()?,
        })
    }
}

/// A stream's run in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunRecord {
    pub(crate) segment: u64,
    pub(crate) first: u64,
    pub(crate) bytes: u64,
    pub(crate) max_timestamp: i64,
}

/// A stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamRecord {
    pub(crate) start: u64,
    pub(crate) next: u64,
    pub(crate) last_timestamp: i64,
    pub(crate) runs: Vec<RunRecord>,
    pub(crate) producers: Producers,
    pub(crate) transactions: Option<Box<Transactions>>,
}

pub(crate) fn encode_stream(
    (start, next, last_timestamp): (u64, u64, i64),
    runs: &[RunRecord],
    producers: Option<&Producers>,
    transactions: Option<&Transactions>,
) -> Vec<u8> {
    let mut out = vec![if transactions.is_some() { TRANSACTIONS_VERSION } else { VERSION }];
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&next.to_le_bytes());
    out.extend_from_slice(&last_timestamp.to_le_bytes());
    out.extend_from_slice(&(runs.len() as u32).to_le_bytes());
    for run in runs {
        for field in [run.segment, run.first, run.bytes] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&run.max_timestamp.to_le_bytes());
    }
    let by_id = producers.map(|producers| &producers.by_id);
    out.extend_from_slice(&(by_id.map_or(0, HashMap::len) as u32).to_le_bytes());
    for (id, producer) in by_id.into_iter().flatten() {
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&producer.epoch.to_le_bytes());
        out.extend_from_slice(&producer.seen_ms.to_le_bytes());
        out.push(producer.batches.len() as u8);
        for batch in &producer.batches {
            out.extend_from_slice(&batch.first_sequence.to_le_bytes());
            out.extend_from_slice(&batch.last_sequence.to_le_bytes());
            out.extend_from_slice(&batch.base.to_le_bytes());
        }
    }
    if let Some(transactions) = transactions {
        encode_transactions(&mut out, transactions);
    }
    out
}

fn encode_transactions(out: &mut Vec<u8>, transactions: &Transactions) {
    out.extend_from_slice(&transactions.noted().to_le_bytes());
    out.extend_from_slice(&(transactions.open().len() as u32).to_le_bytes());
    for open in transactions.open() {
        out.extend_from_slice(&open.producer.to_le_bytes());
        out.extend_from_slice(&open.epoch.to_le_bytes());
        out.extend_from_slice(&open.first.to_le_bytes());
        out.extend_from_slice(&open.started_ms.to_le_bytes());
    }
    out.extend_from_slice(&(transactions.aborted().len() as u32).to_le_bytes());
    for aborted in transactions.aborted() {
        out.extend_from_slice(&aborted.producer.to_le_bytes());
        for field in [aborted.first, aborted.last, aborted.stable] {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }
}

fn decode_transactions(fields: &mut Fields<'_>) -> Option<Transactions> {
    let noted = fields.u64()?;
    let (mut open, mut aborted) = (Vec::new(), Vec::new());
    for _ in 0..fields.u32()? {
        let (producer, epoch) = (fields.i64()?, fields.i16()?);
        open.push(Open { producer, epoch, first: fields.u64()?, end: noted, started_ms: fields.i64()? });
    }
    for _ in 0..fields.u32()? {
        aborted.push(Aborted {
            producer: fields.i64()?,
            first: fields.u64()?,
            last: fields.u64()?,
            stable: fields.u64()?,
        });
    }
    Some(Transactions::restored(noted, open, aborted))
}

pub(crate) fn decode_stream(bytes: &[u8]) -> Option<StreamRecord> {
    let has_transactions = bytes.first() == Some(&TRANSACTIONS_VERSION);
    let mut fields = if has_transactions { Fields::new(bytes.get(1..)?) } else { versioned(bytes)? };
    let (start, next, last_timestamp) = (fields.u64()?, fields.u64()?, fields.i64()?);
    let mut runs = Vec::new();
    for _ in 0..fields.u32()? {
        runs.push(RunRecord {
            segment: fields.u64()?,
            first: fields.u64()?,
            bytes: fields.u64()?,
            max_timestamp: fields.i64()?,
        });
    }
    let mut producers = Producers::default();
    for _ in 0..fields.u32()? {
        let id = fields.i64()?;
        let (epoch, seen_ms) = (fields.i16()?, fields.i64()?);
        let count = usize::from(fields.u8()?);
        if count > BATCHES_REMEMBERED {
            return None;
        }
        let mut batches = VecDeque::with_capacity(count);
        for _ in 0..count {
            batches.push_back(ProducerBatch {
                first_sequence: fields.i32()?,
                last_sequence: fields.i32()?,
                base: fields.u64()?,
                lsn: 0,
            });
        }
        producers.by_id.insert(id, Producer { epoch, seen_ms, batches });
    }
    let transactions = match has_transactions {
        true => Some(Box::new(decode_transactions(&mut fields)?)),
        false => None,
    };
    fields.is_empty().then_some(StreamRecord { start, next, last_timestamp, runs, producers, transactions })
}

pub(crate) fn encode_cursor(stream: u64, state: &CursorState) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&stream.to_le_bytes());
    out.extend_from_slice(&state.acked.position().to_le_bytes());
    out.extend_from_slice(&(state.acked.above().len() as u32).to_le_bytes());
    for (start, end) in state.acked.above() {
        out.extend_from_slice(&start.to_le_bytes());
        out.extend_from_slice(&end.to_le_bytes());
    }
    out.extend_from_slice(&(state.counts.len() as u32).to_le_bytes());
    for (offset, count) in &state.counts {
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
    }
    out
}

/// The stream's id and the cursor's state.
pub(crate) fn decode_cursor(bytes: &[u8]) -> Option<(u64, CursorState)> {
    let mut fields = versioned(bytes)?;
    let stream = fields.u64()?;
    let mut acked = AckedRanges::at(fields.u64()?);
    for _ in 0..fields.u32()? {
        acked.insert(fields.u64()?, fields.u64()?);
    }
    let mut counts = BTreeMap::new();
    for _ in 0..fields.u32()? {
        counts.insert(fields.u64()?, fields.u32()?);
    }
    fields.is_empty().then_some((stream, CursorState { acked, counts }))
}

fn versioned(bytes: &[u8]) -> Option<Fields<'_>> {
    let mut fields = Fields::new(bytes);
    (fields.u8()? == VERSION).then_some(fields)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cursors_with_holes_round_trip() {
        let mut state = CursorState::at(3);
        for offset in (10..100_000).step_by(2) {
            state.ack(offset, offset + 1);
        }
        state.set_count(11, 2);
        assert_eq!(decode_cursor(&encode_cursor(9, &state)), Some((9, state)));
    }

    #[test]
    fn streams_round_trip() {
        let runs = vec![RunRecord { segment: 1, first: 2, bytes: 3, max_timestamp: -4 }; 3];
        let batch = ProducerBatch { first_sequence: 1, last_sequence: 2, base: 3, lsn: 0 };
        let mut producers = Producers::default();
        producers.by_id.insert(7, Producer { epoch: 1, seen_ms: 5, batches: VecDeque::from([batch; 5]) });
        let open = Open { producer: 7, epoch: 1, first: 8, end: 9, started_ms: 9 };
        let aborted = |last| Aborted { producer: 7, first: 3, last, stable: 5 };
        let transactions = Transactions::restored(9, [open], [aborted(4), aborted(5)]);
        let record =
            StreamRecord { start: 1, next: 2, last_timestamp: 3, runs, producers, transactions: None };
        for transactions in [None, Some(Box::new(transactions))] {
            let record = StreamRecord { transactions, ..record.clone() };
            let (runs, producers) = (&record.runs, Some(&record.producers));
            let bytes = encode_stream((1, 2, 3), runs, producers, record.transactions.as_deref());
            assert_eq!(bytes[0], 1 + u8::from(record.transactions.is_some()));
            for length in 0..bytes.len() {
                assert_eq!(decode_stream(&bytes[..length]), None);
            }
            assert_eq!(decode_stream(&bytes), Some(record));
        }
    }

    #[test]
    fn rows_of_streams_of_both_versions_are_read() {
        let plain = [&[1][..], &[0; 24], &[0; 4], &[0; 4]].concat();
        assert_eq!(decode_stream(&plain), Some(StreamRecord::default()));
        let one = |value: u8| [value, 0, 0, 0, 0, 0, 0, 0];
        let open = [&[1, 0, 0, 0][..], &one(7), &[2, 0], &one(8), &one(9)].concat();
        let aborted = [&[1, 0, 0, 0][..], &one(7), &one(3), &one(4), &one(5)].concat();
        let bytes = [&[2][..], &plain[1..], &one(6), &open, &aborted].concat();
        let open = Open { producer: 7, epoch: 2, first: 8, end: 6, started_ms: 9 };
        let aborted = Aborted { producer: 7, first: 3, last: 4, stable: 5 };
        let transactions = Transactions::restored(6, [open], [aborted]);
        let record = StreamRecord { transactions: Some(Box::new(transactions)), ..StreamRecord::default() };
        assert_eq!(decode_stream(&bytes), Some(record));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = Meta::decode(&bytes);
            let _ = SegmentRecord::decode(&bytes);
            let _ = decode_stream(&bytes);
            let _ = decode_cursor(&bytes);
        }
    }
}
