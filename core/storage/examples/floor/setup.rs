//! Shared by all parts: batches, logs, timing, rows of the table.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use inver_storage::{Batch, BatchBuilder, Entry, Log, LogOptions, Stream};

pub(crate) const RECORD_BYTES: usize = 100;
pub(crate) const BATCH_BYTES: usize = 16 << 10;

pub(crate) struct Bench {
    pub(crate) dir: PathBuf,
    is_quick: bool,
}

impl Bench {
    pub(crate) fn new(dir: &str, is_quick: bool) -> Self {
        Self { dir: dir.into(), is_quick }
    }

    /// The count, or a hundredth of it with `--quick`.
    pub(crate) fn many(&self, count: usize) -> usize {
        if self.is_quick { (count / 100).max(1) } else { count }
    }

    pub(crate) fn clear(&self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }

    /// An empty folder.
    pub(crate) fn fresh(&self) -> &Path {
        self.clear();
        std::fs::create_dir_all(&self.dir).unwrap();
        &self.dir
    }

    /// A new log in an empty folder.
    pub(crate) fn log(&self, options: LogOptions) -> Log {
        Log::open(self.fresh(), options).unwrap()
    }
}

/// A line of the table.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) log: String,
    pub(crate) floor: String,
    pub(crate) ratio: Option<f64>,
    pub(crate) wanted: &'static str,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, log: impl Into<String>) -> Self {
        Self { what: what.into(), log: log.into(), ..Self::default() }
    }

    pub(crate) fn floor(mut self, floor: impl Into<String>) -> Self {
        self.floor = floor.into();
        self
    }

    /// Ratio of the log's figure to the floor's.
    pub(crate) fn ratio(mut self, log: f64, floor: f64) -> Self {
        self.ratio = Some(log / floor);
        self
    }

    pub(crate) fn wanted(mut self, wanted: &'static str) -> Self {
        self.wanted = wanted;
        self
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = self.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        write!(f, "| {} | {} | {} | {ratio} | {} |", self.what, self.log, self.floor, self.wanted)
    }
}

/// Time taken by some work.
#[derive(Clone, Copy, Default)]
pub(crate) struct Taken {
    pub(crate) wall: Duration,
    /// Processor time of the whole process, user and system.
    pub(crate) cpu: Duration,
}

pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Taken) {
    let (before, start) = (cpu(), Instant::now());
    let result = work();
    let wall = start.elapsed();
    (result, Taken { wall, cpu: cpu().saturating_sub(before) })
}

impl Taken {
    pub(crate) fn per_second(&self, count: usize) -> f64 {
        count as f64 / self.wall.as_secs_f64()
    }

    pub(crate) fn per_cpu_second(&self, count: usize) -> f64 {
        count as f64 / self.cpu.as_secs_f64().max(0.005)
    }

    pub(crate) fn cpu_us(&self, count: usize) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / count.max(1) as f64
    }
}

impl std::ops::AddAssign for Taken {
    fn add_assign(&mut self, other: Self) {
        self.wall += other.wall;
        self.cpu += other.cpu;
    }
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // Fields 14 and 15 of proc(5), in hundredths of a second.
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

/// Formats milliseconds.
pub(crate) fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// A batch of records of 100 bytes.
pub(crate) fn batch(bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new(bytes + 100);
    while builder.bytes() + RECORD_BYTES < bytes || builder.is_empty() {
        builder.push(0, None, &[], Some(&[b'x'; RECORD_BYTES - 8]));
    }
    builder.finish()
}

pub(crate) fn batch_of_one(value_bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new(value_bytes + 100);
    builder.push(0, None, &[], Some(&vec![b'x'; value_bytes]));
    builder.finish()
}

pub(crate) fn stream(log: &Log) -> Stream {
    let id = log.allocate_stream();
    let mut entry = Entry::new();
    entry.create_stream(id);
    let lsn = log.submit(entry).unwrap().lsn;
    log.wait_committed_blocking(lsn).unwrap();
    log.stream(id).unwrap()
}

/// Submits the batch as soon as the log admits it.
pub(crate) fn append(log: &Log, stream: &Stream, batch: Batch) {
    if !log.is_admitting() {
        block_on(log.admit()).unwrap();
    }
    let mut entry = Entry::new();
    entry.batch(std::slice::from_ref(stream), batch);
    log.submit(entry).unwrap();
}

/// Submits the batch and waits for its commit.
pub(crate) fn commit(log: &Log, stream: &Stream, batch: Batch) -> Duration {
    let start = Instant::now();
    let mut entry = Entry::new();
    entry.batch(std::slice::from_ref(stream), batch);
    let lsn = log.submit(entry).unwrap().lsn;
    block_on(log.wait_committed(lsn)).unwrap();
    start.elapsed()
}

struct Parker(std::thread::Thread);

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Parker(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
        std::thread::park();
    }
}
