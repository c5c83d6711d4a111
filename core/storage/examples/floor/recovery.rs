//! Opening a log of 10 GB, after a shutdown and after a crash.

use inver_storage::{CommitPolicy, Log, LogOptions, Stream};

use crate::setup::{BATCH_BYTES, Bench, Row, append, batch, stream, timed};

const TOTAL_BYTES: usize = 10_000_000_000;
const SINCE_BYTES: usize = 100 << 20;
const STREAMS: usize = 1000;

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let total = bench.many(TOTAL_BYTES);
    let since = bench.many(SINCE_BYTES);
    let options = LogOptions { commit: CommitPolicy::Os, ..LogOptions::default() };
    let log = bench.log(options.clone());
    let ids: Vec<_> = (0..STREAMS).map(|_| stream(&log).id()).collect();
    let batch = batch(BATCH_BYTES);
    let fill = |log: &Log, bytes: usize| {
        let streams: Vec<Stream> = ids.iter().map(|id| log.stream(*id).unwrap()).collect();
        let rounds = streams.iter().cycle().take(bytes / batch.bytes().len());
        rounds.for_each(|stream| append(log, stream, batch.clone()));
        log.sync().unwrap();
    };
    fill(&log, total);
    log.shutdown().unwrap();
    drop(log);
    let (log, warm) = timed(|| Log::open(&bench.dir, options.clone()).unwrap());
    fill(&log, since);
    // Dropped without a checkpoint: entries since the last checkpoint are replayed.
    drop(log);
    let (log, replayed) = timed(|| Log::open(&bench.dir, options).unwrap());
    log.shutdown().unwrap();
    let gigabytes = total as f64 / 1e9;
    let seconds = |taken: std::time::Duration| format!("{:.3} s", taken.as_secs_f64());
    vec![
        Row::new(
            format!("recovery of {gigabytes:.1} GB, {STREAMS} streams, warm checkpoint"),
            seconds(warm.wall),
        )
        .wanted("≤ 1 s"),
        Row::new(
            format!("the same with {:.0} MB since the checkpoint", since as f64 / 1e6),
            seconds(replayed.wall),
        ),
    ]
}
