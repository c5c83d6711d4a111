//! Bodies of fuzz targets for the decoders of bytes from a disk or a producer.
//!
//! `fuzz/` runs them for long, tests/storage/fuzz.rs for a bounded time from mutated samples. A body panics when a decoder
//! panics, or when a decoded value violates an invariant: it fits the input, and encodes to the same bytes again.

use bytes::{BufMut, Bytes, BytesMut};

use crate::batch::{self, Batch, HEADER_BYTES};
use crate::checkpoint::{Meta, SegmentRecord, decode_cursor, decode_stream, encode_cursor, encode_stream};
use crate::compaction::Compaction;
use crate::format::entry::{self, ENTRY_HEADER_BYTES, EntryHeader, PartView};
use crate::format::index::{BLOCK_BYTES, IndexBuilder, decode_block};
use crate::format::segment::{SegmentHeader, SegmentTrailer};

/// Name and body of a target.
pub type Target = (&'static str, fn(&[u8]));

/// All targets of this crate.
pub const TARGETS: [Target; 4] =
    [("batch", batch), ("entry", entry), ("footer", footer), ("checkpoint", checkpoint)];

/// Record batches: unchanged, and with a valid checksum, so that their records are decoded.
pub fn batch(bytes: &[u8]) {
    let mut rest = Bytes::copy_from_slice(bytes);
    while let Ok(first) = Batch::split_first(&mut rest) {
        assert!(first.bytes().len() <= bytes.len());
    }
    walk(&Bytes::copy_from_slice(bytes));
    if bytes.len() >= HEADER_BYTES {
        let mut sealed = bytes.to_vec();
        let length = (sealed.len() - 12) as u32;
        put(&mut sealed, 8, &length.to_be_bytes());
        put(&mut sealed, 16, &[2]);
        let crc = crc32c::crc32c(sealed.get(21..).unwrap_or_default());
        put(&mut sealed, 17, &crc.to_be_bytes());
        let sealed = Bytes::from(sealed);
        if let Ok(parsed) = Batch::parse(sealed.clone()) {
            assert_eq!(parsed.header().encode().as_slice(), sealed.get(..HEADER_BYTES).unwrap_or_default());
            walk(&sealed);
        }
    }
}

fn walk(batch: &Bytes) {
    let Ok(records) = batch::records(batch) else { return };
    for record in records.flatten() {
        assert!(record.headers().count() <= record.headers.len());
    }
}

/// Entries: unchanged, and with a valid header, so that their descriptions are decoded.
pub fn entry(bytes: &[u8]) {
    check_entry(bytes, 0);
    let Some((head, body)) = bytes.split_first_chunk::<4>() else { return };
    let [described, parts, kind, _] = *head;
    let length = (ENTRY_HEADER_BYTES + body.len()).next_multiple_of(entry::ENTRY_ALIGNMENT);
    let description_bytes = usize::from(described).min(body.len());
    let header = EntryHeader {
        crc: 0,
        length: length as u32,
        description_bytes: description_bytes as u32,
        lsn: 8,
        synced: 0,
        part_count: u32::from(parts),
        kind,
    };
    let mut out = BytesMut::new();
    header.put(&mut out);
    out.put_slice(body);
    out.resize(length, 0);
    let batches = out.get(ENTRY_HEADER_BYTES + description_bytes..).unwrap_or_default().to_vec();
    // With checksums over zero, one and two batches.
    for heads in 0..3 {
        let heads = batches.chunks(HEADER_BYTES).take(heads);
        entry::seal(&mut out, 0, description_bytes, heads);
        check_entry(&out, 8);
    }
}

fn check_entry(bytes: &[u8], lsn: u64) {
    let Ok(header) = EntryHeader::decode(bytes, lsn) else { return };
    let Ok(parts) = entry::decode(&header, bytes, true) else { return };
    for part in parts {
        match part {
            PartView::Batch { destinations, batch, at, .. } => {
                assert!(at + batch.len() <= bytes.len() && destinations.iter().len() * 16 <= bytes.len());
            }
            PartView::Ack { ranges, .. } => assert!(ranges.iter().len() * 16 <= bytes.len()),
            PartView::Acks { acks } => assert!(entry::acks(acks).count() * 24 <= bytes.len()),
            PartView::Counts { counts, .. } => assert!(entry::counts(counts).count() * 12 <= bytes.len()),
            _ => {}
        }
    }
}

/// Segment headers, trailers and index blocks: unchanged, and with valid checksums.
pub fn footer(bytes: &[u8]) {
    let mut frame = bytes.get(..64).map(<[u8]>::to_vec).unwrap_or_default();
    for is_sealed in [false, true] {
        if is_sealed && frame.len() == 64 {
            put(&mut frame, 8, &1u32.to_le_bytes());
            let crc = crc32c::crc32c(frame.get(16..).unwrap_or_default());
            put(&mut frame, 12, &crc.to_le_bytes());
        }
        for magic in [b"INVERSEG", b"INVEREND"] {
            if is_sealed {
                put(&mut frame, 0, magic);
            }
            if let Ok(header) = SegmentHeader::decode(&frame) {
                assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
            }
            if let Ok(trailer) = SegmentTrailer::decode(&frame) {
                assert_eq!(SegmentTrailer::decode(&trailer.encode()), Ok(trailer));
            }
        }
    }
    let _ = decode_block(bytes);
    let mut block = bytes.to_vec();
    block.resize(BLOCK_BYTES, 0);
    let crc = crc32c::crc32c(block.get(4..).unwrap_or_default());
    put(&mut block, 0, &crc.to_le_bytes());
    if let Ok(entries) = decode_block(&block) {
        let mut builder = IndexBuilder::default();
        for (stream, extent) in &entries {
            builder.push(*stream, extent);
        }
        assert_eq!(decode_block(&builder.finish().0), Ok(entries));
    }
}

/// The values of a checkpoint.
pub fn checkpoint(bytes: &[u8]) {
    if let Some(meta) = Meta::decode(bytes) {
        assert_eq!(Meta::decode(&meta.encode()), Some(meta));
    }
    if let Some(record) = SegmentRecord::decode(bytes) {
        assert_eq!(SegmentRecord::decode(&record.encode()), Some(record));
    }
    if let Some(stream) = decode_stream(bytes) {
        let marks = (stream.start, stream.next, stream.last_timestamp);
        let encoded =
            encode_stream(marks, &stream.runs, Some(&stream.producers), stream.transactions.as_deref());
        assert!(encoded.len() <= bytes.len(), "encoded value is longer than the input");
        assert_eq!(decode_stream(&encoded), Some(stream));
    }
    if let Some((stream, state)) = decode_cursor(bytes) {
        let encoded = encode_cursor(stream, &state);
        assert!(encoded.len() <= bytes.len(), "encoded value is longer than the input");
        assert_eq!(decode_cursor(&encoded), Some((stream, state)));
    }
    if let Some(policy) = Compaction::decode(bytes) {
        assert_eq!(
            Compaction::decode(&policy.encode()).map(|again| again.dirty_percent_min),
            Some(policy.dirty_percent_min)
        );
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}
