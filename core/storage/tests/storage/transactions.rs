//! Transactions of a stream: what is stable, what was aborted, also after crashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use inver_storage::batch::marker;
use inver_storage::medium::fake::{FakeMedium, Random};
use inver_storage::{
    BatchBuilder, BatchHeader, Compression, Entry, Log, LogOptions, Offset, ProducerStamp, Stream,
    SubmitError, SystemClock,
};

use crate::shorthand::*;

/// A batch of `count` records of a producer's transaction.
fn part(producer: i64, base_sequence: i32, count: usize) -> inver_storage::Batch {
    let mut builder = BatchBuilder::new(64);
    (0..count).for_each(|_| builder.push(5, None, &[], Some(b"v")));
    let stamp = ProducerStamp { id: producer, epoch: 0, base_sequence, transactional: true, control: false };
    builder.finish_as(Compression::None, Some(stamp))
}

fn open_on(medium: &FakeMedium, options: &LogOptions) -> Log {
    Log::open_manual(Arc::new(medium.clone()), Arc::new(SystemClock), options.clone()).unwrap()
}

fn one(stream: &Stream, batch: inver_storage::Batch) -> Entry {
    let mut entry = Entry::new();
    entry.batch(std::slice::from_ref(stream), batch);
    entry
}

fn aborted(stream: &Stream) -> Vec<(i64, u64, u64)> {
    let all = stream.aborted_transactions(Offset(0)..Offset(u64::MAX));
    all.iter().map(|a| (a.producer_id, a.first.0, a.last.0)).collect()
}

/// Stable offset and aborted transactions, from all batches of the stream.
fn derived(stream: &Stream) -> (u64, Vec<(i64, u64, u64)>) {
    let (mut open, mut aborted) = (BTreeMap::new(), Vec::new());
    let mut next = stream.start().0;
    loop {
        let batches = read_once(stream, next, 1 << 20).unwrap();
        if batches.is_empty() {
            break;
        }
        for stored in batches {
            let header = BatchHeader::parse(&stored.bytes).unwrap();
            let base = stored.base_offset.0;
            next = base + header.offset_span();
            if !header.is_transactional() {
                continue;
            }
            if !header.is_control() {
                open.entry(header.producer_id).or_insert(base);
            } else if let Some(first) = open.remove(&header.producer_id)
                && inver_storage::batch::commits(&stored.bytes) == Some(false)
            {
                aborted.push((header.producer_id, first, base));
            }
        }
    }
    (open.values().copied().min().unwrap_or(next), aborted)
}

#[test]
fn markers_of_one_entry_end_a_transaction_in_all_its_streams() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &LogOptions::default());
    let streams = [create_stream(&log), create_stream(&log)];
    for stream in &streams {
        append(&log, std::slice::from_ref(stream), &[b"before"]);
        commit(&log, one(stream, part(7, 0, 2)));
        append(&log, std::slice::from_ref(stream), &[b"behind"]);
        assert_eq!((stream.stable_offset(), stream.high_watermark()), (Offset(1), Offset(4)));
        assert_eq!(stream.next_stable_offset(), Offset(1));
        assert_eq!(stream.open_transactions().len(), 1);
    }
    let mut entry = Entry::new();
    entry.batch(&streams, marker(7, 0, false, 0, 9));
    commit(&log, entry);
    for stream in &streams {
        assert_eq!(stream.stable_offset(), Offset(5));
        assert_eq!(aborted(stream), [(7, 1, 4)]);
        let is_aborted = |producer, base| stream.is_aborted(producer, Offset(base));
        assert!(is_aborted(7, 1) && !is_aborted(8, 1) && !is_aborted(7, 0) && !is_aborted(7, 5));
    }
}

#[test]
fn a_marker_counts_once_it_is_committed() {
    let medium = FakeMedium::new(3);
    let log = open_on(&medium, &LogOptions::default());
    let stream = create_stream(&log);
    commit(&log, one(&stream, part(7, 0, 2)));
    log.submit(one(&stream, marker(7, 0, true, 0, 9))).unwrap();
    // The next transaction of the producer begins before that.
    log.submit(one(&stream, part(7, 2, 1))).unwrap();
    assert_eq!((stream.stable_offset(), stream.next_stable_offset()), (Offset(0), Offset(0)));
    log.step_writer().unwrap();
    assert_eq!((stream.stable_offset(), stream.high_watermark()), (Offset(3), Offset(4)));
}

/// A batch outside of transactions, of a producer with an epoch.
fn outside(producer: i64, epoch: i16) -> inver_storage::Batch {
    let mut builder = BatchBuilder::new(64);
    builder.push(5, None, &[], Some(b"v"));
    let stamp = ProducerStamp { id: producer, epoch, base_sequence: 0, transactional: false, control: false };
    builder.finish_as(Compression::None, Some(stamp))
}

#[test]
fn a_foreign_batch_does_not_keep_a_transaction_open() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &LogOptions::default());
    let [with, without] = [create_stream(&log), create_stream(&log)];
    commit(&log, one(&with, part(7, 0, 1)));
    assert_eq!(log.submit(one(&with, outside(7, 9))).unwrap_err(), SubmitError::TransactionOpen);
    commit(&log, one(&with, outside(8, 9)));
    commit(&log, one(&without, outside(7, 9)));
    assert_eq!((with.producer_epoch(7), without.producer_epoch(7)), (Some(0), Some(9)));
    let mut entry = Entry::new();
    entry.batch(&[without.clone(), with.clone()], marker(7, 1, true, 0, 9));
    commit(&log, entry);
    assert_eq!((with.stable_offset(), without.stable_offset()), (Offset(3), Offset(2)));
    assert_eq!((with.producer_epoch(7), without.producer_epoch(7)), (Some(1), Some(9)));
    commit(&log, one(&with, outside(7, 9)));
}

#[test]
fn a_trim_passes_open_transactions_and_forgets_aborted_ones() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &LogOptions::default());
    let stream = create_stream(&log);
    commit(&log, one(&stream, part(7, 0, 2)));
    commit(&log, one(&stream, marker(7, 0, false, 0, 9)));
    commit(&log, one(&stream, part(8, 0, 4)));
    let mut entry = Entry::new();
    entry.trim(&stream, Offset(5));
    commit(&log, entry);
    assert_eq!((stream.stable_offset(), aborted(&stream)), (Offset(5), vec![]));
}

#[test]
fn transactions_of_a_stream_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { transactions_per_stream_max: 2, ..LogOptions::default() };
    let log = open(dir.path(), &options);
    let stream = create_stream(&log);
    commit(&log, one(&stream, part(1, 0, 1)));
    commit(&log, one(&stream, marker(1, 0, false, 0, 9)));
    commit(&log, one(&stream, part(2, 0, 1)));
    let refused = log.submit(one(&stream, part(3, 0, 1)));
    assert_eq!(refused.unwrap_err(), SubmitError::TooManyTransactions { count_max: 2 });
    commit(&log, one(&stream, part(2, 1, 1)));
    commit(&log, one(&stream, marker(2, 0, true, 0, 9)));
    commit(&log, one(&stream, part(3, 0, 1)));
}

/// Whatever the history, checkpoints and crashes, the state is that which the kept batches tell.
#[test]
fn transactions_agree_with_the_batches_after_crashes() {
    for seed in 0..40 {
        let medium = FakeMedium::new(seed);
        let mut random = Random::new(seed);
        let options = LogOptions { checkpoint_bytes: 1 << 30, preallocate: false, ..small() };
        let mut log = open_on(&medium, &options);
        let ids = [create_stream(&log).id(), create_stream(&log).id()];
        let mut sequences = BTreeMap::new();
        for _ in 0..120 {
            let streams = ids.map(|id| log.stream(id).unwrap());
            let producer = 1 + random.below(4) as i64;
            let at = random.below(2) as usize;
            match random.below(12) {
                0..=5 => {
                    let count = 1 + random.below(3) as usize;
                    let sequence: &mut i32 = sequences.entry((at, producer)).or_default();
                    if log.submit(one(&streams[at], part(producer, *sequence, count))).is_ok() {
                        *sequence += count as i32;
                    }
                }
                6 => drop(append(&log, &streams[at..=at], &[b"plain"])),
                7 | 8 => {
                    let mut entry = Entry::new();
                    entry.batch(&streams, marker(producer, 0, random.below(2) == 0, 0, 9));
                    log.submit(entry).unwrap();
                }
                9 => assert!(log.checkpoint().unwrap()),
                10 => log.step_maintenance().unwrap(),
                _ => {
                    let stable = streams.clone().map(|stream| stream.stable_offset());
                    medium.stop();
                    drop(log);
                    if random.below(2) == 0 {
                        medium.crash();
                    } else {
                        medium.kill();
                    };
                    log = open_on(&medium, &options);
                    sequences.clear();
                    for (id, stable) in ids.iter().zip(stable) {
                        let stream = log.stream(*id).unwrap();
                        assert!(stream.stable_offset() >= stable, "seed {seed}: it goes back");
                        for state in stream.producers() {
                            let at = usize::from(*id == ids[1]);
                            let next = state.last_sequence.map_or(0, |last| last + 1);
                            sequences.insert((at, state.id), next);
                        }
                    }
                }
            }
            log.step_writer().unwrap();
            for id in ids {
                let stream = log.stream(id).unwrap();
                let (stable, of_batches) = derived(&stream);
                assert_eq!((stream.stable_offset().0, aborted(&stream)), (stable, of_batches), "seed {seed}");
            }
        }
    }
}
