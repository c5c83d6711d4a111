//! The cleaner: its rate on mostly dead segments, and the latency of appends meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use inver_storage::{CommitPolicy, Entry, Log, LogOptions, Stream};

use crate::setup::{
    BATCH_BYTES, Bench, Row, append, batch, batch_of_one, commit, ms, percentile, stream, timed,
};

const TOTAL_BYTES: usize = 2 << 30;
const SEGMENTS: usize = 64;
/// One of this many batches is kept.
const LIVE_ONE_IN: usize = 6;
const APPENDS_FOR: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(2);

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let total = bench.many(TOTAL_BYTES);
    let options = |clean_live_percent_max| LogOptions {
        commit: CommitPolicy::Always,
        segment_bytes_max: (total / SEGMENTS) as u64,
        clean_live_percent_max,
        ..LogOptions::default()
    };
    let log = bench.log(options(0));
    let (kept, dropped, small) = (stream(&log), stream(&log), stream(&log));
    let batch = batch(BATCH_BYTES);
    for at in 0..total / batch.bytes().len() {
        append(&log, if at % LIVE_ONE_IN == 0 { &kept } else { &dropped }, batch.clone());
    }
    log.sync().unwrap();
    let mut entry = Entry::new();
    entry.trim(&dropped, dropped.next_offset());
    log.submit(entry).unwrap();
    let quiet_for = APPENDS_FOR.mul_f64(bench.many(100) as f64 / 100.0);
    let quiet = appends(&log, &small, &AtomicBool::new(false), quiet_for);
    let ids = [small.id(), kept.id(), dropped.id()];
    drop((kept, dropped, small));
    log.shutdown().unwrap();
    drop(log);
    // The cleaner is enabled from here on.
    let log = Log::open(&bench.dir, options(30)).unwrap();
    let small = log.stream(ids[0]).unwrap();
    let bytes_before = segment_bytes(bench);
    let is_over = AtomicBool::new(false);
    let (busy, taken) = std::thread::scope(|scope| {
        let appending = scope.spawn(|| appends(&log, &small, &is_over, APPENDS_FOR * 20));
        let ((), taken) = timed(|| while log.clean().unwrap() {});
        is_over.store(true, Ordering::Relaxed);
        (appending.join().unwrap(), taken)
    });
    let freed = bytes_before.saturating_sub(segment_bytes(bench));
    let cleaned = log.stats().cleaned_segments;
    log.shutdown().unwrap();
    let rate = taken.per_second(freed as usize) / 1e6;
    let result = |(p50, p99, count): (Duration, Duration, usize)| {
        format!("p50 {}, p99 {} ({count} commits)", ms(p50), ms(p99))
    };
    vec![
        Row::new(
            format!("cleaner, segments with {} % live", 100 / LIVE_ONE_IN),
            format!("{rate:.0} MB/s reclaimed ({cleaned} segments in {:.2} s)", taken.wall.as_secs_f64()),
        ),
        Row::new("commits of 1 KiB under `always` meanwhile", result(busy))
            .floor(format!("{}: without the cleaner", result(quiet)))
            .ratio(busy.1.as_secs_f64(), quiet.1.as_secs_f64()),
    ]
}

/// Single commits with pauses in between: p50, p99, number.
fn appends(log: &Log, stream: &Stream, is_over: &AtomicBool, most: Duration) -> (Duration, Duration, usize) {
    let batch = batch_of_one(1024);
    let start = Instant::now();
    let mut times = Vec::new();
    while times.is_empty() || (!is_over.load(Ordering::Relaxed) && start.elapsed() < most) {
        times.push(commit(log, stream, batch.clone()));
        std::thread::sleep(PAUSE);
    }
    (percentile(&mut times, 50), percentile(&mut times, 99), times.len())
}

/// Bytes of the segment files.
fn segment_bytes(bench: &Bench) -> u64 {
    let files = std::fs::read_dir(&bench.dir).unwrap().filter_map(Result::ok);
    let segments = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "seg"));
    segments.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}
