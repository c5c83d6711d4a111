//! Reader of a packet's body: the data representations of section 1.5, borrowed from the input.
//!
//! Invariant: it never reads past the body and never allocates.

use super::error::DecodeError;

type Result<T> = std::result::Result<T, DecodeError>;

const TRUNCATED: DecodeError = DecodeError::malformed("a field exceeds its packet");

/// The unread rest of a packet's body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Reader<'a> {
        Reader { rest: body }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        let (&byte, rest) = self.rest.split_first().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        let (bytes, rest) = self.rest.split_first_chunk::<2>().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        let (bytes, rest) = self.rest.split_first_chunk::<4>().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A variable byte integer: one to four bytes [MQTT-1.5.5-1].
    ///
    /// The shortest encoding is required of senders only; longer ones are accepted.
    pub(crate) fn varint(&mut self) -> Result<u32> {
        match varint(self.rest)? {
            Some((value, length)) => {
                self.take(length)?;
                Ok(value)
            }
            None => Err(TRUNCATED),
        }
    }

    /// Binary data: a two-byte length and that many bytes (section 1.5.6).
    pub(crate) fn binary(&mut self) -> Result<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// A UTF-8 string: well-formed, so without surrogates [MQTT-1.5.4-1], and without U+0000 [MQTT-1.5.4-2]. U+FEFF is
    /// kept wherever it occurs [MQTT-1.5.4-3].
    pub(crate) fn string(&mut self) -> Result<&'a str> {
        let bytes = self.binary()?;
        let text = std::str::from_utf8(bytes)
            .map_err(|_| DecodeError::malformed("a string is not well-formed UTF-8 [MQTT-1.5.4-1]"))?;
        if bytes.contains(&0) {
            return Err(DecodeError::malformed("a string contains U+0000 [MQTT-1.5.4-2]"));
        }
        Ok(text)
    }

    /// A packet identifier; zero is an error [MQTT-2.2.1-3].
    pub(crate) fn packet_id(&mut self) -> Result<u16> {
        match self.u16()? {
            0 => Err(DecodeError::protocol("packet identifier 0 [MQTT-2.2.1-3]")),
            id => Ok(id),
        }
    }

    /// Fails if bytes are left.
    pub(crate) fn end(&self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::malformed("bytes after the packet's last field"))
        }
    }
}

/// A variable byte integer at the start of `bytes` and its length, or `None` if it is incomplete.
pub(crate) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>> {
    let mut value = 0u32;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 {
        return Err(DecodeError::malformed("a variable byte integer of more than four bytes [MQTT-1.5.5-1]"));
    }
    Ok(None)
}
