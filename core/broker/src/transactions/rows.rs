//! The rows of transactions: one for each id, and one for each part of an open transaction, so that a part costs the same
//! whatever the transaction holds already.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::state::{Part, Producer, State, TransactionState};
use crate::tables::{self, RowError, counted, decode, encode, split_counted};

pub(super) use crate::tables::{TRANSACTION_PARTS, TRANSACTIONS};

/// Kinds of parts, in their keys.
const PARTITION: u8 = 0;
const GROUP: u8 = 1;
const OFFSET: u8 = 2;

#[derive(Serialize, Deserialize)]
struct TransactionRow {
    producer: (i64, i16),
    previous: Option<(i64, i16)>,
    timeout_ms: i32,
    state: u8,
    started_ms: i64,
    updated_ms: i64,
}

pub(super) fn transaction_key(namespace: u32, id: &str) -> Bytes {
    tables::key(namespace, &[id.as_bytes()])
}

pub(super) fn encode_transaction(state: &State) -> Bytes {
    let pair = |producer: Producer| (producer.id, producer.epoch);
    encode(&TransactionRow {
        producer: pair(state.producer),
        previous: state.previous.map(pair),
        timeout_ms: state.timeout_ms,
        state: state.state as u8,
        started_ms: state.started_ms,
        updated_ms: state.updated_ms,
    })
}

pub(super) fn decode_transaction(row: &[u8]) -> Result<State, RowError> {
    let row: TransactionRow = decode(TRANSACTIONS, row)?;
    let producer = |(id, epoch): (i64, i16)| Producer { id, epoch };
    let mut state = State::new(producer(row.producer), row.timeout_ms, row.updated_ms);
    state.previous = row.previous.map(producer);
    state.started_ms = row.started_ms;
    state.state = match row.state {
        1 => TransactionState::Open,
        2 => TransactionState::Committed,
        3 => TransactionState::Aborted,
        _ => TransactionState::Empty,
    };
    Ok(state)
}

/// The key of a part.
pub(super) fn part_key(namespace: u32, id: &str, part: &Part) -> Bytes {
    let counted_id = counted(id.as_bytes());
    let key = |kind: u8, rest: &[u8]| tables::key(namespace, &[&counted_id, &[kind], rest]);
    match part {
        Part::Partition { stream, .. } => key(PARTITION, &stream.to_be_bytes()),
        Part::Group { group } => key(GROUP, group.as_bytes()),
        Part::Offset { group, topic, partition, .. } => offset_key(namespace, id, (group, topic, *partition)),
    }
}

/// The key of an offset: group, topic and partition.
pub(super) fn offset_key(namespace: u32, id: &str, (group, topic, partition): (&str, &str, u32)) -> Bytes {
    let [id, group, topic] = [id, group, topic].map(|text| counted(text.as_bytes()));
    tables::key(namespace, &[&id, &[OFFSET], &group, &topic, &partition.to_be_bytes()])
}

/// The row of a part.
pub(super) fn encode_part(part: &Part) -> Bytes {
    match part {
        Part::Partition { topic, index, .. } => encode(&(topic.as_ref(), *index)),
        Part::Group { .. } => encode(&()),
        Part::Offset { offset, .. } => encode(offset),
    }
}

/// A part from its key without the namespace and the id, and its row; none if the key is not one of a part.
pub(super) fn decode_part(key: &Bytes, row: &[u8]) -> Result<Option<Part>, RowError> {
    let Some((kind, _)) = key.split_first() else { return Ok(None) };
    let (kind, rest) = (*kind, key.slice(1..));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(match kind {
        PARTITION => match rest.first_chunk::<8>() {
            Some(stream) => {
                let (topic, index): (String, u32) = decode(TRANSACTION_PARTS, row)?;
                Some(Part::Partition { stream: u64::from_be_bytes(*stream), topic: topic.into(), index })
            }
            None => None,
        },
        GROUP => Some(Part::Group { group: text(&rest) }),
        OFFSET => {
            let split = split_counted(&rest)
                .and_then(|(group, rest)| Some((group, split_counted(&rest)?)))
                .and_then(|(group, (topic, rest))| Some((group, topic, *rest.first_chunk::<4>()?)));
            match split {
                Some((group, topic, partition)) => Some(Part::Offset {
                    group: text(&group),
                    topic: text(&topic),
                    partition: u32::from_be_bytes(partition),
                    offset: decode(TRANSACTION_PARTS, row)?,
                }),
                None => None,
            }
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::committed_offsets::CommittedOffset;

    #[test]
    fn rows_of_transactions_are_read() {
        let mut state = State::new(Producer { id: 300, epoch: 2 }, 60_000, 9);
        state.previous = Some(Producer { id: 300, epoch: 1 });
        state.state = TransactionState::Open;
        state.started_ms = 7;
        let row = encode_transaction(&state);
        assert_eq!(&row[..], b"\x01\xd8\x04\x04\x01\xd8\x04\x02\xc0\xa9\x07\x01\x0e\x12");
        let read = decode_transaction(&row).unwrap();
        assert_eq!(encode_transaction(&read), row);
        assert!(decode_transaction(b"\x02\x00").is_err() && decode_transaction(b"").is_err());
    }

    #[test]
    fn rows_of_parts_are_read() {
        let offset =
            CommittedOffset { offset: 5, leader_epoch: -1, metadata: Some("m".into()), committed_ms: 3 };
        let parts: [(Part, &[u8], &[u8]); 3] = [
            (
                Part::Partition { stream: 9, topic: "t".into(), index: 3 },
                b"\x00\x00\x00\x00\x00\x00\x00\x00\x09",
                b"\x01\x01t\x03",
            ),
            (Part::Group { group: "g".into() }, b"\x01g", b"\x01"),
            (
                Part::Offset { group: "g".into(), topic: "t".into(), partition: 2, offset },
                b"\x02\x00\x00\x00\x01g\x00\x00\x00\x01t\x00\x00\x00\x02",
                b"\x01\x0a\x01\x01\x01m\x06",
            ),
        ];
        for (part, key, row) in parts {
            let full = part_key(1, "id", &part);
            let (id, rest) = split_counted(&full.slice(4..)).unwrap();
            assert_eq!((&id[..], &rest[..]), (&b"id"[..], key));
            assert_eq!(encode_part(&part), row);
            assert_eq!(decode_part(&rest, row).unwrap(), Some(part));
        }
        assert_eq!(decode_part(&Bytes::from_static(b"\x07"), b"\x01").unwrap(), None);
        assert!(decode_part(&Bytes::from_static(&[0; 9]), b"\x02").is_err());
    }
}
