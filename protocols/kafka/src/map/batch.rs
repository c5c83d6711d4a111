//! Looking at a producer's batch before it is taken, and writing its header anew where that cannot be avoided.

use bytes::{Bytes, BytesMut};
use inver_broker::now_ms;
use inver_storage::batch::{
    Batch, BatchHeader, Compression, HEADER_BYTES, LOG_APPEND_TIME, get_varint, get_varlong, records,
};

use crate::codec::error_code::ErrorCode;

/// Where the bytes begin that the checksum covers: at the attributes.
const CRC_START: usize = 21;

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

/// Checks that the records are as many as the header says, numbered from 0, and that they fill the batch; on a
/// compacted topic also that each has a key. Compressed records are taken on trust, except on compacted topics: to
/// decompress them would cost more than everything else that is done for them.
pub(crate) fn check_records(
    batch: &Batch,
    compression: Compression,
    compacted: bool,
) -> Result<(), BatchRefusal> {
    let header = batch.header();
    if header.record_count == 0 || header.offset_span() != u64::from(header.record_count) {
        return Err(invalid("the number of records and the last offset do not fit each other"));
    }
    if compression == Compression::None {
        walk(batch.bytes().get(HEADER_BYTES..).unwrap_or_default(), header.record_count)?;
    }
    if compacted {
        let mut keyless = Vec::new();
        let all = records(batch.bytes()).map_err(|error| invalid(error.to_string()))?;
        for (place, record) in (0..).zip(all) {
            if record.map_err(|error| invalid(error.to_string()))?.key.is_none() {
                keyless.push((place, "Compacted topic cannot accept message without key"));
            }
        }
        if !keyless.is_empty() {
            let all = invalid("One or more records have been rejected");
            return Err(BatchRefusal { records: keyless, ..all });
        }
    }
    Ok(())
}

/// Goes from record to record without looking inside further than their numbers.
fn walk(mut records: &[u8], count: u32) -> Result<(), BatchRefusal> {
    let cut = || invalid("a record does not fit the batch");
    for number in 0..count {
        let mut at = 0;
        let length = get_varint(records, &mut at).ok_or_else(cut)?;
        let record =
            usize::try_from(length).ok().and_then(|length| records.get(at..)?.split_at_checked(length));
        let (record, rest) = record.ok_or_else(cut)?;
        // Attributes (a byte without a use), time less the base time, offset less the base offset.
        let mut at = 1;
        get_varlong(record, &mut at).ok_or_else(cut)?;
        let offset_delta = get_varint(record, &mut at).ok_or_else(cut)?;
        if u32::try_from(offset_delta) != Ok(number) {
            return Err(invalid(format!("record {number} has the offset {offset_delta} within its batch")));
        }
        records = rest;
    }
    match records.is_empty() {
        true => Ok(()),
        false => Err(invalid("there are bytes after the last record")),
    }
}

/// The batch as it is to be kept, and the time it was given (−1 if it keeps its own).
///
/// Two things make a header be written anew: a topic whose times are the broker's, and a producer that did not say its
/// greatest time, without which a look-up by time could not find its records.
pub(crate) fn stamped(batch: Batch, append_time: bool) -> Result<(Batch, i64), BatchRefusal> {
    let header = *batch.header();
    if append_time {
        let now = now_ms();
        let header =
            BatchHeader { attributes: header.attributes | LOG_APPEND_TIME, max_timestamp: now, ..header };
        return Ok((rewritten(&batch, header)?, now));
    }
    let own_time = header.attributes & LOG_APPEND_TIME == 0;
    if own_time && header.max_timestamp >= header.base_timestamp {
        return Ok((batch, -1));
    }
    let header = BatchHeader { attributes: header.attributes & !LOG_APPEND_TIME, ..header };
    let plain = rewritten(&batch, header)?;
    let mut max_timestamp = header.base_timestamp;
    for record in records(plain.bytes()).map_err(|error| invalid(error.to_string()))? {
        max_timestamp = max_timestamp.max(record.map_err(|error| invalid(error.to_string()))?.timestamp_ms);
    }
    Ok((rewritten(&plain, BatchHeader { max_timestamp, ..header })?, -1))
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
    use inver_storage::batch::BatchBuilder;

    use super::*;

    fn batch(times: &[i64]) -> Batch {
        let mut builder = BatchBuilder::new(1024);
        for time in times {
            builder.push(*time, Some(b"key"), &[], Some(b"value"));
        }
        builder.finish()
    }

    #[test]
    fn a_sound_batch_stays_as_it_is() {
        let batch = batch(&[5, 9, 7]);
        assert_eq!(check_records(&batch, Compression::None, true), Ok(()));
        let (kept, time) = stamped(batch.clone(), false).unwrap();
        assert_eq!((kept.bytes(), time), (batch.bytes(), -1));
    }

    #[test]
    fn a_missing_greatest_time_is_found() {
        let sound = batch(&[5, 9, 7]);
        let lacking = rewritten(&sound, BatchHeader { max_timestamp: -1, ..*sound.header() }).unwrap();
        let (kept, _) = stamped(lacking, false).unwrap();
        assert_eq!(kept.header().max_timestamp, 9);
        assert_eq!(kept.bytes(), sound.bytes());
    }

    #[test]
    fn the_brokers_time_is_in_the_header() {
        let (kept, time) = stamped(batch(&[5, 9]), true).unwrap();
        assert!(time > 1_600_000_000_000);
        assert_eq!(kept.header().max_timestamp, time);
        assert_ne!(kept.header().attributes & LOG_APPEND_TIME, 0);
    }

    #[test]
    fn counts_that_lie_are_refused() {
        let sound = batch(&[1, 2, 3]);
        for (record_count, last_offset_delta) in [(2, 1), (4, 3), (3, 5), (1_000_000, 999_999)] {
            let header = BatchHeader { record_count, last_offset_delta, ..*sound.header() };
            let refused =
                rewritten(&sound, header).and_then(|batch| check_records(&batch, Compression::None, false));
            assert_eq!(
                refused.map_err(|refusal| refusal.code),
                Err(ErrorCode::INVALID_RECORD),
                "{record_count}"
            );
        }
    }

    #[test]
    fn compacted_topics_want_keys() {
        let mut builder = BatchBuilder::new(1024);
        builder.push(1, None, &[], Some(b"value"));
        let batch = builder.finish();
        assert_eq!(check_records(&batch, Compression::None, false), Ok(()));
        let refused = check_records(&batch, Compression::None, true).unwrap_err();
        assert_eq!(refused.code, ErrorCode::INVALID_RECORD);
        assert_eq!(refused.records[0].0, 0);
    }
}
