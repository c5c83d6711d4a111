//! A walk over the records of a producer's batch, that looks at the fields that are checked and keeps nothing.
//!
//! Records that are not compressed are walked where they are. Compressed ones pass through a window of some tens of
//! kilobytes, so that a batch of a few kilobytes which decompresses to many megabytes costs time but no memory, but for the
//! blocks of Snappy, which are decompressed whole, and the window of Zstandard.

use inver_broker::message::ORIGIN_HEADER;
use inver_storage::batch::{Batch, BatchError, Compression, HEADER_BYTES, Inflated, get_varint, get_varlong};

/// Records up to this size are decompressed in one piece; larger ones are walked field by field.
const WHOLE_RECORD_BYTES_MAX: usize = 64 * 1024;

/// The longest encoding of a number.
const NUMBER_BYTES_MAX: usize = 10;

/// The fields of a record that are checked.
#[cfg_attr(test, derive(Debug, PartialEq, Eq))]
pub(super) struct RecordFields {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) has_key: bool,
    pub(super) claims_origin: bool,
}

/// The records of a batch, one after the other.
pub(super) enum Walk<'a> {
    Plain(Records<'a>),
    Inflated(Inflated<'a>),
}

impl<'a> Walk<'a> {
    /// Over a batch whose records decompress to at most `bytes_max` bytes.
    pub(super) fn new(batch: &'a Batch, bytes_max: usize) -> Result<Walk<'a>, BatchError> {
        if Compression::from_attributes(batch.header().attributes)? == Compression::None {
            let bytes = batch.bytes().get(HEADER_BYTES..).unwrap_or_default();
            return Ok(Walk::Plain(Records { bytes, at: 0 }));
        }
        Ok(Walk::Inflated(Inflated::new(batch, bytes_max)?))
    }

    /// Bytes that were decompressed.
    pub(super) fn inflated_bytes(&self) -> usize {
        match self {
            Walk::Plain(_) => 0,
            Walk::Inflated(inflated) => inflated.inflated_bytes(),
        }
    }
}

/// Records that are walked one after the other.
pub(super) trait WalkedRecords {
    /// The next record; `None` if it is malformed or missing.
    fn next_fields(&mut self) -> Result<Option<RecordFields>, BatchError>;

    /// Whether nothing follows.
    fn is_at_end(&mut self) -> Result<bool, BatchError>;
}

impl WalkedRecords for Records<'_> {
    #[inline]
    fn next_fields(&mut self) -> Result<Option<RecordFields>, BatchError> {
        Ok(self.next())
    }

    fn is_at_end(&mut self) -> Result<bool, BatchError> {
        Ok(self.at == self.bytes.len())
    }
}

impl WalkedRecords for Inflated<'_> {
    fn next_fields(&mut self) -> Result<Option<RecordFields>, BatchError> {
        next_inflated(self)
    }

    fn is_at_end(&mut self) -> Result<bool, BatchError> {
        Ok(self.window(1)?.is_empty())
    }
}

fn next_inflated(inflated: &mut Inflated<'_>) -> Result<Option<RecordFields>, BatchError> {
    let (window, mut at) = (inflated.window(NUMBER_BYTES_MAX)?, 0);
    let length = get_varint(window, &mut at).and_then(|length| usize::try_from(length).ok());
    let Some(length) = length else { return Ok(None) };
    let whole = at.saturating_add(length);
    if whole <= window.len() {
        return Ok(next_in(inflated, whole));
    }
    if whole <= WHOLE_RECORD_BYTES_MAX {
        return Ok(if inflated.window(whole)?.len() >= whole { next_in(inflated, whole) } else { None });
    }
    inflated.advance(at);
    LongRecord { inflated, left: length }.fields()
}

/// The record in the next `bytes` of the window, which are there.
fn next_in(inflated: &mut Inflated<'_>, bytes: usize) -> Option<RecordFields> {
    // They are in the window: this decompresses nothing, and so cannot fail.
    let window = inflated.window(0).ok()?;
    let fields = Records { bytes: window, at: 0 }.next()?;
    inflated.advance(bytes);
    Some(fields)
}

/// A record that is longer than the window.
struct LongRecord<'r, 'a> {
    inflated: &'r mut Inflated<'a>,
    /// Bytes of the record that are left.
    left: usize,
}

impl LongRecord<'_, '_> {
    fn fields(mut self) -> Result<Option<RecordFields>, BatchError> {
        // The attributes take one byte and are unused.
        if !self.pass(1)? {
            return Ok(None);
        }
        let Some(timestamp_delta) = self.number(get_varlong)? else { return Ok(None) };
        let Some(offset_delta) = self.number(get_varint)? else { return Ok(None) };
        let Some(has_key) = self.field()? else { return Ok(None) };
        if self.field()?.is_none() {
            return Ok(None);
        }
        let headers = self.number(get_varint)?.and_then(|headers| u32::try_from(headers).ok());
        let Some(headers) = headers else { return Ok(None) };
        let claims_origin = headers > 0 && is_origin(self.window(NUMBER_BYTES_MAX + ORIGIN_HEADER.len())?, 0);
        for _ in 0..headers {
            let named = self.field()?;
            if named != Some(true) || self.field()?.is_none() {
                return Ok(None);
            }
        }
        let fields = RecordFields { timestamp_delta, offset_delta, has_key, claims_origin };
        Ok((self.left == 0).then_some(fields))
    }

    /// The next bytes of the record: as many as wanted, unless fewer are left.
    fn window(&mut self, wanted: usize) -> Result<&[u8], BatchError> {
        let wanted = wanted.min(self.left);
        let window = self.inflated.window(wanted)?;
        Ok(window.get(..wanted).unwrap_or(window))
    }

    /// Goes past bytes. False if the record has fewer.
    fn pass(&mut self, bytes: usize) -> Result<bool, BatchError> {
        let Some(left) = self.left.checked_sub(bytes) else { return Ok(false) };
        self.left = left;
        self.inflated.skip(bytes)
    }

    fn number<N>(&mut self, get: fn(&[u8], &mut usize) -> Option<N>) -> Result<Option<N>, BatchError> {
        let mut at = 0;
        let number = get(self.window(NUMBER_BYTES_MAX)?, &mut at);
        Ok(if self.pass(at)? { number } else { None })
    }

    /// Goes past a field with a length prefix. Whether it is present, as opposed to null; `None` if it is malformed.
    fn field(&mut self) -> Result<Option<bool>, BatchError> {
        let Some(length) = self.number(get_varint)? else { return Ok(None) };
        let Ok(length) = usize::try_from(length) else { return Ok((length == -1).then_some(false)) };
        Ok(self.pass(length)?.then_some(true))
    }
}

/// Records in memory.
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Records<'_> {
    /// The next record; `None` if it is malformed.
    #[inline]
    fn next(&mut self) -> Option<RecordFields> {
        match self.next_common() {
            Some(fields) => Some(fields),
            None => self.next_any(),
        }
    }

    /// The next record, if it has no headers and its numbers are short, as those of most. `None` says nothing about others.
    #[inline]
    fn next_common(&mut self) -> Option<RecordFields> {
        let mut at = self.at;
        let length = usize::try_from(get_varint(self.bytes, &mut at)?).ok()?;
        let end = at.checked_add(length)?;
        // The attributes take one byte and are unused.
        at += 1;
        let mut numbers = ShortNumbers::at(self.bytes, at)?;
        let timestamp_delta = numbers.next()?;
        let offset_delta = numbers.next()?;
        let key = numbers.next()?;
        let value = match usize::try_from(key) {
            Err(_) if key == -1 => {
                let value = numbers.next()?;
                at += numbers.taken;
                value
            }
            key => {
                at += numbers.taken + key.ok()?;
                get_varint(self.bytes, &mut at)?
            }
        };
        match usize::try_from(value) {
            Err(_) if value == -1 => {}
            value => at = at.checked_add(value.ok()?)?,
        }
        // The number of headers is the last byte.
        if self.bytes.get(at) != Some(&0) || at + 1 != end {
            return None;
        }
        self.at = end;
        let timestamp_delta = i64::from(timestamp_delta);
        Some(RecordFields { timestamp_delta, offset_delta, has_key: key >= 0, claims_origin: false })
    }

    #[inline(never)]
    fn next_any(&mut self) -> Option<RecordFields> {
        let mut at = self.at;
        let length = usize::try_from(get_varint(self.bytes, &mut at)?).ok()?;
        let end = at.checked_add(length)?;
        let record = self.bytes.get(..end)?;
        // The attributes take one byte and are unused.
        at += 1;
        let timestamp_delta = get_varlong(record, &mut at)?;
        let offset_delta = get_varint(record, &mut at)?;
        let has_key = skip(record, &mut at)?;
        skip(record, &mut at)?;
        // Every header takes at least two bytes, so the remaining bytes bound the loop.
        let headers = u32::try_from(get_varint(record, &mut at)?).ok()?;
        let claims_origin = headers > 0 && skip_headers(record, &mut at, headers)?;
        self.at = end;
        (at == end).then_some(RecordFields { timestamp_delta, offset_delta, has_key, claims_origin })
    }
}

/// Numbers of one or two bytes each that follow each other, read together: up to four of them.
struct ShortNumbers {
    bytes: u64,
    /// Bytes of those that were read.
    taken: usize,
}

impl ShortNumbers {
    /// Those from this place on; `None` near the end.
    #[inline]
    fn at(bytes: &[u8], at: usize) -> Option<ShortNumbers> {
        let bytes = u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
        Some(ShortNumbers { bytes, taken: 0 })
    }

    /// The next number; `None` if it has more bytes.
    #[inline]
    fn next(&mut self) -> Option<i32> {
        let bytes = self.bytes as u32;
        let number = if bytes & 0x80 == 0 {
            self.bytes >>= 8;
            self.taken += 1;
            bytes & 0x7f
        } else if bytes & 0x8000 == 0 {
            self.bytes >>= 16;
            self.taken += 2;
            bytes & 0x7f | (bytes & 0x7f00) >> 1
        } else {
            return None;
        };
        Some((number >> 1) as i32 ^ -((number & 1) as i32))
    }
}

/// Skips the headers of a record. Whether the first of them has the name of the one that tells the origin.
fn skip_headers(record: &[u8], at: &mut usize, headers: u32) -> Option<bool> {
    let claims_origin = is_origin(record, *at);
    for _ in 0..headers {
        let named = skip(record, at)?;
        skip(record, at).filter(|_| named)?;
    }
    Some(claims_origin)
}

/// Whether the header here has the name of the one that tells the origin. Its length may have more bytes than it needs.
#[inline]
fn is_origin(record: &[u8], mut at: usize) -> bool {
    get_varint(record, &mut at) == Some(ORIGIN_HEADER.len() as i32)
        && record.get(at..).is_some_and(|rest| rest.starts_with(ORIGIN_HEADER))
}

/// Skips a field with a length prefix. Whether it is present, as opposed to null.
#[inline]
fn skip(record: &[u8], at: &mut usize) -> Option<bool> {
    let length = get_varint(record, at)?;
    let Ok(length) = usize::try_from(length) else { return (length == -1).then_some(false) };
    *at = at.checked_add(length).filter(|end| *end <= record.len())?;
    Some(true)
}

#[cfg(test)]
mod tests {
    use inver_storage::batch::BatchBuilder;
    use proptest::prelude::*;

    use super::*;

    fn all<'a>(
        bytes: &'a [u8],
        next: impl Fn(&mut Records<'a>) -> Option<RecordFields>,
    ) -> Vec<(RecordFields, usize)> {
        let mut records = Records { bytes, at: 0 };
        std::iter::from_fn(|| Some((next(&mut records)?, records.at))).collect()
    }

    proptest! {
        #[test]
        fn common_records_are_read_as_all_others_are(
            sizes in prop::collection::vec((0i64..20_000, 0usize..200, prop::option::of(0usize..200), 0usize..2), 1..200),
            damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut builder = BatchBuilder::new(0);
            for (time, key, value, headers) in sizes {
                let (key, value) = (vec![b'k'; key], value.map(|value| vec![b'v'; value]));
                let headers = &[(&b"name"[..], None); 1][..headers];
                builder.push(time, (!key.is_empty()).then_some(&key), headers, value.as_deref());
            }
            let mut bytes = builder.finish().bytes().get(HEADER_BYTES..).unwrap_or_default().to_vec();
            if let Some((at, byte)) = damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            prop_assert_eq!(all(&bytes, Records::next), all(&bytes, Records::next_any));
        }
    }
}
