//! Property lists of MQTT 5 (section 2.2.2): validated once when the packet is decoded, kept in their encoded form, and
//! parsed again by each iteration.
//!
//! Invariant: a [`Properties`] holds only complete, valid properties that its packet allows, each at most once unless
//! section 2.2.2.2 allows it to repeat; so iteration cannot fail.

use super::{
    error::{DecodeError, EncodeError},
    property::{Kind, Property},
    reader::Reader,
    text,
    writer::{field_length, put_field, put_u16, put_u32, put_varint, varint_length},
};

type Result<T> = std::result::Result<T, DecodeError>;

/// The packet, or part of a packet, that properties belong to, as a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the packets' own names
pub enum Place {
    Connect = 1,
    Will = 1 << 1,
    ConnAck = 1 << 2,
    Publish = 1 << 3,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK allow the same two.
    Ack = 1 << 4,
    Subscribe = 1 << 5,
    Unsubscribe = 1 << 6,
    Disconnect = 1 << 7,
    Auth = 1 << 8,
}

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
        next(&mut self.reader).ok().map(|(_, property)| property)
    }
}

fn check(raw: &[u8], place: Place) -> Result<()> {
    let mut reader = Reader::new(raw);
    let mut seen = 0u64;
    while !reader.is_empty() {
        let (kind, property) = next(&mut reader)?;
        if kind.places() & place as u16 == 0 {
            return Err(DecodeError::protocol("a property that the packet does not allow (section 2.2.2.2)"));
        }
        let bit = 1u64 << kind as u8;
        if seen & bit != 0 && !kind.repeats(place) {
            return Err(DecodeError::protocol("a property that occurs twice (section 2.2.2.2)"));
        }
        seen |= bit;
        property.check()?;
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

fn next<'a>(reader: &mut Reader<'a>) -> Result<(Kind, Property<'a>)> {
    let kind = Kind::from_byte(reader.u8()?)
        .ok_or(DecodeError::malformed("a property identifier that does not exist (section 2.2.2.2)"))?;
    let property = match kind {
        Kind::PayloadFormatIndicator => Property::PayloadFormatIndicator(reader.u8()?),
        Kind::MessageExpiryInterval => Property::MessageExpiryInterval(reader.u32()?),
        Kind::ContentType => Property::ContentType(reader.string()?),
        Kind::ResponseTopic => Property::ResponseTopic(reader.string()?),
        Kind::CorrelationData => Property::CorrelationData(reader.binary()?),
        Kind::SubscriptionIdentifier => Property::SubscriptionIdentifier(reader.varint()?),
        Kind::SessionExpiryInterval => Property::SessionExpiryInterval(reader.u32()?),
        Kind::AssignedClientIdentifier => Property::AssignedClientIdentifier(reader.string()?),
        Kind::ServerKeepAlive => Property::ServerKeepAlive(reader.u16()?),
        Kind::AuthenticationMethod => Property::AuthenticationMethod(reader.string()?),
        Kind::AuthenticationData => Property::AuthenticationData(reader.binary()?),
        Kind::RequestProblemInformation => Property::RequestProblemInformation(reader.u8()?),
        Kind::WillDelayInterval => Property::WillDelayInterval(reader.u32()?),
        Kind::RequestResponseInformation => Property::RequestResponseInformation(reader.u8()?),
        Kind::ResponseInformation => Property::ResponseInformation(reader.string()?),
        Kind::ServerReference => Property::ServerReference(reader.string()?),
        Kind::ReasonString => Property::ReasonString(reader.string()?),
        Kind::ReceiveMaximum => Property::ReceiveMaximum(reader.u16()?),
        Kind::TopicAliasMaximum => Property::TopicAliasMaximum(reader.u16()?),
        Kind::TopicAlias => Property::TopicAlias(reader.u16()?),
        Kind::MaximumQos => Property::MaximumQos(reader.u8()?),
        Kind::RetainAvailable => Property::RetainAvailable(reader.u8()?),
        Kind::UserProperty => Property::UserProperty(reader.string()?, reader.string()?),
        Kind::MaximumPacketSize => Property::MaximumPacketSize(reader.u32()?),
        Kind::WildcardSubscriptionAvailable => Property::WildcardSubscriptionAvailable(reader.u8()?),
        Kind::SubscriptionIdentifierAvailable => Property::SubscriptionIdentifierAvailable(reader.u8()?),
        Kind::SharedSubscriptionAvailable => Property::SharedSubscriptionAvailable(reader.u8()?),
    };
    Ok((kind, property))
}

impl Property<'_> {
    /// Rejects values that the specification forbids.
    fn check(&self) -> Result<()> {
        use super::reason::Reason;
        match *self {
            Property::PayloadFormatIndicator(value)
            | Property::RequestProblemInformation(value)
            | Property::RequestResponseInformation(value)
            | Property::MaximumQos(value)
            | Property::RetainAvailable(value)
            | Property::WildcardSubscriptionAvailable(value)
            | Property::SubscriptionIdentifierAvailable(value)
            | Property::SharedSubscriptionAvailable(value)
                if value > 1 =>
            {
                Err(DecodeError::protocol("a property whose value must be 0 or 1 has another value"))
            }
            Property::SubscriptionIdentifier(0) => {
                Err(DecodeError::protocol("Subscription Identifier 0 (section 3.8.2.1.2)"))
            }
            Property::ReceiveMaximum(0) => {
                Err(DecodeError::protocol("Receive Maximum 0 (section 3.1.2.11.3)"))
            }
            Property::MaximumPacketSize(0) => {
                Err(DecodeError::protocol("Maximum Packet Size 0 (section 3.1.2.11.4)"))
            }
            Property::TopicAlias(0) => {
                Err(DecodeError::because(Reason::TopicAliasInvalid, "Topic Alias 0 [MQTT-3.3.2-8]"))
            }
            // [MQTT-3.3.2-14]
            Property::ResponseTopic(topic) => text::check_topic(topic),
            _ => Ok(()),
        }
    }

    /// Appends the identifier and the value. On an error nothing is written.
    pub(crate) fn put(&self, out: &mut Vec<u8>) -> std::result::Result<(), EncodeError> {
        match *self {
            Property::UserProperty(name, value) => {
                field_length(name.as_bytes())?;
                field_length(value.as_bytes())?;
            }
            Property::ContentType(text)
            | Property::ResponseTopic(text)
            | Property::AssignedClientIdentifier(text)
            | Property::AuthenticationMethod(text)
            | Property::ResponseInformation(text)
            | Property::ServerReference(text)
            | Property::ReasonString(text) => {
                field_length(text.as_bytes())?;
            }
            Property::CorrelationData(bytes) | Property::AuthenticationData(bytes) => {
                field_length(bytes)?;
            }
            _ => {}
        }
        out.push(self.kind() as u8);
        match *self {
            Property::PayloadFormatIndicator(value)
            | Property::RequestProblemInformation(value)
            | Property::RequestResponseInformation(value)
            | Property::MaximumQos(value)
            | Property::RetainAvailable(value)
            | Property::WildcardSubscriptionAvailable(value)
            | Property::SubscriptionIdentifierAvailable(value)
            | Property::SharedSubscriptionAvailable(value) => out.push(value),
            Property::ServerKeepAlive(value)
            | Property::ReceiveMaximum(value)
            | Property::TopicAliasMaximum(value)
            | Property::TopicAlias(value) => put_u16(out, value),
            Property::MessageExpiryInterval(value)
            | Property::SessionExpiryInterval(value)
            | Property::WillDelayInterval(value)
            | Property::MaximumPacketSize(value) => put_u32(out, value),
            Property::SubscriptionIdentifier(value) => put_varint(out, value as usize),
            Property::ContentType(text)
            | Property::ResponseTopic(text)
            | Property::AssignedClientIdentifier(text)
            | Property::AuthenticationMethod(text)
            | Property::ResponseInformation(text)
            | Property::ServerReference(text)
            | Property::ReasonString(text) => put_field(out, text.as_bytes()),
            Property::CorrelationData(bytes) | Property::AuthenticationData(bytes) => put_field(out, bytes),
            Property::UserProperty(name, value) => {
                put_field(out, name.as_bytes());
                put_field(out, value.as_bytes());
            }
        }
        Ok(())
    }
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
        property.put(&mut self.raw)
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
