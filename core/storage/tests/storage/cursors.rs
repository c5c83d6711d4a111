//! Acknowledgements, delivery counts and producers, across restarts.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::shorthand::*;
use inver_storage::{
    Batch, BatchBuilder, Compression, Entry, Log, LogOptions, Offset, ProducerStamp, SubmitError,
};

fn range(range: Range<u64>) -> Range<Offset> {
    Offset(range.start)..Offset(range.end)
}

#[test]
fn many_gaps_survive_checkpoints_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &small());
    let stream = create_stream(&log);
    let id = create_cursor(&log, stream.id());
    let cursor = log.cursor(id).unwrap();
    let mut last = None;
    for offset in (1..60_000u64).step_by(2) {
        last = Some(cursor.ack(&[range(offset..offset + 1)]).unwrap());
        if offset % 20_001 == 0 {
            log.checkpoint().unwrap();
        }
    }
    log.wait_committed_blocking(last.unwrap()).unwrap();
    let above = cursor.acked_above();
    assert_eq!(above.len(), 30_000);
    drop(log);
    let log = open(dir.path(), &small());
    let cursor = log.cursor(id).unwrap();
    assert_eq!(cursor.acked_above(), above);
    assert_eq!(cursor.position(), Offset(0));
    assert!(cursor.is_acked(Offset(59_999)) && !cursor.is_acked(Offset(59_998)));
    log.shutdown().unwrap();
    let log = open(dir.path(), &small());
    let cursor = log.cursor(id).unwrap();
    assert_eq!(cursor.acked_above(), above);
    log.wait_committed_blocking(cursor.ack(&[range(0..60_000)]).unwrap()).unwrap();
    assert_eq!(cursor.position(), Offset(60_000));
    drop(log);
    let log = open(dir.path(), &small());
    assert_eq!(log.cursor(id).unwrap().position(), Offset(60_000));
    assert!(log.cursor(id).unwrap().acked_above().is_empty());
}

#[test]
fn a_repeated_acknowledgement_returns_a_position_that_covers_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &small());
    let stream = create_stream(&log);
    let cursor = log.cursor(create_cursor(&log, stream.id())).unwrap();
    for _ in 0..3 {
        let lsn = cursor.ack(&[range(0..1)]).unwrap();
        log.wait_committed_blocking(lsn).unwrap();
    }
    let entries = log.stats().entries;
    log.wait_committed_blocking(cursor.ack(&[range(0..1)]).unwrap()).unwrap();
    assert_eq!(log.stats().entries, entries, "nothing new is written");
}

#[test]
fn delivery_counts_and_seeks_keep_their_order_with_acknowledgements() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &small());
    let stream = create_stream(&log);
    let id = create_cursor(&log, stream.id());
    let cursor = log.cursor(id).unwrap();
    for _ in 0..3 {
        let mut entry = Entry::new();
        entry.returned(&cursor, &[Offset(5), Offset(6)]);
        log.submit(entry).unwrap();
    }
    cursor.ack(&[range(6..7)]).unwrap();
    assert_eq!(cursor.delivery_count(Offset(5)), 3);
    assert_eq!(cursor.delivery_count(Offset(6)), 0);
    // Acknowledgements before the seek are discarded, those after it are kept.
    cursor.ack(&[range(10..20)]).unwrap();
    let mut entry = Entry::new();
    entry.seek(&cursor, Offset(3));
    log.submit(entry).unwrap();
    cursor.ack(&[range(30..31)]).unwrap();
    let mut entry = Entry::new();
    entry.returned(&cursor, &[Offset(8)]);
    entry.ack(&cursor, &[range(40..41)]);
    commit(&log, entry);
    let check = |log: &Log| {
        let cursor = log.cursor(id).unwrap();
        assert_eq!(cursor.position(), Offset(3));
        assert_eq!(cursor.acked_above(), [range(30..31), range(40..41)]);
        assert_eq!(cursor.delivery_counts(), [(Offset(8), 1)]);
        assert_eq!(cursor.stream(), stream.id());
    };
    check(&log);
    drop(log);
    let log = open(dir.path(), &small());
    check(&log);
    log.shutdown().unwrap();
    let log = open(dir.path(), &small());
    check(&log);
    let mut entry = Entry::new();
    entry.delete_cursor(id);
    commit(&log, entry);
    drop(log);
    let log = open(dir.path(), &small());
    assert!(log.cursor(id).is_none());
    assert_ne!(log.allocate_cursor(), id);
}

fn produced(sequence: i32, epoch: i16) -> Batch {
    let mut builder = BatchBuilder::new(64);
    builder.push(0, None, &[], Some(b"x"));
    let stamp = ProducerStamp { id: 4, epoch, base_sequence: sequence, transactional: false, control: false };
    builder.finish_as(Compression::None, Some(stamp))
}

#[test]
fn producer_state_survives_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &small());
    let id = create_stream(&log).id();
    let submit = |log: &Log, sequence, epoch| {
        let mut entry = Entry::new();
        entry.batch(&[log.stream(id).unwrap()], produced(sequence, epoch));
        log.submit(entry).map(|submitted| submitted.bases[0].0)
    };
    let duplicate = |result: Result<u64, SubmitError>| match result {
        Err(SubmitError::DuplicateSequence { base_offset, lsn }) => (base_offset.0, lsn.0 > 0),
        other => unreachable!("{other:?}"),
    };
    for sequence in 0..8 {
        assert_eq!(submit(&log, sequence, 0), Ok(sequence as u64));
    }
    assert_eq!(duplicate(submit(&log, 7, 0)), (7, true));
    for round in 0..3 {
        match round {
            0 => drop(log),
            _ => log.shutdown().unwrap(),
        }
        log = open(dir.path(), &small());
        assert_eq!(duplicate(submit(&log, 5, 0)), (5, false));
        assert_eq!(submit(&log, 9, 0), Err(SubmitError::OutOfOrderSequence));
    }
    assert_eq!(submit(&log, 0, 1), Ok(8));
    assert_eq!(submit(&log, 8, 0), Err(SubmitError::InvalidProducerEpoch));
}

#[test]
fn acknowledgements_without_a_waiting_caller_are_gathered_and_written() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { ack_linger: Duration::from_millis(200), ..small() };
    let log = open(dir.path(), &options);
    let stream = create_stream(&log);
    let cursor = log.cursor(create_cursor(&log, stream.id())).unwrap();
    let (start, before) = (Instant::now(), log.stats());
    let mut last = None;
    for offset in 0..50 {
        last = Some(cursor.ack(&[range(offset * 2..offset * 2 + 1)]).unwrap());
    }
    while log.committed() < last.unwrap() {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(start.elapsed() >= Duration::from_millis(150));
    assert_eq!(log.stats().entries - before.entries, 1);
    // Acknowledgements do not linger when a caller waits, or when another entry is submitted.
    for offset in 200..220 {
        let start = Instant::now();
        let lsn = cursor.ack(&[range(offset..offset + 1)]).unwrap();
        if offset % 2 == 0 {
            append(&log, std::slice::from_ref(&stream), &[b"x"]);
            assert!(log.committed() >= lsn);
        } else {
            log.wait_committed_blocking(lsn).unwrap();
        }
        assert!(start.elapsed() < Duration::from_millis(150));
    }
}

#[test]
fn producer_sequences_count_in_the_first_destination_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &small());
    let ids: Vec<_> = (0..3).map(|_| create_stream(&log).id()).collect();
    for sequence in 0..3 {
        // The same sequences to the first and the second stream, each with a copy to the third.
        for first in 0..2 {
            let mut entry = Entry::new();
            let destinations = [log.stream(ids[first]).unwrap(), log.stream(ids[2]).unwrap()];
            entry.batch(&destinations, produced(sequence, 0));
            commit(&log, entry);
            let mut entry = Entry::new();
            entry.batch(&destinations, produced(sequence, 0));
            assert!(matches!(log.submit(entry), Err(SubmitError::DuplicateSequence { .. })));
        }
        drop(log);
        log = open(dir.path(), &small());
    }
    assert_eq!(log.stream(ids[2]).unwrap().next_offset(), Offset(6));
}
