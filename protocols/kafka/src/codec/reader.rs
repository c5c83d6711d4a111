//! A bounds-checked reader over one request.
//!
//! Owns the decoding of primitives; messages are declared in [`crate::api`].
//!
//! Invariants: every length and count is checked against the remaining bytes before memory is reserved for it, so a
//! decoder reserves at most a small multiple of what arrived; no input panics. Byte strings are slices of the request
//! (a reference count, no copy).

use bytes::Bytes;
use thiserror::Error;

use super::text::Str;

/// Longest string accepted, in bytes: the limit of the non-compact encoding's 16-bit length. The compact encoding
/// allows more, but such a string could not be sent to an older client.
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// The reason why bytes cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The request ends before the message does.
    #[error("the message is truncated")]
    Truncated,
    /// An array claims more elements than the remaining bytes could hold.
    #[error("an array count exceeds the remaining bytes")]
    CountTooLarge,
    /// A negative length where none is allowed.
    #[error("negative length")]
    NegativeLength,
    /// A string is longer than [`STRING_BYTES_MAX`].
    #[error("string longer than {STRING_BYTES_MAX} bytes")]
    StringTooLong,
    /// A string is not UTF-8.
    #[error("string is not UTF-8")]
    NotUtf8,
    /// A variable-length integer of more than five bytes.
    #[error("variable-length integer longer than five bytes")]
    VarintTooLong,
    /// Null where the message does not allow it.
    #[error("unexpected null")]
    UnexpectedNull,
}

type Result<T> = std::result::Result<T, DecodeError>;

/// Reads primitives from the front of a request.
#[derive(Debug, Clone)]
pub struct Reader {
    rest: Bytes,
}

macro_rules! integers {
    ($($name:ident: $type:ty),*) => {
        $(
            #[doc = concat!("The next big-endian `", stringify!($type), "`.")]
            #[inline]
            pub fn $name(&mut self) -> Result<$type> {
                match self.rest.first_chunk() {
                    Some(chunk) => {
                        let value = <$type>::from_be_bytes(*chunk);
                        self.skip_checked(size_of::<$type>());
                        Ok(value)
                    }
                    None => Err(DecodeError::Truncated),
                }
            }
        )*
    };
}

impl Reader {
    /// A reader over a whole request.
    pub fn new(request: Bytes) -> Reader {
        Reader { rest: request }
    }

    /// Bytes not read yet.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    integers! { i8: i8, u8: u8, i16: i16, u16: u16, i32: i32, i64: i64, f64: f64 }

    /// Skips bytes; the caller has checked the count against the remaining ones.
    #[inline]
    fn skip_checked(&mut self, count: usize) {
        bytes::Buf::advance(&mut self.rest, count);
    }

    /// The next `length` bytes, as a slice of the request.
    #[inline]
    pub fn take(&mut self, length: usize) -> Result<Bytes> {
        if length > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.rest.split_to(length))
    }

    /// The next bytes as a fixed array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let chunk = *self.rest.first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.skip_checked(N);
        Ok(chunk)
    }

    /// An unsigned variable-length integer of at most five bytes (KIP-482).
    #[inline]
    pub fn varint(&mut self) -> Result<u32> {
        let mut value = 0u32;
        for group in 0..5 {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7f).wrapping_shl(7 * group);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::VarintTooLong)
    }

    /// The length of a string, byte string or array; `None` is null.
    #[inline]
    pub fn length(&mut self, flexible: bool, short: bool) -> Result<Option<usize>> {
        if flexible {
            return Ok((self.varint()? as usize).checked_sub(1));
        }
        let length = if short { i32::from(self.i16()?) } else { self.i32()? };
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length).map(Some).map_err(|_| DecodeError::NegativeLength),
        }
    }

    /// A string; `None` is null.
    pub fn string(&mut self, flexible: bool) -> Result<Option<Str>> {
        let Some(length) = self.length(flexible, true)? else { return Ok(None) };
        if length > STRING_BYTES_MAX {
            return Err(DecodeError::StringTooLong);
        }
        let bytes = self.take(length)?;
        Str::from_utf8(bytes).map(Some).ok_or(DecodeError::NotUtf8)
    }

    /// A byte string or a record set; `None` is null.
    pub fn bytes(&mut self, flexible: bool) -> Result<Option<Bytes>> {
        match self.length(flexible, false)? {
            Some(length) => self.take(length).map(Some),
            None => Ok(None),
        }
    }

    /// The number of elements of an array, checked against the remaining bytes: each element takes at least
    /// `element_bytes_min`. `None` is null.
    pub fn count(&mut self, flexible: bool, element_bytes_min: usize) -> Result<Option<usize>> {
        let Some(count) = self.length(flexible, false)? else { return Ok(None) };
        if count > self.rest.len() / element_bytes_min.max(1) {
            return Err(DecodeError::CountTooLarge);
        }
        Ok(Some(count))
    }

    /// Skips the tagged fields of a structure (KIP-482: unknown tags are ignored).
    pub fn skip_tagged_fields(&mut self) -> Result<()> {
        self.tagged_fields(|_, _| Ok(()))
    }

    /// Calls `field` with the tag and the bytes of each tagged field.
    pub fn tagged_fields(&mut self, mut field: impl FnMut(u32, Bytes) -> Result<()>) -> Result<()> {
        // A forged count fails at the first missing field; nothing is reserved for it.
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let length = self.varint()? as usize;
            field(tag, self.take(length)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &'static [u8]) -> Reader {
        Reader::new(Bytes::from_static(bytes))
    }

    #[test]
    fn varints_end_after_five_bytes() {
        assert_eq!(reader(&[0x96, 0x01]).varint(), Ok(150));
        assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff, 0x0f]).varint(), Ok(u32::MAX));
        assert_eq!(reader(&[0xff; 6]).varint(), Err(DecodeError::VarintTooLong));
        assert_eq!(reader(&[0x80]).varint(), Err(DecodeError::Truncated));
    }

    #[test]
    fn counts_must_fit_the_remaining_bytes() {
        assert_eq!(reader(&[0x7f, 0xff, 0xff, 0xff]).count(false, 1), Err(DecodeError::CountTooLarge));
        assert_eq!(reader(&[0, 0, 0, 2, 1, 2]).count(false, 1), Ok(Some(2)));
        assert_eq!(reader(&[0, 0, 0, 2, 1, 2]).count(false, 2), Err(DecodeError::CountTooLarge));
        assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff]).count(false, 1), Ok(None));
        assert_eq!(reader(&[0xff, 0xff, 0xff, 0xfe]).count(false, 1), Err(DecodeError::NegativeLength));
        assert_eq!(reader(&[0]).count(true, 1), Ok(None));
    }

    #[test]
    fn strings_in_both_encodings() {
        assert_eq!(reader(&[0, 2, b'h', b'i']).string(false), Ok(Some("hi".into())));
        assert_eq!(reader(&[3, b'h', b'i']).string(true), Ok(Some("hi".into())));
        assert_eq!(reader(&[0xff, 0xff]).string(false), Ok(None));
        assert_eq!(reader(&[0, 2, 0xff, 0xff]).string(false), Err(DecodeError::NotUtf8));
        assert_eq!(reader(&[0, 3, b'h', b'i']).string(false), Err(DecodeError::Truncated));
        assert_eq!(reader(&[0x81, 0x80, 0x04]).string(true), Err(DecodeError::StringTooLong));
    }
}
