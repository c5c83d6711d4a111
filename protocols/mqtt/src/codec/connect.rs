//! CONNECT (section 3.1) of all three versions.

use super::error::{DecodeError, EncodeError};
use super::properties::Properties;
use super::property::Place;
use super::reader::Reader;
use super::reason::Reason;
use super::text::check_topic;
use super::types::{Qos, Type, Version};
use super::writer::{field_length, put_field, put_header, put_u16};

/// The first packet of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Protocol version of the connection.
    pub version: Version,
    /// The client is a bridge of another server: the highest bit of the protocol level, as Mosquitto sets it.
    pub is_bridge: bool,
    /// Clean Start; before MQTT 5 Clean Session, which also ends the session with the connection.
    pub clean_start: bool,
    /// Keep Alive in seconds; 0: none.
    pub keep_alive_s: u16,
    /// Client identifier; may be empty.
    pub client_id: &'a str,
    /// Will message, published when the connection ends without a DISCONNECT.
    pub will: Option<Will<'a>>,
    /// User name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// MQTT 5's properties.
    pub properties: Properties<'a>,
}

/// A will message (section 3.1.2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// Will QoS.
    pub qos: Qos,
    /// Will Retain.
    pub retain: bool,
    /// Will Topic.
    pub topic: &'a str,
    /// Will Payload.
    pub payload: &'a [u8],
    /// MQTT 5's properties.
    pub properties: Properties<'a>,
}

const USERNAME: u8 = 1 << 7;
const PASSWORD: u8 = 1 << 6;
const WILL_RETAIN: u8 = 1 << 5;
const WILL: u8 = 1 << 2;
const CLEAN_START: u8 = 1 << 1;
const RESERVED: u8 = 1;

/// The bit of the protocol level that marks a bridge. MQTT 5 has subscription options instead.
const BRIDGE: u8 = 0x80;
const BRIDGE_V31: u8 = BRIDGE | 3;
const BRIDGE_V311: u8 = BRIDGE | 4;

impl<'a> Connect<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Connect<'a>, DecodeError> {
        let (version, is_bridge) = read_version(reader)?;
        let flags = reader.u8()?;
        let has = |flag: u8| flags & flag != 0;
        let will_qos = Qos::from_bits(flags >> 3 & 3)
            .ok_or(DecodeError::malformed("a will at QoS 3 [MQTT-3.1.2-12]"))?;
        if has(RESERVED) && version != Version::V31 {
            return Err(DecodeError::malformed("the reserved flag of CONNECT is set [MQTT-3.1.2-3]"));
        }
        if !has(WILL) && version != Version::V31 && (has(WILL_RETAIN) || will_qos != Qos::AtMostOnce) {
            return Err(DecodeError::malformed("will flags without a will [MQTT-3.1.2-11], [MQTT-3.1.2-13]"));
        }
        if has(PASSWORD) && !has(USERNAME) && version != Version::V5 {
            return Err(DecodeError::malformed("a password without a user name [MQTT-3.1.2-22 of 3.1.1]"));
        }
        let keep_alive_s = reader.u16()?;
        let properties = match version {
            Version::V5 => Properties::read(reader, Place::Connect)?,
            _ => Properties::EMPTY,
        };
        let client_id = reader.string()?;
        let will =
            if has(WILL) { Some(Will::read(reader, version, will_qos, has(WILL_RETAIN))?) } else { None };
        // MQTT 3.1: the remaining length takes precedence over the flags (CONNECT, "User name and password flags").
        let is_absent = |reader: &Reader<'a>| version == Version::V31 && reader.is_empty();
        let username = if has(USERNAME) && !is_absent(reader) { Some(reader.string()?) } else { None };
        let password = if has(PASSWORD) && !is_absent(reader) { Some(reader.binary()?) } else { None };
        Ok(Connect {
            version,
            is_bridge,
            clean_start: has(CLEAN_START),
            keep_alive_s,
            client_id,
            will,
            username,
            password,
            properties,
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let (name, level): (&str, u8) = match self.version {
            Version::V31 => ("MQIsdp", 3),
            Version::V311 => ("MQTT", 4),
            Version::V5 => ("MQTT", 5),
        };
        let v5 = self.version == Version::V5;
        let mut remaining =
            field_length(name.as_bytes())? + 1 + 1 + 2 + field_length(self.client_id.as_bytes())?;
        let mut flags = u8::from(self.clean_start) * CLEAN_START;
        if v5 {
            remaining += self.properties.wire_length();
        }
        if let Some(will) = &self.will {
            flags |= WILL | (will.qos as u8) << 3 | (u8::from(will.retain) * WILL_RETAIN);
            remaining += field_length(will.topic.as_bytes())? + field_length(will.payload)?;
            if v5 {
                remaining += will.properties.wire_length();
            }
        }
        if let Some(username) = self.username {
            flags |= USERNAME;
            remaining += field_length(username.as_bytes())?;
        }
        if let Some(password) = self.password {
            flags |= PASSWORD;
            remaining += field_length(password)?;
        }
        put_header(out, Type::Connect.first_byte(), remaining)?;
        put_field(out, name.as_bytes());
        out.push(if self.is_bridge { level | BRIDGE } else { level });
        out.push(flags);
        put_u16(out, self.keep_alive_s);
        if v5 {
            self.properties.put(out);
        }
        put_field(out, self.client_id.as_bytes());
        if let Some(will) = &self.will {
            if v5 {
                will.properties.put(out);
            }
            put_field(out, will.topic.as_bytes());
            put_field(out, will.payload);
        }
        if let Some(username) = self.username {
            put_field(out, username.as_bytes());
        }
        if let Some(password) = self.password {
            put_field(out, password);
        }
        Ok(())
    }
}

/// Reads protocol name and level [MQTT-3.1.2-1], [MQTT-3.1.2-2].
fn read_version(reader: &mut Reader<'_>) -> Result<(Version, bool), DecodeError> {
    const UNSUPPORTED: DecodeError = DecodeError::because(
        Reason::UnsupportedProtocolVersion,
        "a protocol version other than 3.1, 3.1.1 and 5 [MQTT-3.1.2-2]",
    );
    let name = reader.binary()?;
    let level = reader.u8()?;
    match (name, level) {
        (b"MQTT", 5) => Ok((Version::V5, false)),
        (b"MQTT", 4) => Ok((Version::V311, false)),
        (b"MQIsdp", 3) => Ok((Version::V31, false)),
        (b"MQTT", BRIDGE_V311) => Ok((Version::V311, true)),
        (b"MQIsdp", BRIDGE_V31) => Ok((Version::V31, true)),
        (b"MQTT" | b"MQIsdp", _) => Err(UNSUPPORTED),
        _ => Err(DecodeError::protocol("a protocol name other than MQTT [MQTT-3.1.2-1]")),
    }
}

impl<'a> Will<'a> {
    fn read(
        reader: &mut Reader<'a>,
        version: Version,
        qos: Qos,
        retain: bool,
    ) -> Result<Will<'a>, DecodeError> {
        let properties = match version {
            Version::V5 => Properties::read(reader, Place::Will)?,
            _ => Properties::EMPTY,
        };
        let topic = reader.string()?;
        if topic.is_empty() {
            return Err(DecodeError::because(
                Reason::TopicNameInvalid,
                "a will without a topic [MQTT-4.7.3-1]",
            ));
        }
        check_topic(topic)?;
        let payload = reader.binary()?;
        Ok(Will { qos, retain, topic, payload, properties })
    }
}
