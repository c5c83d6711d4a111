//! Encoding of the data representations of section 1.5, appended to an output buffer.
//!
//! The `*_length` functions check lengths before the first byte of a packet is written, so a refused packet leaves
//! nothing in the buffer.

use super::error::EncodeError;
use super::types::REMAINING_LENGTH_MAX;

/// Size of `value` as a variable byte integer. Callers ensure that it is at most [`REMAINING_LENGTH_MAX`].
pub(crate) fn varint_length(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Appends `value` in the fewest bytes [MQTT-1.5.5-1].
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

/// Size of a string or binary field with its length prefix.
pub(crate) fn field_length(bytes: &[u8]) -> Result<usize, EncodeError> {
    if bytes.len() > usize::from(u16::MAX) {
        Err(EncodeError::FieldTooLong(bytes.len()))
    } else {
        Ok(2 + bytes.len())
    }
}

/// Appends a string or binary field whose length [`field_length`] has checked.
pub(crate) fn put_field(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(bytes.len() <= usize::from(u16::MAX));
    put_u16(out, bytes.len() as u16);
    out.extend_from_slice(bytes);
}

/// Appends a fixed header for a body of `remaining` bytes and reserves space for the body.
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
    fn variable_byte_integers_round_trip_at_their_limits() {
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
