//! PUBACK, PUBREC, PUBREL and PUBCOMP (sections 3.4 to 3.7): four packet types of one format.

use super::error::{DecodeError, EncodeError};
use super::properties::Properties;
use super::property::Place;
use super::reader::Reader;
use super::reason::Reason;
use super::types::{Type, Version};
use super::writer::{put_header, put_u16};

/// An acknowledgement of a PUBLISH or of another acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Packet identifier of the PUBLISH.
    pub packet_id: u16,
    /// Reason code; always success before MQTT 5.
    pub reason: Reason,
    /// MQTT 5's properties.
    pub properties: Properties<'a>,
}

impl<'a> Ack<'a> {
    /// An acknowledgement without properties.
    pub fn new(packet_id: u16, reason: Reason) -> Ack<'a> {
        Ack { packet_id, reason, properties: Properties::EMPTY }
    }

    pub(super) fn read(
        reader: &mut Reader<'a>,
        version: Version,
        kind: Type,
    ) -> Result<Ack<'a>, DecodeError> {
        let packet_id = reader.packet_id()?;
        let mut ack = Ack::new(packet_id, Reason::Success);
        // A remaining length of 2 means success, one of 3 no properties (section 3.4.2.1).
        if version == Version::V5 && !reader.is_empty() {
            ack.reason = Reason::from_byte(reader.u8()?).filter(|&reason| allowed(kind, reason)).ok_or(
                DecodeError::protocol("a reason code that the packet does not allow [MQTT-3.4.2-1]"),
            )?;
            if !reader.is_empty() {
                ack.properties = Properties::read(reader, Place::Ack)?;
            }
        }
        Ok(ack)
    }

    pub(super) fn encode(&self, kind: Type, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let has_reason =
            version == Version::V5 && (self.reason != Reason::Success || !self.properties.is_empty());
        let has_properties = has_reason && !self.properties.is_empty();
        let remaining =
            2 + usize::from(has_reason) + if has_properties { self.properties.wire_length() } else { 0 };
        put_header(out, kind.first_byte(), remaining)?;
        put_u16(out, self.packet_id);
        if has_reason {
            out.push(self.reason.byte());
        }
        if has_properties {
            self.properties.put(out);
        }
        Ok(())
    }
}

fn allowed(kind: Type, reason: Reason) -> bool {
    match kind {
        Type::PubAck | Type::PubRec => matches!(
            reason,
            Reason::Success
                | Reason::NoMatchingSubscribers
                | Reason::Unspecified
                | Reason::ImplementationSpecific
                | Reason::NotAuthorized
                | Reason::TopicNameInvalid
                | Reason::PacketIdInUse
                | Reason::QuotaExceeded
                | Reason::PayloadFormatInvalid
        ),
        _ => matches!(reason, Reason::Success | Reason::PacketIdNotFound),
    }
}
