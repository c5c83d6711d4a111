//! A process that appends is killed in the middle of it; every acknowledged entry is there afterwards.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::shorthand::*;
use inver_storage::medium::fake::Random;
use inver_storage::{CommitPolicy, CursorId, Entry, LogOptions, Offset, StreamId};

const DIR: &str = "INVER_KILL_TEST_DIR";
const WRITERS: u64 = 4;
/// `INVER_KILLS` sets another number.
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

/// Not a test of its own: the process that is killed. It says on its output what was acknowledged to it.
#[test]
fn the_process_that_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let log = open(dir.as_ref(), &options());
    while log.stream_ids().len() < WRITERS as usize {
        let stream = create_stream(&log);
        create_cursor(&log, stream.id());
    }
    let streams = log.stream_ids();
    let cursors = log.cursor_ids();
    std::thread::scope(|scope| {
        for (id, cursor) in streams.iter().zip(&cursors) {
            let log = log.clone();
            scope.spawn(move || {
                let (stream, cursor) = (log.stream(*id).unwrap(), log.cursor(*cursor).unwrap());
                // The last life may have ended between a record and its acknowledgement.
                let end = stream.next_offset().0;
                let even: Vec<_> = (0..end).step_by(2).map(|at| Offset(at)..Offset(at + 1)).collect();
                log.wait_committed_blocking(cursor.ack(&even).unwrap()).unwrap();
                loop {
                    let next = stream.next_offset().0;
                    let value =
                        [next.to_le_bytes().as_slice(), &vec![next as u8; next as usize % 700]].concat();
                    let mut entry = Entry::new();
                    entry.batch(std::slice::from_ref(&stream), batch(&[&value]));
                    let lsn = log.submit(entry).unwrap().lsn;
                    // Every second record is acknowledged by the consumer at once.
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
fn nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let kills = std::env::var("INVER_KILLS").ok().and_then(|kills| kills.parse().ok());
    let mut random = Random::new(7);
    let mut acknowledged = std::collections::BTreeMap::new();
    for round in 0..kills.unwrap_or(KILLS_DEFAULT) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["kill::the_process_that_is_killed", "--exact", "--nocapture"])
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
                // At any point of its writing, not only right after an acknowledgement.
                std::thread::sleep(Duration::from_micros(random.below(1500)));
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= lines, "the process ended by itself");
        let log = open(dir.path(), &options());
        for (at, (id, last)) in acknowledged.iter().enumerate() {
            let stream = log.stream(StreamId(*id)).unwrap();
            let records = read_all(&stream, 0);
            assert!(records.len() as u64 > *last, "round {round}: {} of {last}", records.len());
            for (offset, value) in records {
                assert_eq!(value[..8], offset.to_le_bytes());
                assert!(value[8..].iter().all(|byte| *byte == offset as u8));
            }
            let cursor = log.cursor(CursorId(at as u64 + 1)).unwrap();
            assert_eq!(cursor.stream(), stream.id());
            assert!((0..=*last).step_by(2).all(|offset| cursor.is_acked(Offset(offset))), "round {round}");
        }
        drop(log);
    }
    assert_eq!(acknowledged.len() as u64, WRITERS);
}
