//! Validation of a producer's batch, and the rewrite of its header where that cannot be avoided.

use bytes::{Bytes, BytesMut};
use inver_storage::batch::{
    Batch, BatchError, BatchHeader, Compression, DECOMPRESSED_BYTES_MAX, HEADER_BYTES, LOG_APPEND_TIME, MARK,
};

use super::records::{Walk, WalkedRecords};
use crate::codec::error_code::ErrorCode;

/// Start of the bytes that the checksum covers: the attributes.
const CRC_START: usize = 21;

/// The timestamp of a record without one.
const NO_TIME: i64 = -1;

/// Invalid records named in one response: a small compressed batch can hold millions.
const INVALID_RECORDS_MAX: usize = 1000;

/// The reason why a batch is rejected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BatchRefusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    /// Invalid records, by their position in the batch, and the reasons; empty if the batch as a whole is invalid.
    pub(crate) records: Vec<(i32, &'static str)>,
}

fn invalid(message: impl Into<String>) -> BatchRefusal {
    BatchRefusal { code: ErrorCode::INVALID_RECORD, message: message.into(), records: Vec::new() }
}

/// Requirements of a topic's settings on records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Every record needs a key.
    pub(crate) keyed: bool,
    /// First and last timestamp allowed; `None` where the broker assigns timestamps.
    pub(crate) times: Option<(i64, i64)>,
}

/// Facts learned while the records were checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Greatest timestamp of the records, in milliseconds.
    pub(crate) last_ms: i64,
    /// A record begins with the header that tells the origin of the broker's own records.
    pub(crate) claims_origin: bool,
}

/// What a batch costs besides its records, in bytes of them.
const BATCH_COST: usize = 4096;

/// What the batches of a request may still cost, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Of records that are not compressed, and of batches as such.
    pub(crate) plain: usize,
    /// Of records that are, decompressed.
    pub(crate) inflated: usize,
}

/// Why the check of a batch ended early.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CheckError {
    Refused(BatchRefusal),
    /// It would cost more than the allowance.
    Exhausted,
}

impl From<BatchRefusal> for CheckError {
    fn from(refusal: BatchRefusal) -> CheckError {
        CheckError::Refused(refusal)
    }
}

/// Checks that the header's record count is right, that the records are numbered from 0 and well-formed, that nothing
/// follows them, and that each meets the topic's rules. Compressed records are decompressed for this piece by piece, up to the
/// limit that holds for every reader: the batch is stored as received. Takes what it costs from the allowance.
pub(crate) fn check_records(
    batch: &Batch,
    rules: Rules,
    allowance: &mut Allowance,
) -> Result<Checked, CheckError> {
    let header = batch.header();
    if header.record_count == 0 || header.offset_span() != u64::from(header.record_count) {
        return Err(invalid("the record count and the last offset delta do not match").into());
    }
    let plain = match Compression::from_attributes(header.attributes) {
        Ok(Compression::None) => batch.bytes().len(),
        Ok(Compression::Lz4) => {
            check_lz4_frame(batch.bytes().get(HEADER_BYTES..).unwrap_or_default())?;
            0
        }
        _ => 0,
    };
    let left = allowance.plain.checked_sub(BATCH_COST + plain);
    allowance.plain = left.ok_or(CheckError::Exhausted)?;
    let mut walk = Walk::new(batch, allowance.inflated.min(DECOMPRESSED_BYTES_MAX)).map_err(failed)?;
    // A loop for each kind: the records of most batches are not compressed.
    let checked = match &mut walk {
        Walk::Plain(records) => check_each(records, header, rules),
        Walk::Inflated(records) => check_each(records, header, rules),
    };
    // Whether it is valid or not.
    allowance.inflated = allowance.inflated.saturating_sub(walk.inflated_bytes());
    checked
}

fn failed(error: BatchError) -> CheckError {
    match error {
        BatchError::TooLarge { bytes_max } if bytes_max < DECOMPRESSED_BYTES_MAX => CheckError::Exhausted,
        error => invalid(error.to_string()).into(),
    }
}

fn check_each(
    records: &mut impl WalkedRecords,
    header: &BatchHeader,
    rules: Rules,
) -> Result<Checked, CheckError> {
    let mut checked = Checked { last_ms: i64::MIN, claims_origin: false };
    let mut invalid_records: Vec<(i32, &'static str)> = Vec::new();
    let mut code = ErrorCode::INVALID_RECORD;
    for number in 0..header.record_count {
        let malformed = || CheckError::from(invalid(format!("record {number} is malformed")));
        let record = records.next_fields().map_err(failed)?.ok_or_else(malformed)?;
        if u32::try_from(record.offset_delta) != Ok(number) {
            let delta = record.offset_delta;
            return Err(invalid(format!("record {number} has offset delta {delta}")).into());
        }
        let time = header.base_timestamp.saturating_add(record.timestamp_delta);
        checked.last_ms = checked.last_ms.max(time);
        checked.claims_origin |= record.claims_origin;
        let out_of_time = rules.times.is_some_and(|(first, last)| time < first || time > last);
        let reason = match () {
            () if rules.keyed && !record.has_key => "Compacted topic cannot accept message without key",
            // A record without a timestamp is always allowed.
            () if out_of_time && time != NO_TIME => {
                if invalid_records.is_empty() {
                    code = ErrorCode::INVALID_TIMESTAMP;
                }
                "Timestamp out of range of the broker's clock"
            }
            () => continue,
        };
        invalid_records.push((i32::try_from(number).unwrap_or(i32::MAX), reason));
        if invalid_records.len() == INVALID_RECORDS_MAX {
            return Err(rejected(code, invalid_records).into());
        }
    }
    if !records.is_at_end().map_err(failed)? {
        return Err(invalid("bytes after the last record").into());
    }
    if invalid_records.is_empty() { Ok(checked) } else { Err(rejected(code, invalid_records).into()) }
}

/// Checks that an LZ4 frame can be read by every client: Kafka's Java client reads frames of version 1 with independent
/// blocks only, while other decoders accept more.
fn check_lz4_frame(frame: &[u8]) -> Result<(), BatchRefusal> {
    const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
    const VERSION_MASK: u8 = 0b1100_0000;
    const VERSION_1: u8 = 0b0100_0000;
    const INDEPENDENT_BLOCKS: u8 = 0b0010_0000;
    match frame.split_first_chunk::<4>() {
        Some((&MAGIC, [flags, ..]))
            if flags & VERSION_MASK == VERSION_1 && flags & INDEPENDENT_BLOCKS != 0 =>
        {
            Ok(())
        }
        _ => Err(invalid("not an LZ4 frame of version 1 with independent blocks")),
    }
}

fn rejected(code: ErrorCode, records: Vec<(i32, &'static str)>) -> BatchRefusal {
    BatchRefusal { code, message: "One or more records have been rejected".to_owned(), records }
}

/// The batch to store, and the timestamp assigned to it (-1 if it keeps the producer's).
///
/// The header is rewritten if the topic assigns timestamps (`append_ms`), or if the greatest timestamp in the header is
/// not that of the records: lookups by time would miss such records, and retention could keep them forever. So it is if
/// a record begins like the broker's own: the batch is marked, for the broker to believe none of its headers.
pub(crate) fn stamped(
    batch: Batch,
    checked: &Checked,
    append_ms: Option<i64>,
) -> Result<(Batch, i64), BatchRefusal> {
    let received = batch.header();
    let mark = if checked.claims_origin { MARK } else { 0 };
    let header = BatchHeader { attributes: received.attributes | mark, ..*received };
    if let Some(append_ms) = append_ms {
        let attributes = header.attributes | LOG_APPEND_TIME;
        let header = BatchHeader { attributes, max_timestamp: append_ms, ..header };
        return Ok((rewritten(&batch, header)?, append_ms));
    }
    if header.attributes & LOG_APPEND_TIME == 0
        && header.attributes == received.attributes
        && header.max_timestamp == checked.last_ms
    {
        return Ok((batch, NO_TIME));
    }
    let attributes = header.attributes & !LOG_APPEND_TIME;
    let header = BatchHeader { attributes, max_timestamp: checked.last_ms, ..header };
    Ok((rewritten(&batch, header)?, NO_TIME))
}

fn rewritten(batch: &Batch, header: BatchHeader) -> Result<Batch, BatchRefusal> {
    let mut bytes = BytesMut::from(batch.bytes().as_ref());
    let blank = BatchHeader { crc: 0, ..header }.encode();
    if let Some(front) = bytes.get_mut(..HEADER_BYTES) {
        front.copy_from_slice(&blank);
    }
    let crc = crc32c::crc32c(bytes.get(CRC_START..).unwrap_or_default());
    if let Some(field) = bytes.get_mut(17..21) {
        field.copy_from_slice(&crc.to_be_bytes());
    }
    let bytes: Bytes = bytes.freeze();
    Batch::parse(bytes).map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use inver_broker::message::{HeaderView, ORIGIN_HEADER};
    use inver_storage::batch::{BatchBuilder, records};
    use lz4_flex::frame::{BlockMode, FrameEncoder, FrameInfo};

    use super::*;

    const ANY: Rules = Rules { keyed: false, times: None };
    const KEYED: Rules = Rules { keyed: true, times: None };
    const CODECS: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    fn batch_as(times: &[i64], compression: Compression) -> Batch {
        let mut builder = BatchBuilder::new(1024);
        for time in times {
            builder.push(*time, Some(b"key"), &[(b"name", None)], Some(b"value"));
        }
        builder.finish_as(compression, None)
    }

    fn batch(times: &[i64]) -> Batch {
        batch_as(times, Compression::None)
    }

    const PLENTY: Allowance = Allowance { plain: usize::MAX, inflated: usize::MAX };

    fn check(batch: &Batch, rules: Rules) -> Result<Checked, BatchRefusal> {
        let mut plenty = PLENTY;
        check_records(batch, rules, &mut plenty).map_err(|error| match error {
            CheckError::Refused(refusal) => refusal,
            CheckError::Exhausted => panic!("there was plenty"),
        })
    }

    fn code(outcome: Result<Checked, BatchRefusal>) -> Option<ErrorCode> {
        outcome.err().map(|refusal| refusal.code)
    }

    #[test]
    fn a_valid_batch_is_stored_as_received() {
        for codec in CODECS {
            let batch = batch_as(&[5, 9, 7], codec);
            let checked = check(&batch, KEYED).unwrap();
            assert_eq!(checked.last_ms, 9, "{codec:?}");
            let (kept, time) = stamped(batch.clone(), &checked, None).unwrap();
            assert_eq!((kept.bytes(), time), (batch.bytes(), -1));
        }
    }

    #[test]
    fn a_wrong_greatest_timestamp_is_corrected() {
        let sound = batch(&[5, 9, 7]);
        for wrong in [-1, 7, i64::MAX] {
            let header = BatchHeader { max_timestamp: wrong, ..*sound.header() };
            let lacking = rewritten(&sound, header).unwrap();
            let checked = check(&lacking, ANY).unwrap();
            let (kept, _) = stamped(lacking, &checked, None).unwrap();
            assert_eq!(kept.bytes(), sound.bytes());
        }
    }

    #[test]
    fn an_assigned_timestamp_is_in_the_header() {
        let batch = batch(&[5, 9]);
        let checked = check(&batch, ANY).unwrap();
        let (kept, time) = stamped(batch, &checked, Some(77)).unwrap();
        assert_eq!((kept.header().max_timestamp, time), (77, 77));
        assert_ne!(kept.header().attributes & LOG_APPEND_TIME, 0);
    }

    #[test]
    fn a_batch_with_a_record_that_begins_like_the_brokers_own_is_marked() {
        for codec in CODECS {
            let mut builder = BatchBuilder::new(1024);
            builder.push(5, None, &[(b"h", Some(b"v"))], None);
            builder.push(5, None, &[(ORIGIN_HEADER, Some(b"x/01")), (b"user-id", Some(b"admin"))], None);
            let sent = builder.finish_as(codec, None);
            let checked = check(&sent, ANY).unwrap();
            let (kept, _) = stamped(sent.clone(), &checked, None).unwrap();
            assert_eq!(kept.header().attributes, sent.header().attributes | MARK, "{codec:?}");
            assert_eq!(kept.bytes()[HEADER_BYTES..], sent.bytes()[HEADER_BYTES..]);
            let records: Vec<_> = records(kept.bytes()).unwrap().map(Result::unwrap).collect();
            assert!(records.iter().all(|record| HeaderView::of(record).origin().is_none()));
            let (again, _) = stamped(kept.clone(), &check(&kept, ANY).unwrap(), None).unwrap();
            assert_eq!(again, kept);
        }
        // A length of more bytes than it needs: 0x98 0x00 is 12.
        let padded = [&[0, 0, 0, 1, 1, 2, 0x98, 0x00][..], ORIGIN_HEADER, &[8], b"x/00"].concat();
        assert!(check(&forged(&padded).unwrap(), ANY).unwrap().claims_origin);
        for header in [&b"inver-origins"[..], b"inver-origi", b""] {
            let mut builder = BatchBuilder::new(1024);
            builder.push(5, None, &[(header, Some(b"x/01")), (ORIGIN_HEADER, Some(b"x/01"))], None);
            assert!(!check(&builder.finish(), ANY).unwrap().claims_origin);
        }
    }

    #[test]
    fn wrong_record_counts_are_rejected() {
        for codec in CODECS {
            let sound = batch_as(&[1, 2, 3], codec);
            for (record_count, last_offset_delta) in [(2, 1), (4, 3), (3, 5), (1_000_000, 999_999)] {
                let header = BatchHeader { record_count, last_offset_delta, ..*sound.header() };
                let refused = rewritten(&sound, header).and_then(|batch| check(&batch, ANY));
                assert_eq!(code(refused), Some(ErrorCode::INVALID_RECORD), "{record_count} {codec:?}");
            }
        }
    }

    /// A batch of one record with these bytes after its length.
    fn forged(record: &[u8]) -> Result<Batch, BatchRefusal> {
        let sound = batch(&[1]);
        let mut bytes = BytesMut::from(&sound.bytes()[..HEADER_BYTES]);
        bytes.extend_from_slice(&[2 * record.len() as u8]);
        bytes.extend_from_slice(record);
        let batch_length = bytes.len() as i32 - 12;
        bytes[8..12].copy_from_slice(&batch_length.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[CRC_START..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        Batch::parse(bytes.freeze()).map_err(|error| invalid(error.to_string()))
    }

    #[test]
    fn malformed_records_are_rejected() {
        // Attributes, time, offset, key length, value length, number of headers.
        assert_eq!(code(check(&forged(&[0, 0, 0, 1, 1, 0]).unwrap(), ANY)), None);
        for (what, record) in [
            ("a key of length -5", &[0u8, 0, 0, 9, 1, 0][..]),
            ("a key beyond the record", &[0, 0, 0, 8, 1, 0]),
            ("a value beyond the record", &[0, 0, 0, 1, 2, 0]),
            ("a negative number of headers", &[0, 0, 0, 1, 1, 1]),
            ("a missing header", &[0, 0, 0, 1, 1, 2]),
            ("a header without a name", &[0, 0, 0, 1, 1, 2, 1, 1]),
            ("bytes after the last header", &[0, 0, 0, 1, 1, 0, 0]),
            ("an endless varint", &[0, 0x80, 0x80, 0x80, 0x80, 0x80]),
            ("an empty record", &[]),
        ] {
            let refused = forged(record).and_then(|batch| check(&batch, ANY));
            assert_eq!(code(refused), Some(ErrorCode::INVALID_RECORD), "{what}");
        }
    }

    #[test]
    fn records_that_do_not_decompress_are_rejected() {
        let sound = batch(&[1, 2]);
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let header = BatchHeader { attributes: codec.attribute(), ..*sound.header() };
            let refused = rewritten(&sound, header).and_then(|batch| check(&batch, ANY));
            assert_eq!(code(refused), Some(ErrorCode::INVALID_RECORD), "{codec:?}");
        }
    }

    #[test]
    fn lz4_frames_that_the_java_client_cannot_read_are_rejected() {
        let sound = batch(&[1, 2]);
        let records = sound.bytes().get(HEADER_BYTES..).unwrap();
        let as_frame = |frame: &[u8]| check(&with_records(&sound, Compression::Lz4, frame), ANY);
        let framed = |mode| {
            let mut encoder = FrameEncoder::with_frame_info(FrameInfo::new().block_mode(mode), Vec::new());
            encoder.write_all(records).unwrap();
            encoder.finish().unwrap()
        };
        assert!(as_frame(&framed(BlockMode::Independent)).is_ok());
        assert_eq!(code(as_frame(&framed(BlockMode::Linked))), Some(ErrorCode::INVALID_RECORD));
        // The legacy frame format.
        let legacy = [&[0x02, 0x21, 0x4c, 0x18][..], &framed(BlockMode::Independent)[4..]].concat();
        assert_eq!(code(as_frame(&legacy)), Some(ErrorCode::INVALID_RECORD));
        assert_eq!(code(as_frame(&[])), Some(ErrorCode::INVALID_RECORD));
    }

    #[test]
    fn compacted_topics_require_keys() {
        let mut builder = BatchBuilder::new(1024);
        builder.push(1, None, &[], Some(b"value"));
        let batch = builder.finish();
        assert_eq!(code(check(&batch, ANY)), None);
        let refused = check(&batch, KEYED).unwrap_err();
        assert_eq!(refused.code, ErrorCode::INVALID_RECORD);
        assert_eq!(refused.records[0].0, 0);
        let mut builder = BatchBuilder::new(1024);
        (0..=INVALID_RECORDS_MAX).for_each(|_| builder.push(1, None, &[], None));
        let refused = check(&builder.finish(), KEYED).unwrap_err();
        assert_eq!(refused.records.len(), INVALID_RECORDS_MAX);
    }

    #[test]
    fn timestamps_have_bounds() {
        let rules = Rules { keyed: false, times: Some((100, 200)) };
        assert_eq!(code(check(&batch(&[100, 200, -1]), rules)), None);
        let refused = check(&batch(&[150, 99, 201]), rules).unwrap_err();
        assert_eq!(refused.code, ErrorCode::INVALID_TIMESTAMP);
        assert_eq!(refused.records.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn records_of_every_size_are_walked_alike_in_memory_and_through_the_window() {
        for bytes in [0, 1, 50_000, 65_500, 65_530, 70_000, 300_000] {
            let value = vec![b'v'; bytes];
            for codec in CODECS {
                let mut builder = BatchBuilder::new(1024);
                builder.push(3, Some(&value), &[(b"h", Some(&value)), (b"i", None)], None);
                builder.push(9, Some(b"k"), &[(ORIGIN_HEADER, Some(b"x/01"))], Some(&value));
                builder.push(4, Some(b"k"), &[], Some(&value));
                let checked = check(&builder.finish_as(codec, None), KEYED).unwrap();
                assert_eq!((checked.last_ms, checked.claims_origin), (9, true), "{bytes} {codec:?}");
                builder.push(3, Some(&value), &[(ORIGIN_HEADER, Some(&value))], None);
                builder.push(3, None, &[], Some(&value));
                let batch = builder.finish_as(codec, None);
                assert_eq!(check(&batch, KEYED).unwrap_err().records.len(), 1, "{bytes} {codec:?}");
                assert!(check(&batch, ANY).unwrap().claims_origin);
            }
        }
    }

    #[test]
    fn a_long_record_that_lacks_bytes_is_rejected() {
        let value = vec![b'v'; 100_000];
        let mut builder = BatchBuilder::new(1024);
        builder.push(3, Some(b"k"), &[(b"h", Some(b"x"))], Some(&value));
        let sound = builder.finish();
        let records = &sound.bytes()[HEADER_BYTES..];
        for cut in [1, 3, 100, 50_000, 99_999, records.len() - 12] {
            let frame = zstd::bulk::compress(&records[..records.len() - cut], 1).unwrap();
            let refused = check(&with_records(&sound, Compression::Zstd, &frame), ANY);
            assert_eq!(code(refused), Some(ErrorCode::INVALID_RECORD), "{cut}");
        }
        let more = [records, &[0]].concat();
        let frame = zstd::bulk::compress(&more, 1).unwrap();
        assert_eq!(
            code(check(&with_records(&sound, Compression::Zstd, &frame), ANY)),
            Some(ErrorCode::INVALID_RECORD)
        );
    }

    #[test]
    fn the_cost_of_batches_is_taken_from_the_allowance() {
        let zeros = vec![0; 1 << 20];
        for codec in CODECS {
            let mut builder = BatchBuilder::new(1024);
            builder.push(3, None, &[], Some(&zeros));
            let batch = builder.finish_as(codec, None);
            let plenty = Allowance { plain: 2 * BATCH_COST + (3 << 20), inflated: 3 << 20 };
            let mut allowance = plenty;
            assert!(check_records(&batch, ANY, &mut allowance).is_ok(), "{codec:?}");
            assert!(check_records(&batch, ANY, &mut allowance).is_ok(), "{codec:?}");
            let refused = check_records(&batch, ANY, &mut allowance).unwrap_err();
            assert_eq!(refused, CheckError::Exhausted, "{codec:?}");
            match codec {
                Compression::None => assert_eq!(allowance.inflated, plenty.inflated),
                _ => assert_eq!(allowance.plain, plenty.plain - 3 * BATCH_COST, "{codec:?}"),
            }
        }
    }

    #[test]
    fn a_batch_that_is_refused_costs_what_was_decompressed() {
        let sound = batch(&[3]);
        for codec in [Compression::Lz4, Compression::Zstd] {
            // The first record claims more bytes than there are.
            let mut builder = BatchBuilder::new(1024);
            builder.push(3, None, &[], Some(&vec![0; 1 << 20]));
            let whole = builder.finish_as(Compression::None, None);
            let records = &whole.bytes()[HEADER_BYTES..whole.bytes().len() - 1];
            let frame = match codec {
                Compression::Lz4 => {
                    let info = FrameInfo::new().block_mode(BlockMode::Independent);
                    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                    encoder.write_all(records).unwrap();
                    encoder.finish().unwrap()
                }
                _ => zstd::bulk::compress(records, 1).unwrap(),
            };
            let bomb = with_records(&sound, codec, &frame);
            let mut allowance = Allowance { plain: usize::MAX, inflated: 3 << 19 };
            let first = check_records(&bomb, ANY, &mut allowance).unwrap_err();
            assert!(matches!(first, CheckError::Refused(_)), "{codec:?} {first:?}");
            assert!(allowance.inflated < 1 << 19, "{codec:?} {}", allowance.inflated);
            let second = check_records(&bomb, ANY, &mut allowance).unwrap_err();
            assert_eq!(second, CheckError::Exhausted, "{codec:?}");
        }
    }

    /// A batch with other records.
    fn with_records(of: &Batch, codec: Compression, records: &[u8]) -> Batch {
        let mut bytes = BytesMut::from(&[&of.bytes()[..HEADER_BYTES], records].concat()[..]);
        let length = i32::try_from(bytes.len() - 12).unwrap();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[22] |= codec.attribute() as u8;
        let crc = crc32c::crc32c(&bytes[CRC_START..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        Batch::parse(bytes.freeze()).unwrap()
    }
}
