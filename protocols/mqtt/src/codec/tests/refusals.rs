//! Packets that must be refused, with their reason codes, and unusual ones that must not.

use super::super::*;
use super::MAX;

fn refused(wire: &[u8], version: Version) -> Reason {
    match decode(wire, version, MAX) {
        Err(error) => error.reason,
        Ok(found) => panic!("{wire:02x?} was decoded as {found:?}"),
    }
}

#[test]
fn unknown_types_and_reserved_flags_are_refused() {
    use Reason::MalformedPacket as Malformed;
    for first in [0x00, 0x11, 0x2f, 0x41, 0x50 | 2, 0x60, 0x63, 0x80, 0x8a, 0xa0, 0xc1, 0xe8, 0xf1] {
        assert_eq!(refused(&[first, 0], Version::V5), Malformed, "{first:02x}");
    }
    assert_eq!(refused(&[0xf0, 0], Version::V311), Malformed, "AUTH exists in MQTT 5 only");
    assert_eq!(refused(b"\x36\x05\x00\x01a\x00\x01", Version::V311), Malformed, "QoS 3");
    assert_eq!(refused(b"\x38\x03\x00\x01a", Version::V311), Malformed, "DUP at QoS 0");
    assert!(
        decode(b"\x8a\x06\x00\x01\x00\x01a\x00", Version::V31, MAX).is_ok(),
        "MQTT 3.1 allows DUP in SUBSCRIBE"
    );
}

#[test]
fn a_packet_that_is_too_long_is_refused_by_its_header() {
    assert_eq!(
        decode(b"\x30\xff\xff\xff\x7f", Version::V5, 1 << 20).map_err(|e| e.reason),
        Err(Reason::PacketTooLarge)
    );
    assert_eq!(refused(b"\x30\xff\xff\xff\xff", Version::V5), Reason::MalformedPacket);
}

#[test]
fn invalid_strings_and_topics_are_refused() {
    use Reason::*;
    for (wire, reason) in [
        (&b"\x30\x04\x00\x02a\x00"[..], MalformedPacket),
        (b"\x30\x04\x00\x02\xc3\x28", MalformedPacket),
        (b"\x30\x05\x00\x03\xed\xa0\x80", MalformedPacket),
        (b"\x30\x04\x00\x02a+", TopicNameInvalid),
        (b"\x30\x04\x00\x02#/", TopicNameInvalid),
        (b"\x30\x02\x00\x00", ProtocolError),
        (b"\x32\x05\x00\x01a\x00\x00", ProtocolError),
        (b"\x30\x03\x00\x02a", MalformedPacket),
        (b"\x40\x02\x00\x00", ProtocolError),
    ] {
        assert_eq!(refused(wire, Version::V311), reason, "{wire:02x?}");
    }
}

#[test]
fn invalid_publish_properties_are_refused_and_repeated_ones_accepted() {
    use Reason::*;
    let publish = |properties: &[u8]| {
        let mut wire = vec![0x30, 4 + properties.len() as u8, 0, 1, b'a', properties.len() as u8];
        wire.extend_from_slice(properties);
        wire
    };
    for (properties, reason) in [
        (&b"\x23\x00\x00"[..], TopicAliasInvalid),
        (b"\x01\x02", ProtocolError),
        (b"\x01\x01\x01\x01", ProtocolError),
        (b"\x0b\x00", ProtocolError),
        (b"\x08\x00\x01#", TopicNameInvalid),
        (b"\x08\x00\x02\xff\xff", MalformedPacket),
        (b"\x11\x00\x00\x00\x01", ProtocolError),
        (b"\x04\x00", MalformedPacket),
        (b"\x02\x00\x00", MalformedPacket),
        (b"\x23\x00\x01\x23\x00\x01", ProtocolError),
    ] {
        assert_eq!(refused(&publish(properties), Version::V5), reason, "{properties:02x?}");
    }
    let repeated = publish(b"\x0b\x01\x0b\x02\x0b\x83\x01\x26\x00\x01a\x00\x01b\x26\x00\x01a\x00\x01c");
    let Ok(Some((Packet::Publish(publish), _))) = decode(&repeated, Version::V5, MAX) else { panic!() };
    assert_eq!(
        publish.properties.iter().collect::<Vec<_>>(),
        [
            Property::SubscriptionIdentifier(1),
            Property::SubscriptionIdentifier(2),
            Property::SubscriptionIdentifier(131),
            Property::UserProperty("a", "b"),
            Property::UserProperty("a", "c"),
        ]
    );
    assert_eq!(publish.payload, b"");
}

#[test]
fn invalid_connects_are_refused_in_each_version() {
    use Reason::*;
    for (wire, reason) in [
        (&b"\x10\x0c\x00\x04MQTT\x06\x02\x00\x0a\x00\x00"[..], UnsupportedProtocolVersion),
        (b"\x10\x0a\x00\x02hj\x04\x02\x00\x0a\x00\x00", ProtocolError),
        (b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x0a\x00\x00", MalformedPacket),
        (b"\x10\x0c\x00\x04MQTT\x04\x22\x00\x0a\x00\x00", MalformedPacket),
        (b"\x10\x0c\x00\x04MQTT\x04\x1e\x00\x0a\x00\x00", MalformedPacket),
        (b"\x10\x0f\x00\x04MQTT\x04\x42\x00\x0a\x00\x00\x00\x01p", MalformedPacket),
        (b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x0a\x00\x00x", MalformedPacket),
        (b"\x10\x10\x00\x04MQTT\x05\x02\x00\x0a\x03\x21\x00\x00\x00\x00", ProtocolError),
        (b"\x10\x11\x00\x04MQTT\x05\x02\x00\x0a\x04\x16\x00\x01d\x00\x00", ProtocolError),
    ] {
        assert_eq!(refused(wire, Version::V5), reason, "{wire:02x?}");
    }
    // MQTT 3.1: the user name flag without a user name.
    let wire = b"\x10\x0f\x00\x06MQIsdp\x03\x82\x00\x0a\x00\x01c";
    let Ok(Some((Packet::Connect(connect), 17))) = decode(wire, Version::V5, MAX) else { panic!() };
    assert_eq!((connect.version, connect.client_id, connect.username), (Version::V31, "c", None));
}

#[test]
fn default_reason_codes_and_properties_are_omitted_in_mqtt_5() {
    for (wire, reason) in [(&b"\xe0\x00"[..], Reason::Success), (b"\xe0\x01\x04", Reason::DisconnectWithWill)]
    {
        let Ok(Some((Packet::Disconnect(found), _))) = decode(wire, Version::V5, MAX) else { panic!() };
        assert_eq!(found.reason, reason);
    }
    let mut out = Vec::new();
    Packet::PubAck(Ack::new(7, Reason::Success)).encode(Version::V5, &mut out).unwrap();
    assert_eq!(out, b"\x40\x02\x00\x07");
    out.clear();
    Packet::PubAck(Ack::new(7, Reason::NoMatchingSubscribers)).encode(Version::V5, &mut out).unwrap();
    assert_eq!(out, b"\x40\x03\x00\x07\x10");
}

#[test]
fn an_oversized_field_is_refused_and_nothing_is_written() {
    let long = "x".repeat(70_000);
    let mut out = Vec::new();
    let publish = Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: &long,
        packet_id: 0,
        properties: Properties::EMPTY,
        payload: b"",
    };
    assert_eq!(
        Packet::Publish(publish).encode(Version::V5, &mut out),
        Err(EncodeError::FieldTooLong(70_000))
    );
    let mut properties = PropertiesBuf::new();
    assert!(properties.push(Property::UserProperty("a", &long)).is_err());
    assert!(properties.as_ref().is_empty() && out.is_empty());
}
