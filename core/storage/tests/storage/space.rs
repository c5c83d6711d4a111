//! A disk that becomes full: the gate, and a log that waits for space instead of ending.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use crate::shorthand::*;
use inver_storage::medium::fake::FakeMedium;
use inver_storage::{Entry, Log, LogOptions, Shortage, Stream, SystemClock};

const MIB: u64 = 1 << 20;

fn options() -> LogOptions {
    LogOptions { segment_bytes_max: MIB, tail_cache_bytes_max: 0, ..LogOptions::default() }
}

fn medium(capacity: u64) -> FakeMedium {
    let medium = FakeMedium::new(1);
    medium.set_capacity(Some(capacity));
    medium
}

fn used(medium: &FakeMedium) -> u64 {
    medium.names().iter().map(|name| medium.content(name).unwrap().len() as u64).sum()
}

/// Appends 64 KiB.
fn grow(log: &Log, stream: &Stream) {
    append(log, std::slice::from_ref(stream), &[&[7; 64 << 10]]);
}

#[test]
fn publishers_are_held_back_below_the_bound_until_removals_made_room() {
    let medium = medium(64 * MIB);
    let log =
        Log::open_manual(Arc::new(medium.clone()), Arc::new(SystemClock), LogOptions::default()).unwrap();
    let (free, min) = log.free_bytes().unwrap();
    assert_eq!((min, log.gate().shortage()), (32 * MIB, None), "half of it: {free} are free");
    assert!(used(&medium) <= 20 * MIB, "{}", used(&medium));
    let stream = create_stream(&log);
    while log.gate().shortage().is_none() {
        assert!(used(&medium) < 40 * MIB);
        grow(&log, &stream);
        log.step_maintenance().unwrap();
    }
    assert_eq!(log.gate().shortage(), Some(Shortage::Disk));
    assert!(used(&medium) >= 24 * MIB, "{}", used(&medium));
    // What consumers do has room.
    grow(&log, &stream);
    let mut entry = Entry::new();
    entry.trim(&stream, stream.high_watermark());
    commit(&log, entry);
    log.step_maintenance().unwrap();
    assert_eq!(log.gate().shortage(), None);
    assert!(log.free_bytes().unwrap().0 >= min + min / 4);
}

#[test]
fn the_bound_does_not_shrink_with_a_start_on_a_full_disk() {
    let medium = medium(64 * MIB);
    let manual = |medium: &FakeMedium| {
        Log::open_manual(Arc::new(medium.clone()), Arc::new(SystemClock), LogOptions::default()).unwrap()
    };
    let log = manual(&medium);
    let stream = create_stream(&log);
    while log.gate().shortage().is_none() {
        grow(&log, &stream);
        log.step_maintenance().unwrap();
    }
    let (free, min) = log.free_bytes().unwrap();
    log.shutdown().unwrap();
    drop(log);
    medium.set_capacity(Some(64 * MIB - free.saturating_sub(MIB)));
    let log = manual(&medium);
    assert_eq!(log.gate().shortage(), Some(Shortage::Disk), "from the start on");
    assert!(log.free_bytes().unwrap().1 > min / 3);
}

#[test]
fn a_log_without_space_for_a_segment_waits_for_it() {
    let medium = medium(256 * MIB);
    let log = Log::open_on(Arc::new(medium.clone()), Arc::new(SystemClock), options()).unwrap();
    let stream = create_stream(&log);
    grow(&log, &stream);
    // Others take all of it.
    medium.set_capacity(Some(0));
    let mut cx = Context::from_waker(Waker::noop());
    let (mut last, mut appended) = (log.committed(), 1);
    for _ in 0..64 {
        let mut entry = Entry::new();
        entry.batch(std::slice::from_ref(&stream), batch(&[&[7; 64 << 10]]));
        last = log.submit(entry).unwrap().lsn;
        appended += 1;
        if !within(Duration::from_secs(1), || log.committed() >= last) {
            break;
        }
    }
    assert!(log.committed().0 >= MIB / 2 && log.poll_committed(last, &mut cx).is_pending());
    assert_eq!(log.gate().shortage(), Some(Shortage::Disk));
    assert_eq!(log.failure(), None);
    let unfinished = medium.names().iter().filter(|name| name.ends_with(".tmp")).count();
    assert!(unfinished <= 1, "{:?}", medium.names());
    medium.set_capacity(Some(256 * MIB));
    log.wait_committed_blocking(last).unwrap();
    assert_eq!(values(&stream).len(), appended);
    assert!(within(Duration::from_secs(30), || log.gate().shortage().is_none()), "a pass of maintenance");
}

/// Whether the condition comes true within this time.
fn within(time: Duration, condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + time;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

#[test]
fn a_log_that_waits_for_space_can_be_closed() {
    let medium = medium(256 * MIB);
    let log = Log::open_on(Arc::new(medium.clone()), Arc::new(SystemClock), options()).unwrap();
    let stream = create_stream(&log);
    grow(&log, &stream);
    let acknowledged = log.committed();
    medium.set_capacity(Some(0));
    for _ in 0..64 {
        let mut entry = Entry::new();
        entry.batch(std::slice::from_ref(&stream), batch(&[&[7; 64 << 10]]));
        log.submit(entry).unwrap();
    }
    assert!(log.shutdown().is_err(), "not everything could be written");
    drop((log, stream));
    medium.set_capacity(Some(256 * MIB));
    let log = Log::open_on(Arc::new(medium), Arc::new(SystemClock), options()).unwrap();
    assert!(log.committed() >= acknowledged);
}

#[test]
fn an_entry_that_would_not_fit_a_small_disk_is_refused() {
    let log = Log::open_on(Arc::new(medium(64 * MIB)), Arc::new(SystemClock), LogOptions::default()).unwrap();
    let stream = create_stream(&log);
    let mut entry = Entry::new();
    entry.batch(std::slice::from_ref(&stream), batch(&[&vec![7; 16 << 20]]));
    let refused = log.submit(entry).unwrap_err();
    assert!(refused.to_string().contains("exceeds the limit"), "{refused}");
    // One that is larger than a segment gets space for itself.
    append(&log, std::slice::from_ref(&stream), &[&vec![7; 7 << 20]]);
    assert_eq!(values(&stream).len(), 1);
}
