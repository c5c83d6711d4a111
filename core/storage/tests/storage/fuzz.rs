//! The fuzz targets for a bounded time, from mutated samples of log files. `fuzz/` runs them for long.

use std::path::Path;

use crate::shorthand::*;
use inver_storage::fuzz::TARGETS;
use inver_storage::medium::fake::Random;
use inver_storage::{BatchBuilder, Compression, Entry, Offset};

const ROUNDS: usize = 20_000;
const SAMPLE_BYTES_MAX: usize = 4096;

/// Valid input: batches, and files of a log from the start of each structure.
fn samples(dir: &Path) -> Vec<Vec<u8>> {
    let log = open(dir, &small());
    let stream = create_stream(&log);
    let cursor = log.cursor(create_cursor(&log, stream.id())).unwrap();
    let mut samples = Vec::new();
    for codec in
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
    {
        let mut builder = BatchBuilder::new(64);
        for i in 0..20u8 {
            builder.push(i64::from(i), Some(&[i]), &[(b"name", Some(b"value")), (b"", None)], Some(&[i; 30]));
        }
        let batch = builder.finish_as(codec, None);
        samples.push(batch.bytes().to_vec());
        for _ in 0..20 {
            let mut entry = Entry::new();
            entry.batch(std::slice::from_ref(&stream), batch.clone());
            entry.ack(&cursor, &[Offset(3)..Offset(9)]);
            entry.returned(&cursor, &[Offset(1)]);
            commit(&log, entry);
        }
    }
    log.shutdown().unwrap();
    for file in std::fs::read_dir(dir).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let starts = |magic: &[u8]| {
            let found = bytes.windows(magic.len()).enumerate().filter(|(_, window)| *window == magic);
            found.map(|(at, _)| at).take(40).collect::<Vec<_>>()
        };
        let blocks = (0..bytes.len()).step_by(SAMPLE_BYTES_MAX).take(40);
        for at in [starts(b"INVERSEG"), starts(b"INVEREND"), starts(b"ENTR"), blocks.collect()].concat() {
            samples.push(bytes[at..].iter().copied().take(SAMPLE_BYTES_MAX).collect());
        }
    }
    // Lengths of a checkpoint's values.
    for length in [17, 26, 57, 61, 100] {
        samples.push([vec![1], vec![0; length]].concat());
    }
    samples
}

fn mutate(sample: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..random.below(8) {
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.any() as u8),
            2 => bytes.extend_from_within(at..),
            // Extreme lengths and counts.
            3 => bytes
                .get_mut(at..at + 4)
                .into_iter()
                .for_each(|field| field.fill([0, 255][random.below(2) as usize])),
            _ => bytes.get_mut(at).into_iter().for_each(|byte| *byte = random.any() as u8),
        }
        bytes.truncate(2 * SAMPLE_BYTES_MAX);
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

#[test]
fn decoders_accept_any_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let samples = samples(dir.path());
    let mut random = Random::new(5);
    for (_, target) in TARGETS {
        target(&[]);
        samples.iter().for_each(|sample| target(sample));
        for _ in 0..ROUNDS {
            let sample = &samples[random.below(samples.len() as u64) as usize];
            target(&mutate(sample, &mut random));
        }
    }
}
