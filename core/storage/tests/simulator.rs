//! The production code over a medium that does its worst, driven by seeds, against a plain model.
//!
//! A seed determines everything: operations, faults, crash points, what survives. `INVER_SIMULATOR_SEEDS=from..to`
//! runs others than the default ones; a failing seed is named in the panic.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use common::{read_all, read_once, try_read_all};
use inver_storage::medium::fake::{FakeMedium, Fault, Random};
use inver_storage::{
    Batch, BatchBuilder, Clock, CommitPolicy, CursorId, Entry, Log, LogOptions, Offset, OpenError, ReadError,
    StreamId, TableId,
};

const DEFAULT_SEEDS: u64 = 150;
const STEPS_MAX: u64 = 220;
const LIVES: u32 = 4;
const SEGMENT_HEADER_BYTES: u64 = 64;
const TABLE: TableId = TableId(3);

#[derive(Debug, Default)]
struct SimulatedClock(AtomicI64);

impl Clock for SimulatedClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One change, as the model applies it.
#[derive(Clone, Debug)]
enum Change {
    Batch { stream: u64, base: u64, values: Vec<Vec<u8>> },
    CreateStream(u64),
    DeleteStream(u64),
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
struct ModelStream {
    start: u64,
    values: Vec<Vec<u8>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ModelCursor {
    acked: BTreeSet<u64>,
    counts: BTreeMap<u64, u32>,
    /// Where the last seek went; everything below counts as acknowledged.
    from: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    streams: BTreeMap<u64, ModelStream>,
    cursors: BTreeMap<u64, ModelCursor>,
    state: BTreeMap<u8, u64>,
}

impl Model {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Batch { stream, base, values } => {
                if let Some(stream) = self.streams.get_mut(stream) {
                    assert_eq!(stream.values.len() as u64, *base);
                    stream.values.extend(values.iter().cloned());
                }
            }
            Change::CreateStream(id) => {
                self.streams.insert(*id, ModelStream::default());
            }
            Change::DeleteStream(id) => {
                self.streams.remove(id);
            }
            Change::Trim(id, to) => {
                if let Some(stream) = self.streams.get_mut(id) {
                    stream.start = stream.start.max((*to).min(stream.values.len() as u64));
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
    fn position(&self) -> u64 {
        (self.from..).find(|offset| !self.acked.contains(offset)).unwrap()
    }

    fn above(&self) -> Vec<u64> {
        let position = self.position();
        self.acked.iter().copied().filter(|offset| *offset > position).collect()
    }
}

/// Changes that the log took, in order. `after`: the change is in the log if it ends beyond this position.
struct Taken {
    after: u64,
    changes: Vec<Change>,
}

struct Simulation {
    random: Random,
    medium: FakeMedium,
    clock: Arc<SimulatedClock>,
    options: LogOptions,
    log: Option<Log>,
    /// What is certainly in the log.
    settled: Model,
    taken: Vec<Taken>,
    /// Acknowledgements of the window that is open.
    window: Vec<Change>,
    /// Submitted up to here, acknowledgements not counted.
    submitted: u64,
    /// Promised: what must survive a crash.
    promised: u64,
    next_value: u64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let commit = if random.once_in(3) { CommitPolicy::Os } else { CommitPolicy::Always };
        let options = LogOptions {
            commit,
            segment_bytes_max: 4096 + random.below(6000),
            tail_cache_bytes_max: random.below(8000) as usize,
            index_cache_bytes_max: 0,
            open_files_max: 3,
            clean_live_percent_max: [0, 30, 60, 90][random.below(4) as usize],
            checkpoint_bytes: 3000 + random.below(30_000),
            preallocate: random.once_in(2),
            checkpoint_cache_bytes_max: 1 << 20,
            ..LogOptions::default()
        };
        let medium = FakeMedium::new(random.any());
        Self {
            random,
            medium,
            clock: Arc::new(SimulatedClock(AtomicI64::new(1_000_000))),
            options,
            log: None,
            settled: Model::default(),
            taken: Vec::new(),
            window: Vec::new(),
            submitted: 0,
            promised: 0,
            next_value: 0,
        }
    }

    fn run(&mut self) {
        for life in 0..LIVES {
            self.schedule_fault();
            if self.open() {
                let steps = self.random.below(STEPS_MAX);
                for _ in 0..steps {
                    if self.log.as_ref().unwrap().failure().is_some() {
                        break;
                    }
                    self.step();
                }
            }
            let is_last = life + 1 == LIVES;
            self.end_life(is_last);
        }
        assert!(self.open(), "without a fault the log opens");
        let log = self.log.take().unwrap();
        self.settle(log.committed().0);
        self.compare(&log);
    }

    fn schedule_fault(&mut self) {
        let at = 1 + self.random.below(400);
        match self.random.below(4) {
            0 => self.medium.schedule(at, Fault::Fail(std::io::ErrorKind::StorageFull)),
            1 => self.medium.schedule(at, Fault::Fail(std::io::ErrorKind::Other)),
            2 => self.medium.schedule(at, Fault::Stop),
            _ => {}
        }
    }

    /// Opens the log; false when a fault hit while it did.
    fn open(&mut self) -> bool {
        match Log::open_manual(Arc::new(self.medium.clone()), self.clock.clone(), self.options.clone()) {
            Ok(log) => {
                let end = log.committed().0;
                assert!(end >= self.promised, "recovered up to {end}, promised {}", self.promised);
                self.settle(end);
                self.compare(&log);
                self.submitted = end;
                self.promised = end;
                self.log = Some(log);
                true
            }
            Err(error @ (OpenError::Io { .. } | OpenError::Damaged { .. })) => {
                // A fault of the medium, not damage: the checkpoint store does not tell them apart.
                let text = error.to_string();
                let is_fault = matches!(error, OpenError::Io { .. }) || text.contains("checkpoint.redb");
                assert!(is_fault, "{text}");
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn end_life(&mut self, is_last: bool) {
        if let Some(log) = self.log.take() {
            self.note_progress(&log);
            if is_last || self.random.once_in(3) {
                // Might fail: then nothing more than before is promised.
                if log.shutdown().is_ok() {
                    self.close_window();
                    self.promised = self.submitted;
                }
            }
            // The process is over before anything else can be done.
            self.medium.stop();
            drop(log);
        }
        if self.random.once_in(3) && self.options.commit != CommitPolicy::Always {
            self.medium.kill();
        } else {
            self.medium.crash();
        }
    }

    /// What of the changes taken is in a log that ends at `end`.
    fn settle(&mut self, end: u64) {
        self.close_window();
        for taken in self.taken.drain(..) {
            if end > taken.after {
                for change in &taken.changes {
                    self.settled.apply(change);
                }
            }
        }
    }

    /// The acknowledgements of the window become an entry right behind what was submitted.
    fn close_window(&mut self) {
        if !self.window.is_empty() {
            let changes = std::mem::take(&mut self.window);
            // Behind it a new segment's header may lie, which is shorter than any entry of acknowledgements.
            self.taken.push(Taken { after: self.submitted + SEGMENT_HEADER_BYTES, changes });
        }
    }

    fn note_progress(&mut self, log: &Log) {
        let committed = log.committed().0;
        self.submitted = self.submitted.max(committed);
        let promised = if self.options.commit == CommitPolicy::Always { committed } else { log.durable().0 };
        self.promised = self.promised.max(promised);
    }

    fn step(&mut self) {
        let log = self.log.clone().unwrap();
        self.clock.0.fetch_add(self.random.below(50) as i64, Ordering::Relaxed);
        match self.random.below(20) {
            0..=4 => {
                self.close_window();
                let _ = log.step_writer();
            }
            6 if self.random.once_in(3) => {
                let before = log.stats().checkpoints;
                let _ = log.clean();
                if log.stats().checkpoints > before || log.failure().is_some() {
                    self.close_window();
                }
            }
            kind @ (5 | 6) => {
                let before = log.stats().checkpoints;
                let _ = if kind == 5 { log.step_chores() } else { log.checkpoint() };
                if log.stats().checkpoints > before || log.failure().is_some() {
                    self.close_window();
                }
            }
            7..=9 => self.acknowledge(&log),
            10 => self.check_reads(&log),
            _ => self.submit(&log),
        }
        self.note_progress(&log);
    }

    /// What is visible now is a prefix of what was submitted.
    fn check_reads(&mut self, log: &Log) {
        let mut model = self.settled.clone();
        for taken in &self.taken {
            for change in &taken.changes {
                model.apply(change);
            }
        }
        for (id, expected) in &model.streams {
            let stream = log.stream(StreamId(*id)).unwrap();
            let high = stream.high_watermark().0;
            assert!(high <= expected.values.len() as u64);
            assert_eq!(stream.start().0, expected.start);
            let from = expected.start + self.random.below(high.saturating_sub(expected.start) + 1);
            if from <= high {
                let records = match try_read_all(&stream, from) {
                    Ok(records) => records,
                    // The process ended where the log need not notice at once.
                    Err(ReadError::Io { .. }) => return,
                    Err(error) => panic!("{error}"),
                };
                for (offset, value) in records {
                    assert_eq!(value, expected.values[offset as usize]);
                    assert!(offset < high);
                }
            }
        }
    }

    fn acknowledge(&mut self, log: &Log) {
        let Some(id) = self.pick(&log.cursor_ids().iter().map(|id| id.0).collect::<Vec<_>>()) else { return };
        let start = self.random.below(60);
        let end = start + 1 + self.random.below(4);
        if log.cursor(CursorId(id)).unwrap().ack(&[Offset(start)..Offset(end)]).is_ok() {
            self.window.push(Change::Ack(id, start, end));
        }
    }

    fn pick(&mut self, from: &[u64]) -> Option<u64> {
        from.get(self.random.below(from.len() as u64) as usize).copied()
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
                (0, _) if streams.len() < 6 => {
                    let id = log.allocate_stream();
                    entry.create_stream(id);
                    changes.push(Change::CreateStream(id.0));
                }
                (1, _) if streams.len() > 2 && touched.insert(stream) => {
                    entry.delete_stream(StreamId(stream));
                    changes.push(Change::DeleteStream(stream));
                    break;
                }
                (2, _) => {
                    let to = handle.start().0 + self.random.below(60);
                    entry.trim(&handle, Offset(to));
                    changes.push(Change::Trim(stream, to));
                }
                (3, _) => {
                    let id = log.allocate_cursor();
                    let at = self.random.below(20);
                    entry.create_cursor(id, StreamId(stream), Offset(at));
                    changes.push(Change::CreateCursor(id.0, at));
                }
                (4, Some(cursor)) => {
                    let key = self.random.below(200) as u8;
                    if key < 20 {
                        entry.delete_cursor(CursorId(cursor));
                        changes.push(Change::DeleteCursor(cursor));
                        break;
                    }
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
                    let (batch, values) = self.batch();
                    let handles: Vec<_> =
                        destinations.iter().map(|id| log.stream(StreamId(*id)).unwrap()).collect();
                    entry.batch(&handles, batch);
                    for stream in destinations {
                        batches.push(changes.len());
                        changes.push(Change::Batch { stream, base: 0, values: values.clone() });
                    }
                }
            }
        }
        let Ok(submitted) = log.submit(entry) else { return };
        for (at, given) in batches.into_iter().zip(&submitted.bases) {
            if let Change::Batch { base, .. } = &mut changes[at] {
                *base = given.0;
            }
        }
        let is_state = changes.iter().any(|change| {
            !matches!(change, Change::Batch { .. } | Change::Put(..) | Change::Delete(..) | Change::Trim(..))
        });
        if is_state {
            self.close_window();
        }
        self.taken.push(Taken { after: submitted.lsn.0 - 1, changes });
        self.submitted = submitted.lsn.0;
    }

    fn batch(&mut self) -> (Batch, Vec<Vec<u8>>) {
        let mut builder = BatchBuilder::new(64);
        let mut values = Vec::new();
        let large = if self.random.once_in(12) { 5000 } else { 60 };
        for _ in 0..=self.random.below(4) {
            self.next_value += 1;
            let mut value = self.next_value.to_le_bytes().to_vec();
            value.resize(8 + self.random.below(large) as usize, self.next_value as u8);
            builder.push(self.clock.now_ms(), None, &[], Some(&value));
            values.push(value);
        }
        (builder.finish(), values)
    }

    fn compare(&self, log: &Log) {
        let streams: Vec<u64> = log.stream_ids().iter().map(|id| id.0).collect();
        assert_eq!(streams, self.settled.streams.keys().copied().collect::<Vec<_>>());
        for (id, expected) in &self.settled.streams {
            let stream = log.stream(StreamId(*id)).unwrap();
            assert_eq!(stream.start().0, expected.start, "start of {id}");
            assert_eq!(stream.next_offset().0, expected.values.len() as u64, "end of {id}");
            assert_eq!(stream.high_watermark(), stream.next_offset());
            let found: Vec<Vec<u8>> = read_all(&stream, expected.start).into_iter().map(|(_, v)| v).collect();
            assert_eq!(found, expected.values[expected.start as usize..], "content of {id}");
            if let Some(last) = expected.values.len().checked_sub(1)
                && last as u64 >= expected.start
            {
                assert_eq!(read_once(&stream, last as u64, 1).unwrap().len(), 1);
            }
        }
        let cursors: Vec<u64> = log.cursor_ids().iter().map(|id| id.0).collect();
        assert_eq!(cursors, self.settled.cursors.keys().copied().collect::<Vec<_>>());
        for (id, expected) in &self.settled.cursors {
            let cursor = log.cursor(CursorId(*id)).unwrap();
            assert_eq!(cursor.position().0, expected.position(), "position of cursor {id}");
            let above: Vec<u64> =
                cursor.acked_above().into_iter().flat_map(|range| range.start.0..range.end.0).collect();
            assert_eq!(above, expected.above(), "cursor {id}");
            let counts: BTreeMap<u64, u32> =
                cursor.delivery_counts().into_iter().map(|(offset, count)| (offset.0, count)).collect();
            assert_eq!(counts, expected.counts, "counts of cursor {id}");
        }
        let state: BTreeMap<u8, u64> = log
            .recovered_state(TABLE)
            .into_iter()
            .map(|(key, value)| (key[0], u64::from_le_bytes(value.as_ref().try_into().unwrap())))
            .collect();
        assert_eq!(state, self.settled.state);
    }
}

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("INVER_SIMULATOR_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").unwrap();
            from.parse().unwrap()..to.parse().unwrap()
        }
        Err(_) => 0..DEFAULT_SEEDS,
    }
}

#[test]
fn the_log_keeps_its_promises_whatever_the_medium_does() {
    for seed in seeds() {
        let run = std::panic::catch_unwind(|| Simulation::new(seed).run());
        if let Err(panic) = run {
            eprintln!("failing seed: {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_seed_replays() {
    for seed in 0..12 {
        let traces: Vec<(u64, u64)> = (0..2)
            .map(|_| {
                let mut simulation = Simulation::new(seed);
                simulation.run();
                (simulation.medium.trace(), simulation.medium.operations())
            })
            .collect();
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}
