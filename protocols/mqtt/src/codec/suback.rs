//! SUBACK and UNSUBACK (sections 3.9 and 3.11).

use super::error::{DecodeError, EncodeError};
use super::properties::Properties;
use super::property::Place;
use super::reader::Reader;
use super::reason::Reason;
use super::types::{Type, Version};
use super::writer::{put_header, put_u16};

/// The answer to SUBSCRIBE: a reason code for each filter, in their order [MQTT-3.8.4-6].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Packet identifier of the SUBSCRIBE.
    pub packet_id: u16,
    /// MQTT 5's properties.
    pub properties: Properties<'a>,
    /// Granted QoS or failure of each filter.
    pub reasons: Vec<Reason>,
}

/// The answer to UNSUBSCRIBE. Before MQTT 5 it has no reason codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// Packet identifier of the UNSUBSCRIBE.
    pub packet_id: u16,
    /// MQTT 5's properties.
    pub properties: Properties<'a>,
    /// Reason code of each filter.
    pub reasons: Vec<Reason>,
}

const UNKNOWN: DecodeError =
    DecodeError::protocol("a reason code that the packet does not allow (section 3.9.3)");

fn read<'a>(
    reader: &mut Reader<'a>,
    version: Version,
    allowed: fn(Reason) -> bool,
) -> Result<(u16, Properties<'a>, Vec<Reason>), DecodeError> {
    let packet_id = reader.packet_id()?;
    let properties = match version {
        Version::V5 => Properties::read(reader, Place::Ack)?,
        _ => Properties::EMPTY,
    };
    let mut reasons = Vec::new();
    while !reader.is_empty() {
        reasons.push(Reason::from_byte(reader.u8()?).filter(|&reason| allowed(reason)).ok_or(UNKNOWN)?);
    }
    Ok((packet_id, properties, reasons))
}

impl<'a> SubAck<'a> {
    pub(super) fn read(reader: &mut Reader<'a>, version: Version) -> Result<SubAck<'a>, DecodeError> {
        let allowed = match version {
            Version::V5 => |reason| {
                use Reason::*;
                matches!(
                    reason,
                    Success
                        | GrantedQos1
                        | GrantedQos2
                        | Unspecified
                        | ImplementationSpecific
                        | NotAuthorized
                        | TopicFilterInvalid
                        | PacketIdInUse
                        | QuotaExceeded
                        | SharedSubscriptionsNotSupported
                        | SubscriptionIdentifiersNotSupported
                        | WildcardSubscriptionsNotSupported
                )
            },
            _ => |reason| {
                use Reason::*;
                matches!(reason, Success | GrantedQos1 | GrantedQos2 | Unspecified)
            },
        };
        let (packet_id, properties, reasons) = read(reader, version, allowed)?;
        Ok(SubAck { packet_id, properties, reasons })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let v5 = version == Version::V5;
        let remaining = 2 + self.reasons.len() + if v5 { self.properties.wire_length() } else { 0 };
        put_header(out, Type::SubAck.first_byte(), remaining)?;
        put_u16(out, self.packet_id);
        if v5 {
            self.properties.put(out);
        }
        // MQTT 3.1.1 has one failure code, 0x80.
        out.extend(
            self.reasons.iter().map(|reason| if v5 || !reason.is_error() { reason.byte() } else { 0x80 }),
        );
        Ok(())
    }
}

impl<'a> UnsubAck<'a> {
    pub(super) fn read(reader: &mut Reader<'a>, version: Version) -> Result<UnsubAck<'a>, DecodeError> {
        let allowed = match version {
            Version::V5 => |reason| {
                use Reason::*;
                matches!(
                    reason,
                    Success
                        | NoSubscriptionExisted
                        | Unspecified
                        | ImplementationSpecific
                        | NotAuthorized
                        | TopicFilterInvalid
                        | PacketIdInUse
                )
            },
            _ => |_| false,
        };
        let (packet_id, properties, reasons) = read(reader, version, allowed)?;
        Ok(UnsubAck { packet_id, properties, reasons })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let v5 = version == Version::V5;
        let remaining = 2 + if v5 { self.reasons.len() + self.properties.wire_length() } else { 0 };
        put_header(out, Type::UnsubAck.first_byte(), remaining)?;
        put_u16(out, self.packet_id);
        if v5 {
            self.properties.put(out);
            out.extend(self.reasons.iter().map(|reason| reason.byte()));
        }
        Ok(())
    }
}
