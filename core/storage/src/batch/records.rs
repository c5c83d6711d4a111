//! Decoding of the records of a batch, one by one, as slices of its bytes.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::compression::{self, Compression, DECOMPRESSED_BYTES_MAX};
use super::error::BatchError;
use super::header::{
    BatchHeader, COMPRESSION_MASK, CRC_START, HEADER_BYTES, LENGTH_PREFIX_BYTES, LOG_APPEND_TIME, MARK,
};
use super::varint::{NULL_LENGTH, get_varint, get_varlong};

/// One record. Its fields share the batch's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Offset minus the batch's base offset.
    pub offset_delta: u32,
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// The key; `None` is null, as opposed to empty.
    pub key: Option<Bytes>,
    /// The value; `None` is null (a tombstone).
    pub value: Option<Bytes>,
    /// Number of headers.
    pub header_count: u32,
    /// The encoded headers, without their count. Known to be well-formed.
    pub headers: Bytes,
    /// Its batch has the attribute [`MARK`].
    pub is_marked: bool,
}

impl Record {
    /// The headers in order, duplicates kept.
    #[must_use]
    pub fn headers(&self) -> Headers {
        Headers { bytes: self.headers.clone(), at: 0, left: self.header_count }
    }
}

/// Iterator over a record's headers: name and value, the value possibly null.
#[derive(Clone, Debug)]
pub struct Headers {
    bytes: Bytes,
    at: usize,
    left: u32,
}

impl Headers {
    /// The encoded headers not yet returned.
    #[must_use]
    pub fn rest(&self) -> Bytes {
        self.bytes.slice(self.at.min(self.bytes.len())..)
    }

    /// Number of headers not yet returned.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.left
    }
}

impl Iterator for Headers {
    type Item = (Bytes, Option<Bytes>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name = take(&self.bytes, &mut self.at)??;
        let value = take(&self.bytes, &mut self.at)?;
        Some((name, value))
    }
}

/// Lazy iterator over a batch's records. After an error it ends.
#[derive(Clone, Debug)]
pub struct Records {
    bytes: Bytes,
    at: usize,
    index: u32,
    count: u32,
    base_timestamp: i64,
    append_time: Option<i64>,
    is_marked: bool,
    span: u64,
    ended: bool,
    /// Start of the last returned record.
    last_at: usize,
}

/// The records of a batch. Does not verify the batch's checksum again; decompresses all records at once, up to
/// [`DECOMPRESSED_BYTES_MAX`].
pub fn records(batch: &Bytes) -> Result<Records, BatchError> {
    records_within(batch, DECOMPRESSED_BYTES_MAX)
}

/// As [`records`], of a batch that decompresses to at most so many bytes. One that is not compressed may have any number.
pub fn records_within(batch: &Bytes, bytes_max: usize) -> Result<Records, BatchError> {
    let header = BatchHeader::parse(batch)?;
    if header.total_bytes() != batch.len() {
        return Err(BatchError::Length { claimed: i64::from(header.batch_length) });
    }
    let codec = Compression::from_attributes(header.attributes)?;
    let stored = batch.slice(HEADER_BYTES..);
    let bytes = match codec {
        Compression::None => stored,
        codec => compression::decompress(codec, &stored, bytes_max)?,
    };
    Ok(Records {
        bytes,
        at: 0,
        index: 0,
        count: header.record_count,
        base_timestamp: header.base_timestamp,
        append_time: (header.attributes & LOG_APPEND_TIME != 0).then_some(header.max_timestamp),
        is_marked: header.attributes & MARK != 0,
        span: header.offset_span(),
        ended: false,
        last_at: 0,
    })
}

/// The batch with its records decompressed, up to [`DECOMPRESSED_BYTES_MAX`].
pub fn decompressed(batch: &Bytes) -> Result<Bytes, BatchError> {
    let header = BatchHeader::parse(batch)?;
    if header.attributes & COMPRESSION_MASK == 0 {
        return Ok(batch.clone());
    }
    let records = records(batch)?.bytes;
    let attributes = header.attributes & !COMPRESSION_MASK;
    let too_large = |_| BatchError::TooLarge { bytes_max: DECOMPRESSED_BYTES_MAX };
    let batch_length =
        u32::try_from(HEADER_BYTES - LENGTH_PREFIX_BYTES + records.len()).map_err(too_large)?;
    let mut plain = BatchHeader { attributes, batch_length, crc: 0, ..header };
    let covered = crc32c::crc32c(&plain.encode()[CRC_START..]);
    plain.crc = crc32c::crc32c_append(covered, &records);
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + records.len());
    bytes.extend_from_slice(&plain.encode());
    bytes.extend_from_slice(&records);
    Ok(bytes.freeze())
}

impl Records {
    /// Number of records not yet returned, according to the header.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.count.saturating_sub(self.index)
    }

    /// The encoded records not yet returned, decompressed.
    #[must_use]
    pub fn rest(&self) -> Bytes {
        self.bytes.slice(self.at.min(self.bytes.len())..)
    }

    /// The encoded bytes of the last returned record, its length included.
    pub(crate) fn last_encoded(&self) -> Bytes {
        self.bytes.slice(self.last_at.min(self.at)..self.at)
    }

    fn decode(&mut self) -> Result<Record, &'static str> {
        self.last_at = self.at;
        let mut at = self.at;
        let length = get_varint(&self.bytes, &mut at).ok_or("length")?;
        let length = usize::try_from(length).map_err(|_| "negative length")?;
        let end = at.checked_add(length).ok_or("length")?;
        let body = self.bytes.get(..end).ok_or("length")?;
        at = at.checked_add(1).filter(|at| *at <= end).ok_or("attributes")?;
        let timestamp_delta = get_varlong(body, &mut at).ok_or("timestamp")?;
        let offset_delta = get_varint(body, &mut at).ok_or("offset delta")?;
        let offset_delta = u32::try_from(offset_delta).map_err(|_| "negative offset delta")?;
        if u64::from(offset_delta) >= self.span {
            return Err("offset delta beyond the batch");
        }
        let key = skip_within(body, &mut at).ok_or("key")?;
        let value = skip_within(body, &mut at).ok_or("value")?;
        let header_count = get_varint(body, &mut at).ok_or("header count")?;
        let header_count = u32::try_from(header_count).map_err(|_| "negative header count")?;
        let headers_at = at;
        // Every header has at least two bytes, so the loop is bounded by the input.
        for _ in 0..header_count {
            skip_within(body, &mut at).ok_or("header name")?.ok_or("null header name")?;
            skip_within(body, &mut at).ok_or("header value")?;
        }
        if at != end {
            return Err("length and content differ");
        }
        self.at = end;
        Ok(Record {
            offset_delta,
            timestamp_ms: self
                .append_time
                .unwrap_or_else(|| self.base_timestamp.saturating_add(timestamp_delta)),
            key: key.map(|range| self.bytes.slice(range)),
            value: value.map(|range| self.bytes.slice(range)),
            header_count,
            headers: self.bytes.slice(headers_at..end),
            is_marked: self.is_marked,
        })
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if self.index == self.count {
            self.ended = true;
            let left_over = self.at != self.bytes.len();
            return left_over
                .then_some(Err(BatchError::Record { index: self.index, detail: "bytes after the last" }));
        }
        let index = self.index;
        self.index += 1;
        match self.decode() {
            Ok(record) => Some(Ok(record)),
            Err(detail) => {
                self.ended = true;
                Some(Err(BatchError::Record { index, detail }))
            }
        }
    }
}

/// A length-prefixed field; the inner `None` is null.
fn take(bytes: &Bytes, at: &mut usize) -> Option<Option<Bytes>> {
    let range = skip_within(bytes, at)?;
    Some(range.map(|range| bytes.slice(range)))
}

/// Skips a length-prefixed field. Its range; the inner `None` is null.
#[inline]
fn skip_within(body: &[u8], at: &mut usize) -> Option<Option<Range<usize>>> {
    // Most fields have fewer than 64 bytes: a length of one byte, and even, as it is not negative.
    match *body.get(*at)? {
        length if length & 0x81 == 0 => {
            let start = *at + 1;
            let end = start + usize::from(length >> 1);
            if end > body.len() {
                return None;
            }
            *at = end;
            Some(Some(start..end))
        }
        NULL_LENGTH => {
            *at += 1;
            Some(None)
        }
        _ => skip_any(body, at),
    }
}

fn skip_any(body: &[u8], at: &mut usize) -> Option<Option<Range<usize>>> {
    let length = get_varint(body, at)?;
    if length < 0 {
        return (length == -1).then_some(None);
    }
    let end = at.checked_add(length as usize).filter(|end| *end <= body.len())?;
    let range = *at..end;
    *at = end;
    Some(Some(range))
}
