//! One run of a seed: the log is opened, used, and ended by a fault, a crash or a shutdown, several times; everything
//! acknowledged survives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use inver_storage::medium::fake::{FakeMedium, Fault, Random};
use inver_storage::{Clock, CommitPolicy, Log, LogOptions, OpenError};

use super::model::{Change, Model};

const STEPS_MAX: u64 = 220;
const RESTARTS: u32 = 4;
const SEGMENT_HEADER_BYTES: u64 = 64;

#[derive(Debug, Default)]
pub(crate) struct SimulatedClock(pub AtomicI64);

impl Clock for SimulatedClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.now_ms() as u64)
    }
}

/// Changes of an accepted entry. `after`: the entry is in the log if the log ends beyond this position.
#[derive(Clone)]
pub(crate) struct Taken {
    pub(crate) after: u64,
    pub(crate) changes: Vec<Change>,
}

pub(crate) struct Simulation {
    pub(crate) random: Random,
    pub(crate) medium: FakeMedium,
    pub(crate) clock: Arc<SimulatedClock>,
    pub(crate) options: LogOptions,
    pub(crate) log: Option<Log>,
    /// Changes certainly in the log.
    pub(crate) settled: Model,
    /// The entries of `settled`, in order.
    pub(crate) history: Vec<Taken>,
    /// `settled` plus all submitted changes.
    pub(crate) ahead: Model,
    pub(crate) taken: Vec<Taken>,
    /// Acknowledgements of the open commit window.
    pub(crate) window: Vec<Change>,
    /// End of the submitted entries, without gathered acknowledgements.
    pub(crate) submitted: u64,
    /// Position that must survive a crash.
    promised: u64,
    /// Position that must survive the end of the process.
    written: u64,
    /// Position that must be recovered at the next start.
    surviving: u64,
    pub(crate) next_value: u64,
    /// Streams compacted at any time, and their shortest tombstone retention.
    pub(crate) compacted: BTreeMap<u64, i64>,
}

impl Simulation {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let commit = match random.below(6) {
            0 => CommitPolicy::Os,
            1 => CommitPolicy::Interval(Duration::from_millis(5)),
            _ => CommitPolicy::Always,
        };
        let options = LogOptions {
            commit,
            segment_bytes_max: 4096 + random.below(6000),
            tail_cache_bytes_max: random.below(8000) as usize,
            index_cache_bytes_max: 0,
            open_files_max: 3,
            clean_live_percent_max: [0, 30, 60, 90][random.below(4) as usize],
            clean_places_min: [0, 2][random.below(2) as usize],
            clean_places_age: Duration::from_millis(300),
            compaction_keys_max: if random.once_in(4) { 5 } else { 1000 },
            checkpoint_bytes: 3000 + random.below(30_000),
            checkpoint_interval: Duration::from_millis(200 + random.below(60_000)),
            preallocate: random.once_in(2),
            direct_bytes_max: [0, 300, 4096, 64 << 10][random.below(4) as usize],
            checkpoint_cache_bytes_max: 1 << 20,
            ..LogOptions::default()
        };
        let medium = FakeMedium::new(random.any());
        if !random.once_in(4) {
            medium.take_direct();
        }
        Self {
            random,
            medium,
            clock: Arc::new(SimulatedClock(AtomicI64::new(1_000_000))),
            options,
            log: None,
            settled: Model::default(),
            history: Vec::new(),
            ahead: Model::default(),
            taken: Vec::new(),
            window: Vec::new(),
            submitted: 0,
            promised: 0,
            written: 0,
            surviving: 0,
            next_value: 0,
            compacted: BTreeMap::new(),
        }
    }

    pub(crate) fn run(&mut self) {
        for start in 0..RESTARTS {
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
            let is_last = start + 1 == RESTARTS;
            self.end_run(is_last);
            if self.random.once_in(2) {
                self.rot();
            }
        }
        assert!(self.open(), "the log does not open without a fault");
        self.medium.schedule_reads(0, 0);
        let log = self.log.take().unwrap();
        self.settle(log.committed().0);
        self.compare(&log);
        if self.random.once_in(3) {
            assert!(log.shutdown().is_ok());
        }
        drop(log);
        self.rot();
    }

    fn schedule_fault(&mut self) {
        let at = 1 + self.random.below(400);
        match self.random.below(5) {
            0 => self.medium.schedule(at, Fault::Fail(std::io::ErrorKind::StorageFull)),
            1 => self.medium.schedule(at, Fault::Fail(std::io::ErrorKind::Other)),
            2 => self.medium.schedule(at, Fault::Stop),
            _ => {}
        }
        if self.random.once_in(4) {
            self.medium.schedule_reads(self.random.below(100), 1 + self.random.below(6));
        }
    }

    /// Opens the log; false if a fault hit meanwhile.
    fn open(&mut self) -> bool {
        let hits = self.medium.hits();
        match Log::open_manual(Arc::new(self.medium.clone()), self.clock.clone(), self.options.clone()) {
            Ok(log) => {
                let end = log.committed().0;
                assert!(end >= self.surviving, "recovered up to {end} of {}", self.surviving);
                self.settle(end);
                // No read faults during the comparison.
                self.medium.schedule_reads(0, 0);
                self.compare(&log);
                if self.random.once_in(4) {
                    self.medium.schedule_reads(self.random.below(300), 1 + self.random.below(6));
                }
                self.submitted = end;
                self.promised = end;
                self.written = end;
                self.surviving = end;
                self.log = Some(log);
                true
            }
            Err(
                error @ (OpenError::Io { .. }
                | OpenError::Damaged { .. }
                | OpenError::Checkpoint(_)
                | OpenError::CheckpointLost(_)
                | OpenError::Log(_)),
            ) => {
                // Only a fault of the medium; the checkpoint store cannot tell it from damage.
                assert!(self.medium.hits() > hits, "{error}");
                let is_damage =
                    matches!(&error, OpenError::Damaged { file, .. } if file != "checkpoint.redb");
                assert!(!is_damage, "{error}");
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn end_run(&mut self, is_last: bool) {
        if let Some(log) = self.log.take() {
            self.note_progress(&log);
            if is_last || self.random.once_in(3) {
                // May fail: then nothing more is promised.
                if log.shutdown().is_ok() {
                    self.close_window();
                    self.promised = self.submitted;
                }
            }
            // The process stops before the log is dropped.
            self.medium.stop();
            drop(log);
        }
        if self.random.once_in(3) {
            self.medium.kill();
            self.surviving = self.surviving.max(self.promised).max(self.written);
        } else {
            self.medium.crash();
            self.written = self.promised;
            self.surviving = self.promised;
        }
    }

    /// Settles the changes that are in a log that ends at `end`.
    fn settle(&mut self, end: u64) {
        self.close_window();
        for taken in self.taken.drain(..) {
            if end > taken.after {
                for change in &taken.changes {
                    self.settled.apply(change);
                }
                self.history.push(taken);
            }
        }
        self.ahead = self.settled.clone();
    }

    /// Turns the acknowledgements of the window into an entry behind the submitted ones.
    pub(crate) fn close_window(&mut self) {
        if !self.window.is_empty() {
            let changes = std::mem::take(&mut self.window);
            // A new segment's header may come first, which is shorter than any entry of acknowledgements.
            self.taken.push(Taken { after: self.submitted + SEGMENT_HEADER_BYTES, changes });
        }
    }

    pub(crate) fn note_progress(&mut self, log: &Log) {
        let committed = log.committed().0;
        self.submitted = self.submitted.max(committed);
        let promised = if self.options.commit == CommitPolicy::Always { committed } else { log.durable().0 };
        self.promised = self.promised.max(promised);
        self.written = self.written.max(committed);
    }
}
