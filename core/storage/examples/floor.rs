//! The log against its floor, in one run on the same bytes: a bare loop that checksums, writes and (under `always`)
//! syncs the same groups.
//!
//! `cargo run --release -p inver-storage --example floor [folder]`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::future::Future;
use std::io::IoSlice;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use inver_storage::medium::{Files, Medium};
use inver_storage::{Batch, BatchBuilder, CommitPolicy, Entry, Log, LogOptions, Offset, Read, Stream};

const RECORD_BYTES: usize = 100;
const BATCH_BYTES: usize = 16 << 10;
const TOTAL_BYTES: usize = 1 << 30;

fn batch(bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new(bytes + 100);
    while builder.bytes() + RECORD_BYTES < bytes || builder.is_empty() {
        builder.push(0, None, &[], Some(&[b'x'; RECORD_BYTES - 8]));
    }
    builder.finish()
}

fn batch_of_one(value_bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new(value_bytes + 100);
    builder.push(0, None, &[], Some(&vec![b'x'; value_bytes]));
    builder.finish()
}

fn fresh(dir: &Path) {
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir).unwrap();
}

fn open(dir: &Path, commit: CommitPolicy) -> Log {
    fresh(dir);
    Log::open(dir, LogOptions { commit, ..LogOptions::default() }).unwrap()
}

fn stream(log: &Log) -> Stream {
    let id = log.allocate_stream();
    let mut entry = Entry::new();
    entry.create_stream(id);
    let lsn = log.submit(entry).unwrap().lsn;
    log.wait_committed_blocking(lsn).unwrap();
    log.stream(id).unwrap()
}

/// Processor seconds of this process: user and system.
fn cpu() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap() / 100.0;
    (ticks(11), ticks(12))
}

struct Parker(std::thread::Thread);

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
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

fn report(name: &str, bytes: usize, records: usize, taken: Duration, cpu_before: (f64, f64)) -> f64 {
    let cpu_now = cpu();
    let (user, system) = (cpu_now.0 - cpu_before.0, cpu_now.1 - cpu_before.1);
    let rate = bytes as f64 / taken.as_secs_f64() / 1e6;
    println!(
        "{name:44} {rate:8.0} MB/s {:7.2} M records/s   cpu {user:.2}+{system:.2} s, {:.2} M records/cpu-s, {:.2} in user",
        records as f64 / taken.as_secs_f64() / 1e6,
        records as f64 / (user + system) / 1e6,
        records as f64 / user / 1e6,
    );
    rate
}

/// The floor: checksum, write, groups of 256 KiB.
fn floor_os(dir: &Path) -> f64 {
    fresh(dir);
    let medium = Files::new(dir).unwrap();
    let batch = batch(BATCH_BYTES);
    let bytes = batch.bytes();
    let per_group = (256 << 10) / bytes.len();
    let before = cpu();
    let start = Instant::now();
    let mut written = 0;
    let mut records = 0;
    let mut number = 0;
    while written < TOTAL_BYTES {
        let file = medium.create(&format!("{number}")).unwrap();
        file.allocate(128 << 20).unwrap();
        let mut position = 0;
        while position < 128 << 20 {
            let slices: Vec<IoSlice<'_>> = (0..per_group).map(|_| IoSlice::new(bytes)).collect();
            for _ in 0..per_group {
                std::hint::black_box(crc32c::crc32c(bytes));
            }
            file.write_at(position, &slices).unwrap();
            position += (per_group * bytes.len()) as u64;
            records += per_group * batch.record_count() as usize;
        }
        file.sync().unwrap();
        written += position as usize;
        number += 1;
    }
    report("floor: os, 16 KiB batches", written, records, start.elapsed(), before)
}

fn log_os(dir: &Path, submitters: usize) -> f64 {
    let log = open(dir, CommitPolicy::Os);
    let streams: Vec<Stream> = (0..submitters).map(|_| stream(&log)).collect();
    let batch = batch(BATCH_BYTES);
    let before = cpu();
    let start = Instant::now();
    let share = TOTAL_BYTES / submitters / batch.bytes().len();
    std::thread::scope(|scope| {
        for stream in &streams {
            let (log, batch) = (&log, &batch);
            scope.spawn(move || {
                for _ in 0..share {
                    block_on(log.admit()).unwrap();
                    // As a connection does: the bytes are checked once, on their way in.
                    let batch = Batch::parse(batch.bytes().clone()).unwrap();
                    let mut entry = Entry::new();
                    entry.batch(std::slice::from_ref(stream), batch);
                    log.submit(entry).unwrap();
                }
            });
        }
    });
    let lsn = log.sync().unwrap();
    let taken = start.elapsed();
    assert_eq!(log.committed(), lsn);
    let records = share * submitters * batch.record_count() as usize;
    let rate = report(
        &format!("log: os, 16 KiB batches, {submitters} submitters"),
        share * submitters * batch.bytes().len(),
        records,
        taken,
        before,
    );
    log.shutdown().unwrap();
    rate
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

fn floor_always(dir: &Path, commits: usize) -> Duration {
    fresh(dir);
    let medium = Files::new(dir).unwrap();
    let file = medium.create("floor").unwrap();
    file.allocate(128 << 20).unwrap();
    file.sync().unwrap();
    let batch = batch_of_one(1024);
    let mut times = Vec::new();
    for i in 0..commits {
        let start = Instant::now();
        std::hint::black_box(crc32c::crc32c(batch.bytes()));
        file.write_at((i * 1200) as u64, &[IoSlice::new(batch.bytes())]).unwrap();
        file.sync().unwrap();
        times.push(start.elapsed());
    }
    let p50 = percentile(&mut times, 50);
    println!(
        "floor: write + fdatasync of 1 KiB               p50 {p50:?} p99 {:?}",
        percentile(&mut times, 99)
    );
    p50
}

fn log_always(dir: &Path, submitters: usize, commits: usize) -> Duration {
    let log = open(dir, CommitPolicy::Always);
    let streams: Vec<Stream> = (0..submitters).map(|_| stream(&log)).collect();
    let batch = batch_of_one(1024);
    let before = cpu();
    let start = Instant::now();
    let times: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = streams
            .iter()
            .map(|stream| {
                let (log, batch) = (&log, &batch);
                let run = move || {
                    let mut times = Vec::new();
                    for _ in 0..commits / submitters {
                        let start = Instant::now();
                        let mut entry = Entry::new();
                        entry.batch(std::slice::from_ref(stream), batch.clone());
                        let lsn = log.submit(entry).unwrap().lsn;
                        block_on(log.wait_committed(lsn)).unwrap();
                        times.push(start.elapsed());
                    }
                    times
                };
                std::thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, run).unwrap()
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let taken = start.elapsed();
    let mut times = times;
    let p50 = percentile(&mut times, 50);
    let (stats, cpu_now) = (log.stats(), cpu());
    println!(
        "log: always, 1 KiB, {submitters:3} submitters                 p50 {p50:?} p99 {:?}, {:.0} commits/s, {} groups, cpu {:.1} us a commit",
        percentile(&mut times, 99),
        times.len() as f64 / taken.as_secs_f64(),
        stats.groups,
        (cpu_now.0 + cpu_now.1 - before.0 - before.1) * 1e6 / times.len() as f64,
    );
    log.shutdown().unwrap();
    p50
}

fn reads(dir: &Path) {
    let log = open(dir, CommitPolicy::Os);
    let stream = stream(&log);
    let batch = batch(BATCH_BYTES);
    let count = (512 << 20) / batch.bytes().len();
    for _ in 0..count {
        block_on(log.admit()).unwrap();
        let mut entry = Entry::new();
        entry.batch(std::slice::from_ref(&stream), batch.clone());
        log.submit(entry).unwrap();
    }
    log.sync().unwrap();
    log.checkpoint().unwrap();
    let high = stream.high_watermark();
    for (name, from) in [("catch-up reads of 512 MiB", 0), ("tail reads of 32 MiB", high.0 - high.0 / 16)] {
        let before = cpu();
        let start = Instant::now();
        let (mut next, mut bytes, mut records, mut cold) = (from, 0, 0, 0);
        while next < high.0 {
            let batches = match stream.read(Offset(next), 1 << 20).unwrap() {
                Read::Ready(batches) => batches,
                Read::Empty => break,
                Read::Cold(read) => {
                    cold += 1;
                    read.run().unwrap()
                }
            };
            for stored in batches {
                bytes += stored.bytes.len();
                records += batch.record_count() as usize;
                next = stored.base_offset.0 + u64::from(batch.record_count());
            }
        }
        report(&format!("{name} ({cold} cold)"), bytes, records, start.elapsed(), before);
    }
    log.shutdown().unwrap();
}

/// Entries of one record each, from one thread: what an entry costs.
fn small(dir: &Path) {
    let log = open(dir, CommitPolicy::Os);
    let stream = stream(&log);
    let batch = batch_of_one(RECORD_BYTES);
    let count = 2_000_000;
    let before = cpu();
    let start = Instant::now();
    for _ in 0..count {
        if !log.is_admitting() {
            block_on(log.admit()).unwrap();
        }
        let mut entry = Entry::new();
        entry.batch(std::slice::from_ref(&stream), batch.clone());
        log.submit(entry).unwrap();
    }
    let submitted = start.elapsed();
    log.sync().unwrap();
    report(
        "log: os, one record of 100 B an entry",
        count * batch.bytes().len(),
        count,
        start.elapsed(),
        before,
    );
    println!("  submitted in {submitted:?}, {} groups", log.stats().groups);
    log.shutdown().unwrap();
}

/// One small stream among 100,000, all of them interleaved, from the disk.
fn small_stream(dir: &Path) {
    const STREAMS: usize = 100_000;
    const ROUNDS: usize = 10;
    let log = open(dir, CommitPolicy::Os);
    let streams: Vec<Stream> = {
        let mut entry = Entry::new();
        let ids: Vec<_> = (0..STREAMS).map(|_| log.allocate_stream()).collect();
        ids.iter().for_each(|id| entry.create_stream(*id));
        log.submit(entry).unwrap();
        ids.into_iter().map(|id| log.stream(id).unwrap()).collect()
    };
    let batch = batch_of_one(RECORD_BYTES);
    for _ in 0..ROUNDS {
        for stream in &streams {
            block_on(log.admit()).unwrap();
            let mut entry = Entry::new();
            entry.batch(std::slice::from_ref(stream), batch.clone());
            log.submit(entry).unwrap();
        }
    }
    log.sync().unwrap();
    log.checkpoint().unwrap();
    let before = cpu();
    let start = Instant::now();
    let (mut records, mut cold) = (0, 0);
    for stream in streams.iter().step_by(97) {
        let mut next = 0;
        while next < ROUNDS as u64 {
            let batches = match stream.read(Offset(next), 1 << 20).unwrap() {
                Read::Ready(batches) => batches,
                Read::Empty => break,
                Read::Cold(read) => {
                    cold += 1;
                    read.run().unwrap()
                }
            };
            records += batches.len();
            next += batches.len() as u64;
        }
    }
    report(
        &format!("small streams among 100,000 ({cold} cold)"),
        records * batch.bytes().len(),
        records,
        start.elapsed(),
        before,
    );
    println!("  {:?} a cold read", start.elapsed() / cold.max(1));
    log.shutdown().unwrap();
}

/// Opening a log of 2 GiB: after a shutdown, and after the process just ended.
fn recovery(dir: &Path) {
    let log = open(dir, CommitPolicy::Os);
    let stream = stream(&log);
    let batch = batch(BATCH_BYTES);
    for _ in 0..(2 << 30) / batch.bytes().len() {
        block_on(log.admit()).unwrap();
        let mut entry = Entry::new();
        entry.batch(std::slice::from_ref(&stream), batch.clone());
        log.submit(entry).unwrap();
    }
    log.sync().unwrap();
    log.shutdown().unwrap();
    let options = LogOptions { commit: CommitPolicy::Os, ..LogOptions::default() };
    for name in ["after a shutdown", "again"] {
        let start = Instant::now();
        let log = Log::open(dir, options.clone()).unwrap();
        println!("2 GiB opened {name} in {:?}", start.elapsed());
        for _ in 0..(100 << 20) / batch.bytes().len() {
            block_on(log.admit()).unwrap();
            let mut entry = Entry::new();
            entry.batch(std::slice::from_ref(&log.stream(stream.id()).unwrap()), batch.clone());
            log.submit(entry).unwrap();
        }
        drop(log);
    }
    let start = Instant::now();
    let log = Log::open(dir, options).unwrap();
    println!("2 GiB and 200 MiB since the checkpoint opened in {:?}", start.elapsed());
    log.shutdown().unwrap();
}

fn rss_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn many_streams(dir: &Path, count: usize) {
    let log = open(dir, CommitPolicy::Os);
    let before = rss_bytes();
    let start = Instant::now();
    for _ in 0..count / 1000 {
        let mut entry = Entry::new();
        for _ in 0..1000 {
            entry.create_stream(log.allocate_stream());
        }
        log.submit(entry).unwrap();
    }
    log.sync().unwrap();
    println!("{count} streams made in {:?}", start.elapsed());
    let start = Instant::now();
    log.shutdown().unwrap();
    println!(
        "checkpoint of them and shutdown in {:?}, resident {} bytes a stream",
        start.elapsed(),
        (rss_bytes() - before) / count
    );
    drop(log);
    let before = rss_bytes();
    let start = Instant::now();
    let log = Log::open(dir, LogOptions::default()).unwrap();
    println!(
        "opened again in {:?}, {} streams, resident +{} bytes a stream (of {} in all)",
        start.elapsed(),
        log.stats().streams,
        (rss_bytes().saturating_sub(before)) / count,
        rss_bytes()
    );
    log.shutdown().unwrap();
}

fn main() {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "floor-data".to_owned());
    let only = std::env::args().nth(2).unwrap_or_default();
    let dir = Path::new(&dir);
    let wanted = |name: &str| only.is_empty() || only == name;
    if wanted("os") {
        let floor = floor_os(dir);
        for submitters in [1, 2] {
            println!("  ratio to the floor: {:.2}", log_os(dir, submitters) / floor);
        }
    }
    if wanted("always") {
        let floor = floor_always(dir, 3000);
        let lone = log_always(dir, 1, 3000);
        println!("  a lone commit takes {:.2} of the floor's time", lone.as_secs_f64() / floor.as_secs_f64());
        log_always(dir, 16, 30_000);
        log_always(dir, 256, 100_000);
    }
    if wanted("small") {
        small(dir);
    }
    if wanted("reads") {
        reads(dir);
        small_stream(dir);
    }
    if wanted("recovery") {
        recovery(dir);
    }
    if wanted("streams") {
        many_streams(dir, 1_000_000);
    }
    let _ = std::fs::remove_dir_all(dir);
}
