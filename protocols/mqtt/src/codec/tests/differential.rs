//! Comparison with independent codecs: they decode what this one encodes, and this one decodes what they encode.
//!
//! `mqttbytes` is the reference for 3.1.1, `rmqtt-codec` for MQTT 5. Cases that they are known to get wrong are named and
//! excluded.

use bytes::BytesMut;
use proptest::prelude::*;
use rmqtt_codec::v5;
use tokio_util::codec::{Decoder, Encoder};

use super::super::*;
use super::{MAX, arbitrary::packet_of};

/// Properties in the order of their identifiers. The order in a packet is meaningful only among user properties and
/// among subscription identifiers, and each codec has its own.
fn sorted(properties: Properties<'_>) -> Vec<Property<'_>> {
    let mut all: Vec<Property<'_>> = properties.iter().collect();
    all.sort_by_key(|property| property.kind() as u8);
    all
}

fn rebuilt(properties: &mut Properties<'static>) {
    let mut buf = PropertiesBuf::new();
    for property in sorted(*properties) {
        buf.push(property).unwrap();
    }
    *properties = Box::leak(Box::new(buf)).as_ref();
}

/// The same packet with its properties sorted.
fn canonical(packet: &Packet<'_>, version: Version) -> Packet<'static> {
    let mut wire = Vec::new();
    packet.encode(version, &mut wire).unwrap();
    let wire: &'static [u8] = Vec::leak(wire);
    let (mut packet, _) = decode(wire, version, MAX).unwrap().unwrap();
    match &mut packet {
        Packet::Connect(connect) => {
            rebuilt(&mut connect.properties);
            if let Some(will) = &mut connect.will {
                rebuilt(&mut will.properties);
            }
        }
        Packet::ConnAck(packet) => rebuilt(&mut packet.properties),
        Packet::Publish(packet) => rebuilt(&mut packet.properties),
        Packet::PubAck(packet)
        | Packet::PubRec(packet)
        | Packet::PubRel(packet)
        | Packet::PubComp(packet) => {
            rebuilt(&mut packet.properties);
        }
        Packet::Subscribe(packet) => rebuilt(&mut packet.properties),
        Packet::SubAck(packet) => rebuilt(&mut packet.properties),
        Packet::Unsubscribe(packet) => rebuilt(&mut packet.properties),
        Packet::UnsubAck(packet) => rebuilt(&mut packet.properties),
        Packet::Disconnect(packet) => rebuilt(&mut packet.properties),
        Packet::Auth(packet) => rebuilt(&mut packet.properties),
        Packet::PingReq | Packet::PingResp => {}
    }
    packet
}

/// Excludes properties whose value equals their default, which the reference does not distinguish from absence, and
/// values that it does not support.
fn reference_supports(property: &Property<'_>) -> bool {
    !matches!(
        property,
        Property::PayloadFormatIndicator(0)
            | Property::MessageExpiryInterval(0)
            | Property::SessionExpiryInterval(0)
            | Property::TopicAliasMaximum(0)
            | Property::RequestProblemInformation(_)
            | Property::RequestResponseInformation(0)
            | Property::WillDelayInterval(_)
            | Property::MaximumQos(_)
            | Property::RetainAvailable(_)
            | Property::WildcardSubscriptionAvailable(_)
            | Property::SubscriptionIdentifierAvailable(_)
            | Property::SharedSubscriptionAvailable(_)
            | Property::ReceiveMaximum(u16::MAX)
    )
}

fn is_supported(packet: &Packet<'_>) -> bool {
    let supported =
        |properties: Properties<'_>| properties.iter().all(|property| reference_supports(&property));
    match packet {
        Packet::Connect(connect) => {
            supported(connect.properties)
                && connect.will.as_ref().is_none_or(|will| supported(will.properties))
        }
        Packet::ConnAck(packet) => supported(packet.properties),
        Packet::Publish(packet) => supported(packet.properties),
        _ => true,
    }
}

/// `mqttbytes` treats a password as text, and an empty one as absent, and knows no bridges.
fn mqttbytes_supports(packet: &Packet<'_>) -> bool {
    match packet {
        Packet::Connect(connect) => {
            let is_text = |password: &[u8]| !password.is_empty() && std::str::from_utf8(password).is_ok();
            !connect.is_bridge && connect.password.is_none_or(is_text)
        }
        _ => true,
    }
}

proptest! {
    #[test]
    fn mqttbytes_decodes_and_encodes_the_same_3_1_1_packets(packet in packet_of(Version::V311).prop_filter("supported", mqttbytes_supports)) {
        let mut wire = Vec::new();
        packet.encode(Version::V311, &mut wire).unwrap();
        let mut theirs = BytesMut::from(&wire[..]);
        let read = mqttbytes::v4::read(&mut theirs, MAX);
        prop_assert!(read.is_ok(), "{read:?} of {packet:?}");
        prop_assert!(theirs.is_empty());
        let mut out = BytesMut::new();
        let written = match read.unwrap() {
            mqttbytes::v4::Packet::Connect(p) => p.write(&mut out),
            mqttbytes::v4::Packet::ConnAck(p) => p.write(&mut out),
            mqttbytes::v4::Packet::Publish(p) => p.write(&mut out),
            mqttbytes::v4::Packet::PubAck(p) => p.write(&mut out),
            mqttbytes::v4::Packet::PubRec(p) => p.write(&mut out),
            mqttbytes::v4::Packet::PubRel(p) => p.write(&mut out),
            mqttbytes::v4::Packet::PubComp(p) => p.write(&mut out),
            mqttbytes::v4::Packet::Subscribe(p) => p.write(&mut out),
            mqttbytes::v4::Packet::SubAck(p) => p.write(&mut out),
            mqttbytes::v4::Packet::Unsubscribe(p) => p.write(&mut out),
            mqttbytes::v4::Packet::UnsubAck(p) => p.write(&mut out),
            mqttbytes::v4::Packet::PingReq => mqttbytes::v4::PingReq.write(&mut out),
            mqttbytes::v4::Packet::PingResp => mqttbytes::v4::PingResp.write(&mut out),
            mqttbytes::v4::Packet::Disconnect => mqttbytes::v4::Disconnect.write(&mut out),
        };
        prop_assert!(written.is_ok());
        prop_assert_eq!(decode(&out, Version::V311, MAX), Ok(Some((packet, out.len()))));
    }

    #[test]
    fn rmqtt_decodes_and_encodes_the_same_mqtt_5_packets(packet in packet_of(Version::V5).prop_filter("supported", is_supported)) {
        let mut wire = Vec::new();
        packet.encode(Version::V5, &mut wire).unwrap();
        let mut codec = v5::Codec::new(0, 0);
        let mut theirs = BytesMut::from(&wire[..]);
        let read = codec.decode(&mut theirs);
        prop_assert!(matches!(read, Ok(Some(_))), "{read:?} of {packet:?} {wire:02x?}");
        prop_assert!(theirs.is_empty());
        let (read, _) = read.unwrap().unwrap();
        let mut out = BytesMut::new();
        let mut codec = v5::Codec::new(0, 0);
        prop_assert!(codec.encode(read, &mut out).is_ok());
        let ours = decode(&out, Version::V5, MAX);
        prop_assert!(matches!(ours, Ok(Some(_))), "{ours:?} of {packet:?}");
        let (ours, _) = ours.unwrap().unwrap();
        prop_assert_eq!(canonical(&ours, Version::V5), canonical(&packet, Version::V5));
    }

    /// A damaged packet that this codec accepts, the reference accepts too.
    #[test]
    fn damaged_mqtt_5_packets_that_are_accepted_are_accepted_by_rmqtt_too(
        packet in packet_of(Version::V5).prop_filter("supported", is_supported),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
    ) {
        let mut wire = Vec::new();
        packet.encode(Version::V5, &mut wire).unwrap();
        let at = at.index(wire.len());
        wire[at] = with;
        let Ok(Some((ours, used))) = decode(&wire, Version::V5, MAX) else { return Ok(()) };
        if !is_supported(&ours) || matches!(&ours, Packet::Connect(connect) if connect.version != Version::V5) {
            return Ok(());
        }
        let mut theirs = BytesMut::from(&wire[..used]);
        let read = v5::Codec::new(0, 0).decode(&mut theirs);
        prop_assert!(matches!(read, Ok(Some(_))), "{read:?} of {ours:?} {wire:02x?}");
    }
}
