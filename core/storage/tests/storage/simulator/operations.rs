//! Random operations on an open log.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use inver_storage::{
    Batch, BatchBuilder, Clock, Compaction, Compression, CursorId, Entry, Log, LogStats, Offset,
    ProducerStamp, Retention, StreamId, SubmitError, TableId,
};

use super::model::{Change, ModelRecord, Verdict};
use super::simulation::{Simulation, Taken};

pub(crate) const TABLE: TableId = TableId(3);
const STREAMS_MAX: usize = 6;

impl Simulation {
    pub(crate) fn step(&mut self) {
        let log = self.log.clone().unwrap();
        self.clock.0.fetch_add(self.random.below(50) as i64, Ordering::Relaxed);
        match self.random.below(20) {
            0..=4 => {
                self.close_window();
                let _ = log.step_writer();
            }
            kind @ (5 | 6) => {
                // An attempt that is put off ends the window as well.
                let attempts = |stats: LogStats| stats.checkpoints + stats.checkpoints_put_off;
                let before = attempts(log.stats());
                let synced = match (kind, self.random.below(4)) {
                    (5, _) => log.step_maintenance().map(|()| false),
                    (_, 0) => log.clean().map(|_| false),
                    (_, 1) => log.compact().map(|_| false),
                    (_, 2) => log.sync().map(|_| true),
                    _ => log.checkpoint().map(|_| true),
                };
                if attempts(log.stats()) > before || synced.unwrap_or(true) {
                    self.close_window();
                }
            }
            7..=9 => self.acknowledge(&log),
            10 => self.check_reads(&log),
            11 => self.retain(&log),
            12 => self.produce(&log),
            _ => self.submit(&log),
        }
        self.note_progress(&log);
    }

    fn acknowledge(&mut self, log: &Log) {
        let Some(id) = self.pick(&log.cursor_ids().iter().map(|id| id.0).collect::<Vec<_>>()) else { return };
        let start = self.random.below(60);
        let end = start + 1 + self.random.below(4);
        if log.cursor(CursorId(id)).unwrap().ack(&[Offset(start)..Offset(end)]).is_ok() {
            let change = Change::Ack(id, start, end);
            self.ahead.apply(&change);
            self.window.push(change);
        }
    }

    fn pick(&mut self, from: &[u64]) -> Option<u64> {
        from.get(self.random.below(from.len() as u64) as usize).copied()
    }

    /// Trims a stream to a random retention.
    fn retain(&mut self, log: &Log) {
        let streams: Vec<u64> = log.stream_ids().iter().map(|id| id.0).collect();
        let Some(stream) = self.pick(&streams) else { return };
        let handle = log.stream(StreamId(stream)).unwrap();
        let keep = Retention {
            bytes_max: self.random.once_in(2).then(|| self.random.below(6000)),
            oldest_ms: self.random.once_in(2).then(|| self.clock.now_ms() - self.random.below(4000) as i64),
            tolerance_ms: self.random.below(200) as i64,
        };
        let to = handle.retention_point(&keep);
        assert!(to >= handle.start() && to <= handle.high_watermark().max(handle.start()));
        let mut entry = Entry::new();
        entry.trim(&handle, to);
        self.take(log, entry, vec![Change::Trim(stream, to.0)], &[]);
    }

    /// Submits a batch of an idempotent producer: the next one, a duplicate, or one behind a gap.
    fn produce(&mut self, log: &Log) {
        let streams: Vec<u64> = log.stream_ids().iter().map(|id| id.0).collect();
        let Some(stream) = self.pick(&streams) else { return };
        let id = self.random.below(3) as i64;
        let model = &self.ahead.streams[&stream];
        let known = model.producers.get(&id).cloned().unwrap_or_default();
        let (next, epoch) = (known.batches.back().map_or(0, |last| last.1 + 1), known.epoch);
        let (batch_from, count) = match known.batches.front() {
            Some(old) if self.random.once_in(4) => (old.0, (old.1 - old.0 + 1) as u64),
            _ => (next + i32::from(self.random.once_in(6)), 1 + self.random.below(3)),
        };
        let epoch = match self.random.below(12) {
            0 => (epoch - 1).max(0),
            1 => epoch + 1,
            _ => epoch,
        };
        let base_sequence = if epoch > known.epoch && self.random.once_in(2) { 0 } else { batch_from };
        let stamp = ProducerStamp { id, epoch, base_sequence, transactional: false, control: false };
        let (batch, records) = self.batch(count, Some(stamp));
        let verdict = self.ahead.streams[&stream].judge(&stamp, records.len());
        let mut destinations = vec![log.stream(StreamId(stream)).unwrap()];
        let mut changes =
            vec![Change::Batch { stream, base: 0, records: records.clone(), stamp: Some(stamp) }];
        if let Some(other) = self.pick(&streams).filter(|other| *other != stream)
            && self.random.once_in(3)
        {
            // Sequences do not count in the copy.
            destinations.push(log.stream(StreamId(other)).unwrap());
            changes.push(Change::Batch { stream: other, base: 0, records, stamp: None });
        }
        let mut entry = Entry::new();
        entry.batch(&destinations, batch);
        let positions: Vec<usize> = (0..changes.len()).collect();
        let rejection = self.take(log, entry, changes, &positions);
        match (verdict, rejection) {
            (_, Some(SubmitError::Log(_))) | (Verdict::Accepted, None) => {}
            (Verdict::Duplicate(base), Some(SubmitError::DuplicateSequence { base_offset, .. })) => {
                assert_eq!(base_offset.0, base);
            }
            (Verdict::OutOfOrder, Some(SubmitError::OutOfOrderSequence)) => {}
            (Verdict::OldEpoch, Some(SubmitError::InvalidProducerEpoch)) => {}
            (verdict, rejection) => panic!("{verdict:?}, but {rejection:?}"),
        }
    }

    fn submit(&mut self, log: &Log) {
        let streams: Vec<u64> = log.stream_ids().iter().map(|id| id.0).collect();
        let cursors: Vec<u64> = log.cursor_ids().iter().map(|id| id.0).collect();
        let mut entry = Entry::new();
        let mut changes = Vec::new();
        let mut batches = Vec::new();
        let mut touched = BTreeSet::new();
        for _ in 0..=self.random.below(3) {
            let kind = self.random.below(16);
            let (Some(stream), cursor) = (self.pick(&streams), self.pick(&cursors)) else {
                let id = log.allocate_stream();
                entry.create_stream(id);
                changes.push(Change::CreateStream(id.0));
                break;
            };
            let handle = log.stream(StreamId(stream)).unwrap();
            match (kind, cursor) {
                (0, _) if streams.len() < STREAMS_MAX => {
                    let id = log.allocate_stream();
                    entry.create_stream(id);
                    changes.push(Change::CreateStream(id.0));
                    if self.random.once_in(2) {
                        changes.push(self.compact(&mut entry, id.0));
                    }
                }
                (0, _) if self.random.once_in(3) => changes.push(self.compact(&mut entry, stream)),
                (1, _) if streams.len() > 2 && self.random.once_in(3) && touched.insert(stream) => {
                    entry.delete_stream(StreamId(stream));
                    changes.push(Change::DeleteStream(stream));
                    break;
                }
                (2, _) => {
                    let to = handle.start().0 + self.random.below(60);
                    entry.trim(&handle, Offset(to));
                    changes.push(Change::Trim(stream, to));
                }
                (3, _) if cursors.len() < 10 => {
                    let id = log.allocate_cursor();
                    let at = self.random.below(20);
                    entry.create_cursor(id, StreamId(stream), Offset(at));
                    changes.push(Change::CreateCursor(id.0, at));
                }
                (4, Some(cursor)) if self.random.once_in(10) => {
                    entry.delete_cursor(CursorId(cursor));
                    changes.push(Change::DeleteCursor(cursor));
                    break;
                }
                (5, Some(cursor)) => {
                    let handle = log.cursor(CursorId(cursor)).unwrap();
                    let offset = self.random.below(60);
                    entry.returned(&handle, &[Offset(offset)]);
                    changes.push(Change::Returned(cursor, offset));
                }
                (6, Some(cursor)) if self.random.once_in(3) => {
                    let to = self.random.below(60);
                    entry.seek(&log.cursor(CursorId(cursor)).unwrap(), Offset(to));
                    changes.push(Change::Seek(cursor, to));
                }
                (7, Some(cursor)) => {
                    let start = self.random.below(60);
                    entry.ack(&log.cursor(CursorId(cursor)).unwrap(), &[Offset(start)..Offset(start + 2)]);
                    changes.push(Change::Ack(cursor, start, start + 2));
                }
                (8 | 9, _) => {
                    let key = self.random.below(12) as u8;
                    if self.random.once_in(3) {
                        entry.delete(TABLE, Bytes::from(vec![key]));
                        changes.push(Change::Delete(key));
                    } else {
                        let value = self.random.any();
                        entry.put(TABLE, Bytes::from(vec![key]), Bytes::from(value.to_le_bytes().to_vec()));
                        changes.push(Change::Put(key, value));
                    }
                }
                _ => {
                    let mut destinations = vec![stream];
                    if let Some(other) = self.pick(&streams).filter(|other| *other != stream)
                        && self.random.once_in(3)
                    {
                        destinations.push(other);
                    }
                    let count = 1 + self.random.below(5);
                    let (batch, records) = self.batch(count, None);
                    let handles: Vec<_> =
                        destinations.iter().map(|id| log.stream(StreamId(*id)).unwrap()).collect();
                    entry.batch(&handles, batch);
                    for stream in destinations {
                        batches.push(changes.len());
                        changes.push(Change::Batch {
                            stream,
                            base: 0,
                            records: records.clone(),
                            stamp: None,
                        });
                    }
                }
            }
        }
        self.take(log, entry, changes, &batches);
    }

    /// Submits an entry and, if the log accepts it, records its changes. `batches`: indexes of changes that are batches.
    fn take(
        &mut self,
        log: &Log,
        entry: Entry,
        mut changes: Vec<Change>,
        batches: &[usize],
    ) -> Option<SubmitError> {
        let submitted = match log.submit(entry) {
            Ok(submitted) => submitted,
            Err(error) => return Some(error),
        };
        for (at, given) in batches.iter().zip(&submitted.bases) {
            if let Change::Batch { base, .. } = &mut changes[*at] {
                *base = given.0;
            }
        }
        let is_plain = |change: &Change| {
            use Change::{Batch, Compact, Delete, Put, Trim};
            matches!(change, Batch { .. } | Put(..) | Delete(..) | Trim(..) | Compact(..))
        };
        if !changes.iter().all(is_plain) {
            self.close_window();
        }
        for change in &changes {
            self.ahead.apply(change);
        }
        self.taken.push(Taken { after: submitted.lsn.0 - 1, changes });
        self.submitted = submitted.lsn.0;
        None
    }

    fn compact(&mut self, entry: &mut Entry, stream: u64) -> Change {
        let policy = (!self.random.once_in(4)).then(|| Compaction {
            lag_max: Duration::from_millis(if self.random.once_in(2) { i64::MAX as u64 } else { 500 }),
            delete_retention: Duration::from_millis(self.random.below(3000)),
            dirty_percent_min: self.random.below(80) as u32,
            lag_min: Duration::from_millis([0, 0, 500][self.random.below(3) as usize]),
        });
        if let Some(policy) = policy {
            let retention_ms = policy.delete_retention.as_millis() as i64;
            let least = self.compacted.entry(stream).or_insert(retention_ms);
            *least = retention_ms.min(*least);
        }
        entry.set_compaction(StreamId(stream), policy);
        Change::Compact(stream, policy)
    }

    fn batch(&mut self, count: u64, stamp: Option<ProducerStamp>) -> (Batch, Vec<ModelRecord>) {
        let mut builder = BatchBuilder::new(64);
        let mut records = Vec::new();
        let large = if self.random.once_in(12) { 5000 } else { 60 };
        let timestamp_ms = self.clock.now_ms();
        for _ in 0..count {
            self.next_value += 1;
            let mut value = self.next_value.to_le_bytes().to_vec();
            value.resize(8 + self.random.below(large) as usize, self.next_value as u8);
            let key = (!self.random.once_in(3)).then(|| vec![self.random.below(12) as u8]);
            let value = (key.is_none() || !self.random.once_in(5)).then_some(value);
            builder.push(timestamp_ms, key.as_deref(), &[], value.as_deref());
            records.push(ModelRecord { timestamp_ms, key, value });
        }
        let codec = [Compression::None, Compression::None, Compression::Lz4][self.random.below(3) as usize];
        (builder.finish_as(codec, stamp), records)
    }
}
