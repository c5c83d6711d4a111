//! The first header of a record that the broker composed: which protocol the message came from, and how many of the
//! headers behind it are properties.
//!
//! The value is `<name>/<two decimal digits>`, for example `mqtt/04`. A record whose first header is not of this form
//! came in a producer's batch: all its headers are the user's. So are those of every record in a batch with the
//! attribute [`MARK`]: a batch of a producer whose records begin with a header of this name must have it, or they would
//! be taken for the broker's.

#[cfg(doc)]
use inver_storage::batch::MARK;

/// The name of the header.
pub const HEADER: &[u8] = b"inver-origin";

/// The name as it is stored, with its length.
pub(super) const ENCODED_HEADER: [u8; HEADER.len() + 1] = encoded_name(HEADER);

/// The origin of a message from a producer's batch that the broker had to give properties to.
pub const NEUTRAL_ORIGIN: &str = "inver";

/// The most properties of a message: their number has two digits.
pub(super) const PROPERTIES_MAX: u8 = 99;

/// The bytes behind the name: `/` and the number of properties.
pub(super) const COUNT_BYTES: usize = 3;

/// A decoded origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin<'a> {
    pub(super) name: &'a [u8],
    pub(super) properties: u8,
}

impl<'a> Origin<'a> {
    /// Decodes the value of the header; none if it is not an origin.
    #[inline]
    pub(super) fn decode(value: &'a [u8]) -> Option<Origin<'a>> {
        match value {
            [name @ .., b'/', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] if !name.is_empty() => {
                Some(Origin { name, properties: (tens - b'0') * 10 + (ones - b'0') })
            }
            _ => None,
        }
    }
}

/// A name of fewer than 64 bytes as it is stored: with its length, one byte, before it.
pub(super) const fn encoded_name<const N: usize>(name: &[u8]) -> [u8; N] {
    let mut encoded = [0; N];
    encoded[0] = (name.len() * 2) as u8;
    let (_, rest) = encoded.split_at_mut(1);
    rest.copy_from_slice(name);
    encoded
}

/// The last bytes of the value, for this number of properties.
pub(super) fn count(properties: u8) -> [u8; COUNT_BYTES] {
    let properties = properties.min(PROPERTIES_MAX);
    [b'/', b'0' + properties / 10, b'0' + properties % 10]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_decodes_to_what_was_encoded() {
        for properties in 0..=PROPERTIES_MAX {
            let value = [&b"a/b"[..], &count(properties)].concat();
            assert_eq!(Origin::decode(&value), Some(Origin { name: b"a/b", properties }));
        }
    }

    #[test]
    fn other_values_are_no_origin() {
        for value in [&b"x/01"[..], b"/01", b"x01", b"x/1", b"x/0a", b""] {
            let is_form = value == b"x/01";
            assert_eq!(Origin::decode(value).is_some(), is_form, "{value:?}");
        }
    }
}
