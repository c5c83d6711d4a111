//! What the decoder and the encoder refuse.

use super::reason::Reason;

/// Bytes that are no packet, or a packet that its version forbids. The connection ends: an MQTT 5 peer is told
/// `reason` and `what` in a DISCONNECT or CONNACK, an older one sees the connection closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct DecodeError {
    /// The code for the peer.
    pub reason: Reason,
    /// What is wrong, with the specification's statement; fit for a Reason String.
    pub what: &'static str,
}

impl DecodeError {
    /// Bytes that cannot be parsed: `0x81`.
    pub(crate) const fn malformed(what: &'static str) -> DecodeError {
        DecodeError { reason: Reason::MalformedPacket, what }
    }

    /// A packet that parses and is not allowed: `0x82`.
    pub(crate) const fn protocol(what: &'static str) -> DecodeError {
        DecodeError { reason: Reason::ProtocolError, what }
    }

    /// A packet that parses and is refused for another reason.
    pub(crate) const fn because(reason: Reason, what: &'static str) -> DecodeError {
        DecodeError { reason, what }
    }
}

/// A packet that cannot be written: a field longer than the wire can say. Nothing was written then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string or binary field is longer than 65,535 bytes.
    #[error("a field of {0} bytes does not fit MQTT's 65,535")]
    FieldTooLong(usize),
    /// The packet is longer than the remaining length can say.
    #[error("a packet of {0} bytes does not fit MQTT's 268,435,455")]
    PacketTooLong(usize),
}
