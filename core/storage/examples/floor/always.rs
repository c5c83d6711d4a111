//! Policy `always`: entries of 1 KiB from 1, 16 and 256 submitters.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inver_storage::medium::{Files, Medium, MediumFile};
use inver_storage::{CommitPolicy, Log, LogOptions, Stream};

use crate::setup::{Bench, Row, Taken, batch_of_one, commit, ms, percentile, stream, timed};

const VALUE_BYTES: usize = 1024;
const FILE_BYTES: u64 = 128 << 20;
const LONE_COMMITS: usize = 3000;
/// Commits after which floors and log take turns.
const TURN: usize = 50;
const STACK_BYTES: usize = 128 << 10;

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let mut rows = lone(bench);
    for (submitters, commits) in [(16, 30_000), (256, 100_000)] {
        rows.push(many(bench, submitters, bench.many(commits).max(submitters)));
    }
    rows
}

fn always(bench: &Bench) -> Log {
    bench.log(LogOptions { commit: CommitPolicy::Always, ..LogOptions::default() })
}

/// A file to write to, with reserved space or with zeros written before.
struct Bare {
    file: Arc<dyn MediumFile>,
    position: u64,
    times: Vec<Duration>,
}

impl Bare {
    fn new(medium: &Files, name: &str, bytes: u64, is_written: bool) -> Self {
        let file = medium.create(name).unwrap();
        file.allocate(bytes).unwrap();
        let zeros = vec![0; 1 << 20];
        for at in (0..bytes).step_by(zeros.len()).filter(|_| is_written) {
            file.write_at(at, &[IoSlice::new(&zeros)]).unwrap();
        }
        file.sync().unwrap();
        Self { file, position: 0, times: Vec::new() }
    }

    fn commit(&mut self, bytes: &[u8]) {
        let start = Instant::now();
        std::hint::black_box(crc32c::crc32c(bytes));
        self.file.write_at(self.position, &[IoSlice::new(bytes)]).unwrap();
        self.file.sync().unwrap();
        self.times.push(start.elapsed());
        self.position += bytes.len().next_multiple_of(8) as u64;
    }
}

/// One submitter, waiting for each commit.
fn lone(bench: &Bench) -> Vec<Row> {
    let log = always(bench);
    let stream = stream(&log);
    let medium = Files::new(&bench.dir).unwrap();
    let batch = batch_of_one(VALUE_BYTES);
    let mut floors = [("space reserved", false), ("written before", true)]
        .map(|(name, is_written)| (name, Bare::new(&medium, name, 8 << 20, is_written)));
    let mut times = Vec::new();
    let mut taken = Taken::default();
    for _ in 0..bench.many(LONE_COMMITS) / TURN + 1 {
        for (_, floor) in &mut floors {
            (0..TURN).for_each(|_| floor.commit(batch.bytes()));
        }
        let (turn, spent) = timed(|| (0..TURN).map(|_| commit(&log, &stream, batch.clone())).collect());
        let mut turn: Vec<Duration> = turn;
        times.append(&mut turn);
        taken += spent;
    }
    log.shutdown().unwrap();
    let cpu_us = taken.cpu_us(times.len());
    let p50 = percentile(&mut times, 50);
    let result = format!("p50 {}, p99 {}, {cpu_us:.0} µs CPU", ms(p50), ms(percentile(&mut times, 99)));
    let row = |(name, floor): &mut (&str, Bare)| {
        let floor_p50 = percentile(&mut floor.times, 50);
        Row::new("`always`, 1 KiB, a lone commit", &result)
            .floor(format!("p50 {}, p99 {} ({name})", ms(floor_p50), ms(percentile(&mut floor.times, 99))))
            .ratio(p50.as_secs_f64(), floor_p50.as_secs_f64())
            .wanted("p50 ≤ 1.3")
    };
    floors.iter_mut().map(row).collect()
}

/// Many submitters, each waiting for its commit. The floor writes groups of the same size as the log.
fn many(bench: &Bench, submitters: usize, commits: usize) -> Row {
    let log = always(bench);
    let streams: Vec<Stream> = (0..submitters).map(|_| stream(&log)).collect();
    let batch = batch_of_one(VALUE_BYTES);
    let before = log.stats();
    let (mut times, taken) = timed(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = streams
                .iter()
                .map(|stream| {
                    let (log, batch) = (&log, &batch);
                    let run = move || {
                        let commits = 0..commits / submitters;
                        commits.map(|_| commit(log, stream, batch.clone())).collect::<Vec<_>>()
                    };
                    std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, run).unwrap()
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        })
    });
    let groups = (log.stats().groups - before.groups) as usize;
    let group_bytes = (log.stats().bytes - before.bytes) as usize / groups;
    log.shutdown().unwrap();
    let medium = Files::new(bench.fresh()).unwrap();
    let groups_max = (FILE_BYTES as usize / group_bytes.next_multiple_of(8)).min(groups);
    let mut bare = Bare::new(&medium, "floor", FILE_BYTES, false);
    let bytes = vec![b'x'; group_bytes];
    let ((), floor) = timed(|| (0..groups_max).for_each(|_| bare.commit(&bytes)));
    let (rate, floor_rate) =
        (taken.per_second(times.len()), floor.per_second(groups_max) * times.len() as f64 / groups as f64);
    Row::new(
        format!("`always`, 1 KiB, {submitters} submitters"),
        format!(
            "{rate:.0}/s, p50 {}, p99 {}, {:.0} µs CPU",
            ms(percentile(&mut times, 50)),
            ms(percentile(&mut times, 99)),
            taken.cpu_us(times.len())
        ),
    )
    .floor(format!("{floor_rate:.0}/s, groups of {:.0} KiB", group_bytes as f64 / 1024.0))
    .ratio(rate, floor_rate)
    .wanted("≥ 0.8 for groups ≥ 64 KiB")
}
