//! Decoding, validation and encoding of one property.

use super::error::{DecodeError, EncodeError};
use super::property::{Kind, Property};
use super::reader::Reader;
use super::reason::Reason;
use super::text::check_topic;
use super::writer::{field_length, put_field, put_u16, put_u32, put_varint};

type Result<T> = std::result::Result<T, DecodeError>;

/// Decodes one property, without checking its value.
pub(super) fn decode<'a>(reader: &mut Reader<'a>) -> Result<(Kind, Property<'a>)> {
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

/// Rejects values that the specification forbids.
pub(super) fn check_value(property: &Property<'_>) -> Result<()> {
    match *property {
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
        Property::ReceiveMaximum(0) => Err(DecodeError::protocol("Receive Maximum 0 (section 3.1.2.11.3)")),
        Property::MaximumPacketSize(0) => {
            Err(DecodeError::protocol("Maximum Packet Size 0 (section 3.1.2.11.4)"))
        }
        Property::TopicAlias(0) => {
            Err(DecodeError::because(Reason::TopicAliasInvalid, "Topic Alias 0 [MQTT-3.3.2-8]"))
        }
        // [MQTT-3.3.2-14]
        Property::ResponseTopic(topic) => check_topic(topic),
        _ => Ok(()),
    }
}

/// Appends the identifier and the value. On an error nothing is written.
pub(super) fn encode(property: Property<'_>, out: &mut Vec<u8>) -> std::result::Result<(), EncodeError> {
    match property {
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
    out.push(property.kind() as u8);
    match property {
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
