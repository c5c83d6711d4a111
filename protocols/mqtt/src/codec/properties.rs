//! Property lists of MQTT 5 (section 2.2.2): validated once when the packet is decoded, kept in their encoded form, and
//! parsed again by each iteration.
//!
//! Invariant: a [`Properties`] holds only complete, valid properties that its packet allows, each at most once unless
//! section 2.2.2.2 allows it to repeat; so iteration cannot fail.

use super::error::{DecodeError, EncodeError};
use super::property::{Kind, Place, Property};
use super::property_codec::{check_value, decode, encode};
use super::reader::Reader;
use super::writer::{put_varint, varint_length};

type Result<T> = std::result::Result<T, DecodeError>;

/// The properties of a packet, borrowed from its bytes. Empty before MQTT 5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    raw: &'a [u8],
}

impl<'a> Properties<'a> {
    /// An empty list.
    pub const EMPTY: Properties<'static> = Properties { raw: &[] };

    /// Reads the property length and the properties, and validates them.
    pub(crate) fn read(reader: &mut Reader<'a>, place: Place) -> Result<Properties<'a>> {
        let length = reader.varint()?;
        if length == 0 {
            return Ok(Properties::EMPTY);
        }
        let raw = reader.take(length as usize)?;
        check(raw, place)?;
        Ok(Properties { raw })
    }

    /// Whether there are no properties.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The properties in the order of the packet.
    pub fn iter(&self) -> Iter<'a> {
        Iter { reader: Reader::new(self.raw) }
    }

    /// Encoded size in bytes, with the property length.
    pub(crate) fn wire_length(&self) -> usize {
        varint_length(self.raw.len()) + self.raw.len()
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.raw.len());
        out.extend_from_slice(self.raw);
    }
}

impl<'a> IntoIterator for Properties<'a> {
    type Item = Property<'a>;
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// An iterator over [`Properties`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Property<'a>;
    fn next(&mut self) -> Option<Property<'a>> {
        if self.reader.is_empty() {
            return None;
        }
        // Validated when it was decoded or built.
        decode(&mut self.reader).ok().map(|(_, property)| property)
    }
}

fn check(raw: &[u8], place: Place) -> Result<()> {
    let mut reader = Reader::new(raw);
    let mut seen = 0u64;
    while !reader.is_empty() {
        let (kind, property) = decode(&mut reader)?;
        if kind.places() & place as u16 == 0 {
            return Err(DecodeError::protocol("a property that the packet does not allow (section 2.2.2.2)"));
        }
        let bit = 1u64 << kind as u8;
        if seen & bit != 0 && !kind.repeats(place) {
            return Err(DecodeError::protocol("a property that occurs twice (section 2.2.2.2)"));
        }
        seen |= bit;
        check_value(&property)?;
    }
    // Authentication Data requires Authentication Method (section 3.1.2.11.10).
    let data = 1u64 << Kind::AuthenticationData as u8;
    let method = 1u64 << Kind::AuthenticationMethod as u8;
    if seen & data != 0 && seen & method == 0 {
        return Err(DecodeError::protocol(
            "Authentication Data without Authentication Method (section 3.1.2.11.10)",
        ));
    }
    Ok(())
}

/// A list of properties under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertiesBuf {
    raw: Vec<u8>,
}

impl PropertiesBuf {
    /// An empty list; does not allocate.
    pub const fn new() -> PropertiesBuf {
        PropertiesBuf { raw: Vec::new() }
    }

    /// Appends a property. Fails, and adds nothing, if one of its fields exceeds 65,535 bytes. The caller ensures that the
    /// packet allows the property.
    pub fn push(&mut self, property: Property<'_>) -> std::result::Result<(), EncodeError> {
        encode(property, &mut self.raw)
    }

    /// The properties appended so far.
    pub fn as_ref(&self) -> Properties<'_> {
        Properties { raw: &self.raw }
    }

    /// Removes all properties, keeps the capacity.
    pub fn clear(&mut self) {
        self.raw.clear();
    }
}
