//! Zig-zag variable-length integers, as used in records.

use bytes::{BufMut, BytesMut};

/// The length of a null field: −1, encoded.
pub(super) const NULL_LENGTH: u8 = 1;

/// Appends a zig-zag varint of 32 bits.
pub fn put_varint(out: &mut BytesMut, value: i32) {
    put_varlong(out, i64::from(value));
}

/// Appends a zig-zag varint of 64 bits.
pub fn put_varlong(out: &mut BytesMut, value: i64) {
    let mut numbers = Numbers::new();
    numbers.varlong(value);
    numbers.flush(out);
}

/// Size in bytes of an encoded value.
#[inline]
pub(crate) fn varlong_bytes(value: i64) -> usize {
    match zigzag(value) {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        long => (64 - long.leading_zeros() as usize).div_ceil(7),
    }
}

/// Bytes of a [`Numbers`]: five numbers of ten bytes each fit, and more.
const NUMBERS_BYTES: usize = 64;

/// Numbers that follow each other, encoded on the stack, to be appended at once.
pub(super) struct Numbers {
    bytes: [u8; NUMBERS_BYTES],
    len: usize,
}

impl Numbers {
    pub(super) fn new() -> Numbers {
        Numbers { bytes: [0; NUMBERS_BYTES], len: 0 }
    }

    /// Adds a byte.
    #[inline]
    pub(super) fn byte(&mut self, byte: u8) {
        // There is room for all numbers of a record.
        self.bytes[self.len % NUMBERS_BYTES] = byte;
        self.len += 1;
    }

    /// Adds a zig-zag varint.
    #[inline]
    pub(super) fn varlong(&mut self, value: i64) {
        let mut rest = zigzag(value);
        while rest >= 0x80 {
            self.byte((rest as u8) | 0x80);
            rest >>= 7;
        }
        self.byte(rest as u8);
    }

    /// Appends them, and begins with the next ones.
    #[inline]
    pub(super) fn flush(&mut self, out: &mut BytesMut) {
        out.put_slice(self.bytes.get(..self.len).unwrap_or_default());
        self.len = 0;
    }
}

/// Reads a varint of 32 bits at `*at` and advances; `None` if it is truncated or too long.
#[inline]
pub fn get_varint(bytes: &[u8], at: &mut usize) -> Option<i32> {
    get_varlong(bytes, at).and_then(|value| i32::try_from(value).ok())
}

/// Reads a varint of 64 bits at `*at` and advances; `None` if it is truncated or too long.
#[inline]
pub fn get_varlong(bytes: &[u8], at: &mut usize) -> Option<i64> {
    // Fast paths: most lengths and deltas within a batch have one or two bytes.
    match *bytes.get(*at..)? {
        [only, ..] if only < 0x80 => {
            *at += 1;
            Some(unzigzag(u64::from(only)))
        }
        [first, second, ..] if second < 0x80 => {
            *at += 2;
            Some(unzigzag(u64::from(first & 0x7f) | u64::from(second) << 7))
        }
        _ => get_long(bytes, at),
    }
}

/// Reads a varint of any length.
#[cold]
fn get_long(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(unzigzag(value));
        }
    }
    None
}

#[inline]
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline]
fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
