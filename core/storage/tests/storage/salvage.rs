//! Salvage: after any damage the log opens again, with everything that was not damaged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::shorthand::*;
use inver_storage::inspect::{Loss, salvage, verify};
use inver_storage::{Log, LogOptions, StreamId};

const ENTRIES: u64 = 400;

fn options() -> LogOptions {
    LogOptions { tail_cache_bytes_max: 0, ..small() }
}

/// Writes a log of several segments. `is_stopped`: sealed, with a checkpoint; otherwise as after a kill.
fn written(dir: &Path, is_stopped: bool) -> StreamId {
    let log = open(dir, &options());
    let stream = create_stream(&log);
    for i in 0..ENTRIES {
        append(&log, std::slice::from_ref(&stream), &[&i.to_le_bytes(), &[i as u8; 150]]);
    }
    if is_stopped {
        log.shutdown().unwrap();
    }
    stream.id()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    let mut segments: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "seg")).collect();
    segments.sort_unstable();
    segments
}

fn flip(path: &Path, at: impl Fn(&[u8]) -> usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = at(&bytes);
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

/// Place of one of the values.
fn value(bytes: &[u8]) -> usize {
    bytes.windows(150).position(|window| window.iter().all(|byte| *byte == window[0] && *byte != 0)).unwrap()
        + 7
}

fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    segments(dir).into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Checks the values of the stream. Returns their number.
fn found(log: &Log, id: StreamId) -> usize {
    let rows = read_all(&log.stream(id).unwrap(), 0);
    for (offset, value) in rows.iter().filter(|(offset, _)| offset % 2 == 0 && *offset < 2 * ENTRIES) {
        assert_eq!(*value, (offset / 2).to_le_bytes());
    }
    rows.len()
}

/// Damages a log, salvages it, and appends to it. Returns the losses and the number of records left.
fn case(is_stopped: bool, damage: impl Fn(&Path)) -> (Vec<Loss>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let id = written(dir.path(), is_stopped);
    damage(dir.path());
    let before = contents(dir.path());
    let reported = salvage(dir.path(), false).unwrap();
    assert_eq!(contents(dir.path()), before, "files changed without permission");
    let losses = salvage(dir.path(), true).unwrap();
    assert!(!reported.is_empty() && !losses.is_empty());
    assert_eq!(salvage(dir.path(), true).unwrap(), [], "losses after a salvage");
    assert_eq!(verify(dir.path()).unwrap().flaws, []);
    let log = open(dir.path(), &options());
    let left = found(&log, id);
    let stream = log.stream(id).unwrap();
    let base = append(&log, std::slice::from_ref(&stream), &[b"after"])[0];
    assert!(base <= 2 * ENTRIES);
    log.shutdown().unwrap();
    let log = open(dir.path(), &options());
    assert_eq!(found(&log, id), left + 1);
    log.shutdown().unwrap();
    assert_eq!(verify(dir.path()).unwrap().flaws, []);
    (losses, left)
}

#[test]
fn an_undamaged_log_is_not_changed() {
    for is_stopped in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), is_stopped);
        let before = contents(dir.path());
        assert_eq!(salvage(dir.path(), true).unwrap(), []);
        assert_eq!(contents(dir.path()), before);
    }
}

#[test]
fn only_the_damaged_entry_is_lost() {
    for is_stopped in [false, true] {
        for which in [0, 2] {
            let (losses, left) = case(is_stopped, |dir| flip(&segments(dir)[which], value));
            assert_eq!(losses.len(), 1, "{losses:?}");
            assert_eq!(left as u64, 2 * ENTRIES - 2, "{losses:?}");
        }
        // In the active segment.
        let (_, left) = case(is_stopped, |dir| flip(segments(dir).last().unwrap(), value));
        assert_eq!(left as u64, 2 * ENTRIES - 2);
    }
}

#[test]
fn damaged_bytes_are_kept_beside_the_log() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), true);
    flip(&segments(dir.path())[1], value);
    let losses = salvage(dir.path(), true).unwrap();
    let kept = dir.path().join(format!("salvaged-{}-{}", losses[0].file, losses[0].position));
    assert_eq!(std::fs::metadata(kept).unwrap().len(), losses[0].bytes);
}

#[test]
fn headers_indexes_and_trailers_are_rebuilt() {
    for at in [20, usize::MAX - 10, usize::MAX - 2000] {
        let (_, left) = case(true, |dir| {
            flip(&segments(dir)[1], |bytes| if at < 64 { at } else { bytes.len() - (usize::MAX - at) });
        });
        assert_eq!(left as u64, 2 * ENTRIES);
    }
    let (_, left) = case(false, |dir| flip(&segments(dir)[1], |_| 20));
    assert_eq!(left as u64, 2 * ENTRIES);
}

#[test]
fn a_missing_file_leaves_a_gap() {
    for which in [1, 3] {
        let (_, left) = case(true, |dir| std::fs::remove_file(&segments(dir)[which]).unwrap());
        assert!((left as u64) < 2 * ENTRIES && left as u64 > ENTRIES, "{left}");
    }
    let (_, left) = case(true, |dir| std::fs::remove_file(segments(dir).last().unwrap()).unwrap());
    assert!((left as u64) < 2 * ENTRIES && left as u64 > ENTRIES, "{left}");
}

fn damage_checkpoint(dir: &Path) {
    std::fs::write(dir.join("checkpoint.redb"), [7; 5000]).unwrap();
    std::fs::write(dir.join("checkpoint-copy.redb"), [7; 5000]).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_rebuilt_if_the_log_is_complete() {
    let (_, left) = case(true, damage_checkpoint);
    assert_eq!(left as u64, 2 * ENTRIES);
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), true);
    damage_checkpoint(dir.path());
    std::fs::remove_file(&segments(dir.path())[0]).unwrap();
    assert!(salvage(dir.path(), true).unwrap_err().to_string().contains("restore the folder from a backup"));
    std::fs::remove_file(dir.path().join("checkpoint.redb")).unwrap();
    std::fs::remove_file(dir.path().join("checkpoint-copy.redb")).unwrap();
    assert!(!verify(dir.path()).unwrap().flaws.is_empty());
}
