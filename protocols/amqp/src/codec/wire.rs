//! The elementary types of AMQP 0-9-1, section 4.2.5: integers, bits, strings.
//!
//! [`Reader`] never reads past its slice; [`Writer`] appends to a buffer that the caller owns and reuses.

use std::str::from_utf8;

use super::Malformed;

/// A cursor over borrowed bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// The octet of the current run of bits, and the number of bits taken from it.
    bits: Option<(u8, u8)>,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes, bits: None }
    }

    /// The bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes the next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        self.bits = None;
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.bits = None;
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// An octet.
    pub fn octet(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[octet]| octet)
    }

    /// A 16-bit integer.
    pub fn short(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// A 32-bit integer.
    pub fn long(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// A 64-bit integer.
    pub fn longlong(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// A bit. Consecutive bits share an octet, lowest bit first.
    pub fn bit(&mut self) -> Result<bool, Malformed> {
        let (octet, taken) = match self.bits {
            Some((octet, taken)) if taken < 8 => (octet, taken),
            _ => (self.octet()?, 0),
        };
        self.bits = Some((octet, taken + 1));
        Ok(octet >> taken & 1 == 1)
    }

    /// A string of up to 255 bytes, as bytes.
    pub fn short_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.octet()?;
        self.take(usize::from(length))
    }

    /// A string of up to 255 bytes that must be UTF-8.
    pub fn shortstr(&mut self) -> Result<&'a str, Malformed> {
        from_utf8(self.short_bytes()?).map_err(|_| Malformed::NotUtf8)
    }

    /// A string with a 32-bit length.
    pub fn longstr(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.long()?;
        self.take(usize::try_from(length).map_err(|_| Malformed::Truncated)?)
    }
}

/// Appends to a buffer. A value longer than its length field allows is truncated, so that framing always holds; callers
/// check lengths before.
#[derive(Debug)]
pub struct Writer<'a> {
    /// The buffer.
    pub out: &'a mut Vec<u8>,
    /// The number of bits used in the last octet, if the last value was a bit.
    bits: u8,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Writer { out, bits: 0 }
    }

    /// An octet.
    pub fn octet(&mut self, value: u8) {
        self.bits = 0;
        self.out.push(value);
    }

    /// A 16-bit integer.
    pub fn short(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    /// A 32-bit integer.
    pub fn long(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    /// A 64-bit integer.
    pub fn longlong(&mut self, value: u64) {
        self.raw(&value.to_be_bytes());
    }

    /// A bit, packed with the bits directly before it.
    pub fn bit(&mut self, value: bool) {
        if self.bits == 0 || self.bits == 8 {
            self.out.push(0);
            self.bits = 0;
        }
        if let Some(last) = self.out.last_mut() {
            *last |= u8::from(value) << self.bits;
        }
        self.bits += 1;
    }

    /// A string of up to 255 bytes.
    pub fn short_bytes(&mut self, value: &[u8]) {
        let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
        self.octet(length);
        self.raw(value.get(..usize::from(length)).unwrap_or(value));
    }

    /// A string of up to 255 bytes; a longer one is truncated at a character boundary.
    pub fn shortstr(&mut self, value: &str) {
        self.short_bytes(cut(value, usize::from(u8::MAX)).as_bytes());
    }

    /// A string with a 32-bit length.
    pub fn longstr(&mut self, value: &[u8]) {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.long(length);
        self.raw(value.get(..length as usize).unwrap_or(value));
    }

    /// Bytes without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bits = 0;
        self.out.extend_from_slice(bytes);
    }
}

/// The longest prefix of `text` that has at most `bytes_max` bytes and ends at a character boundary.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}
