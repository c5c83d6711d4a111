//! Looking at a producer's batch before it is taken, and writing its header anew where that cannot be avoided.

use bytes::{Bytes, BytesMut};
use inver_broker::now_ms;
use inver_storage::batch::{
    Batch, BatchHeader, HEADER_BYTES, LOG_APPEND_TIME, get_varint, get_varlong, records,
};

use crate::codec::error_code::ErrorCode;

/// Where the bytes begin that the checksum covers: at the attributes.
const CRC_START: usize = 21;

/// What stands for a time where there is none.
const NO_TIME: i64 = -1;

/// Records at fault that are named in one answer: a small compressed batch can hold millions.
const FAULTS_TOLD_MAX: usize = 1000;

/// Why a batch is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BatchRefusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    /// The records that are at fault, by their place in the batch, if not all are.
    pub(crate) records: Vec<(i32, &'static str)>,
}

fn invalid(message: impl Into<String>) -> BatchRefusal {
    BatchRefusal { code: ErrorCode::INVALID_RECORD, message: message.into(), records: Vec::new() }
}

/// What a topic's settings ask of records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Every record needs a key.
    pub(crate) keyed: bool,
    /// Times that producers may give; `None` on a topic whose times are the broker's.
    pub(crate) times: Option<(i64, i64)>,
}

/// What was learned from the records.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// The greatest of the times that the producer gave.
    pub(crate) last_ms: i64,
}

/// Checks that the records are as many as the header says, numbered from 0, well-formed inside, and that they fill
/// the batch; then what the topic asks of each. Compressed records are decompressed for it, up to the bound under
/// which every other reader decompresses them, and the result is let go: the batch is kept as it came.
pub(crate) fn check_records(batch: &Batch, rules: Rules) -> Result<Checked, BatchRefusal> {
    let header = batch.header();
    if header.record_count == 0 || header.offset_span() != u64::from(header.record_count) {
        return Err(invalid("the number of records and the last offset do not fit each other"));
    }
    let bytes = records(batch.bytes()).map_err(|error| invalid(error.to_string()))?.rest();
    let mut walk = Walk { bytes: &bytes, at: 0 };
    let mut checked = Checked { last_ms: i64::MIN };
    let mut at_fault: Vec<(i32, &'static str)> = Vec::new();
    let mut code = ErrorCode::INVALID_RECORD;
    for number in 0..header.record_count {
        let cut = || invalid(format!("record {number} is malformed"));
        let record = walk.record().ok_or_else(cut)?;
        if u32::try_from(record.offset_delta) != Ok(number) {
            let delta = record.offset_delta;
            return Err(invalid(format!("record {number} has the offset {delta} within its batch")));
        }
        let time = header.base_timestamp.saturating_add(record.timestamp_delta);
        checked.last_ms = checked.last_ms.max(time);
        let out_of_time = rules.times.is_some_and(|(first, last)| time < first || time > last);
        let fault = match () {
            () if rules.keyed && !record.has_key => "Compacted topic cannot accept message without key",
            // −1 is no time at all, which is always allowed.
            () if out_of_time && time != NO_TIME => {
                if at_fault.is_empty() {
                    code = ErrorCode::INVALID_TIMESTAMP;
                }
                "The time is too far from the broker's"
            }
            () => continue,
        };
        at_fault.push((i32::try_from(number).unwrap_or(i32::MAX), fault));
        if at_fault.len() == FAULTS_TOLD_MAX {
            return Err(rejected(code, at_fault));
        }
    }
    if walk.at != bytes.len() {
        return Err(invalid("there are bytes after the last record"));
    }
    if at_fault.is_empty() { Ok(checked) } else { Err(rejected(code, at_fault)) }
}

fn rejected(code: ErrorCode, records: Vec<(i32, &'static str)>) -> BatchRefusal {
    BatchRefusal { code, message: "One or more records have been rejected".to_owned(), records }
}

/// Goes from record to record.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What matters here of a record.
struct Seen {
    timestamp_delta: i64,
    offset_delta: i32,
    has_key: bool,
}

impl Walk<'_> {
    /// The next record; `None` if it is malformed.
    #[inline]
    fn record(&mut self) -> Option<Seen> {
        let length = usize::try_from(get_varint(self.bytes, &mut self.at)?).ok()?;
        let end = self.at.checked_add(length)?;
        let record = self.bytes.get(..end)?;
        // A byte of attributes, which has no use yet.
        let mut at = self.at + 1;
        let timestamp_delta = get_varlong(record, &mut at)?;
        let offset_delta = get_varint(record, &mut at)?;
        let has_key = skip(record, &mut at)?;
        skip(record, &mut at)?;
        // Every header takes at least two bytes, so the bytes that are there bound the loop.
        for _ in 0..u32::try_from(get_varint(record, &mut at)?).ok()? {
            let named = skip(record, &mut at)?;
            skip(record, &mut at).filter(|_| named)?;
        }
        self.at = end;
        (at == end).then_some(Seen { timestamp_delta, offset_delta, has_key })
    }
}

/// Skips a field behind its length; whether it is there rather than null.
#[inline]
fn skip(record: &[u8], at: &mut usize) -> Option<bool> {
    let length = get_varint(record, at)?;
    let Ok(length) = usize::try_from(length) else { return (length == -1).then_some(false) };
    *at = at.checked_add(length).filter(|end| *end <= record.len())?;
    Some(true)
}

/// The batch as it is to be kept, and the time it was given (−1 if it keeps its own).
///
/// Two things make a header be written anew: a topic whose times are the broker's, and a greatest time in the header
/// that is not that of the records, by which a look-up by time would miss them, or retention keep them for ever.
pub(crate) fn stamped(
    batch: Batch,
    checked: &Checked,
    append_time: bool,
) -> Result<(Batch, i64), BatchRefusal> {
    let header = *batch.header();
    if append_time {
        let now = now_ms();
        let header =
            BatchHeader { attributes: header.attributes | LOG_APPEND_TIME, max_timestamp: now, ..header };
        return Ok((rewritten(&batch, header)?, now));
    }
    if header.attributes & LOG_APPEND_TIME == 0 && header.max_timestamp == checked.last_ms {
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
    use inver_storage::batch::{BatchBuilder, Compression};

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

    fn code(outcome: Result<Checked, BatchRefusal>) -> Option<ErrorCode> {
        outcome.err().map(|refusal| refusal.code)
    }

    #[test]
    fn a_sound_batch_stays_as_it_is() {
        for codec in CODECS {
            let batch = batch_as(&[5, 9, 7], codec);
            let checked = check_records(&batch, KEYED).unwrap();
            assert_eq!(checked.last_ms, 9, "{codec:?}");
            let (kept, time) = stamped(batch.clone(), &checked, false).unwrap();
            assert_eq!((kept.bytes(), time), (batch.bytes(), -1));
        }
    }

    #[test]
    fn a_greatest_time_that_is_missing_or_wrong_is_set_right() {
        let sound = batch(&[5, 9, 7]);
        for wrong in [-1, 7, i64::MAX] {
            let header = BatchHeader { max_timestamp: wrong, ..*sound.header() };
            let lacking = rewritten(&sound, header).unwrap();
            let checked = check_records(&lacking, ANY).unwrap();
            let (kept, _) = stamped(lacking, &checked, false).unwrap();
            assert_eq!(kept.bytes(), sound.bytes());
        }
    }

    #[test]
    fn the_brokers_time_is_in_the_header() {
        let batch = batch(&[5, 9]);
        let checked = check_records(&batch, ANY).unwrap();
        let (kept, time) = stamped(batch, &checked, true).unwrap();
        assert!(time > 1_600_000_000_000);
        assert_eq!(kept.header().max_timestamp, time);
        assert_ne!(kept.header().attributes & LOG_APPEND_TIME, 0);
    }

    #[test]
    fn counts_that_lie_are_refused() {
        for codec in CODECS {
            let sound = batch_as(&[1, 2, 3], codec);
            for (record_count, last_offset_delta) in [(2, 1), (4, 3), (3, 5), (1_000_000, 999_999)] {
                let header = BatchHeader { record_count, last_offset_delta, ..*sound.header() };
                let refused = rewritten(&sound, header).and_then(|batch| check_records(&batch, ANY));
                assert_eq!(code(refused), Some(ErrorCode::INVALID_RECORD), "{record_count} {codec:?}");
            }
        }
    }

    /// A batch of one record with these bytes behind its length.
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
    fn records_malformed_inside_are_refused() {
        // Attributes, time, offset, key length, value length, number of headers.
        assert_eq!(code(check_records(&forged(&[0, 0, 0, 1, 1, 0]).unwrap(), ANY)), None);
        for (what, record) in [
            ("a key of length -5", &[0u8, 0, 0, 9, 1, 0][..]),
            ("a key beyond the record", &[0, 0, 0, 8, 1, 0]),
            ("a value beyond the record", &[0, 0, 0, 1, 2, 0]),
            ("a negative number of headers", &[0, 0, 0, 1, 1, 1]),
            ("a header that is not there", &[0, 0, 0, 1, 1, 2]),
            ("a header without a name", &[0, 0, 0, 1, 1, 2, 1, 1]),
            ("bytes after the last header", &[0, 0, 0, 1, 1, 0, 0]),
            ("a varint without an end", &[0, 0x80, 0x80, 0x80, 0x80, 0x80]),
            ("nothing at all", &[]),
        ] {
            let refused = forged(record).and_then(|batch| check_records(&batch, ANY));
            assert_eq!(code(refused), Some(ErrorCode::INVALID_RECORD), "{what}");
        }
    }

    #[test]
    fn records_that_do_not_decompress_are_refused() {
        let sound = batch(&[1, 2]);
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let header = BatchHeader { attributes: codec.attribute(), ..*sound.header() };
            let refused = rewritten(&sound, header).and_then(|batch| check_records(&batch, ANY));
            assert_eq!(code(refused), Some(ErrorCode::INVALID_RECORD), "{codec:?}");
        }
    }

    #[test]
    fn compacted_topics_want_keys() {
        let mut builder = BatchBuilder::new(1024);
        builder.push(1, None, &[], Some(b"value"));
        let batch = builder.finish();
        assert_eq!(code(check_records(&batch, ANY)), None);
        let refused = check_records(&batch, KEYED).unwrap_err();
        assert_eq!(refused.code, ErrorCode::INVALID_RECORD);
        assert_eq!(refused.records[0].0, 0);
        let mut builder = BatchBuilder::new(1024);
        (0..=FAULTS_TOLD_MAX).for_each(|_| builder.push(1, None, &[], None));
        let refused = check_records(&builder.finish(), KEYED).unwrap_err();
        assert_eq!(refused.records.len(), FAULTS_TOLD_MAX);
    }

    #[test]
    fn times_have_bounds() {
        let rules = Rules { keyed: false, times: Some((100, 200)) };
        assert_eq!(code(check_records(&batch(&[100, 200, -1]), rules)), None);
        let refused = check_records(&batch(&[150, 99, 201]), rules).unwrap_err();
        assert_eq!(refused.code, ErrorCode::INVALID_TIMESTAMP);
        assert_eq!(refused.records.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [1, 2]);
    }
}
