//! Kill test: a process is killed while it appends; every acknowledged entry survives.
//!
//! This is a test crate of its own, because a child process inherits, for a moment, the lock files open in its parent.

#![allow(clippy::disallowed_methods, reason = "the test kills a process at a random time")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue has failed")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use inver_storage::medium::fake::Random;
use inver_storage::{
    BatchBuilder, CommitPolicy, CursorId, Entry, Log, LogOptions, Offset, Read, Stream, StreamId, records,
};

const DIR: &str = "INVER_KILL_TEST_DIR";
const WRITERS: u64 = 4;
/// Default number of kills; `INVER_KILLS` overrides it.
const KILLS_DEFAULT: u32 = 100;

fn options() -> LogOptions {
    LogOptions {
        commit: CommitPolicy::Always,
        segment_bytes_max: 256 << 10,
        checkpoint_bytes: 400 << 10,
        checkpoint_interval: Duration::from_millis(200),
        ..LogOptions::default()
    }
}

fn open(dir: &Path) -> Log {
    Log::open(dir, options()).unwrap()
}

/// Creates a stream with a cursor.
fn create_stream(log: &Log) {
    let (stream, cursor) = (log.allocate_stream(), log.allocate_cursor());
    let mut entry = Entry::new();
    entry.create_stream(stream);
    entry.create_cursor(cursor, stream, Offset(0));
    log.wait_committed_blocking(log.submit(entry).unwrap().lsn).unwrap();
}

/// Reads offset and value of every record.
fn read_all(stream: &Stream) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    loop {
        let batches = match stream.read(Offset(found.len() as u64), 64 << 10).unwrap() {
            Read::Ready(batches) => batches,
            Read::Cold(cold) => cold.run().unwrap(),
            Read::Empty => return found,
        };
        for stored in &batches {
            for record in records(&stored.bytes).unwrap().map(Result::unwrap) {
                let offset = stored.base_offset.0 + u64::from(record.offset_delta);
                found.push((offset, record.value.unwrap().to_vec()));
            }
        }
    }
}

/// The process to be killed, not a test of its own. Prints the offsets acknowledged to it.
#[test]
fn process_to_be_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let log = open(dir.as_ref());
    while log.stream_ids().len() < WRITERS as usize {
        create_stream(&log);
    }
    let streams = log.stream_ids();
    let cursors = log.cursor_ids();
    std::thread::scope(|scope| {
        for (id, cursor) in streams.iter().zip(&cursors) {
            let log = log.clone();
            scope.spawn(move || {
                let (stream, cursor) = (log.stream(*id).unwrap(), log.cursor(*cursor).unwrap());
                // The last process may have been killed between a record and its acknowledgement.
                let end = stream.next_offset().0;
                let even: Vec<_> = (0..end).step_by(2).map(|at| Offset(at)..Offset(at + 1)).collect();
                log.wait_committed_blocking(cursor.ack(&even).unwrap()).unwrap();
                loop {
                    let next = stream.next_offset().0;
                    let value =
                        [next.to_le_bytes().as_slice(), &vec![next as u8; next as usize % 700]].concat();
                    let mut batch = BatchBuilder::new(1024);
                    batch.push(1000, None, &[], Some(&value));
                    let mut entry = Entry::new();
                    entry.batch(std::slice::from_ref(&stream), batch.finish());
                    let lsn = log.submit(entry).unwrap().lsn;
                    // The consumer acknowledges every second record at once.
                    let acked = if next.is_multiple_of(2) {
                        Some(cursor.ack(&[Offset(next)..Offset(next + 1)]).unwrap())
                    } else {
                        None
                    };
                    log.wait_committed_blocking(acked.unwrap_or(lsn).max(lsn)).unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "acknowledged {} {next}", stream.id()).unwrap();
                }
            });
        }
    });
}

#[test]
fn acknowledged_entries_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let kills = std::env::var("INVER_KILLS").ok().and_then(|kills| kills.parse().ok());
    let mut random = Random::new(7);
    let mut acknowledged = std::collections::BTreeMap::new();
    for round in 0..kills.unwrap_or(KILLS_DEFAULT) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["process_to_be_killed", "--exact", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let lines = 1 + random.below(300) as usize;
        let mut seen = 0;
        for line in out.lines() {
            let line = line.unwrap();
            let mut words = line.split(' ').skip_while(|word| !word.ends_with("acknowledged")).skip(1);
            if let (Some(stream), Some(offset)) = (words.next(), words.next()) {
                let (stream, offset): (u64, u64) = (stream.parse().unwrap(), offset.parse().unwrap());
                let most = acknowledged.entry(stream).or_insert(0);
                *most = offset.max(*most);
                seen += 1;
            }
            if seen == lines {
                // At any point of a write, not only right after an acknowledgement.
                std::thread::sleep(Duration::from_micros(random.below(1500)));
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= lines, "the process ended early");
        let log = open(dir.path());
        for (id, last) in &acknowledged {
            let stream = log.stream(StreamId(*id)).unwrap();
            let records = read_all(&stream);
            assert!(records.len() as u64 > *last, "round {round}: {} of {last}", records.len());
            for (offset, value) in records {
                assert_eq!(value[..8], offset.to_le_bytes());
                assert!(value[8..].iter().all(|byte| *byte == offset as u8));
            }
            // Each writer makes a stream and then its cursor, while the others do.
            let mut cursors = (1..=WRITERS).map(|id| log.cursor(CursorId(id)).unwrap());
            let cursor = cursors.find(|cursor| cursor.stream() == stream.id()).unwrap();
            assert!((0..=*last).step_by(2).all(|offset| cursor.is_acked(Offset(offset))), "round {round}");
        }
        drop(log);
    }
    assert_eq!(acknowledged.len() as u64, WRITERS);
}
