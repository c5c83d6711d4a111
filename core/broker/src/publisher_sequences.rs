//! Publisher sequences: how far a named publisher that numbers its messages has come in a stream, so that what it sends again
//! after a lost connection is stored once.
//!
//! Owns the table in memory and its rows in the log, which agree: a number is raised in the entry of the batch that has its
//! message, under the sequence's lock. Does not own publishers, nor the numbers, which only have to grow.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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
    /// Its stream is deleted, and its row with it.
    is_deleted: AtomicBool,
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
    fn new(key: Bytes, last: Option<u64>) -> Arc<PublisherSequence> {
        let state = Mutex::new(State { last, lsn: None });
        Arc::new(PublisherSequence { key, is_deleted: AtomicBool::new(false), state })
    }

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
        if !self.is_deleted.load(Ordering::Acquire) {
            entry.put(rows::PUBLISHER_SEQUENCES, self.key.clone(), rows::encode(last));
        }
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

/// By stream and publisher.
type Table = BTreeMap<(u64, String), Arc<PublisherSequence>>;

/// A sequence that a publisher uses. One that stored nothing is forgotten with the last of its uses.
pub struct OpenSequence {
    table: Arc<Mutex<Table>>,
    name: (u64, String),
    sequence: Arc<PublisherSequence>,
}

impl fmt::Debug for OpenSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sequence.fmt(f)
    }
}

impl Deref for OpenSequence {
    type Target = PublisherSequence;

    fn deref(&self) -> &PublisherSequence {
        &self.sequence
    }
}

impl Drop for OpenSequence {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        // The table and this use have it: nobody waits for its lock.
        if Arc::strong_count(&self.sequence) == 2 && self.sequence.last().0.is_none() {
            table.remove(&self.name);
        }
    }
}

/// All publisher sequences of a namespace.
pub struct PublisherSequences {
    namespace: u32,
    sequences_max: AtomicUsize,
    table: Arc<Mutex<Table>>,
}

impl PublisherSequences {
    pub(crate) fn new(namespace: u32, sequences_max: usize) -> PublisherSequences {
        PublisherSequences {
            namespace,
            sequences_max: AtomicUsize::new(sequences_max),
            table: Arc::default(),
        }
    }

    /// Changes the bound.
    pub(crate) fn set_max(&self, sequences_max: usize) {
        self.sequences_max.store(sequences_max, Ordering::Relaxed);
    }

    /// The sequence of a publisher in a stream; a new one is stored with its first batch.
    pub fn open(&self, stream: StreamId, publisher: &str) -> Result<OpenSequence, LimitReached> {
        let name = (stream.0, publisher.to_owned());
        let mut table = self.table.lock();
        let sequence = match table.get(&name) {
            Some(sequence) => sequence.clone(),
            None => {
                let max = self.sequences_max.load(Ordering::Relaxed);
                limits::check("publisher sequences", table.len(), max)?;
                let sequence = PublisherSequence::new(self.key(stream.0, publisher), None);
                table.insert(name.clone(), sequence.clone());
                sequence
            }
        };
        Ok(OpenSequence { table: self.table.clone(), name, sequence })
    }

    /// The sequence of a publisher in a stream, if there is one.
    #[must_use]
    pub fn get(&self, stream: StreamId, publisher: &str) -> Option<OpenSequence> {
        let name = (stream.0, publisher.to_owned());
        let sequence = self.table.lock().get(&name).cloned()?;
        Some(OpenSequence { table: self.table.clone(), name, sequence })
    }

    fn key(&self, stream: u64, publisher: &str) -> Bytes {
        rows::key(self.namespace, &[&stream.to_be_bytes(), publisher.as_bytes()])
    }

    /// Restores a sequence from what follows the namespace in the key of its row.
    pub(crate) fn recover(&self, key: &[u8], last: u64) {
        let Some((stream, publisher)) = key.split_first_chunk::<8>() else { return };
        let (stream, publisher) = (u64::from_be_bytes(*stream), String::from_utf8_lossy(publisher));
        let sequence = PublisherSequence::new(self.key(stream, &publisher), Some(last));
        self.table.lock().insert((stream, publisher.into_owned()), sequence);
    }

    /// Forgets the sequences of a stream that was deleted; the keys of their rows, which the caller deletes.
    pub(crate) fn forget_stream(&self, stream: StreamId) -> Vec<Bytes> {
        let mut table = self.table.lock();
        let names: Vec<(u64, String)> =
            table.range(of_stream(stream)).map(|(name, _)| name.clone()).collect();
        let forgotten = names.iter().filter_map(|name| table.remove(name)).map(|sequence| {
            sequence.is_deleted.store(true, Ordering::Release);
            sequence.key.clone()
        });
        forgotten.collect()
    }

    /// Forgets all of them; the keys of their rows, which the caller deletes.
    pub(crate) fn take_keys(&self) -> Vec<Bytes> {
        std::mem::take(&mut *self.table.lock()).into_values().map(|sequence| sequence.key.clone()).collect()
    }
}

/// The names of all sequences of a stream.
fn of_stream(stream: StreamId) -> std::ops::Range<(u64, String)> {
    (stream.0, String::new())..(stream.0 + 1, String::new())
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
        assert!(std::ptr::eq(&*sequence, &*all.open(StreamId(5), "p").unwrap()));
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
        let again = all.open(StreamId(5), "one").unwrap();
        drop(one);
        assert!(all.get(StreamId(5), "one").is_some(), "another publisher uses it");
        drop(again);
        assert!(all.get(StreamId(5), "one").is_none());
        drop(three);
        assert!(all.get(StreamId(6), "three").is_some(), "it has stored something");
    }

    #[test]
    fn sequences_of_a_deleted_stream_leave_no_row() {
        let all = PublisherSequences::new(1, 2);
        let sequence = all.open(StreamId(6), "p").unwrap();
        advance(&sequence, &[1], &["a"]);
        assert_eq!(all.forget_stream(StreamId(6)), std::slice::from_ref(&sequence.key));
        assert!(all.get(StreamId(6), "p").is_none());
        // Who still uses it leaves no row behind.
        let submit = |entry: Entry, _| {
            assert!(entry.is_empty());
            Ok::<_, ()>(Submitted { lsn: Lsn(8), bases: Default::default() })
        };
        sequence.advance(&[2], batch(&["b"]), submit).unwrap();
    }
}
