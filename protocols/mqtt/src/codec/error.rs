//! Errors of the decoder and the encoder.

use super::reason::Reason;

/// Malformed bytes, or a packet that the protocol forbids. The connection is closed: an MQTT 5 peer gets `reason` and
/// `what` in a DISCONNECT or CONNACK, an older one nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct DecodeError {
    /// Reason code for the peer.
    pub reason: Reason,
    /// The violation, with the clause of the specification; serves as Reason String.
    pub what: &'static str,
}

impl DecodeError {
    /// Malformed Packet (0x81): the bytes cannot be parsed.
    pub(crate) const fn malformed(what: &'static str) -> DecodeError {
        DecodeError { reason: Reason::MalformedPacket, what }
    }

    /// Protocol Error (0x82): the packet is not allowed.
    pub(crate) const fn protocol(what: &'static str) -> DecodeError {
        DecodeError { reason: Reason::ProtocolError, what }
    }

    /// A packet refused for another reason.
    pub(crate) const fn because(reason: Reason, what: &'static str) -> DecodeError {
        DecodeError { reason, what }
    }
}

/// A packet that cannot be encoded. Nothing is written then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string or binary field is longer than 65,535 bytes.
    #[error("a field of {0} bytes exceeds MQTT's limit of 65,535")]
    FieldTooLong(usize),
    /// The packet is longer than the remaining length can express.
    #[error("a packet of {0} bytes exceeds MQTT's limit of 268,435,455")]
    PacketTooLong(usize),
}
