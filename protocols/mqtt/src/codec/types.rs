//! Protocol versions, QoS and packet types, with the bounds of a packet.

use super::error::DecodeError;

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
    pub(super) fn read(first: u8, version: Version) -> Result<Type, DecodeError> {
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
