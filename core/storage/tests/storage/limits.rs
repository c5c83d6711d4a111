//! The limits of a log, each reached. Limits of the writer's queue are tested in damage.rs, of an entry in log.rs, of
//! compaction keys in compaction.rs, of decompression beside the code.

use std::path::Path;
use std::sync::Arc;

use crate::shorthand::*;
use inver_storage::medium::Files;
use inver_storage::medium::fake::FakeMedium;
use inver_storage::{
    BatchBuilder, CommitPolicy, Compression, Entry, Log, LogOptions, Offset, ProducerStamp, Read, Share,
    SystemClock,
};

fn segments(dir: &Path) -> Vec<u64> {
    let files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap());
    let segments = files.filter(|file| file.file_name().to_string_lossy().ends_with(".seg"));
    segments.map(|file| file.metadata().unwrap().len()).collect()
}

/// Opens a log without threads, which would open files at any time.
fn manual(dir: &Path, options: LogOptions) -> Log {
    Log::open_manual(Arc::new(Files::new(dir).unwrap()), Arc::new(SystemClock), options).unwrap()
}

#[test]
fn the_tail_cache_keeps_the_newest_batches_within_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &LogOptions { tail_cache_bytes_max: 10_000, ..small() });
    let stream = create_stream(&log);
    for _ in 0..100 {
        append(&log, std::slice::from_ref(&stream), &[&[7; 400]]);
    }
    let is_cached = |offset| matches!(stream.read(Offset(offset), 1).unwrap(), Read::Ready(_));
    let cached = (0..100).filter(|offset| is_cached(*offset)).count();
    // A batch of one such record has about 470 bytes.
    assert!((15..=25).contains(&cached), "{cached}");
    assert!((100 - cached as u64..100).all(is_cached), "the newest batches");
}

#[test]
fn the_tail_cache_keeps_a_part_while_memory_is_tight() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { tail_cache_bytes_max: 40_000, memory_limit: Some(1 << 20), ..small() };
    let log = open(dir.path(), &options);
    let stream = create_stream(&log);
    let append_all = || {
        for _ in 0..100 {
            append(&log, std::slice::from_ref(&stream), &[&[7; 400]]);
        }
    };
    let mut held = log.memory().holder(Share::Queues);
    append_all();
    let full = log.stats().tail_cache_bytes;
    held.force(1 << 20);
    append_all();
    let tight = log.stats().tail_cache_bytes;
    assert!(full > 30_000 && tight <= 10_000, "{full}, {tight}");
    held.force(0);
    append_all();
    assert!(log.stats().tail_cache_bytes > 30_000);
}

#[test]
fn segments_stay_within_their_limit() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &small());
    let stream = create_stream(&log);
    for i in 0..300 {
        append(&log, std::slice::from_ref(&stream), &[&vec![1; i]]);
    }
    log.shutdown().unwrap();
    // Plus the index, a block of 4 KiB per 92 batches, and the trailer.
    let most = small().segment_bytes_max + 3 * 4096 + 64;
    let segments = segments(dir.path());
    assert!(segments.len() > 4 && segments.iter().all(|bytes| *bytes <= most), "{segments:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn open_files_stay_within_their_limit() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        LogOptions { open_files_max: 3, tail_cache_bytes_max: 0, index_cache_bytes_max: 0, ..small() };
    let log = manual(dir.path(), options);
    let stream = create_stream(&log);
    for i in 0..600u32 {
        append(&log, std::slice::from_ref(&stream), &[&i.to_be_bytes(), &[1; 200]]);
    }
    log.checkpoint().unwrap();
    assert!(segments(dir.path()).len() > 8);
    assert_eq!(read_all(&stream, 0).len(), 1200);
    let folder = dir.path().canonicalize().unwrap();
    let open = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    let held =
        open.filter(|path| path.starts_with(&folder) && path.extension().is_some_and(|end| end == "seg"));
    // Plus the active segment, buffered and direct.
    let held: Vec<_> = held.collect();
    assert!(held.len() <= 3 + 2, "{held:?}");
}

#[test]
fn the_longest_idle_producer_of_a_stream_is_forgotten_at_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { producers_per_stream_max: 10, ..small() };
    let log = open(dir.path(), &options);
    let stream = create_stream(&log);
    let entry = |log: &Log, id: i64, base_sequence: i32| {
        let mut builder = BatchBuilder::new(64);
        builder.push(0, None, &[], Some(b"v"));
        let stamp = ProducerStamp { id, epoch: 0, base_sequence, transactional: false, control: false };
        let mut entry = Entry::new();
        entry.batch(&[log.stream(stream.id()).unwrap()], builder.finish_as(Compression::None, Some(stamp)));
        log.submit(entry)
    };
    for id in 0..1000 {
        entry(&log, id, 5).unwrap();
    }
    let remembered = |log: &Log| (0..1000).filter(|id| entry(log, *id, 5).is_err()).count();
    // A duplicate of a forgotten producer is accepted and displaces another; one of a remembered producer is rejected.
    let rejected = (0..1000).rev().take_while(|id| entry(&log, *id, 5).is_err()).count();
    assert!((1..=10).contains(&rejected), "{rejected}");
    log.shutdown().unwrap();
    let log = open(dir.path(), &options);
    assert!(remembered(&log) <= 10);
}

#[test]
fn checkpoints_bound_the_bytes_replayed() {
    let medium = FakeMedium::new(1);
    let options = LogOptions { checkpoint_bytes: 20_000, preallocate: false, ..small() };
    let open = |medium: &FakeMedium| {
        Log::open_manual(Arc::new(medium.clone()), Arc::new(SystemClock), options.clone()).unwrap()
    };
    let log = open(&medium);
    let stream = create_stream(&log);
    for _ in 0..2000 {
        append(&log, std::slice::from_ref(&stream), &[&[1; 100]]);
        log.step_maintenance().unwrap();
    }
    let written = log.committed().0;
    assert!(log.stats().checkpoints >= written / 20_000 - 1);
    // The log opens although everything below the last checkpoint is unreadable.
    let image = medium.image();
    let names: Vec<String> = image.names().into_iter().filter(|name| name.ends_with(".seg")).collect();
    let mut destroyed = 0;
    for name in &names {
        let base = u64::from_str_radix(name.trim_end_matches(".seg"), 16).unwrap();
        if base + small().segment_bytes_max + 20_000 + small().segment_bytes_max < written {
            let length = image.content(name).unwrap().len();
            image.set_content(name, vec![0xff; length]);
            destroyed += 1;
        }
    }
    assert!(destroyed > names.len() / 2, "{destroyed} of {}", names.len());
    assert_eq!(open(&image).committed().0, written);
}

#[test]
fn an_empty_log_takes_little_space_and_segments_grow_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let log =
        Log::open(dir.path(), LogOptions { commit: CommitPolicy::Os, ..LogOptions::default() }).unwrap();
    let stream = create_stream(&log);
    log.checkpoint().unwrap();
    let files = || std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap());
    let bytes: u64 = files().map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes <= 20 << 20, "{bytes}");
    let value = vec![7; 1 << 20];
    for _ in 0..80 {
        append(&log, std::slice::from_ref(&stream), &[&value]);
    }
    log.shutdown().unwrap();
    let mut sealed: Vec<_> =
        files().filter(|file| file.path().extension().is_some_and(|end| end == "seg")).collect();
    sealed.sort_by_key(std::fs::DirEntry::file_name);
    let mebibytes: Vec<u64> = sealed.iter().map(|file| file.metadata().unwrap().len() >> 20).collect();
    assert_eq!(mebibytes[..3], [7, 7, 14], "{mebibytes:?}");
}
