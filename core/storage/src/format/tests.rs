use bytes::BytesMut;
use proptest::prelude::*;

use super::entry::{self, EntryHeader};
use super::index::{BLOCK_ENTRIES_MAX, Extent, IndexBuilder, decode_block};
use super::segment::{FrameFlaw, SegmentHeader, SegmentId, SegmentTrailer, Spread};

fn header() -> SegmentHeader {
    SegmentHeader { log_id: 7, id: SegmentId(128), base: 128, created_ms: 5 }
}

#[test]
fn segment_frames_round_trip_and_every_flipped_bit_is_detected() {
    let bytes = header().encode();
    assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
    let trailer = SegmentTrailer {
        id: SegmentId::cleaned(3),
        entries_end: 1,
        index_start: 2,
        index_blocks: 3,
        index_entries: 4,
        max_timestamp: 5,
        spread: Spread { streams: 6, places: 7 },
    };
    assert_eq!(SegmentTrailer::decode(&trailer.encode()), Ok(trailer));
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(SegmentHeader::decode(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn a_later_version_is_reported() {
    let mut bytes = header().encode();
    bytes[8] = 9;
    assert_eq!(SegmentHeader::decode(&bytes), Err(FrameFlaw::Version(9)));
}

#[test]
fn file_names_round_trip() {
    for id in [SegmentId(0), SegmentId(0xabc), SegmentId::cleaned(12)] {
        assert_eq!(SegmentId::from_file_name(&id.file_name()), Some(id));
    }
    for name in ["x.seg", "00.seg", "checkpoint.redb", "f000000000000000.seg", "0000000000000000.tmp"] {
        assert_eq!(SegmentId::from_file_name(name), None);
    }
}

proptest! {
    #[test]
    fn index_blocks_round_trip(count in 1..3 * BLOCK_ENTRIES_MAX) {
        let mut builder = IndexBuilder::default();
        let extent = |i: usize| Extent {
            base: i as u64, max_timestamp: -1, position: i as u32 * 64, length: 61, span: 1, origin: i as u64,
        };
        for i in 0..count {
            builder.push(i as u64 / 2, &extent(i));
        }
        let (bytes, blocks, entries) = builder.finish();
        prop_assert_eq!(entries as usize, count);
        prop_assert_eq!(bytes.len(), blocks as usize * super::index::BLOCK_BYTES);
        let read: Vec<_> = bytes
            .chunks(super::index::BLOCK_BYTES)
            .flat_map(|block| decode_block(block).unwrap())
            .collect();
        prop_assert_eq!(read, (0..count).map(|i| (i as u64 / 2, extent(i))).collect::<Vec<_>>());
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let _ = SegmentHeader::decode(&bytes);
        let _ = SegmentTrailer::decode(&bytes);
        let _ = decode_block(&bytes);
        if let Ok(header) = EntryHeader::decode(&bytes, 0) {
            let _ = entry::decode(&header, &bytes, true);
        }
    }

    /// Arbitrary descriptions behind a valid header.
    #[test]
    fn arbitrary_descriptions_do_not_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        parts in any::<u32>(),
        described in 0..400u32,
    ) {
        let length = (bytes.len() + entry::ENTRY_HEADER_BYTES).next_multiple_of(8);
        let header = EntryHeader {
            crc: 0, length: length as u32, description_bytes: described, lsn: 8, synced: 0,
            part_count: parts, kind: 0,
        };
        let mut out = BytesMut::new();
        header.put(&mut out);
        out.extend_from_slice(&bytes);
        out.resize(length, 0);
        let end = (entry::ENTRY_HEADER_BYTES + described as usize).min(out.len());
        entry::seal(&mut out, 0, end - entry::ENTRY_HEADER_BYTES, std::iter::empty());
        if let Ok(header) = EntryHeader::decode(&out, 8) {
            let _ = entry::decode(&header, &out, true);
        }
    }
}
