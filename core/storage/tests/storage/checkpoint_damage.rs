//! Damage of the checkpoint's files: found by verification, mended by the next start, and never a panic.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use inver_storage::inspect::verify;
use inver_storage::{CursorId, Entry, Log, LogOptions, Offset, OpenError, StreamId, TableId};

use crate::shorthand::*;

const FILES: [&str; 2] = ["checkpoint.redb", "checkpoint-copy.redb"];
const TRIALS: u64 = 200;
const DAMAGE_BYTES: usize = 512;
const TABLES: [TableId; 2] = [TableId(3), TableId(4)];

fn options() -> LogOptions {
    LogOptions { preallocate: false, checkpoint_cache_bytes_max: 2 << 20, ..small() }
}

/// Everything that a log knows.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    rows: Vec<Vec<(Bytes, Bytes)>>,
    streams: BTreeMap<StreamId, Vec<(u64, Vec<u8>)>>,
    cursors: BTreeMap<CursorId, Offset>,
}

fn known(log: &Log) -> Known {
    let stream = |id: StreamId| {
        let stream = log.stream(id).unwrap();
        (id, read_all(&stream, stream.start().0))
    };
    Known {
        rows: TABLES.iter().map(|table| log.recovered_state(*table)).collect(),
        streams: log.stream_ids().into_iter().map(stream).collect(),
        cursors: log.cursor_ids().into_iter().map(|id| (id, log.cursor(id).unwrap().position())).collect(),
    }
}

/// Writes a log with rows, streams and cursors.
fn written(dir: &Path, options: &LogOptions) -> Known {
    let log = open(dir, options);
    let stream = create_stream(&log);
    create_cursor(&log, stream.id());
    for i in 0..2_000_u32 {
        let mut entry = Entry::new();
        entry.put(TABLES[(i % 2) as usize], Bytes::from(format!("key {i}")), Bytes::from(vec![i as u8; 60]));
        commit(&log, entry);
        if i % 100 == 0 {
            let other = create_stream(&log);
            append(&log, &[stream.clone(), other], &[&i.to_le_bytes()]);
            assert!(log.checkpoint().unwrap());
        }
    }
    let known = known(&log);
    log.shutdown().unwrap();
    known
}

/// A log whose first segments were removed, because only the checkpoint holds what was in them.
fn reclaimed(dir: &Path) -> Known {
    let log = open(dir, &options());
    let stream = create_stream(&log);
    for i in 0..200_u32 {
        append(&log, std::slice::from_ref(&stream), &[&[i as u8; 200]]);
    }
    let mut entry = Entry::new();
    entry.trim(&stream, Offset(200));
    commit(&log, entry);
    log.shutdown().unwrap();
    let known = written(dir, &options());
    assert!(!dir.join("0000000000000000.seg").exists());
    known
}

fn copy(from: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    dir
}

/// A generator of numbers that repeats with its seed.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// Overwrites 512 bytes of a file.
fn damage(path: &Path, seed: u64) {
    let mut seed = seed.wrapping_add(1);
    let mut bytes = std::fs::read(path).unwrap();
    let at = next(&mut seed) as usize % (bytes.len() - DAMAGE_BYTES);
    for byte in &mut bytes[at..at + DAMAGE_BYTES] {
        *byte = next(&mut seed) as u8;
    }
    std::fs::write(path, bytes).unwrap();
}

fn compare(found: &Known, expected: &Known, trial: u64) {
    let rows = |known: &Known| known.rows.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(rows(found), rows(expected), "trial {trial}");
    assert!(found.rows == expected.rows, "trial {trial}");
    assert_eq!((&found.streams, &found.cursors), (&expected.streams, &expected.cursors), "trial {trial}");
}

/// Opens the log, lets it work and stop, and checks that it knows everything before and after.
fn works(dir: &Path, expected: &Known, trial: u64) {
    let log = Log::open(dir, options()).unwrap_or_else(|error| panic!("trial {trial}: {error}"));
    compare(&known(&log), expected, trial);
    for round in 0..2 {
        let mut entry = Entry::new();
        entry.put(TableId(9), Bytes::from_static(b"round"), Bytes::from(vec![round]));
        commit(&log, entry);
        assert!(log.checkpoint().unwrap(), "trial {trial}");
    }
    assert!(log.is_checkpoint_mirrored(), "trial {trial}");
    log.shutdown().unwrap();
    assert_eq!(verify(dir).unwrap().flaws, [], "trial {trial}");
    let log = Log::open(dir, options()).unwrap();
    compare(&known(&log), expected, trial);
    log.shutdown().unwrap();
}

#[test]
fn damage_of_one_file_is_found_and_mended() {
    let original = tempfile::tempdir().unwrap();
    let expected = reclaimed(original.path());
    assert_eq!(verify(original.path()).unwrap().flaws, []);
    let mut found = 0;
    for trial in 0..TRIALS {
        let dir = copy(original.path());
        let file = FILES[(trial % 2) as usize];
        damage(&dir.path().join(file), trial);
        let flaws = verify(dir.path()).unwrap().flaws;
        assert!(flaws.iter().all(|flaw| flaw.file == file && flaw.detail.contains("is sound")), "{flaws:?}");
        found += usize::from(!flaws.is_empty());
        // What verification does not find is in space that the file does not use.
        works(dir.path(), &expected, trial);
    }
    println!("verification found {found} of {TRIALS}");
    assert!(found > 0);
}

#[test]
fn damage_of_the_only_file_is_found_and_mended_from_the_log() {
    let original = tempfile::tempdir().unwrap();
    let one_segment = LogOptions { segment_bytes_max: 8 << 20, ..options() };
    let expected = written(original.path(), &one_segment);
    std::fs::remove_file(original.path().join(FILES[1])).unwrap();
    for trial in 0..TRIALS / 4 {
        let dir = copy(original.path());
        damage(&dir.path().join(FILES[0]), trial);
        let flaws = verify(dir.path()).unwrap().flaws;
        assert!(flaws.iter().all(|flaw| flaw.detail.contains("rebuilds it from the log")), "{flaws:?}");
        works(dir.path(), &expected, trial);
    }
}

/// A checkpoint over rows that are lost would let segments go that still have what these rows were made of.
#[test]
fn no_checkpoint_is_taken_over_rows_that_were_lost_while_the_log_ran() {
    let original = tempfile::tempdir().unwrap();
    reclaimed(original.path());
    std::fs::remove_file(original.path().join(FILES[1])).unwrap();
    let options = LogOptions { checkpoint_cache_bytes_max: 0, ..options() };
    let mut refused = 0;
    for trial in 0..TRIALS / 4 {
        let dir = copy(original.path());
        let log = Log::open(dir.path(), options.clone()).unwrap();
        damage(&dir.path().join(FILES[0]), trial);
        if !log.checkpoint().unwrap() {
            refused += 1;
            assert!(!log.checkpoint().unwrap(), "trial {trial}");
        }
    }
    assert!(refused > 0);
}

#[test]
fn damage_that_only_a_backup_mends_is_an_error_that_says_so() {
    let original = tempfile::tempdir().unwrap();
    let expected = reclaimed(original.path());
    std::fs::remove_file(original.path().join(FILES[1])).unwrap();
    let mut refused = 0;
    for trial in 0..TRIALS / 4 {
        let dir = copy(original.path());
        damage(&dir.path().join(FILES[0]), trial);
        let is_found = !verify(dir.path()).unwrap().flaws.is_empty();
        // Each start says the same: nothing was changed.
        for _ in 0..2 {
            match Log::open(dir.path(), options()) {
                Err(error @ OpenError::CheckpointLost(_)) => {
                    assert!(is_found && error.to_string().contains("restore the folder from a backup"));
                    refused += 1;
                }
                Err(error) => panic!("trial {trial}: {error}"),
                // Damage of the file's own bookkeeping: its rows are whole, and the file is written again.
                Ok(log) => {
                    drop(log);
                    works(dir.path(), &expected, trial);
                }
            }
        }
    }
    assert!(refused > 0);
}
