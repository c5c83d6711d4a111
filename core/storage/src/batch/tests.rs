use bytes::Bytes;
use proptest::prelude::*;

use super::compression::compress;
use super::*;

type Field = Option<Vec<u8>>;
type Row = (i64, Field, Vec<(Vec<u8>, Field)>, Field);

fn field() -> impl Strategy<Value = Field> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200))
}

fn row() -> impl Strategy<Value = Row> {
    let header = (proptest::collection::vec(any::<u8>(), 0..20), field());
    (0..i64::from(u32::MAX), field(), proptest::collection::vec(header, 0..4), field())
}

fn build(rows: &[Row], codec: Compression) -> Batch {
    let mut builder = BatchBuilder::new(64);
    for (timestamp, key, headers, value) in rows {
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_slice(), v.as_deref())).collect();
        builder.push(*timestamp, key.as_deref(), &headers, value.as_deref());
    }
    builder.finish_as(codec, None)
}

fn rows_of(batch: &Batch) -> Vec<Row> {
    records(batch.bytes())
        .unwrap()
        .map(|record| {
            let record = record.unwrap();
            let headers = record.headers().map(|(n, v)| (n.to_vec(), v.map(|v| v.to_vec()))).collect();
            let (key, value) = (record.key.map(|k| k.to_vec()), record.value.map(|v| v.to_vec()));
            (record.timestamp_ms, key, headers, value)
        })
        .collect()
}

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn built_records_round_trip(rows in proptest::collection::vec(row(), 1..20), codec in 0..5usize) {
        let batch = build(&rows, CODECS[codec]);
        let parsed = Batch::parse(batch.bytes().clone()).unwrap();
        prop_assert_eq!(&parsed, &batch);
        prop_assert_eq!(parsed.record_count() as usize, rows.len());
        prop_assert_eq!(rows_of(&parsed), rows);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let bytes = Bytes::from(bytes);
        let _ = Batch::parse(bytes.clone());
        let _ = records(&bytes);
    }

    /// Damage behind a valid length and magic, in batches whose checksum is not verified.
    #[test]
    fn damaged_records_do_not_panic(
        rows in proptest::collection::vec(row(), 1..8),
        codec in 0..5usize,
        damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = build(&rows, CODECS[codec]).bytes().to_vec();
        for (at, value) in damage {
            let at = 21 + at as usize % (bytes.len() - 21);
            bytes[at] = value;
        }
        if let Ok(records) = records(&Bytes::from(bytes)) {
            for record in records.flatten() {
                let _ = record.headers().count();
            }
        }
    }

    #[test]
    fn varints_round_trip(value in prop_oneof![any::<i64>(), -10_000..10_000i64]) {
        let mut out = bytes::BytesMut::new();
        put_varlong(&mut out, value);
        prop_assert_eq!(out.len(), varint::varlong_bytes(value));
        let mut at = 0;
        prop_assert_eq!(get_varlong(&out, &mut at), Some(value));
        prop_assert_eq!(at, out.len());
        for cut in 0..out.len() {
            prop_assert_eq!(get_varlong(&out[..cut], &mut 0), None);
        }
    }
}

#[test]
fn varints_end_after_ten_bytes() {
    assert_eq!(get_varlong(&[0xff; 11], &mut 0), None);
    assert_eq!(get_varlong(&[], &mut 0), None);
    assert_eq!(get_varlong(&[0], &mut 1), None);
    assert_eq!(get_varlong(&[0], &mut 2), None);
}

#[test]
fn a_batch_truncated_anywhere_is_rejected() {
    let batch = build(&[(5, Some(b"k".to_vec()), vec![(b"h".to_vec(), None)], None)], Compression::None);
    for length in 0..batch.bytes().len() {
        assert!(Batch::parse(batch.bytes().slice(..length)).is_err());
    }
}

#[test]
fn every_flipped_bit_behind_the_length_is_detected() {
    let batch = build(&[(5, None, vec![], Some(b"value".to_vec()))], Compression::None);
    for at in 16 * 8..batch.bytes().len() * 8 {
        let mut bytes = batch.bytes().to_vec();
        bytes[at / 8] ^= 1 << (at % 8);
        assert!(Batch::parse(Bytes::from(bytes)).is_err(), "bit {at}");
    }
}

#[test]
fn consecutive_batches_are_split() {
    let first = build(&[(5, None, vec![], Some(b"one".to_vec()))], Compression::None);
    let second = build(&[(6, None, vec![], Some(b"two".to_vec()))], Compression::None);
    let mut both = Bytes::from([first.bytes().as_ref(), second.bytes().as_ref()].concat());
    assert_eq!(Batch::split_first(&mut both).unwrap(), first);
    assert_eq!(Batch::split_first(&mut both).unwrap(), second);
    assert!(both.is_empty());
}

#[test]
fn a_raw_snappy_block_is_decompressed() {
    let mut rows = Vec::new();
    for i in 0..50 {
        rows.push((i, None, vec![], Some(vec![b'x'; 100])));
    }
    let plain = build(&rows, Compression::None);
    let block = snap::raw::Encoder::new().compress_vec(&plain.bytes()[HEADER_BYTES..]).unwrap();
    let mut header = *plain.header();
    header.attributes = Compression::Snappy.attribute();
    header.batch_length = (block.len() + HEADER_BYTES - 12) as u32;
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(&block);
    header.crc = crc32c::crc32c(&bytes[21..]);
    bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    assert_eq!(rows_of(&Batch::parse(Bytes::from(bytes)).unwrap()), rows);
}

#[test]
fn a_decompressed_batch_is_a_batch_of_the_same_records() {
    let rows =
        [(5, Some(b"k".to_vec()), vec![(b"h".to_vec(), None)], None), (9, None, vec![], Some(vec![7; 5000]))];
    for codec in CODECS {
        let batch = build(&rows, codec);
        let plain = Batch::parse(decompressed(batch.bytes()).unwrap()).unwrap();
        assert_eq!(rows_of(&plain), rows, "{codec:?}");
        assert_eq!(plain.header().attributes & COMPRESSION_MASK, 0);
        assert_eq!(plain.bytes()[HEADER_BYTES..], build(&rows, Compression::None).bytes()[HEADER_BYTES..]);
        assert!(records_within(plain.bytes(), 0).is_ok());
        let within = records_within(batch.bytes(), 100);
        assert_eq!(matches!(within, Err(BatchError::TooLarge { .. })), codec != Compression::None);
    }
}

#[test]
fn a_decompression_bomb_stops_at_the_limit() {
    let zeros = vec![0; 4 << 20];
    for codec in CODECS.into_iter().skip(1) {
        let bomb = Bytes::from(compress(codec, &zeros).unwrap());
        assert!(bomb.len() < 1 << 20);
        assert!(matches!(
            decompress(codec, &bomb, 1 << 20),
            Err(BatchError::TooLarge { bytes_max: 1_048_576 })
        ));
        assert_eq!(decompress(codec, &bomb, 4 << 20).unwrap().len(), 4 << 20);
    }
}

#[test]
fn the_builder_is_reusable_and_counts_records() {
    let mut builder = BatchBuilder::new(16);
    builder.push(7, None, &[], Some(b"a"));
    assert_eq!(builder.len(), 1);
    let stamp = ProducerStamp { id: 9, epoch: 1, base_sequence: 4, transactional: true, control: false };
    let first = builder.finish_as(Compression::None, Some(stamp));
    assert!(builder.is_empty());
    assert!(first.header().is_transactional() && first.header().has_producer());
    builder.push_with(8, Some(b"k"), 1, b"\x02h\x01", None);
    let second = Batch::parse(builder.finish().into_bytes()).unwrap();
    let record = records(second.bytes()).unwrap().next().unwrap().unwrap();
    assert_eq!(record.headers().next().unwrap(), (Bytes::from_static(b"h"), None));
    assert_eq!(record.value, None);
}

#[test]
fn every_zstd_level_is_decompressed() {
    for level in 1..=22 {
        // Without its size beforehand, a stream declares the whole window of its level, as clients' streams do.
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), level).unwrap();
        std::io::Write::write_all(&mut encoder, b"value").unwrap();
        let frame = Bytes::from(encoder.finish().unwrap());
        let decompressed = decompress(Compression::Zstd, &frame, 1 << 20).unwrap();
        assert_eq!(decompressed.as_ref(), b"value", "level {level}");
    }
}

#[test]
fn records_are_decompressed_piece_by_piece_within_a_bound_of_memory() {
    let value: Vec<u8> = (0..3_000_000u32).map(|at| (at / 1000) as u8).collect();
    for codec in CODECS {
        let batch = build(&[(5, None, vec![], Some(value.clone()))], codec);
        let whole = records(batch.bytes()).unwrap().rest();
        let mut inflated = Inflated::new(&batch, whole.len()).unwrap();
        let mut seen = Vec::new();
        loop {
            let window = inflated.window(1 + seen.len() % 100_000).unwrap();
            assert!(window.len() < 512 << 10, "{codec:?} {}", window.len());
            let take = window.len().min(70_001);
            if take == 0 {
                break;
            }
            seen.extend_from_slice(&window[..take]);
            inflated.advance(take);
        }
        assert!(seen == whole, "{codec:?}");
        assert_eq!(inflated.inflated_bytes(), whole.len());
        let mut skipping = Inflated::new(&batch, whole.len()).unwrap();
        assert!(skipping.skip(whole.len() - 1).unwrap() && skipping.window(9).unwrap().len() == 1);
        assert!(!skipping.skip(2).unwrap());
        let mut short = Inflated::new(&batch, whole.len() - 1).unwrap();
        let beyond = short.skip(whole.len());
        assert!(matches!(beyond, Err(BatchError::TooLarge { .. })), "{codec:?} {beyond:?}");
    }
}
