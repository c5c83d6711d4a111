//! Packets of all types: decoding one from a buffer, and encoding.

use super::ack::Ack;
use super::auth::{Auth, Disconnect};
use super::connack::ConnAck;
use super::connect::Connect;
use super::error::{DecodeError, EncodeError};
use super::publish::Publish;
use super::reader::{Reader, varint};
use super::reason::Reason;
use super::suback::{SubAck, UnsubAck};
use super::subscribe::{Subscribe, Unsubscribe};
use super::types::{Type, Version};
use super::writer::put_header;

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
    let Some((remaining, length_bytes)) = varint(rest)? else { return Ok(None) };
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
            Packet::PingReq => put_header(out, Type::PingReq.first_byte(), 0),
            Packet::PingResp => put_header(out, Type::PingResp.first_byte(), 0),
            Packet::Disconnect(packet) => packet.encode(version, out),
            Packet::Auth(packet) => packet.encode(out),
        }
    }
}
