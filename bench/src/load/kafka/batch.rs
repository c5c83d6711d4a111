//! Record batches, v2.

use super::Request;
use crate::load::Fields;

fn varint(into: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        into.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    into.push(rest as u8);
}

pub(super) fn varint_at(fields: &mut Fields<'_>) -> i64 {
    let (mut number, mut shift) = (0_u64, 0);
    loop {
        let byte = fields.u8();
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 || shift > 63 {
            return (number >> 1) as i64 ^ -((number & 1) as i64);
        }
    }
}

/// A batch of `values`, without keys, headers and producer id.
pub(super) fn batch<'a>(values: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<u8> {
    keyed_batch(values.map(|value| (None, value)))
}

/// A batch of keys and values.
pub(crate) fn keyed_batch<'a>(
    values: impl ExactSizeIterator<Item = (Option<&'a [u8]>, &'a [u8])>,
) -> Vec<u8> {
    let count = values.len() as i32;
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |age| age.as_millis()) as i64;
    let mut records = Vec::new();
    let mut record = Vec::new();
    for (index, (key, value)) in values.enumerate() {
        record.clear();
        record.push(0);
        varint(&mut record, 0);
        varint(&mut record, index as i64);
        varint(&mut record, key.map_or(-1, |key| key.len() as i64));
        record.extend_from_slice(key.unwrap_or_default());
        varint(&mut record, value.len() as i64);
        record.extend_from_slice(value);
        varint(&mut record, 0);
        varint(&mut records, record.len() as i64);
        records.extend_from_slice(&record);
    }
    let covered = Request(Vec::new())
        .i16(0)
        .i32(count - 1)
        .i64(now_ms)
        .i64(now_ms)
        .i64(-1)
        .i16(-1)
        .i32(-1)
        .i32(count)
        .raw(&records);
    let crc = crc32c::crc32c(&covered.0);
    Request(Vec::new()).i64(0).i32(covered.0.len() as i32 + 9).i32(-1).i8(2).i32(crc as i32).raw(&covered.0).0
}

/// Number of records of `value_bytes` in a batch of `batch_bytes`.
pub(crate) fn records_in(batch_bytes: usize, value_bytes: usize) -> usize {
    let value = vec![0_u8; value_bytes];
    (1..)
        .take_while(|count| batch((0..*count).map(|_| value.as_slice())).len() <= batch_bytes)
        .last()
        .unwrap_or(1)
}
