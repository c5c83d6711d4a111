//! Publisher sequences: how far a named publisher that numbers its messages has come in a stream, so that what it sends again
//! after a lost connection is stored once.
//!
//! Owns the table in memory and its rows in the log, which agree: a number is raised in the entry of the batch that has its
//! message, under the sequence's lock. Does not own publishers, nor the numbers, which only have to grow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use inver_storage::{Batch, BatchBuilder, Entry, Lsn, StreamId, Submitted, records};
use parking_lot::Mutex;

use crate::completion::Completion;
use crate::limits::{self, LimitReached};
use crate::rows;

/// How far one named publisher has come in one stream.
#[derive(Debug)]
pub struct PublisherSequence {
    /// The key of its row.
    key: Bytes,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The greatest number stored.
    last: Option<u64>,
    /// The position of the log that it is durable at; none: it was recovered from it.
    lsn: Option<Lsn>,
}

impl PublisherSequence {
    /// The greatest number stored, and when it is durable.
    #[must_use]
    pub fn last(&self) -> (Option<u64>, Completion) {
        let state = self.state.lock();
        (state.last, state.lsn.into())
    }

    /// Submits a batch whose records have these numbers, in growing order, with the greatest of them. Records whose numbers
    /// are not greater than what is stored are left out: they are stored already.
    pub(crate) fn advance<E>(
        &self,
        numbers: &[u64],
        batch: Batch,
        submit: impl FnOnce(Entry, Batch) -> Result<Submitted, E>,
    ) -> Result<Completion, E> {
        // Held while the entry is submitted, so that a second connection of the same publisher finds the number raised.
        let mut state = self.state.lock();
        let last = numbers.last().filter(|last| state.last.is_none_or(|stored| **last > stored));
        let Some(last) = last else { return Ok(state.lsn.into()) };
        let stored = state.last.map_or(0, |stored| numbers.partition_point(|number| *number <= stored));
        let batch = if stored == 0 { batch } else { without_first(&batch, stored) };
        let mut entry = Entry::new();
        entry.put(rows::PUBLISHER_SEQUENCES, self.key.clone(), rows::encode(last));
        let submitted = submit(entry, batch)?;
        *state = State { last: Some(*last), lsn: Some(submitted.lsn) };
        Ok(submitted.lsn.into())
    }
}

/// A batch without its first records.
fn without_first(batch: &Batch, count: usize) -> Batch {
    let mut builder = BatchBuilder::new(batch.bytes().len());
    for record in records(batch.bytes()).into_iter().flatten().flatten().skip(count) {
        builder.push_with(
            record.timestamp_ms,
            record.key.as_deref(),
            record.header_count as usize,
            &record.headers,
            record.value.as_deref(),
        );
    }
    builder.finish()
}

type Table = BTreeMap<(u64, String), Arc<PublisherSequence>>;

/// All publisher sequences of a namespace.
pub struct PublisherSequences {
    namespace: u32,
    sequences_max: AtomicUsize,
    table: Mutex<Table>,
}

impl PublisherSequences {
    pub(crate) fn new(namespace: u32, sequences_max: usize) -> PublisherSequences {
        PublisherSequences {
            namespace,
            sequences_max: AtomicUsize::new(sequences_max),
            table: Mutex::default(),
        }
    }

    /// Changes the bound.
    pub(crate) fn set_max(&self, sequences_max: usize) {
        self.sequences_max.store(sequences_max, Ordering::Relaxed);
    }

    /// The sequence of a publisher in a stream; a new one is stored with its first batch.
    pub fn open(&self, stream: StreamId, publisher: &str) -> Result<Arc<PublisherSequence>, LimitReached> {
        let mut table = self.table.lock();
        let name = (stream.0, publisher.to_owned());
        if let Some(sequence) = table.get(&name) {
            return Ok(sequence.clone());
        }
        let max = self.sequences_max.load(Ordering::Relaxed);
        if table.len() >= max {
            // Of publishers that left without a message.
            table.retain(|_, sequence| Arc::strong_count(sequence) > 1 || sequence.last().0.is_some());
        }
        limits::check("publisher sequences", table.len(), max)?;
        let key = self.key(stream.0, publisher);
        let sequence = Arc::new(PublisherSequence { key, state: Mutex::default() });
        table.insert(name, sequence.clone());
        Ok(sequence)
    }

    /// The sequence of a publisher in a stream, if there is one.
    #[must_use]
    pub fn get(&self, stream: StreamId, publisher: &str) -> Option<Arc<PublisherSequence>> {
        self.table.lock().get(&(stream.0, publisher.to_owned())).cloned()
    }

    fn key(&self, stream: u64, publisher: &str) -> Bytes {
        rows::key(self.namespace, &[&stream.to_be_bytes(), publisher.as_bytes()])
    }

    /// Restores a sequence from what follows the namespace in the key of its row.
    pub(crate) fn recover(&self, key: &[u8], last: u64) {
        let Some((stream, publisher)) = key.split_first_chunk::<8>() else { return };
        let (stream, publisher) = (u64::from_be_bytes(*stream), String::from_utf8_lossy(publisher));
        let state = Mutex::new(State { last: Some(last), lsn: None });
        let sequence = PublisherSequence { key: self.key(stream, &publisher), state };
        self.table.lock().insert((stream, publisher.into_owned()), Arc::new(sequence));
    }

    /// Forgets the sequences of a stream that is deleted, and their rows with the entry that deletes it.
    pub(crate) fn delete_stream(&self, stream: StreamId, entry: &mut Entry) {
        let mut table = self.table.lock();
        let of_stream = (stream.0, String::new())..(stream.0 + 1, String::new());
        let names: Vec<(u64, String)> = table.range(of_stream).map(|(name, _)| name.clone()).collect();
        for name in names {
            if let Some(sequence) = table.remove(&name) {
                entry.delete(rows::PUBLISHER_SEQUENCES, sequence.key.clone());
            }
        }
    }

    /// Forgets all of them; the keys of their rows, which the caller deletes.
    pub(crate) fn take_keys(&self) -> Vec<Bytes> {
        std::mem::take(&mut *self.table.lock()).into_values().map(|sequence| sequence.key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(values: &[&str]) -> Batch {
        let mut builder = BatchBuilder::new(0);
        values.iter().for_each(|value| builder.push(0, None, &[], Some(value.as_bytes())));
        builder.finish()
    }

    /// The values that are stored.
    fn advance(sequence: &PublisherSequence, numbers: &[u64], values: &[&str]) -> Vec<String> {
        let mut stored = Vec::new();
        let submit = |entry: Entry, batch: Batch| {
            assert!(!entry.is_empty());
            let values = records(batch.bytes()).unwrap().map(|record| record.unwrap().value.unwrap());
            stored.extend(values.map(|value| String::from_utf8_lossy(&value).into_owned()));
            Ok::<_, ()>(Submitted { lsn: Lsn(7), bases: Default::default() })
        };
        sequence.advance(numbers, batch(values), submit).unwrap();
        stored
    }

    #[test]
    fn what_is_sent_again_is_stored_once() {
        let all = PublisherSequences::new(1, 10);
        let sequence = all.open(StreamId(5), "p").unwrap();
        assert_eq!(sequence.last(), (None, Completion::Now));
        assert_eq!(advance(&sequence, &[0, 4], &["a", "b"]), ["a", "b"]);
        assert_eq!(advance(&sequence, &[0, 4], &["a", "b"]), [""; 0]);
        assert_eq!(advance(&sequence, &[3, 4, 5, 9], &["x", "b", "c", "d"]), ["c", "d"]);
        assert_eq!(sequence.last(), (Some(9), Completion::At(Lsn(7))));
        assert!(Arc::ptr_eq(&sequence, &all.open(StreamId(5), "p").unwrap()));
    }

    #[test]
    fn a_rejected_write_raises_nothing() {
        let all = PublisherSequences::new(1, 10);
        let sequence = all.open(StreamId(5), "p").unwrap();
        assert!(sequence.advance(&[1], batch(&["a"]), |_, _| Err(())).is_err());
        assert_eq!(sequence.last().0, None);
        assert_eq!(advance(&sequence, &[1], &["a"]), ["a"]);
    }

    #[test]
    fn rows_are_kept_in_this_form() {
        let all = PublisherSequences::new(1, 10);
        let sequence = all.open(StreamId(5), "p").unwrap();
        assert_eq!(&sequence.key[..], b"\0\0\0\x01\0\0\0\0\0\0\0\x05p");
        assert_eq!(&rows::encode(&300_u64)[..], b"\x01\xac\x02");
        assert_eq!(rows::decode::<u64>(rows::PUBLISHER_SEQUENCES, b"\x01\xac\x02").unwrap(), 300);
        let restored = PublisherSequences::new(1, 10);
        restored.recover(b"\0\0\0\0\0\0\0\x05p", 300);
        assert_eq!(restored.get(StreamId(5), "p").unwrap().last(), (Some(300), Completion::Now));
        assert_eq!(restored.take_keys(), std::slice::from_ref(&sequence.key));
    }

    #[test]
    fn sequences_are_bounded_and_unused_ones_make_room() {
        let all = PublisherSequences::new(1, 2);
        let one = all.open(StreamId(5), "one").unwrap();
        drop(all.open(StreamId(5), "two").unwrap());
        let three = all.open(StreamId(6), "three").unwrap();
        assert_eq!(all.open(StreamId(6), "four").unwrap_err().what, "publisher sequences");
        advance(&three, &[1], &["a"]);
        drop((one, three));
        let mut entry = Entry::new();
        all.delete_stream(StreamId(6), &mut entry);
        assert!(!entry.is_empty() && all.get(StreamId(6), "three").is_none());
        assert!(all.get(StreamId(5), "one").is_some());
    }
}
