//! Policy `os`: batches of 16 KiB from one and two submitters, and entries of one record.

use std::io::IoSlice;

use inver_storage::medium::{Files, Medium};
use inver_storage::{Batch, CommitPolicy, LogOptions, Stream};

use crate::setup::{
    BATCH_BYTES, Bench, RECORD_BYTES, Row, Taken, append, batch, batch_of_one, stream, timed,
};

const TOTAL_BYTES: usize = 1 << 30;
const GROUP_BYTES: usize = 256 << 10;
const FILE_BYTES: usize = 128 << 20;
/// Floor and log take turns, so that other load of the machine affects both.
const ROUNDS: usize = 3;
const SMALL_ENTRIES: usize = 2_000_000;

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let batches = bench.many(TOTAL_BYTES / BATCH_BYTES) / ROUNDS;
    let (mut floor, mut one, mut two) = (Taken::default(), Taken::default(), Taken::default());
    for _ in 0..ROUNDS {
        floor += bare(bench, batches);
        one += log(bench, 1, batches);
        two += log(bench, 2, batches);
    }
    let records = batches * ROUNDS * batch(BATCH_BYTES).record_count() as usize;
    let bytes = batches * ROUNDS * batch(BATCH_BYTES).bytes().len();
    let result = |taken: &Taken| {
        format!(
            "{:.0} MB/s, {:.1} M records a CPU second",
            taken.per_second(bytes) / 1e6,
            taken.per_cpu_second(records) / 1e6
        )
    };
    let mut rows = vec![];
    for (submitters, taken) in [(1, one), (2, two)] {
        rows.push(
            Row::new(
                format!("`os`, 16 KiB batches of 100 B records, {submitters} submitter(s)"),
                result(&taken),
            )
            .floor(result(&floor))
            .ratio(taken.per_second(bytes), floor.per_second(bytes))
            .wanted("≥ 0.8; ≥ 5 M records/s a core"),
        );
    }
    let count = bench.many(SMALL_ENTRIES);
    let taken = small(bench, count);
    let (rate, per_cpu) = (taken.per_second(count) / 1e6, taken.per_cpu_second(count) / 1e6);
    rows.push(Row::new(
        "`os`, entries of one record of 100 B, 1 submitter",
        format!("{rate:.2} M/s, {per_cpu:.2} M a CPU second"),
    ));
    rows
}

/// The floor: checksums and writes groups of 256 KiB.
fn bare(bench: &Bench, batches: usize) -> Taken {
    let medium = Files::new(bench.fresh()).unwrap();
    let batch = batch(BATCH_BYTES);
    let bytes = batch.bytes();
    let per_group = GROUP_BYTES / bytes.len();
    let ((), taken) = timed(|| {
        let (mut left, mut number) = (batches, 0);
        while left > 0 {
            let file = medium.create(&format!("{number}")).unwrap();
            file.allocate(FILE_BYTES as u64).unwrap();
            let mut position = 0;
            while position < FILE_BYTES && left > 0 {
                let count = per_group.min(left);
                let slices: Vec<IoSlice<'_>> = (0..count).map(|_| IoSlice::new(bytes)).collect();
                for _ in 0..count {
                    std::hint::black_box(crc32c::crc32c(bytes));
                }
                file.write_at(position as u64, &slices).unwrap();
                position += count * bytes.len();
                left -= count;
            }
            file.sync().unwrap();
            number += 1;
        }
    });
    taken
}

fn log(bench: &Bench, submitters: usize, batches: usize) -> Taken {
    let log = bench.log(LogOptions { commit: CommitPolicy::Os, ..LogOptions::default() });
    let streams: Vec<Stream> = (0..submitters).map(|_| stream(&log)).collect();
    let batch = batch(BATCH_BYTES);
    let ((), taken) = timed(|| {
        std::thread::scope(|scope| {
            for stream in &streams {
                let (log, batch) = (&log, &batch);
                scope.spawn(move || {
                    for _ in 0..batches / submitters {
                        // As a connection does: the checksum is verified once.
                        append(log, stream, Batch::parse(batch.bytes().clone()).unwrap());
                    }
                });
            }
        });
        log.sync().unwrap();
    });
    log.shutdown().unwrap();
    taken
}

/// The cost of an entry.
fn small(bench: &Bench, count: usize) -> Taken {
    let log = bench.log(LogOptions { commit: CommitPolicy::Os, ..LogOptions::default() });
    let stream = stream(&log);
    let batch = batch_of_one(RECORD_BYTES);
    let ((), taken) = timed(|| {
        for _ in 0..count {
            append(&log, &stream, batch.clone());
        }
        log.sync().unwrap();
    });
    log.shutdown().unwrap();
    taken
}
