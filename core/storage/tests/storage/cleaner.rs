//! The cleaner: live data does not pin segments, and interleaved streams are sorted.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::shorthand::*;
use inver_storage::medium::fake::{FakeMedium, Fault};
use inver_storage::{Entry, Log, LogOptions, Offset, Stream, SystemClock, TimeLookup};

/// Bytes of all segment files.
fn disk_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap());
    let segments = files.filter(|file| file.file_name().to_string_lossy().ends_with(".seg"));
    segments.map(|file| file.metadata().unwrap().len()).sum()
}

fn trim(log: &Log, stream: &Stream, to: Offset) {
    let mut entry = Entry::new();
    entry.trim(stream, to);
    commit(log, entry);
}

/// A hundred streams are consumed as they are written; one is not, and has records in every segment.
#[test]
fn an_unconsumed_stream_keeps_only_its_own_data_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { segment_bytes_max: 256 << 10, preallocate: false, ..small() };
    let log = open(dir.path(), &options);
    let unconsumed = create_stream(&log);
    let busy: Vec<Stream> = (0..100).map(|_| create_stream(&log)).collect();
    let (mut own, mut others) = (0, 0);
    for i in 0..4000usize {
        let stream = &busy[i % busy.len()];
        append(&log, std::slice::from_ref(stream), &[&[i as u8; 2000]]);
        others += 2000;
        if i % 40 == 0 {
            append(&log, std::slice::from_ref(&unconsumed), &[&i.to_be_bytes(), &[1; 100]]);
            own += 108;
        }
        trim(&log, stream, stream.next_offset());
    }
    while log.clean().unwrap() {}
    log.checkpoint().unwrap();
    let left = disk_bytes(dir.path());
    assert!(others > 7_000_000 && own < 11_000);
    // The active segment, and the data of the unconsumed stream.
    assert!(left < 2 * options.segment_bytes_max, "{left} bytes on the disk");
    let kept: Vec<usize> = values(&unconsumed)
        .iter()
        .step_by(2)
        .map(|value| usize::from_be_bytes(value.as_slice().try_into().unwrap()))
        .collect();
    assert_eq!(kept, (0..4000).step_by(40).collect::<Vec<_>>());
}

#[test]
fn data_trimmed_within_a_segment_counts_as_dead() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { segment_bytes_max: 256 << 10, preallocate: false, ..small() };
    let log = open(dir.path(), &options);
    let streams: Vec<Stream> = (0..20).map(|_| create_stream(&log)).collect();
    for i in 0..100u8 {
        for stream in &streams {
            append(&log, std::slice::from_ref(stream), &[&[i; 1000]]);
        }
    }
    let before = disk_bytes(dir.path());
    // Trims nine of ten batches of each stream.
    for stream in &streams {
        trim(&log, stream, Offset(90));
    }
    while log.clean().unwrap() {}
    log.checkpoint().unwrap();
    let left = disk_bytes(dir.path());
    assert!(left < before / 4, "{left} of {before}");
    assert!(streams.iter().all(|stream| read_all(stream, 90).len() == 10));
}

#[test]
fn interleaved_streams_are_sorted() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        tail_cache_bytes_max: 0,
        segment_bytes_max: 256 << 10,
        clean_places_age: Duration::ZERO,
        clean_places_min: 0,
        ..small()
    };
    let log = open(dir.path(), &options);
    let streams: Vec<Stream> = (0..8).map(|_| create_stream(&log)).collect();
    for i in 0..2000u32 {
        append(&log, &streams[i as usize % 8..][..1], &[&i.to_be_bytes(), &[1; 300]]);
    }
    assert!(!log.clean().unwrap(), "no dead data, and sorting is off");
    log.shutdown().unwrap();
    // The trailer records how far a segment is interleaved.
    let log = open(dir.path(), &LogOptions { clean_places_min: 64, ..options });
    while log.clean().unwrap() {}
    let cleaned = log.stats().cleaned_segments;
    assert!(cleaned > 2);
    assert!(!log.clean().unwrap(), "sorted segments are not sorted again");
    for (at, id) in log.stream_ids().into_iter().enumerate() {
        let stream = log.stream(id).unwrap();
        let numbers: Vec<u32> = values(&stream)
            .iter()
            .step_by(2)
            .map(|value| u32::from_be_bytes(value.as_slice().try_into().unwrap()))
            .collect();
        assert_eq!(numbers, (at as u32..2000).step_by(8).collect::<Vec<_>>());
    }
    log.shutdown().unwrap();
    assert_eq!(inver_storage::inspect::verify(dir.path()).unwrap().flaws, []);
}

/// Nothing depends on an unfinished copy, so a full disk does not end the log.
#[test]
fn a_full_disk_pauses_cleaning() {
    let medium = FakeMedium::new(1);
    let options = LogOptions { preallocate: false, tail_cache_bytes_max: 0, ..small() };
    let log = Log::open_manual(Arc::new(medium.clone()), Arc::new(SystemClock), options).unwrap();
    let (unconsumed, busy) = (create_stream(&log), create_stream(&log));
    for i in 0..400u32 {
        let to = if i % 50 == 0 { &unconsumed } else { &busy };
        append(&log, std::slice::from_ref(to), &[&[i as u8; 400]]);
    }
    trim(&log, &busy, busy.next_offset());
    log.checkpoint().unwrap();
    // Creation, write and sync of the copy.
    for operation in 1..=3 {
        medium.schedule(operation, Fault::Fail(std::io::ErrorKind::StorageFull));
        assert!(!log.clean().unwrap());
        assert_eq!(medium.hits(), operation);
        append(&log, std::slice::from_ref(&unconsumed), &[b"next"]);
    }
    assert!(medium.names().iter().all(|name| name != "clean.tmp"));
    assert!(log.clean().unwrap());
    assert_eq!(values(&unconsumed).len(), 11);
}

#[test]
fn the_cleaner_copies_live_data_out_of_mostly_dead_segments() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { tail_cache_bytes_max: 0, segment_bytes_max: 64 << 10, ..small() };
    let log = open(dir.path(), &options);
    let (unconsumed, busy) = (create_stream(&log), create_stream(&log));
    for i in 0..4000u32 {
        let to = if i % 50 == 0 { &unconsumed } else { &busy };
        append(&log, std::slice::from_ref(to), &[&i.to_be_bytes(), &[1; 40]]);
        if i % 100 == 99 {
            let mut entry = Entry::new();
            entry.trim(&busy, busy.next_offset());
            commit(&log, entry);
        }
    }
    while log.clean().unwrap() {}
    log.checkpoint().unwrap();
    let stats = log.stats();
    assert!(stats.cleaned_segments > 10, "{stats:?}");
    assert!(stats.segments <= 5, "{stats:?}");
    let expected: Vec<u32> = (0..4000).filter(|i| i % 50 == 0).collect();
    let check = |stream: &Stream| {
        let found: Vec<u32> = read_all(stream, 0)
            .into_iter()
            .filter(|(offset, _)| offset % 2 == 0)
            .map(|(_, value)| u32::from_be_bytes(value.try_into().unwrap()))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(read_all(stream, 101)[0].0, 101);
        let found = match stream.offset_for_time(1001).unwrap() {
            TimeLookup::Ready(found) => found,
            TimeLookup::Cold(cold) => cold.run().unwrap(),
        };
        assert_eq!(found, Some((Offset(1), 1001)));
    };
    check(&unconsumed);
    let id = unconsumed.id();
    log.shutdown().unwrap();
    assert_eq!(inver_storage::inspect::verify(dir.path()).unwrap().flaws, []);
    let log = open(dir.path(), &options);
    check(&log.stream(id).unwrap());
    // Copied data is reclaimed like any other.
    let mut entry = Entry::new();
    entry.delete_stream(id);
    commit(&log, entry);
    log.checkpoint().unwrap();
    assert!(log.stats().segments <= 2);
}
