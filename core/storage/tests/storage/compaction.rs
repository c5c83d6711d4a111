//! Key compaction.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::shorthand::*;
use inver_storage::medium::fake::Random;
use inver_storage::{
    Batch, BatchBuilder, Compaction, Compression, Entry, Log, LogOptions, Offset, ProducerStamp, Read,
    Stream, SubmitError, SystemClock, medium::Files, records,
};

/// Opens a log without threads, which would compact at any time.
fn open(dir: &Path, options: &LogOptions) -> Log {
    Log::open_manual(Arc::new(Files::new(dir).unwrap()), Arc::new(SystemClock), options.clone()).unwrap()
}

/// Without a tail cache: all reads come from files.
fn options() -> LogOptions {
    LogOptions { tail_cache_bytes_max: 0, ..small() }
}

type Row = (u64, Option<Vec<u8>>, Option<Vec<u8>>);

fn rows(stream: &Stream) -> Vec<Row> {
    let mut found = Vec::new();
    let mut next = stream.start().0;
    loop {
        let batches = read_once(stream, next, 10_000).unwrap();
        if batches.is_empty() {
            return found;
        }
        for stored in batches {
            let header = *Batch::parse(stored.bytes.clone()).unwrap().header();
            next = stored.base_offset.0 + header.offset_span();
            if header.is_control() {
                continue;
            }
            for record in records(&stored.bytes).unwrap() {
                let record = record.unwrap();
                let offset = stored.base_offset.0 + u64::from(record.offset_delta);
                found.push((offset, record.key.map(|k| k.to_vec()), record.value.map(|v| v.to_vec())));
            }
        }
    }
}

fn stamp(producer: i64, control: bool) -> ProducerStamp {
    ProducerStamp { id: producer, epoch: 0, base_sequence: -1, transactional: true, control }
}

/// A transaction marker.
fn marker(producer: i64, is_commit: bool) -> Batch {
    let mut builder = BatchBuilder::new(64);
    builder.push(1000, Some(&[0, 0, 0, u8::from(is_commit)]), &[], Some(&[0; 6]));
    builder.finish_as(Compression::None, Some(stamp(producer, true)))
}

fn append_batch(log: &Log, stream: &Stream, batch: Batch) {
    let mut entry = Entry::new();
    entry.batch(std::slice::from_ref(stream), batch);
    commit(log, entry);
}

fn row(key: &str, value: Option<&str>) -> Batch {
    let mut builder = BatchBuilder::new(64);
    builder.push(1000, Some(key.as_bytes()), &[], value.map(str::as_bytes));
    builder.finish()
}

/// Fills the segment, so that earlier data is sealed.
fn roll(log: &Log, stream: &Stream) {
    for _ in 0..20 {
        append(log, std::slice::from_ref(stream), &[&[0; 1000]]);
    }
}

fn set_policy(log: &Log, stream: &Stream, policy: Compaction) {
    let mut entry = Entry::new();
    entry.set_compaction(stream.id(), Some(policy));
    commit(log, entry);
}

fn fill(log: &Log, stream: &Stream, other: &Stream, random: &mut Random) -> Vec<Row> {
    let codecs =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    let mut all = Vec::new();
    for round in 0..600u64 {
        let mut builder = BatchBuilder::new(256);
        let base = stream.next_offset().0;
        let transaction = match round {
            77 | 90 => Some("committed-"),
            78 | 79 => Some("aborted-"),
            _ => None,
        };
        for i in 0..=random.below(4) {
            let key = match random.below(40) {
                0 => None,
                key => Some(key.to_string().into_bytes()),
            };
            let value = (!random.once_in(10)).then(|| random.any().to_le_bytes().repeat(3));
            builder.push(1000, key.as_deref(), &[(b"h", Some(b"v"))], value.as_deref());
            all.push((base + i, key, value));
        }
        let codec = codecs[random.below(5) as usize];
        let batch = builder.finish_as(codec, None);
        if let Some(name) = transaction {
            let from = all.len() - batch.record_count() as usize;
            for row in &mut all[from..] {
                row.1 = row.1.take().map(|key| [name.as_bytes(), key.as_slice()].concat());
            }
            let mut builder = BatchBuilder::new(256);
            for (_, key, value) in &all[from..] {
                builder.push(1000, key.as_deref(), &[], value.as_deref());
            }
            append_batch(log, stream, builder.finish_as(codec, Some(stamp(1, false))));
            append_batch(log, stream, marker(1, name == "committed-"));
            continue;
        }
        let mut entry = Entry::new();
        entry.batch(&[stream.clone(), other.clone()], batch);
        commit(log, entry);
    }
    all
}

/// The survivors of the rows below `sealed_to`, and all other rows.
fn expected(all: &[Row], sealed_to: u64, drops_tombstones: bool) -> Vec<Row> {
    let mut last = BTreeMap::new();
    for (offset, key, _) in all.iter().filter(|row| row.0 < sealed_to) {
        if let Some(key) = key {
            last.insert(key.clone(), *offset);
        }
    }
    let survives = |(offset, key, value): &&Row| {
        let Some(key) = key else { return true };
        *offset >= sealed_to
            || (!key.starts_with(b"aborted-")
                && last.get(key) == Some(offset)
                && !(drops_tombstones && value.is_none()))
    };
    all.iter().filter(survives).cloned().collect()
}

/// Unsealed rows are not compacted: they begin somewhere in the longest complete tail.
fn assert_compacted(all: &[Row], found: &[Row], drops_tombstones: bool) {
    let complete = all.iter().rev().zip(found.iter().rev()).take_while(|(one, two)| one == two).count();
    assert!(complete > 1 && complete < all.len() / 2);
    let mut borders = all[all.len() - complete..].iter().map(|row| row.0);
    assert!(borders.any(|sealed_to| found == expected(all, sealed_to, drops_tombstones)));
}

#[test]
fn only_the_last_record_of_a_key_survives_and_offsets_do_not_change() {
    for (seed, delete_retention) in [(1, Duration::ZERO), (2, Duration::from_secs(1 << 40))] {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { tail_cache_bytes_max: 0, clean_live_percent_max: 0, ..small() };
        let log = open(dir.path(), &options);
        let (stream, other) = (create_stream(&log), create_stream(&log));
        let mut random = Random::new(seed);
        let all = fill(&log, &stream, &other, &mut random);
        assert_eq!(rows(&stream), all);
        let other_before = rows(&other);
        set_policy(&log, &stream, Compaction { delete_retention, ..Compaction::default() });
        let bytes = stream.bytes();
        assert!(log.compact().unwrap());
        assert!(!log.compact().unwrap(), "nothing new");
        let found = rows(&stream);
        assert_compacted(&all, &found, delete_retention.is_zero());
        assert!(stream.bytes() < bytes / 3);
        assert_eq!(rows(&other), other_before, "the other stream shares the bytes and is not compacted");
        // A read from any gap makes progress, even if the batch lost the records sought.
        for hole in found.windows(2).flat_map(|pair| pair[0].0 + 1..pair[1].0) {
            assert!(last_of_first(&stream, hole) >= hole);
        }
        let id = stream.id();
        log.shutdown().unwrap();
        assert_eq!(inver_storage::inspect::verify(dir.path()).unwrap().flaws, []);
        let log = open(dir.path(), &options);
        assert_eq!(rows(&log.stream(id).unwrap()), found);
    }
}

fn last_of_first(stream: &Stream, from: u64) -> u64 {
    let batches = read_once(stream, from, 1).unwrap();
    let header = *Batch::parse(batches[0].bytes.clone()).unwrap().header();
    batches[0].base_offset.0 + header.offset_span() - 1
}

#[test]
fn keys_beyond_the_limit_are_compacted_by_the_next_compactions() {
    for (seed, delete_retention) in [(3, Duration::ZERO), (4, Duration::from_secs(1 << 40))] {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { compaction_keys_max: 30, clean_live_percent_max: 0, ..options() };
        let mut log = open(dir.path(), &options);
        let (mut stream, other) = (create_stream(&log), create_stream(&log));
        let all = fill(&log, &stream, &other, &mut Random::new(seed));
        set_policy(
            &log,
            &stream,
            Compaction { delete_retention, dirty_percent_min: 0, ..Compaction::default() },
        );
        let mut rounds = 0;
        let mut left = all.len();
        while log.compact().unwrap() {
            rounds += 1;
            let found = rows(&stream);
            assert!(found.len() <= left && rounds < 100);
            left = found.len();
            if rounds % 4 == 0 {
                log.shutdown().unwrap();
                log = open(dir.path(), &options);
                stream = log.stream(stream.id()).unwrap();
                assert_eq!(rows(&stream), found);
            }
        }
        assert!(rounds > 4, "{rounds}");
        assert_compacted(&all, &rows(&stream), delete_retention.is_zero());
    }
}

fn keyed(stream: &Stream) -> Vec<(String, Option<String>)> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    rows(stream).into_iter().filter_map(|(_, key, value)| Some((text(key?), value.map(text)))).collect()
}

fn pair(key: &str, value: Option<&str>) -> (String, Option<String>) {
    (key.to_owned(), value.map(str::to_owned))
}

#[test]
fn records_behind_an_open_transaction_are_not_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &options());
    let stream = create_stream(&log);
    set_policy(&log, &stream, Compaction { delete_retention: Duration::ZERO, ..Compaction::default() });
    append_batch(&log, &stream, row("k", Some("1")));
    append_batch(&log, &stream, row("k", Some("2")));
    let mut open_one = BatchBuilder::new(64);
    open_one.push(1000, Some(b"k"), &[], Some(b"3"));
    append_batch(&log, &stream, open_one.finish_as(Compression::None, Some(stamp(9, false))));
    append_batch(&log, &stream, row("k", None));
    roll(&log, &stream);
    assert!(log.compact().unwrap());
    let before = [pair("k", Some("3")), pair("k", None)];
    assert_eq!(keyed(&stream), before, "the tombstone must not be dropped before the record it deletes");
    append_batch(&log, &stream, marker(9, true));
    roll(&log, &stream);
    assert!(log.compact().unwrap());
    assert_eq!(keyed(&stream), []);
}

/// Compaction once made no progress behind a batch with more keys than the limit: it restarted where it had ended.
#[test]
fn a_batch_or_transaction_with_more_keys_than_the_limit_does_not_block_compaction() {
    for compaction_keys_max in [1, 7, 30] {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { compaction_keys_max, clean_live_percent_max: 0, ..options() };
        let log = open(dir.path(), &options);
        let stream = create_stream(&log);
        let delete_retention = Duration::ZERO;
        let policy = Compaction { delete_retention, dirty_percent_min: 0, ..Compaction::default() };
        set_policy(&log, &stream, policy);
        let batch = |keys: std::ops::Range<i32>, value: &str, producer| {
            let mut builder = BatchBuilder::new(64);
            for key in keys {
                builder.push(1000, Some(key.to_string().as_bytes()), &[], Some(value.as_bytes()));
            }
            builder.finish_as(Compression::None, producer)
        };
        append_batch(&log, &stream, batch(0..50, "one batch", None));
        // Two interleaved transactions, one of them aborted, with other records in between.
        for first in (0..50).step_by(5) {
            append_batch(&log, &stream, batch(first..first + 5, "committed", Some(stamp(8, false))));
            append_batch(&log, &stream, batch(first..first + 5, "aborted", Some(stamp(9, false))));
            append_batch(&log, &stream, row("between", Some(&first.to_string())));
        }
        append_batch(&log, &stream, marker(9, false));
        append_batch(&log, &stream, marker(8, true));
        append_batch(&log, &stream, batch(10..40, "last", None));
        append_batch(&log, &stream, row("0", None));
        roll(&log, &stream);
        let mut rounds = 0;
        while log.compact().unwrap() {
            rounds += 1;
            assert!(rounds < 1000);
        }
        let mut found = keyed(&stream);
        found.sort();
        let value = |key| if (10..40).contains(&key) { "last" } else { "committed" };
        let mut wanted: Vec<_> = (1..50).map(|key| pair(&key.to_string(), Some(value(key)))).collect();
        wanted.push(pair("between", Some("45")));
        wanted.sort();
        assert_eq!(found, wanted, "{compaction_keys_max}");
    }
}

#[test]
fn markers_of_transactions_without_survivors_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &options());
    let stream = create_stream(&log);
    set_policy(&log, &stream, Compaction { delete_retention: Duration::ZERO, ..Compaction::default() });
    for (key, is_commit) in [("gone", true), ("gone", true), ("kept", true), ("aborted", false)] {
        let mut builder = BatchBuilder::new(64);
        builder.push(1000, Some(key.as_bytes()), &[], Some(b"v"));
        append_batch(&log, &stream, builder.finish_as(Compression::None, Some(stamp(9, false))));
        append_batch(&log, &stream, marker(9, is_commit));
    }
    append_batch(&log, &stream, row("gone", None));
    roll(&log, &stream);
    log.compact().unwrap();
    assert_eq!(keyed(&stream), [pair("kept", Some("v"))]);
    let batches = read_once(&stream, 0, 1 << 20).unwrap();
    let markers =
        batches.iter().filter(|stored| Batch::parse(stored.bytes.clone()).unwrap().header().is_control());
    assert_eq!(markers.map(|stored| stored.base_offset.0).collect::<Vec<_>>(), [5], "the marker of `kept`");
}

#[test]
fn the_policy_survives_a_restart_and_is_deleted_with_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    let policy = Compaction {
        delete_retention: Duration::from_millis(7),
        dirty_percent_min: 12,
        lag_min: Duration::from_secs(3),
        lag_max: Duration::from_secs(4),
    };
    let log = open(dir.path(), &options());
    let [kept, ended, deleted] = [(); 3].map(|()| create_stream(&log));
    for stream in [&kept, &ended, &deleted] {
        set_policy(&log, stream, policy);
    }
    let check = |log: &Log, expected: [Option<Compaction>; 3]| {
        assert_eq!([&kept, &ended, &deleted].map(|stream| log.compaction(stream.id())), expected);
    };
    check(&log, [Some(policy); 3]);
    // Restored from the log, from the checkpoint, and from changes behind the checkpoint.
    drop(log);
    let log = open(dir.path(), &options());
    check(&log, [Some(policy); 3]);
    log.shutdown().unwrap();
    let log = open(dir.path(), &options());
    check(&log, [Some(policy); 3]);
    let mut entry = Entry::new();
    entry.set_compaction(ended.id(), None);
    entry.delete_stream(deleted.id());
    commit(&log, entry);
    check(&log, [Some(policy), None, None]);
    drop(log);
    let log = open(dir.path(), &options());
    check(&log, [Some(policy), None, None]);
    log.shutdown().unwrap();
    check(&open(dir.path(), &options()), [Some(policy), None, None]);
}

#[test]
fn compaction_progress_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &options());
    let stream = create_stream(&log);
    set_policy(&log, &stream, Compaction::default());
    for i in 0..300 {
        append_batch(
            &log,
            &stream,
            row(&(i % 7).to_string(), Some("some value that is long enough to fill")),
        );
    }
    roll(&log, &stream);
    assert!(log.compact().unwrap());
    log.shutdown().unwrap();
    let log = open(dir.path(), &options());
    assert!(!log.compact().unwrap(), "nothing new");
    assert_eq!(keyed(&log.stream(stream.id()).unwrap()).len(), 7);
}

#[test]
fn readers_keep_their_bytes_and_find_the_replaced_segments() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &options());
    let stream = create_stream(&log);
    set_policy(&log, &stream, Compaction::default());
    for i in 0..300u32 {
        append_batch(&log, &stream, row("k", Some(&i.to_string())));
    }
    roll(&log, &stream);
    let held = read_once(&stream, 0, 4096).unwrap();
    let bytes: Vec<Vec<u8>> = held.iter().map(|stored| stored.bytes.to_vec()).collect();
    // Started before the compaction and run after it.
    let Read::Cold(cold) = stream.read(Offset(0), 4096).unwrap() else { unreachable!() };
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    let before = files();
    assert!(log.compact().unwrap());
    assert!(files() < before, "the old files are removed");
    assert!(held.iter().zip(&bytes).all(|(stored, bytes)| stored.bytes == *bytes));
    assert_eq!(cold.run().unwrap().first().unwrap().base_offset, Offset(299));
}

#[test]
fn compacted_batches_leave_the_tail_cache() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &LogOptions { tail_cache_bytes_max: 1 << 20, ..small() });
    let stream = create_stream(&log);
    set_policy(&log, &stream, Compaction::default());
    for value in ["1", "2", "3"] {
        append_batch(&log, &stream, row("k", Some(value)));
    }
    roll(&log, &stream);
    append_batch(&log, &stream, row("k", Some("4")));
    assert_eq!(keyed(&stream), ["1", "2", "3", "4"].map(|value| pair("k", Some(value))));
    assert!(log.compact().unwrap());
    assert_eq!(keyed(&stream), [pair("k", Some("3")), pair("k", Some("4"))]);
    let newest = stream.read(Offset(stream.next_offset().0 - 1), 4096).unwrap();
    assert!(matches!(newest, Read::Ready(_)), "uncompacted batches are served from memory");
}

#[test]
fn producer_state_survives_the_compaction_of_its_records() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &options());
    let stream = create_stream(&log);
    set_policy(&log, &stream, Compaction::default());
    let batch = |base_sequence| {
        let stamp = ProducerStamp { id: 5, epoch: 0, base_sequence, transactional: false, control: false };
        let mut builder = BatchBuilder::new(64);
        builder.push(1000, Some(b"k"), &[], Some(b"v"));
        builder.finish_as(Compression::None, Some(stamp))
    };
    for sequence in 0..10 {
        append_batch(&log, &stream, batch(sequence));
    }
    append_batch(&log, &stream, row("k", Some("last")));
    roll(&log, &stream);
    assert!(log.compact().unwrap());
    assert_eq!(keyed(&stream), [pair("k", Some("last"))]);
    let again = |log: &Log| {
        let stream = log.stream(stream.id()).unwrap();
        let mut entry = Entry::new();
        entry.batch(&[stream], batch(9));
        let refused = log.submit(entry).unwrap_err();
        assert!(
            matches!(refused, SubmitError::DuplicateSequence { base_offset: Offset(9), .. }),
            "{refused}"
        );
    };
    again(&log);
    log.shutdown().unwrap();
    again(&open(dir.path(), &options()));
}
