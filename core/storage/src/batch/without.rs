//! A batch with some of its records left out; the others keep their offsets.

use bytes::{Bytes, BytesMut};

use super::builder::seal;
use super::compression::{Compression, compress};
use super::header::{BatchHeader, COMPRESSION_MASK, HEADER_BYTES, LENGTH_PREFIX_BYTES, LOG_APPEND_TIME};
use super::records::{Record, records};
use super::{Batch, BatchError};

/// The greatest timestamp of a batch without records.
const NO_TIMESTAMP: i64 = -1;

impl Batch {
    /// The batch with those of its records that `keep` is true for. It has the same offsets, and the same sequences of
    /// its producer, even without any record.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn retain(&self, mut keep: impl FnMut(&Record) -> bool) -> Result<Batch, BatchError> {
        let mut all = records(self.bytes())?;
        let mut kept = BytesMut::new();
        let (mut count, mut max_timestamp) = (0, NO_TIMESTAMP);
        while let Some(record) = all.next() {
            let record = record?;
            if keep(&record) {
                kept.extend_from_slice(&all.last_encoded());
                count += 1;
                max_timestamp = max_timestamp.max(record.timestamp_ms);
            }
        }
        if count == self.record_count() {
            return Ok(self.clone());
        }
        let header = self.header();
        let is_append_time = header.attributes & LOG_APPEND_TIME != 0;
        let max_timestamp = if is_append_time && count > 0 { header.max_timestamp } else { max_timestamp };
        rebuild(header, &kept, count, max_timestamp).ok_or(BatchError::Count).and_then(Batch::parse)
    }
}

/// A batch with fewer records and the same offsets.
pub(crate) fn rebuild(header: &BatchHeader, records: &[u8], count: u32, max_timestamp: i64) -> Option<Bytes> {
    let mut header = *header;
    let codec = Compression::from_attributes(header.attributes).ok()?;
    // Readers take what is empty for no compressed data.
    let compressed = if count == 0 { None } else { compress(codec, records) };
    if compressed.is_none() {
        header.attributes &= !COMPRESSION_MASK;
    }
    let records = compressed.as_deref().unwrap_or(records);
    let bytes = HEADER_BYTES + records.len();
    header.batch_length = u32::try_from(bytes).ok()?.checked_sub(LENGTH_PREFIX_BYTES as u32)?;
    header.record_count = count;
    header.max_timestamp = max_timestamp;
    let mut out = BytesMut::with_capacity(bytes);
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(records);
    Some(seal(out, &mut header))
}

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, ProducerStamp};
    use super::*;

    #[test]
    fn what_is_left_keeps_its_offsets_and_sequences() {
        for codec in [Compression::None, Compression::Lz4, Compression::Gzip] {
            let mut builder = BatchBuilder::new(0);
            for number in 0..5_u8 {
                builder.push(i64::from(number), None, &[], Some(&[number; 200]));
            }
            let stamp =
                ProducerStamp { id: 7, epoch: 1, base_sequence: 40, transactional: false, control: false };
            let whole = builder.finish_as(codec, Some(stamp));
            let same = whole.retain(|_| true).unwrap();
            assert_eq!(same, whole);
            let some = whole.retain(|record| record.offset_delta % 2 == 1).unwrap();
            let header = some.header();
            assert_eq!((header.record_count, header.offset_span(), header.base_sequence), (2, 5, 40));
            assert_eq!((header.producer_id, header.max_timestamp), (7, 3));
            let left = records(some.bytes()).unwrap().map(|record| record.unwrap().offset_delta);
            assert_eq!(left.collect::<Vec<_>>(), [1, 3]);
            let none = whole.retain(|_| false).unwrap();
            assert_eq!((none.record_count(), none.header().offset_span()), (0, 5));
            assert_eq!(none.header().max_timestamp, NO_TIMESTAMP);
            assert_eq!(none.bytes().len(), HEADER_BYTES);
            assert_eq!(records(none.bytes()).unwrap().count(), 0);
        }
    }
}
