//! PUBLISH (section 3.3).

use super::error::{DecodeError, EncodeError};
use super::properties::Properties;
use super::property::Place;
use super::reader::Reader;
use super::text::check_topic;
use super::types::{Qos, Type, Version};
use super::writer::{field_length, put_field, put_header, put_u16};

/// A PUBLISH, borrowed from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// DUP: the packet may have been sent before.
    pub dup: bool,
    /// Quality of service.
    pub qos: Qos,
    /// RETAIN: the server retains the message, or sends a retained one.
    pub retain: bool,
    /// Topic name; empty where a topic alias replaces it.
    pub topic: &'a str,
    /// Packet identifier; zero at QoS 0 only.
    pub packet_id: u16,
    /// MQTT 5's properties.
    pub properties: Properties<'a>,
    /// Payload.
    pub payload: &'a [u8],
}

const DUP: u8 = 1 << 3;
const RETAIN: u8 = 1;

impl<'a> Publish<'a> {
    pub(super) fn read(
        first: u8,
        reader: &mut Reader<'a>,
        version: Version,
    ) -> Result<Publish<'a>, DecodeError> {
        let dup = first & DUP != 0;
        let qos = Qos::from_bits(first >> 1 & 3)
            .ok_or(DecodeError::malformed("PUBLISH at QoS 3 [MQTT-3.3.1-4]"))?;
        if dup && qos == Qos::AtMostOnce {
            return Err(DecodeError::malformed("DUP in a PUBLISH at QoS 0 [MQTT-3.3.1-2]"));
        }
        let topic = reader.string()?;
        check_topic(topic)?;
        let packet_id = if qos == Qos::AtMostOnce { 0 } else { reader.packet_id()? };
        let properties = match version {
            Version::V5 => Properties::read(reader, Place::Publish)?,
            _ => Properties::EMPTY,
        };
        if topic.is_empty() && properties.is_empty() {
            // With properties, the session checks whether one of them is a topic alias.
            return Err(DecodeError::protocol("PUBLISH without a topic [MQTT-4.7.3-1]"));
        }
        Ok(Publish {
            dup,
            qos,
            retain: first & RETAIN != 0,
            topic,
            packet_id,
            properties,
            payload: reader.rest(),
        })
    }

    pub(crate) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut remaining = field_length(self.topic.as_bytes())? + self.payload.len();
        if self.qos != Qos::AtMostOnce {
            remaining += 2;
        }
        if version == Version::V5 {
            remaining += self.properties.wire_length();
        }
        put_header(out, first_byte(self.dup, self.qos, self.retain), remaining)?;
        put_field(out, self.topic.as_bytes());
        if self.qos != Qos::AtMostOnce {
            put_u16(out, self.packet_id);
        }
        if version == Version::V5 {
            self.properties.put(out);
        }
        out.extend_from_slice(self.payload);
        Ok(())
    }
}

fn first_byte(dup: bool, qos: Qos, retain: bool) -> u8 {
    (Type::Publish as u8) << 4 | (u8::from(dup) * DUP) | (qos as u8) << 1 | (u8::from(retain) * RETAIN)
}
