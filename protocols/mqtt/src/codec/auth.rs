//! DISCONNECT and AUTH (sections 3.14 and 3.15): a reason code and properties, both omitted when they are the default.

use super::error::{DecodeError, EncodeError};
use super::properties::Properties;
use super::property::Place;
use super::reader::Reader;
use super::reason::Reason;
use super::types::{Type, Version};
use super::writer::put_header;

/// The last packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Reason code; always *normal disconnection* before MQTT 5.
    pub reason: Reason,
    /// MQTT 5's properties.
    pub properties: Properties<'a>,
}

/// A step of an enhanced authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// The step: success, continue authentication or re-authenticate.
    pub reason: Reason,
    /// Authentication Method and Authentication Data, among others.
    pub properties: Properties<'a>,
}

fn read<'a>(
    reader: &mut Reader<'a>,
    place: Place,
    allowed: fn(Reason) -> bool,
) -> Result<(Reason, Properties<'a>), DecodeError> {
    if reader.is_empty() {
        return Ok((Reason::Success, Properties::EMPTY));
    }
    let reason = Reason::from_byte(reader.u8()?)
        .filter(|&reason| allowed(reason))
        .ok_or(DecodeError::protocol("a reason code that the packet does not allow [MQTT-3.14.2-1]"))?;
    let properties = if reader.is_empty() { Properties::EMPTY } else { Properties::read(reader, place)? };
    Ok((reason, properties))
}

fn encode(
    kind: Type,
    reason: Reason,
    properties: &Properties<'_>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if properties.is_empty() {
        let has_reason = reason != Reason::Success;
        put_header(out, kind.first_byte(), usize::from(has_reason))?;
        if has_reason {
            out.push(reason.byte());
        }
        return Ok(());
    }
    put_header(out, kind.first_byte(), 1 + properties.wire_length())?;
    out.push(reason.byte());
    properties.put(out);
    Ok(())
}

impl<'a> Disconnect<'a> {
    pub(super) fn read(reader: &mut Reader<'a>, version: Version) -> Result<Disconnect<'a>, DecodeError> {
        if version != Version::V5 {
            return Ok(Disconnect { reason: Reason::Success, properties: Properties::EMPTY });
        }
        let (reason, properties) = read(reader, Place::Disconnect, |reason| {
            use Reason::*;
            reason == DisconnectWithWill
                || !matches!(
                    reason,
                    GrantedQos1
                        | GrantedQos2
                        | NoMatchingSubscribers
                        | NoSubscriptionExisted
                        | ContinueAuthentication
                        | ReAuthenticate
                        | UnsupportedProtocolVersion
                        | ClientIdNotValid
                        | BadUserNameOrPassword
                        | ServerUnavailable
                        | Banned
                        | BadAuthenticationMethod
                        | PacketIdInUse
                        | PacketIdNotFound
                )
        })?;
        Ok(Disconnect { reason, properties })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match version {
            Version::V5 => encode(Type::Disconnect, self.reason, &self.properties, out),
            _ => put_header(out, Type::Disconnect.first_byte(), 0),
        }
    }
}

impl<'a> Auth<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Auth<'a>, DecodeError> {
        let (reason, properties) = read(reader, Place::Auth, |reason| {
            matches!(reason, Reason::Success | Reason::ContinueAuthentication | Reason::ReAuthenticate)
        })?;
        Ok(Auth { reason, properties })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        encode(Type::Auth, self.reason, &self.properties, out)
    }
}
