//! Retention by age and bytes, by whole batches.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use inver_storage::medium::Files;
use inver_storage::{BatchBuilder, Entry, Log, LogOptions, Offset, Retention, Stream};

use crate::shorthand::*;
use crate::simulator::SimulatedClock;

const MINUTE_MS: i64 = 60_000;

/// Opens a log without threads, on a clock that stands.
fn open_at(dir: &Path, options: LogOptions, now_ms: i64) -> (Log, Arc<SimulatedClock>) {
    let clock = Arc::new(SimulatedClock(AtomicI64::new(now_ms)));
    let log = Log::open_manual(Arc::new(Files::new(dir).unwrap()), clock.clone(), options).unwrap();
    (log, clock)
}

/// A batch of two records with a timestamp.
fn append_at(log: &Log, stream: &Stream, timestamp_ms: i64) {
    append_bytes_at(log, stream, timestamp_ms, 40);
}

fn append_bytes_at(log: &Log, stream: &Stream, timestamp_ms: i64, bytes: usize) {
    let mut builder = BatchBuilder::new(64);
    builder.push(timestamp_ms, None, &[], Some(&vec![7; bytes]));
    builder.push(timestamp_ms, None, &[], Some(b"x"));
    let mut entry = Entry::new();
    entry.batch(std::slice::from_ref(stream), builder.finish());
    commit(log, entry);
}

fn older_than(oldest_ms: i64) -> Retention {
    Retention { oldest_ms: Some(oldest_ms), ..Retention::default() }
}

fn at_most(bytes_max: u64) -> Retention {
    Retention { bytes_max: Some(bytes_max), ..Retention::default() }
}

fn point(stream: &Stream, keep: Retention) -> u64 {
    stream.retention_point(&keep).0
}

fn trim(log: &Log, stream: &Stream, to: u64) {
    let mut entry = Entry::new();
    entry.trim(stream, Offset(to));
    commit(log, entry);
}

/// Starts a new segment and seals the one before.
fn roll(log: &Log, clock: &SimulatedClock) {
    clock.0.fetch_add(61 * MINUTE_MS, Ordering::SeqCst);
    let before = log.stats().segments;
    log.step_maintenance().unwrap();
    log.step_maintenance().unwrap();
    assert_eq!(log.stats().segments, before + 1);
}

#[test]
fn old_batches_go_from_the_segment_that_is_being_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open_at(dir.path(), LogOptions::default(), 0);
    let stream = create_stream(&log);
    assert_eq!(point(&stream, older_than(i64::MAX)), 0);
    (0..10).for_each(|minute| append_at(&log, &stream, minute * MINUTE_MS));
    assert_eq!(point(&stream, Retention::default()), 0);
    assert_eq!(point(&stream, older_than(0)), 0);
    assert_eq!(point(&stream, older_than(4 * MINUTE_MS)), 8);
    assert_eq!(point(&stream, older_than(4 * MINUTE_MS + 1)), 10);
    assert_eq!(point(&stream, older_than(60 * MINUTE_MS)), 20);
    let tolerant = |tolerance_ms| Retention { tolerance_ms, ..older_than(4 * MINUTE_MS) };
    assert_eq!(point(&stream, tolerant(4 * MINUTE_MS - 1)), 8);
    assert_eq!(point(&stream, tolerant(4 * MINUTE_MS)), 0, "not due yet");
    trim(&log, &stream, 9);
    assert_eq!(point(&stream, older_than(5 * MINUTE_MS)), 10, "whole batches");
    append_at(&log, &stream, 0);
    append_at(&log, &stream, 20 * MINUTE_MS);
    assert_eq!(point(&stream, older_than(10 * MINUTE_MS)), 22, "up to the first that is not older");
    // The log remembers the start.
    trim(&log, &stream, 22);
    drop(log);
    let (log, _) = open_at(dir.path(), LogOptions::default(), 0);
    let stream = log.stream(stream.id()).unwrap();
    assert_eq!((stream.start(), stream.next_offset()), (Offset(22), Offset(24)));
    assert_eq!(point(&stream, older_than(i64::MAX)), 24);
}

#[test]
fn old_batches_go_from_a_sealed_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (log, clock) = open_at(dir.path(), LogOptions::default(), 0);
    let (stream, other) = (create_stream(&log), create_stream(&log));
    for minute in 0..1000 {
        append_at(&log, &stream, minute * MINUTE_MS);
        append_at(&log, &other, 7);
    }
    roll(&log, &clock);
    (1000..1010).for_each(|minute| append_at(&log, &stream, minute * MINUTE_MS));
    let check = |stream: &Stream| {
        assert_eq!(point(stream, older_than(0)), 0);
        assert_eq!(point(stream, older_than(400 * MINUTE_MS)), 800);
        assert_eq!(point(stream, older_than(999 * MINUTE_MS)), 1998);
        assert_eq!(point(stream, older_than(1000 * MINUTE_MS)), 2000);
        assert_eq!(point(stream, older_than(1005 * MINUTE_MS)), 2010);
    };
    check(&stream);
    // What the lookups before left does not matter.
    assert_eq!(point(&stream, older_than(100 * MINUTE_MS)), 200);
    log.checkpoint().unwrap();
    log.shutdown().unwrap();
    drop(log);
    let (log, _) = open_at(dir.path(), LogOptions::default(), 0);
    let stream = log.stream(stream.id()).unwrap();
    check(&stream);
    trim(&log, &stream, 801);
    assert_eq!(point(&stream, older_than(401 * MINUTE_MS)), 802);
}

#[test]
fn the_oldest_batches_go_while_there_are_bytes_enough() {
    let dir = tempfile::tempdir().unwrap();
    let (log, clock) = open_at(dir.path(), LogOptions::default(), 0);
    let stream = create_stream(&log);
    // Small batches first: an estimate by offsets would drop too much.
    (0..100).for_each(|_| append_bytes_at(&log, &stream, 5, 10));
    (0..100).for_each(|_| append_bytes_at(&log, &stream, 5, 1000));
    let all = stream.bytes();
    let large = all / 101;
    let check = |stream: &Stream| {
        assert_eq!(point(stream, at_most(all)), 0);
        assert_eq!(point(stream, at_most(0)), 400);
        let half = point(stream, at_most(50 * large));
        assert!((290..=302).contains(&half), "{half}");
        // What is left is at least what is to be kept.
        let left = 1070 * (400 - half) / 2;
        assert!(left >= 50 * large, "{left} of {}", 50 * large);
    };
    check(&stream);
    roll(&log, &clock);
    check(&stream);
    log.checkpoint().unwrap();
    log.shutdown().unwrap();
    drop(log);
    let (log, _) = open_at(dir.path(), LogOptions::default(), 0);
    let stream = log.stream(stream.id()).unwrap();
    check(&stream);
    trim(&log, &stream, 200);
    let left = point(&stream, at_most(99 * large));
    assert_eq!(left, 200, "within the tolerance");
}

#[test]
fn a_batch_without_a_timestamp_is_not_as_old_as_those_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, clock) = open_at(dir.path(), LogOptions::default(), 500 * MINUTE_MS);
    let stream = create_stream(&log);
    append_at(&log, &stream, 1);
    append_at(&log, &stream, -1);
    append_at(&log, &stream, 2);
    assert_eq!(point(&stream, older_than(400 * MINUTE_MS)), 2, "written just now");
    roll(&log, &clock);
    append_at(&log, &stream, 900 * MINUTE_MS);
    assert_eq!(point(&stream, older_than(561 * MINUTE_MS)), 2);
    assert_eq!(point(&stream, older_than(561 * MINUTE_MS + 1)), 6);
}

#[test]
fn a_copy_is_as_old_as_what_was_copied() {
    let dir = tempfile::tempdir().unwrap();
    let (log, clock) = open_at(dir.path(), LogOptions::default(), 0);
    let (stream, other) = (create_stream(&log), create_stream(&log));
    append_at(&log, &stream, -1);
    append_bytes_at(&log, &other, -1, 100_000);
    append_at(&log, &stream, -1);
    roll(&log, &clock);
    append_at(&log, &stream, 900 * MINUTE_MS);
    trim(&log, &other, 2);
    clock.0.store(800 * MINUTE_MS, Ordering::SeqCst);
    let before = log.stats().cleaned_segments;
    (0..3).for_each(|_| log.step_maintenance().unwrap());
    assert!(log.stats().cleaned_segments > before, "nothing is cleaned");
    assert_eq!(point(&stream, older_than(61 * MINUTE_MS)), 0);
    assert_eq!(point(&stream, older_than(61 * MINUTE_MS + 1)), 4);
}

#[test]
fn what_was_known_of_a_first_batch_does_not_hold_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (log, clock) = open_at(dir.path(), LogOptions::default(), 0);
    let stream = create_stream(&log);
    append_at(&log, &stream, 4_000_000 * MINUTE_MS);
    append_at(&log, &stream, MINUTE_MS);
    append_at(&log, &stream, MINUTE_MS);
    roll(&log, &clock);
    append_at(&log, &stream, 4_000_000 * MINUTE_MS);
    assert_eq!(point(&stream, older_than(100 * MINUTE_MS)), 0, "up to the first that is not older");
    trim(&log, &stream, 2);
    assert_eq!(point(&stream, older_than(100 * MINUTE_MS)), 6);
}

#[test]
fn batches_without_a_timestamp_go_by_the_time_at_which_their_segment_was_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (log, clock) = open_at(dir.path(), LogOptions::default(), 500 * MINUTE_MS);
    let stream = create_stream(&log);
    append_at(&log, &stream, -1);
    append_at(&log, &stream, -1);
    assert_eq!(point(&stream, older_than(i64::MAX - 1)), 0, "written at any time until now");
    roll(&log, &clock);
    append_at(&log, &stream, 900 * MINUTE_MS);
    assert_eq!(point(&stream, older_than(561 * MINUTE_MS)), 0);
    assert_eq!(point(&stream, older_than(561 * MINUTE_MS + 1)), 4);
    log.checkpoint().unwrap();
    log.shutdown().unwrap();
    drop(log);
    let (log, _) = open_at(dir.path(), LogOptions::default(), 0);
    let stream = log.stream(stream.id()).unwrap();
    assert_eq!(point(&stream, older_than(561 * MINUTE_MS)), 0);
    assert_eq!(point(&stream, older_than(561 * MINUTE_MS + 1)), 4);
}
