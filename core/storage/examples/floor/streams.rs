//! A million idle streams: created, opened.

use inver_storage::{CommitPolicy, Entry, Log, LogOptions};

use crate::setup::{Bench, Row, timed};

const STREAMS: usize = 1_000_000;
const PER_ENTRY: usize = 1000;

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let count = bench.many(STREAMS);
    let options = LogOptions { commit: CommitPolicy::Os, ..LogOptions::default() };
    let log = bench.log(options.clone());
    let before = resident_bytes();
    let ((), making) = timed(|| {
        for _ in 0..count / PER_ENTRY {
            let mut entry = Entry::new();
            (0..PER_ENTRY).for_each(|_| entry.create_stream(log.allocate_stream()));
            log.submit(entry).unwrap();
        }
        log.sync().unwrap();
    });
    let bytes = resident_bytes().saturating_sub(before);
    let ((), ending) = timed(|| log.shutdown().unwrap());
    drop(log);
    let (log, opening) = timed(|| Log::open(&bench.dir, options).unwrap());
    assert_eq!(log.stats().streams as usize, count);
    log.shutdown().unwrap();
    let seconds = |taken: std::time::Duration| format!("{:.2} s", taken.as_secs_f64());
    vec![
        Row::new(
            format!("{count} idle streams"),
            format!("{:.0} MB ({} bytes each)", bytes as f64 / 1e6, bytes / count),
        )
        .wanted("≤ 400 MB"),
        Row::new(format!("{count} streams created"), seconds(making.wall)),
        Row::new("their checkpoint at shutdown", seconds(ending.wall)),
        Row::new("reopened", seconds(opening.wall)),
    ]
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
