//! Comparison of the log with the model: all readable data, or a part of it while the log is in use.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use inver_storage::{
    BatchBuilder, Compression, CursorId, Entry, Log, Offset, ReadError, Stream, StreamId, SubmitError,
    TimeLookup,
};

use super::model::{Model, ModelStream};
use super::operations::TABLE;
use super::simulation::Simulation;
use crate::shorthand::{Row, read_once, take_rows, try_rows};

impl Simulation {
    pub(crate) fn compare(&self, log: &Log) {
        self.compare_with(log, &self.settled, None);
    }

    /// `damaged`: the file in which reads may report damage.
    pub(crate) fn compare_with(&self, log: &Log, model: &Model, damaged: Option<&str>) {
        let streams: Vec<u64> = log.stream_ids().iter().map(|id| id.0).collect();
        assert_eq!(streams, model.streams.keys().copied().collect::<Vec<_>>());
        for (id, expected) in &model.streams {
            let stream = log.stream(StreamId(*id)).unwrap();
            assert_eq!(stream.start().0, expected.start, "start of {id}");
            assert_eq!(stream.next_offset().0, expected.records.len() as u64, "end of {id}");
            assert_eq!(stream.high_watermark(), stream.next_offset());
            assert_eq!(log.compaction(StreamId(*id)), expected.compaction, "compaction of {id}");
            let (found, lost) = match damaged {
                None => (try_rows(&stream, expected.start).unwrap(), Vec::new()),
                Some(file) => rows_beside_damage(&stream, file),
            };
            self.compare_rows(*id, expected, expected.start, &found, &lost);
            if damaged.is_none() {
                compare_producers(log, &stream, expected);
            }
        }
        compare_cursors(log, model);
        let state: BTreeMap<u8, u64> = log
            .recovered_state(TABLE)
            .into_iter()
            .map(|(key, value)| (key[0], u64::from_le_bytes(value.as_ref().try_into().unwrap())))
            .collect();
        // A failure to read the state ends the log.
        if log.failure().is_none() {
            assert_eq!(state, model.state);
        }
    }

    /// `lost`: damaged offsets.
    fn compare_rows(&self, id: u64, expected: &ModelStream, from: u64, found: &[Row], lost: &[u64]) {
        let tombstones_to_ms = self
            .compacted
            .get(&id)
            .map(|retention_ms| self.clock.0.load(Ordering::Relaxed).saturating_sub(*retention_ms));
        let mut found = found.iter().peekable();
        for (offset, record) in expected.records.iter().enumerate().skip(from as usize) {
            let offset = offset as u64;
            match found.next_if(|row| row.offset == offset) {
                Some(row) => {
                    assert_eq!((&row.key, &row.value), (&record.key, &record.value), "{id} at {offset}");
                }
                None => {
                    let is_compacted = tombstones_to_ms.is_some_and(|to_ms| expected.may_lack(offset, to_ms));
                    assert!(is_compacted || lost.contains(&offset), "{id} lacks {offset}");
                }
            }
        }
        assert_eq!(found.next(), None, "{id} has extra records");
    }

    /// Visible records are a prefix of the submitted ones.
    pub(crate) fn check_reads(&mut self, log: &Log) {
        let streams: Vec<u64> = self.ahead.streams.keys().copied().collect();
        for id in streams {
            let stream = log.stream(StreamId(id)).unwrap();
            let high = stream.high_watermark().0;
            let mut expected = self.ahead.streams[&id].clone();
            assert!(high <= expected.records.len() as u64);
            assert_eq!(stream.start().0, expected.start);
            let from = expected.start + self.random.below(high.saturating_sub(expected.start) + 1);
            if from > high {
                continue;
            }
            match try_rows(&stream, from) {
                Ok(rows) => {
                    assert!(rows.last().is_none_or(|row| row.offset < high));
                    expected.records.truncate(high as usize);
                    // The record that replaces another may not be visible yet.
                    let whole = &self.ahead.streams[&id];
                    let beyond: Vec<u64> = (from..high).filter(|at| self.may_lack(id, whole, *at)).collect();
                    self.compare_rows(id, &expected, from, &rows, &beyond);
                    self.check_time(&stream, &expected);
                }
                // The medium failed, or the process stopped, which the log does not have to detect at once.
                Err(ReadError::Io { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn may_lack(&self, id: u64, stream: &ModelStream, offset: u64) -> bool {
        let now_ms = self.clock.0.load(Ordering::Relaxed);
        self.compacted.get(&id).is_some_and(|retention_ms| stream.may_lack(offset, now_ms - retention_ms))
    }

    /// A lookup by time finds the first record at or after that time.
    fn check_time(&mut self, stream: &Stream, expected: &ModelStream) {
        if self.compacted.contains_key(&stream.id().0) {
            return;
        }
        let now_ms = self.clock.0.load(Ordering::Relaxed);
        let timestamp_ms = now_ms - self.random.below(3000) as i64;
        let found = match stream.offset_for_time(timestamp_ms) {
            Ok(TimeLookup::Ready(found)) => Ok(found),
            Ok(TimeLookup::Cold(cold)) => cold.run(),
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => {
                let records = expected.records.iter().enumerate().skip(expected.start as usize);
                let first = records
                    .map(|(offset, record)| (Offset(offset as u64), record.timestamp_ms))
                    .find(|(_, time_ms)| *time_ms >= timestamp_ms);
                assert_eq!(found, first);
            }
            Err(ReadError::Io { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// The last batches of each producer are rejected as duplicates, with their offsets.
fn compare_producers(log: &Log, stream: &Stream, expected: &ModelStream) {
    for (id, producer) in &expected.producers {
        for (first, last, base) in &producer.batches {
            let mut builder = BatchBuilder::new(64);
            for _ in *first..=*last {
                builder.push(0, None, &[], None);
            }
            let stamp = inver_storage::ProducerStamp {
                id: *id,
                epoch: producer.epoch,
                base_sequence: *first,
                transactional: false,
                control: false,
            };
            let mut entry = Entry::new();
            entry.batch(std::slice::from_ref(stream), builder.finish_as(Compression::None, Some(stamp)));
            match log.submit(entry) {
                Err(SubmitError::DuplicateSequence { base_offset, .. }) => assert_eq!(base_offset.0, *base),
                // The log has ended.
                Err(SubmitError::Log(_)) => {}
                other => panic!("producer {id} of {}: {other:?}", stream.id()),
            }
        }
    }
}

fn compare_cursors(log: &Log, model: &Model) {
    let cursors: Vec<u64> = log.cursor_ids().iter().map(|id| id.0).collect();
    assert_eq!(cursors, model.cursors.keys().copied().collect::<Vec<_>>());
    for (id, expected) in &model.cursors {
        let cursor = log.cursor(CursorId(*id)).unwrap();
        assert_eq!(cursor.position().0, expected.position(), "position of cursor {id}");
        let above: Vec<u64> =
            cursor.acked_above().into_iter().flat_map(|range| range.start.0..range.end.0).collect();
        assert_eq!(above, expected.above(), "cursor {id}");
        let counts: BTreeMap<u64, u32> =
            cursor.delivery_counts().into_iter().map(|(offset, count)| (offset.0, count)).collect();
        assert_eq!(counts, expected.counts, "counts of cursor {id}");
    }
}

/// All readable records, batch by batch, and the offsets at which damage is reported.
fn rows_beside_damage(stream: &Stream, damaged: &str) -> (Vec<Row>, Vec<u64>) {
    let (mut rows, mut lost) = (Vec::new(), Vec::new());
    let mut next = stream.start().0;
    while next < stream.high_watermark().0 {
        match read_once(stream, next, 1) {
            Ok(batches) if batches.is_empty() => break,
            Ok(batches) => {
                for stored in &batches {
                    next = take_rows(stored, next, &mut rows);
                }
            }
            Err(ReadError::Damaged { file, .. }) if file == damaged => {
                lost.push(next);
                next += 1;
            }
            Err(error) => panic!("{damaged} was damaged, but: {error}"),
        }
    }
    (rows, lost)
}
