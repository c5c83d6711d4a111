//! A builder of record batches. Uses one growing buffer; the header is written when the batch is finished.

use bytes::{BufMut, Bytes, BytesMut};

use super::checked::Batch;
use super::compression::{self, Compression};
use super::header::{BatchHeader, CONTROL, CRC_START, HEADER_BYTES, LENGTH_PREFIX_BYTES, TRANSACTIONAL};
use super::varint::{NULL_LENGTH, Numbers, varlong_bytes};

/// Producer fields of an idempotent or transactional batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    /// Producer id, ≥ 0.
    pub id: i64,
    /// Producer epoch, ≥ 0.
    pub epoch: i16,
    /// Sequence of the first record; −1 in control batches.
    pub base_sequence: i32,
    /// Part of a transaction.
    pub transactional: bool,
    /// A transaction marker.
    pub control: bool,
}

/// Builder of a batch, record by record. Empty and reusable after `finish`; the memory of a finished batch is not reused
/// while the batch is alive.
#[derive(Debug)]
pub struct BatchBuilder {
    out: BytesMut,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    capacity: usize,
}

impl BatchBuilder {
    /// Creates a builder that reserves `capacity` bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let mut builder =
            Self { out: BytesMut::new(), count: 0, base_timestamp: 0, max_timestamp: 0, capacity };
        builder.reset();
        builder
    }

    fn reset(&mut self) {
        self.out.clear();
        self.out.reserve(self.capacity.max(HEADER_BYTES));
        self.out.put_bytes(0, HEADER_BYTES);
        self.count = 0;
    }

    /// Adds a record; `None` is null. Headers are name and value, in order.
    pub fn push(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
        value: Option<&[u8]>,
    ) {
        let header_bytes: usize =
            headers.iter().map(|(name, value)| field_bytes(Some(name)) + field_bytes(*value)).sum();
        self.begin_record(timestamp_ms, key, value, headers.len(), header_bytes);
        let mut numbers = Numbers::new();
        for (name, value) in headers {
            field(&mut self.out, &mut numbers, Some(name));
            field(&mut self.out, &mut numbers, *value);
        }
        numbers.flush(&mut self.out);
    }

    /// Adds a record whose headers are already encoded (see [`super::Record::headers`]). The caller guarantees that they
    /// are well-formed.
    pub fn push_with(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        header_count: usize,
        header_bytes: &[u8],
        value: Option<&[u8]>,
    ) {
        self.begin_record(timestamp_ms, key, value, header_count, header_bytes.len());
        self.out.put_slice(header_bytes);
    }

    /// Writes a record up to its headers.
    fn begin_record(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        header_count: usize,
        header_bytes: usize,
    ) {
        if self.count == 0 {
            self.base_timestamp = timestamp_ms;
            self.max_timestamp = timestamp_ms;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp_ms);
        let timestamp_delta = timestamp_ms.wrapping_sub(self.base_timestamp);
        let offset_delta = i64::from(self.count);
        let length = 1
            + varlong_bytes(timestamp_delta)
            + varlong_bytes(offset_delta)
            + field_bytes(key)
            + field_bytes(value)
            + varlong_bytes(header_count as i64)
            + header_bytes;
        self.out.reserve(length + 5);
        let mut numbers = Numbers::new();
        numbers.varlong(length as i64);
        numbers.byte(0);
        numbers.varlong(timestamp_delta);
        numbers.varlong(offset_delta);
        field(&mut self.out, &mut numbers, key);
        field(&mut self.out, &mut numbers, value);
        numbers.varlong(header_count as i64);
        numbers.flush(&mut self.out);
        self.count += 1;
    }

    /// Number of records so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are no records so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size in bytes of the uncompressed batch so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// Finishes the batch, uncompressed. The builder is empty afterwards.
    pub fn finish(&mut self) -> Batch {
        self.finish_as(Compression::None, None)
    }

    /// Finishes the batch with compressed records, unless compression does not make it smaller, and with a producer's
    /// fields, if given. The builder is empty afterwards.
    pub fn finish_as(&mut self, codec: Compression, producer: Option<ProducerStamp>) -> Batch {
        let mut codec = codec;
        let mut out = std::mem::take(&mut self.out);
        if codec != Compression::None {
            match compression::compress(codec, out.get(HEADER_BYTES..).unwrap_or_default()) {
                Some(smaller) if smaller.len() + HEADER_BYTES < out.len() => {
                    out.truncate(HEADER_BYTES);
                    out.extend_from_slice(&smaller);
                }
                _ => codec = Compression::None,
            }
        }
        let mut attributes = codec.attribute();
        if let Some(stamp) = producer {
            attributes |= if stamp.transactional { TRANSACTIONAL } else { 0 };
            attributes |= if stamp.control { CONTROL } else { 0 };
        }
        let mut header = BatchHeader {
            base_offset: 0,
            batch_length: (out.len() - LENGTH_PREFIX_BYTES) as u32,
            partition_leader_epoch: -1,
            crc: 0,
            attributes,
            last_offset_delta: self.count.saturating_sub(1),
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: producer.map_or(-1, |stamp| stamp.id),
            producer_epoch: producer.map_or(-1, |stamp| stamp.epoch),
            base_sequence: producer.map_or(-1, |stamp| stamp.base_sequence),
            record_count: self.count,
        };
        let bytes = seal(out, &mut header);
        self.reset();
        Batch::trusted(bytes, header)
    }
}

/// Writes the header, checksum included, over the first bytes.
pub(crate) fn seal(mut out: BytesMut, header: &mut BatchHeader) -> Bytes {
    write_header(&mut out, header);
    header.crc = crc32c::crc32c(out.get(CRC_START..).unwrap_or_default());
    write_header(&mut out, header);
    out.freeze()
}

fn write_header(out: &mut BytesMut, header: &BatchHeader) {
    if let Some(head) = out.first_chunk_mut::<HEADER_BYTES>() {
        *head = header.encode();
    }
}

/// Writes a field behind numbers; without one, another number follows these.
#[inline]
fn field(out: &mut BytesMut, numbers: &mut Numbers, field: Option<&[u8]>) {
    match field {
        None => numbers.byte(NULL_LENGTH),
        Some(bytes) => {
            numbers.varlong(bytes.len() as i64);
            numbers.flush(out);
            out.put_slice(bytes);
        }
    }
}

/// Size in bytes of a length-prefixed field.
fn field_bytes(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| varlong_bytes(bytes.len() as i64) + bytes.len())
}
