//! Writing the data representations of section 1.5 to the end of an output buffer.
//!
//! Lengths are checked by the `*_length` functions before a packet's first byte is written, so that a refused packet
//! leaves no half of itself in the buffer.

use super::{REMAINING_LENGTH_MAX, error::EncodeError};

/// Bytes that `value` takes as a variable byte integer. Values above [`REMAINING_LENGTH_MAX`] never get here.
pub(crate) fn varint_length(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Writes `value` in the fewest bytes [MQTT-1.5.5-1].
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

pub(crate) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Bytes that a string or binary field takes with its length.
pub(crate) fn field_length(bytes: &[u8]) -> Result<usize, EncodeError> {
    if bytes.len() > usize::from(u16::MAX) {
        Err(EncodeError::FieldTooLong(bytes.len()))
    } else {
        Ok(2 + bytes.len())
    }
}

/// Writes a string or binary field whose length was checked by [`field_length`].
pub(crate) fn put_field(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(bytes.len() <= usize::from(u16::MAX));
    put_u16(out, bytes.len() as u16);
    out.extend_from_slice(bytes);
}

/// Writes a fixed header for a body of `remaining` bytes and makes room for it.
pub(crate) fn put_header(out: &mut Vec<u8>, first_byte: u8, remaining: usize) -> Result<(), EncodeError> {
    if remaining > REMAINING_LENGTH_MAX {
        return Err(EncodeError::PacketTooLong(remaining));
    }
    out.reserve(5 + remaining);
    out.push(first_byte);
    put_varint(out, remaining);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::reader::varint;
    use super::*;

    #[test]
    fn variable_byte_integers_at_their_edges() {
        for value in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, 0x1f_ffff, 0x20_0000, REMAINING_LENGTH_MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_length(value));
            assert_eq!(varint(&out), Ok(Some((value as u32, out.len()))));
            for cut in 0..out.len() {
                assert_eq!(varint(&out[..cut]), Ok(None));
            }
        }
        assert!(varint(&[0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
