//! Bytes ↔ packets of MQTT 3.1, 3.1.1 and 5, both directions, without I/O.
//!
//! [`decode`] reads one packet from the start of a buffer and borrows all fields from it. It allocates nothing for a
//! PUBLISH, less than the packet's size for the others, and nothing for a length that is only announced. Decoded packets
//! satisfy the rules of the specification that concern one packet alone (UTF-8, flags, properties, wildcards); the
//! session checks those that depend on earlier packets.
//!
//! Clauses in brackets (`[MQTT-3.1.4-2]`) are those of MQTT 5 where both versions have one.
//!
//! The codec does not own buffers, timers or packet identifiers, and gives packets no meaning.

mod ack;
mod auth;
mod connack;
mod connect;
mod error;
mod properties;
mod property;
pub mod publish;
mod reader;
mod reason;
mod suback;
mod subscribe;
mod text;
mod writer;

#[cfg(test)]
mod tests;

pub use ack::Ack;
pub use auth::{Auth, Disconnect};
pub use connack::ConnAck;
pub use connect::{Connect, Will};
pub use error::{DecodeError, EncodeError};
pub use properties::{Iter as PropertiesIter, Place, Properties, PropertiesBuf};
pub use property::Property;
pub use publish::Publish;
pub use reason::Reason;
pub use suback::{SubAck, UnsubAck};
pub use subscribe::{RetainHandling, Subscribe, SubscribeOptions, Unsubscribe};
pub use text::{Shared, split_shared};

use reader::Reader;

/// The largest remaining length that a fixed header can announce, in bytes (section 2.1.4).
pub const REMAINING_LENGTH_MAX: usize = 268_435_455;

/// Size of the largest possible packet with its fixed header, in bytes.
pub const PACKET_BYTES_MAX: usize = REMAINING_LENGTH_MAX + 5;

/// A protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// MQTT 3.1: `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1: `MQTT`, level 4.
    V311,
    /// MQTT 5: `MQTT`, level 5.
    V5,
}

/// Quality of service (section 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    /// QoS 0.
    #[default]
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl Qos {
    /// The QoS of two bits; `None` for 3 [MQTT-3.3.1-4].
    pub fn from_bits(bits: u8) -> Option<Qos> {
        match bits {
            0 => Some(Qos::AtMostOnce),
            1 => Some(Qos::AtLeastOnce),
            2 => Some(Qos::ExactlyOnce),
            _ => None,
        }
    }
}

/// A packet of any type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the packets' own names
pub enum Packet<'a> {
    Connect(Box<Connect<'a>>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

/// The packet type in the high half of the first byte (section 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Type {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl Type {
    /// Reads the type from a first byte and checks its flags [MQTT-2.1.3-1].
    fn read(first: u8, version: Version) -> Result<Type, DecodeError> {
        let kind = match first >> 4 {
            1 => Type::Connect,
            2 => Type::ConnAck,
            3 => Type::Publish,
            4 => Type::PubAck,
            5 => Type::PubRec,
            6 => Type::PubRel,
            7 => Type::PubComp,
            8 => Type::Subscribe,
            9 => Type::SubAck,
            10 => Type::Unsubscribe,
            11 => Type::UnsubAck,
            12 => Type::PingReq,
            13 => Type::PingResp,
            14 => Type::Disconnect,
            15 if version == Version::V5 => Type::Auth,
            _ => return Err(DecodeError::malformed("a packet type that does not exist (section 2.1.2)")),
        };
        let flags = first & 0x0f;
        let flags_are_valid = match kind {
            Type::Publish => true,
            // MQTT 3.1 sends these at QoS 1 and may set DUP.
            Type::PubRel | Type::Subscribe | Type::Unsubscribe if version == Version::V31 => flags & !8 == 2,
            Type::PubRel | Type::Subscribe | Type::Unsubscribe => flags == 2,
            _ => flags == 0,
        };
        if flags_are_valid {
            Ok(kind)
        } else {
            Err(DecodeError::malformed("reserved flags of the packet type are set [MQTT-2.1.3-1]"))
        }
    }

    /// The first byte of a packet type whose flags are fixed.
    pub(crate) fn first_byte(self) -> u8 {
        let flags = match self {
            Type::PubRel | Type::Subscribe | Type::Unsubscribe => 2,
            _ => 0,
        };
        (self as u8) << 4 | flags
    }
}

/// Decodes one packet from the start of `bytes`; returns it with its length in bytes, or `None` if it is incomplete.
///
/// `bytes_max` bounds the packet with its fixed header; a longer packet is refused as soon as its header is complete.
/// CONNECT states its own version, so `version` does not affect it.
pub fn decode(
    bytes: &[u8],
    version: Version,
    bytes_max: usize,
) -> Result<Option<(Packet<'_>, usize)>, DecodeError> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let kind = Type::read(first, version)?;
    let Some((remaining, length_bytes)) = reader::varint(rest)? else { return Ok(None) };
    let remaining = remaining as usize;
    let total = 1 + length_bytes + remaining;
    if total > bytes_max {
        return Err(DecodeError::because(
            Reason::PacketTooLarge,
            "a packet longer than the maximum packet size [MQTT-3.2.2-15]",
        ));
    }
    let Some(body) = rest.get(length_bytes..length_bytes + remaining) else { return Ok(None) };
    let mut reader = Reader::new(body);
    let reader = &mut reader;
    let packet = match kind {
        Type::Publish => Packet::Publish(Publish::read(first, reader, version)?),
        Type::PubAck => Packet::PubAck(Ack::read(reader, version, kind)?),
        Type::PubRec => Packet::PubRec(Ack::read(reader, version, kind)?),
        Type::PubRel => Packet::PubRel(Ack::read(reader, version, kind)?),
        Type::PubComp => Packet::PubComp(Ack::read(reader, version, kind)?),
        Type::Connect => Packet::Connect(Box::new(Connect::read(reader)?)),
        Type::ConnAck => Packet::ConnAck(ConnAck::read(reader, version)?),
        Type::Subscribe => Packet::Subscribe(Subscribe::read(reader, version)?),
        Type::SubAck => Packet::SubAck(SubAck::read(reader, version)?),
        Type::Unsubscribe => Packet::Unsubscribe(Unsubscribe::read(reader, version)?),
        Type::UnsubAck => Packet::UnsubAck(UnsubAck::read(reader, version)?),
        Type::PingReq => Packet::PingReq,
        Type::PingResp => Packet::PingResp,
        Type::Disconnect => Packet::Disconnect(Disconnect::read(reader, version)?),
        Type::Auth => Packet::Auth(Auth::read(reader)?),
    };
    if kind != Type::Publish {
        reader.end()?;
    }
    Ok(Some((packet, total)))
}

impl Packet<'_> {
    /// Appends the encoded packet to `out`. On an error nothing is written.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Packet::Connect(packet) => packet.encode(out),
            Packet::ConnAck(packet) => packet.encode(version, out),
            Packet::Publish(packet) => packet.encode(version, out),
            Packet::PubAck(packet) => packet.encode(Type::PubAck, version, out),
            Packet::PubRec(packet) => packet.encode(Type::PubRec, version, out),
            Packet::PubRel(packet) => packet.encode(Type::PubRel, version, out),
            Packet::PubComp(packet) => packet.encode(Type::PubComp, version, out),
            Packet::Subscribe(packet) => packet.encode(version, out),
            Packet::SubAck(packet) => packet.encode(version, out),
            Packet::Unsubscribe(packet) => packet.encode(version, out),
            Packet::UnsubAck(packet) => packet.encode(version, out),
            Packet::PingReq => writer::put_header(out, Type::PingReq.first_byte(), 0),
            Packet::PingResp => writer::put_header(out, Type::PingResp.first_byte(), 0),
            Packet::Disconnect(packet) => packet.encode(version, out),
            Packet::Auth(packet) => packet.encode(out),
        }
    }
}
