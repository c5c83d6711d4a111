//! Appending, reading, restarting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::shorthand::*;
use bytes::Bytes;
use inver_storage::medium::Files;
use inver_storage::{
    CommitPolicy, Entry, Listener, Log, LogError, LogOptions, Lsn, Offset, OpenError, Read, ReadError,
    SubmitError, SystemClock, TableId, TimeLookup,
};

#[test]
fn appended_records_are_read_and_survive_a_restart() {
    for commit in [CommitPolicy::Always, CommitPolicy::Os, CommitPolicy::Interval(Duration::from_millis(1))] {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { commit, ..small() };
        let log = open(dir.path(), &options);
        let stream = create_stream(&log);
        assert_eq!(append(&log, std::slice::from_ref(&stream), &[b"a", b"b"]), [0]);
        assert_eq!(append(&log, std::slice::from_ref(&stream), &[b"c"]), [2]);
        assert_eq!(stream.high_watermark(), Offset(3));
        let expected: Vec<(u64, Vec<u8>)> = vec![(0, b"a".to_vec()), (1, b"b".to_vec()), (2, b"c".to_vec())];
        assert_eq!(read_all(&stream, 0), expected);
        assert_eq!(read_all(&stream, 1), expected[1..]);
        assert!(matches!(stream.read(Offset(3), 100), Ok(Read::Empty)));
        assert!(matches!(stream.read(Offset(4), 100), Err(ReadError::OutOfRange { .. })));
        let id = stream.id();
        for checkpointed in [false, true] {
            let log = if checkpointed {
                open(dir.path(), &options)
            } else {
                drop(stream.clone());
                log.shutdown().unwrap();
                open(dir.path(), &options)
            };
            let stream = log.stream(id).unwrap();
            assert_eq!(read_all(&stream, 0), expected);
            assert_eq!(stream.next_offset(), Offset(3));
            assert_ne!(log.allocate_stream(), id);
            log.shutdown().unwrap();
        }
    }
}

#[test]
fn dropping_a_log_writes_submitted_entries() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &small());
    let stream = create_stream(&log);
    let id = stream.id();
    for i in 0..500u32 {
        let mut entry = Entry::new();
        entry.batch(std::slice::from_ref(&stream), batch(&[&i.to_be_bytes(), &[7; 100]]));
        log.submit(entry).unwrap();
    }
    drop(log);
    assert_eq!(read_once(&stream, 999, 10).unwrap().len(), 1);
    let log = open(dir.path(), &small());
    let stream = log.stream(id).unwrap();
    assert_eq!(stream.next_offset(), Offset(1000));
    let values = values(&stream);
    assert!((0..500u32).all(|i| values[i as usize * 2] == i.to_be_bytes()));
}

#[test]
fn a_batch_is_appended_to_several_streams_with_their_own_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &small());
    let streams: Vec<_> = (0..3).map(|_| create_stream(&log)).collect();
    append(&log, &streams[1..2], &[b"first"]);
    assert_eq!(append(&log, &streams, &[b"x", b"y"]), [0, 1, 0]);
    let mut entry = Entry::new();
    entry.batch(&streams[..1], batch(&[b"p"]));
    entry.batch(&streams[1..], batch(&[b"q"]));
    assert_eq!(commit(&log, entry), [2, 3, 2]);
    let ids: Vec<_> = streams.iter().map(|stream| stream.id()).collect();
    drop((log, streams));
    let log = open(dir.path(), &small());
    let read: Vec<Vec<Vec<u8>>> = ids.iter().map(|id| values(&log.stream(*id).unwrap())).collect();
    let expected: [&[&[u8]]; 3] = [&[b"x", b"y", b"p"], &[b"first", b"x", b"y", b"q"], &[b"x", b"y", b"q"]];
    assert_eq!(read, expected);
}

#[test]
fn sealed_segments_are_read_through_their_index() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { tail_cache_bytes_max: 0, index_cache_bytes_max: 0, ..small() };
    let log = open(dir.path(), &options);
    let (one, two) = (create_stream(&log), create_stream(&log));
    for i in 0..1500u32 {
        let to = if i % 100 == 0 { [two.clone()] } else { [one.clone()] };
        append(&log, &to, &[&i.to_be_bytes()]);
    }
    assert!(log.stats().segments > 5);
    log.checkpoint().unwrap();
    for _ in 0..2 {
        assert_eq!(values(&one).len(), 1485);
        assert_eq!(values(&two).len(), 15);
        for from in [0, 700, 1484] {
            assert_eq!(read_all(&one, from).len() as u64, 1485 - from);
        }
    }
    let ids = [one.id(), two.id()];
    log.shutdown().unwrap();
    let log = open(dir.path(), &options);
    let expected: Vec<Vec<u8>> =
        (0..1500u32).filter(|i| i % 100 == 0).map(|i| i.to_be_bytes().to_vec()).collect();
    assert_eq!(values(&log.stream(ids[1]).unwrap()), expected);
    assert_eq!(values(&log.stream(ids[0]).unwrap()).len(), 1485);
}

#[test]
fn state_survives_restarts_and_is_read_in_key_order() {
    let dir = tempfile::tempdir().unwrap();
    let table = TableId(7);
    let log = open(dir.path(), &small());
    for (round, key) in [b"b", b"a", b"c", b"a"].into_iter().enumerate() {
        let mut entry = Entry::new();
        entry.put(table, Bytes::from_static(key), Bytes::from(vec![round as u8]));
        entry.put(TableId(8), Bytes::from_static(key), Bytes::new());
        commit(&log, entry);
        if round == 1 {
            log.checkpoint().unwrap();
        }
    }
    let mut entry = Entry::new();
    entry.delete(table, Bytes::from_static(b"b"));
    commit(&log, entry);
    let expected = vec![
        (Bytes::from_static(b"a"), Bytes::from_static(&[3])),
        (Bytes::from_static(b"c"), Bytes::from_static(&[2])),
    ];
    assert_eq!(log.recovered_state(table), expected);
    drop(log);
    let log = open(dir.path(), &small());
    assert_eq!(log.recovered_state(table), expected);
    log.shutdown().unwrap();
    let log = open(dir.path(), &small());
    assert_eq!(log.recovered_state(table), expected);
    assert_eq!(log.recovered_state(TableId(8)).len(), 3);
    assert!(log.recovered_state(TableId(9)).is_empty());
}

#[test]
fn data_of_trimmed_and_deleted_streams_is_reclaimed() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &small());
    let (kept, gone) = (create_stream(&log), create_stream(&log));
    for i in 0..3000u32 {
        append(&log, &[if i < 100 { kept.clone() } else { gone.clone() }], &[&i.to_be_bytes()]);
    }
    log.checkpoint().unwrap();
    let full = log.stats().segments;
    let mut entry = Entry::new();
    entry.trim(&gone, Offset(2000));
    commit(&log, entry);
    assert_eq!(gone.start(), Offset(2000));
    assert!(matches!(gone.read(Offset(1999), 10), Err(ReadError::OutOfRange { .. })));
    assert_eq!(read_all(&gone, 2000).len(), 900);
    log.checkpoint().unwrap();
    let trimmed = log.stats().segments;
    assert!(trimmed < full / 2, "{trimmed} of {full} segments");
    let mut entry = Entry::new();
    entry.delete_stream(gone.id());
    commit(&log, entry);
    assert!(matches!(gone.read(Offset(2500), 10), Err(ReadError::Deleted)));
    assert!(log.stream(gone.id()).is_none());
    log.checkpoint().unwrap();
    assert!(log.stats().segments <= 3, "{} segments", log.stats().segments);
    let ids = (kept.id(), gone.id());
    drop(log);
    let log = open(dir.path(), &small());
    assert_eq!(values(&log.stream(ids.0).unwrap()).len(), 100);
    assert!(log.stream(ids.1).is_none());
}

#[test]
fn a_stream_trimmed_to_its_end_continues_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &small());
    let stream = create_stream(&log);
    append(&log, std::slice::from_ref(&stream), &[b"a", b"b"]);
    let mut entry = Entry::new();
    entry.trim(&stream, Offset(99));
    commit(&log, entry);
    assert_eq!(stream.start(), Offset(2));
    assert!(matches!(stream.read(Offset(2), 10), Ok(Read::Empty)));
    let id = stream.id();
    log.shutdown().unwrap();
    let log = open(dir.path(), &small());
    let stream = log.stream(id).unwrap();
    assert_eq!((stream.start(), stream.next_offset()), (Offset(2), Offset(2)));
    assert_eq!(append(&log, std::slice::from_ref(&stream), &[b"c"]), [2]);
    assert_eq!(read_all(&stream, 2), [(2, b"c".to_vec())]);
}

#[test]
fn older_batches_are_found_without_reading() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &small());
    let stream = create_stream(&log);
    let append_at = |timestamp_ms: i64| {
        let mut builder = inver_storage::BatchBuilder::new(64);
        builder.push(timestamp_ms, None, &[], Some(&[7; 40]));
        builder.push(timestamp_ms, None, &[], Some(&[8; 40]));
        let mut entry = Entry::new();
        entry.batch(std::slice::from_ref(&stream), builder.finish());
        commit(&log, entry);
    };
    let until = |from, timestamp_ms| stream.older_until(Offset(from), timestamp_ms).0;
    assert_eq!(until(0, 10), 0);
    (0..20).for_each(append_at);
    assert_eq!(until(0, 10), 20);
    assert_eq!(until(3, 10), 20);
    assert_eq!(until(30, 10), 30, "30 is returned unchanged");
    assert_eq!(until(0, 0), 0);
    assert_eq!(until(0, 100), 40);
    append_at(5);
    assert_eq!(until(0, 10), 20, "an older batch behind a newer one does not count");
    assert_eq!(until(40, 10), 42);
    (100..500).for_each(append_at);
    let sealed = until(0, 400);
    assert!(sealed < 842 && sealed > 42, "whole sealed segments and extents in memory: {sealed}");
    assert_eq!(until(0, 1000), 842);
    // After a restart only whole segments are known.
    log.shutdown().unwrap();
    let (id, log) = (stream.id(), open(dir.path(), &small()));
    let stream = log.stream(id).unwrap();
    assert_eq!(stream.older_until(Offset(0), 1000).0, 842);
    let known = stream.older_until(Offset(0), 400).0;
    assert!(known <= sealed && known > 42, "{known}");
    assert!(log.has_room());
}

#[test]
fn offsets_are_found_by_timestamp_in_memory_and_on_the_disk() {
    for tail_cache_bytes_max in [1 << 20, 0] {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { tail_cache_bytes_max, ..small() };
        let log = open(dir.path(), &options);
        let stream = create_stream(&log);
        for i in 0..300i64 {
            let mut builder = inver_storage::BatchBuilder::new(64);
            builder.push(i * 10, None, &[], Some(b"x"));
            builder.push(i * 10 + 5, None, &[], Some(b"y"));
            let mut entry = Entry::new();
            entry.batch(std::slice::from_ref(&stream), builder.finish());
            commit(&log, entry);
        }
        log.checkpoint().unwrap();
        let find = |timestamp| match stream.offset_for_time(timestamp).unwrap() {
            TimeLookup::Ready(found) => found,
            TimeLookup::Cold(cold) => cold.run().unwrap(),
        };
        assert_eq!(find(0), Some((Offset(0), 0)));
        assert_eq!(find(1001), Some((Offset(201), 1005)));
        assert_eq!(find(1005), Some((Offset(201), 1005)));
        assert_eq!(find(2995), Some((Offset(599), 2995)));
        assert_eq!(find(2996), None);
        assert_eq!(stream.last_timestamp(), 2995);
    }
}

#[derive(Default)]
struct Counting(AtomicU64);

impl Listener for Counting {
    fn advanced(&self, token: u64) {
        self.0.fetch_add(token, Ordering::SeqCst);
    }
}

#[test]
fn listeners_are_called_after_the_high_watermark_moved_until_they_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &small());
    let stream = create_stream(&log);
    let counting = Arc::new(Counting::default());
    let first = stream.listen(counting.clone(), 1);
    let second = stream.listen(counting.clone(), 100);
    append(&log, std::slice::from_ref(&stream), &[b"a"]);
    while counting.0.load(Ordering::SeqCst) < 101 {
        std::thread::yield_now();
    }
    drop(first);
    append(&log, std::slice::from_ref(&stream), &[b"b"]);
    while counting.0.load(Ordering::SeqCst) < 201 {
        std::thread::yield_now();
    }
    drop(second);
    append(&log, std::slice::from_ref(&stream), &[b"c"]);
    log.shutdown().unwrap();
    assert_eq!(counting.0.load(Ordering::SeqCst), 201);
}

#[test]
fn a_second_open_of_a_folder_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &small());
    let rejected = Log::open(dir.path(), small());
    assert!(matches!(&rejected, Err(OpenError::Locked { .. })), "{rejected:?}");
    assert!(rejected.unwrap_err().to_string().contains(dir.path().to_str().unwrap()));
    log.shutdown().unwrap();
    open(dir.path(), &small());
}

#[test]
fn a_closed_log_rejects_entries() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &small());
    log.shutdown().unwrap();
    assert_eq!(log.submit(Entry::new()), Err(SubmitError::Log(LogError::Closed)));
    assert_eq!(log.wait_committed_blocking(Lsn(u64::MAX)), Err(LogError::Closed));
    assert_eq!(log.shutdown(), Ok(()));
}

#[test]
fn an_entry_beyond_the_limit_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &LogOptions { entry_bytes_max: 1000, ..small() });
    let stream = create_stream(&log);
    let mut entry = Entry::new();
    entry.batch(std::slice::from_ref(&stream), batch(&[&[0; 1000]]));
    assert!(matches!(log.submit(entry), Err(SubmitError::TooLarge { bytes_max: 1000, .. })));
    assert_eq!(stream.next_offset(), Offset(0));
}

#[test]
fn an_entry_larger_than_a_segment_gets_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { tail_cache_bytes_max: 0, ..small() };
    let log = open(dir.path(), &options);
    let stream = create_stream(&log);
    let big = vec![5; 100_000];
    for _ in 0..3 {
        append(&log, std::slice::from_ref(&stream), &[&big]);
        append(&log, std::slice::from_ref(&stream), &[b"small"]);
    }
    let id = stream.id();
    assert_eq!(values(&stream).len(), 6);
    drop(log);
    let log = open(dir.path(), &options);
    let values = values(&log.stream(id).unwrap());
    assert_eq!(values.len(), 6);
    assert_eq!(values[4], big);
}

#[test]
fn old_segments_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { segment_age_max: Duration::ZERO, ..small() };
    let medium = Arc::new(Files::new(dir.path()).unwrap());
    let log = Log::open_manual(medium, Arc::new(SystemClock), options).unwrap();
    let stream = create_stream(&log);
    append(&log, std::slice::from_ref(&stream), &[b"a"]);
    assert_eq!(log.stats().segments, 1);
    log.step_maintenance().unwrap();
    assert_eq!(log.stats().segments, 2);
    assert_eq!(values(&stream), [b"a"]);
}

#[test]
fn waiting_for_the_submitted_position_shows_all_submitted_entries() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &small());
    log.wait_committed_blocking(log.submitted()).unwrap();
    let stream = create_stream(&log);
    let mut entry = Entry::new();
    entry.batch(std::slice::from_ref(&stream), batch(&[b"x"]));
    let submitted = log.submit(entry).unwrap();
    assert_eq!(log.submitted(), submitted.lsn);
    log.wait_committed_blocking(log.submitted()).unwrap();
    assert_eq!(stream.high_watermark(), Offset(1));
}
