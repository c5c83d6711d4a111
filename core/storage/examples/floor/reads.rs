//! Reads: a large stream from its start and near its end, and one small stream among many.

use std::path::Path;

use inver_storage::medium::{Files, Medium};
use inver_storage::{BatchHeader, CommitPolicy, Entry, LogOptions, Offset, Read, Stream};

use crate::setup::{
    BATCH_BYTES, Bench, RECORD_BYTES, Row, Taken, append, batch, batch_of_one, stream, timed,
};

const LARGE_BYTES: usize = 1 << 30;
const TAIL_BYTES: usize = 32 << 20;
const READ_BYTES: usize = 1 << 20;
const STREAMS: usize = 100_000;
const ROUNDS: usize = 10;
/// One of this many small streams is read.
const STEP: usize = 97;

pub(crate) fn run(bench: &Bench) -> Vec<Row> {
    let mut rows = large(bench);
    rows.push(small(bench));
    rows
}

fn options() -> LogOptions {
    LogOptions { commit: CommitPolicy::Os, ..LogOptions::default() }
}

/// Reads from an offset on. Returns the bytes, and the number of reads from files.
fn read_on(stream: &Stream, from: u64) -> (usize, usize) {
    let high = stream.high_watermark().0;
    let (mut next, mut bytes, mut cold) = (from, 0, 0);
    while next < high {
        let batches = match stream.read(Offset(next), READ_BYTES).unwrap() {
            Read::Ready(batches) => batches,
            Read::Empty => break,
            Read::Cold(read) => {
                cold += 1;
                read.run().unwrap()
            }
        };
        for stored in batches {
            bytes += stored.bytes.len();
            next = stored.base_offset.0 + BatchHeader::parse(&stored.bytes).unwrap().offset_span();
        }
    }
    (bytes, cold)
}

fn large(bench: &Bench) -> Vec<Row> {
    let log = bench.log(options());
    let stream = stream(&log);
    let batch = batch(BATCH_BYTES);
    let count = bench.many(LARGE_BYTES / batch.bytes().len());
    (0..count).for_each(|_| append(&log, &stream, batch.clone()));
    log.sync().unwrap();
    log.checkpoint().unwrap();
    let floor = bare_reads(&bench.dir, count * batch.bytes().len());
    let records = |bytes: usize| bytes / batch.bytes().len() * batch.record_count() as usize;
    let result = |bytes: usize, taken: &Taken| {
        format!(
            "{:.0} MB/s, {:.1} M records/s",
            taken.per_second(bytes) / 1e6,
            taken.per_second(records(bytes)) / 1e6
        )
    };
    let ((bytes, cold), taken) = timed(|| read_on(&stream, 0));
    let catch_up =
        Row::new(format!("catch-up of a large stream ({cold} reads of files)"), result(bytes, &taken))
            .floor(format!("{:.0} MB/s: the files by reads of 1 MiB, summed", floor / 1e6))
            .ratio(taken.per_second(bytes), floor);
    let high = stream.high_watermark().0;
    let tail_records = records(TAIL_BYTES.min(bytes)) as u64;
    let from = high - tail_records.min(high);
    let ((bytes, cold), taken) = timed(|| read_on(&stream, from));
    let tail = Row::new(format!("tail reads, from memory ({cold} reads of files)"), result(bytes, &taken));
    log.shutdown().unwrap();
    vec![catch_up, tail]
}

/// Returns bytes per second.
fn bare_reads(dir: &Path, bytes_max: usize) -> f64 {
    let medium = Files::new(dir).unwrap();
    let mut buffer = vec![0; READ_BYTES];
    let (bytes, taken) = timed(|| {
        let mut bytes = 0;
        for name in medium.list().unwrap().iter().filter(|name| name.ends_with(".seg")) {
            let file = medium.open(name).unwrap();
            let mut position = 0;
            while bytes < bytes_max {
                let read = file.read_at(position, &mut buffer).unwrap();
                if read == 0 {
                    break;
                }
                std::hint::black_box(crc32c::crc32c(&buffer[..read]));
                position += read as u64;
                bytes += read;
            }
        }
        bytes
    });
    taken.per_second(bytes)
}

/// Interleaved streams, some of them read from the disk.
fn small(bench: &Bench) -> Row {
    let log = bench.log(options());
    let mut entry = Entry::new();
    let ids: Vec<_> = (0..bench.many(STREAMS)).map(|_| log.allocate_stream()).collect();
    ids.iter().for_each(|id| entry.create_stream(*id));
    log.submit(entry).unwrap();
    let streams: Vec<Stream> = ids.into_iter().map(|id| log.stream(id).unwrap()).collect();
    let batch = batch_of_one(RECORD_BYTES);
    for _ in 0..ROUNDS {
        streams.iter().for_each(|stream| append(&log, stream, batch.clone()));
    }
    // Large batches push the small ones out of the tail cache.
    let large = stream(&log);
    let filler = crate::setup::batch(1 << 20);
    (0..80).for_each(|_| append(&log, &large, filler.clone()));
    log.sync().unwrap();
    log.checkpoint().unwrap();
    let (cold, taken) =
        timed(|| streams.iter().step_by(STEP).map(|stream| read_on(stream, 0).1).sum::<usize>());
    let reads = streams.len().div_ceil(STEP);
    let medium = Files::new(&bench.dir).unwrap();
    let name = medium.list().unwrap().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    let file = medium.open(&name).unwrap();
    let pages = file.len().unwrap() / 4096;
    let mut page = vec![0; 4096];
    let ((), floor) = timed(|| {
        for at in 0..reads * (ROUNDS + 1) {
            file.read_at(at as u64 * 7919 % pages * 4096, &mut page).unwrap();
            std::hint::black_box(crc32c::crc32c(&page[..batch.bytes().len()]));
        }
    });
    log.shutdown().unwrap();
    let us = |taken: &Taken| taken.wall.as_secs_f64() * 1e6 / reads as f64;
    Row::new(
        format!(
            "catch-up of one small stream among {} ({ROUNDS} records; {cold} reads of files)",
            streams.len()
        ),
        format!("{:.0} µs", us(&taken)),
    )
    .floor(format!("{:.0} µs: {} reads of a page", us(&floor), ROUNDS + 1))
    .ratio(us(&taken), us(&floor))
}
