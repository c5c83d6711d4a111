//! CONNACK (section 3.2).

use super::error::{DecodeError, EncodeError};
use super::properties::Properties;
use super::property::Place;
use super::reader::Reader;
use super::reason::Reason;
use super::types::{Type, Version};
use super::writer::put_header;

/// The answer to CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Session Present: the server has a session of this client.
    pub session_present: bool,
    /// Reason code; a return code before MQTT 5.
    pub reason: Reason,
    /// MQTT 5's properties.
    pub properties: Properties<'a>,
}

impl<'a> ConnAck<'a> {
    pub(super) fn read(reader: &mut Reader<'a>, version: Version) -> Result<ConnAck<'a>, DecodeError> {
        let flags = reader.u8()?;
        if flags > 1 {
            return Err(DecodeError::malformed("reserved flags of CONNACK are set [MQTT-3.2.2-1]"));
        }
        let code = reader.u8()?;
        let reason = match version {
            Version::V5 => Reason::from_byte(code).filter(|&reason| allowed(reason)),
            _ => from_v3(code),
        }
        .ok_or(DecodeError::protocol("a reason code that CONNACK does not allow (section 3.2.2.2)"))?;
        let properties = match version {
            Version::V5 => Properties::read(reader, Place::ConnAck)?,
            _ => Properties::EMPTY,
        };
        if flags == 1 && reason != Reason::Success {
            return Err(DecodeError::protocol("Session Present with a refused connection [MQTT-3.2.2-6]"));
        }
        Ok(ConnAck { session_present: flags == 1, reason, properties })
    }

    /// Before MQTT 5, a reason without a return code is written as *server unavailable*.
    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let v5 = version == Version::V5;
        let code = if v5 { self.reason.byte() } else { self.reason.v3_connect_code().unwrap_or(3) };
        let remaining = 2 + if v5 { self.properties.wire_length() } else { 0 };
        put_header(out, Type::ConnAck.first_byte(), remaining)?;
        // MQTT 3.1 reserves the byte of Session Present.
        out.push(u8::from(self.session_present && version != Version::V31));
        out.push(code);
        if v5 {
            self.properties.put(out);
        }
        Ok(())
    }
}

fn allowed(reason: Reason) -> bool {
    use Reason::*;
    reason == Success
        || reason.is_error()
            && !matches!(
                reason,
                ServerShuttingDown
                    | KeepAliveTimeout
                    | SessionTakenOver
                    | TopicFilterInvalid
                    | PacketIdInUse
                    | PacketIdNotFound
                    | ReceiveMaximumExceeded
                    | TopicAliasInvalid
                    | MessageRateTooHigh
                    | AdministrativeAction
                    | SharedSubscriptionsNotSupported
                    | MaximumConnectTime
                    | SubscriptionIdentifiersNotSupported
                    | WildcardSubscriptionsNotSupported
            )
}

fn from_v3(code: u8) -> Option<Reason> {
    Some(match code {
        0 => Reason::Success,
        1 => Reason::UnsupportedProtocolVersion,
        2 => Reason::ClientIdNotValid,
        3 => Reason::ServerUnavailable,
        4 => Reason::BadUserNameOrPassword,
        5 => Reason::NotAuthorized,
        _ => return None,
    })
}
