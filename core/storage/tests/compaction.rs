//! Key compaction.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::*;
use inver_storage::medium::fake::Random;
use inver_storage::{
    BatchBuilder, Compaction, Compression, Entry, Log, LogOptions, ProducerStamp, Stream, records,
};

type Row = (u64, Option<Vec<u8>>, Option<Vec<u8>>);

fn rows(stream: &Stream) -> Vec<Row> {
    let mut found = Vec::new();
    let mut next = stream.start().0;
    loop {
        let batches = read_once(stream, next, 10_000).unwrap();
        if batches.is_empty() {
            return found;
        }
        for stored in batches {
            let header = *inver_storage::Batch::parse(stored.bytes.clone()).unwrap().header();
            for record in records(&stored.bytes).unwrap() {
                let record = record.unwrap();
                let offset = stored.base_offset.0 + u64::from(record.offset_delta);
                found.push((offset, record.key.map(|k| k.to_vec()), record.value.map(|v| v.to_vec())));
            }
            next = stored.base_offset.0 + header.offset_span();
        }
    }
}

fn fill(log: &Log, stream: &Stream, other: &Stream, random: &mut Random) -> Vec<Row> {
    let codecs =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    let mut all = Vec::new();
    for round in 0..600u64 {
        let mut builder = BatchBuilder::new(256);
        let base = stream.next_offset().0;
        let is_transactional = round == 77;
        for i in 0..=random.below(4) {
            let key = match random.below(40) {
                0 => None,
                key => Some(key.to_string().into_bytes()),
            };
            let value = (!random.once_in(10)).then(|| random.any().to_le_bytes().repeat(3));
            builder.push(1000, key.as_deref(), &[(b"h", Some(b"v"))], value.as_deref());
            all.push((base + i, key, value));
        }
        let stamp = ProducerStamp { id: 1, epoch: 0, base_sequence: -1, transactional: true, control: false };
        let codec = codecs[random.below(5) as usize];
        let batch = builder.finish_as(codec, is_transactional.then_some(stamp));
        if is_transactional {
            // Kept as it is, and no reason to drop others.
            let from = all.len() - batch.record_count() as usize;
            for row in &mut all[from..] {
                row.1 = row.1.take().map(|key| [b"tx-", key.as_slice()].concat());
            }
            let mut builder = BatchBuilder::new(256);
            for (_, key, value) in &all[from..] {
                builder.push(1000, key.as_deref(), &[], value.as_deref());
            }
            let mut entry = Entry::new();
            entry.batch(std::slice::from_ref(stream), builder.finish_as(codec, Some(stamp)));
            commit(log, entry);
            continue;
        }
        let mut entry = Entry::new();
        entry.batch(&[stream.clone(), other.clone()], batch);
        commit(log, entry);
    }
    all
}

/// What must be left of the rows below `sealed_to`, and all of the others.
fn expected(all: &[Row], sealed_to: u64, drops_tombstones: bool) -> Vec<Row> {
    let mut last = BTreeMap::new();
    for (offset, key, _) in all.iter().filter(|row| row.0 < sealed_to) {
        if let Some(key) = key {
            last.insert(key.clone(), *offset);
        }
    }
    let stays = |(offset, key, value): &&Row| {
        let Some(key) = key else { return true };
        let is_transactional = key.starts_with(b"tx-");
        *offset >= sealed_to
            || is_transactional
            || (last.get(key) == Some(offset) && !(drops_tombstones && value.is_none()))
    };
    all.iter().filter(stays).cloned().collect()
}

#[test]
fn only_the_last_record_of_a_key_stays_and_offsets_do() {
    for (seed, delete_retention) in [(1, Duration::ZERO), (2, Duration::from_secs(1 << 40))] {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { tail_cache_bytes_max: 0, clean_live_percent_max: 0, ..small() };
        let log = open(dir.path(), &options);
        let (stream, other) = (create_stream(&log), create_stream(&log));
        let mut random = Random::new(seed);
        let all = fill(&log, &stream, &other, &mut random);
        assert_eq!(rows(&stream), all);
        let other_before = rows(&other);
        log.set_compaction(stream.id(), Some(Compaction { delete_retention, dirty_percent_min: 50 }));
        let bytes = stream.bytes();
        assert!(log.compact().unwrap());
        assert!(!log.compact().unwrap(), "nothing new");
        let found = rows(&stream);
        // What is not sealed yet is left alone: it starts somewhere in the longest tail that is complete.
        let complete = all.iter().rev().zip(found.iter().rev()).take_while(|(one, two)| one == two).count();
        assert!(complete > 1 && complete < all.len() / 2);
        let mut borders = all[all.len() - complete..].iter().map(|row| row.0);
        assert!(borders.any(|sealed_to| found == expected(&all, sealed_to, delete_retention.is_zero())));
        assert!(stream.bytes() < bytes / 3);
        assert_eq!(rows(&other), other_before, "the other stream shares the bytes, not the fate");
        // A read in any hole gets on, be it with a batch that has lost the records sought.
        for hole in found.windows(2).flat_map(|pair| pair[0].0 + 1..pair[1].0) {
            assert!(last_of_first(&stream, hole) >= hole);
        }
        let id = stream.id();
        log.shutdown().unwrap();
        assert_eq!(inver_storage::inspect::verify(dir.path()).unwrap().flaws, []);
        let log = open(dir.path(), &options);
        assert_eq!(rows(&log.stream(id).unwrap()), found);
    }
}

fn last_of_first(stream: &Stream, from: u64) -> u64 {
    let batches = read_once(stream, from, 1).unwrap();
    let header = *inver_storage::Batch::parse(batches[0].bytes.clone()).unwrap().header();
    batches[0].base_offset.0 + header.offset_span() - 1
}

#[test]
fn more_keys_than_fit_are_compacted_as_far_as_they_fit() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { compaction_keys_max: 10, clean_live_percent_max: 0, ..small() };
    let log = open(dir.path(), &options);
    let stream = create_stream(&log);
    let mut latest = BTreeMap::new();
    for i in 0..1000u64 {
        let mut builder = BatchBuilder::new(64);
        let key = (i * i % 97).to_string().into_bytes();
        builder.push(0, Some(&key), &[], Some(&i.to_le_bytes()));
        latest.insert(key, i);
        let mut entry = Entry::new();
        entry.batch(std::slice::from_ref(&stream), builder.finish());
        commit(&log, entry);
    }
    log.set_compaction(stream.id(), Some(Compaction::default()));
    log.compact().unwrap();
    let left: BTreeMap<Vec<u8>, u64> =
        rows(&stream).into_iter().map(|(offset, key, _)| (key.unwrap(), offset)).collect();
    assert_eq!(left, latest);
}
