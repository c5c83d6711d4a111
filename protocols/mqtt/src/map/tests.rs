//! Tests: round trips through a record, and records of other origins.

use inver_broker::message::{HeaderView, HeaderWriter, Headers, name};
use inver_storage::batch::{BatchBuilder, Record, records};
use proptest::prelude::*;

use super::*;
use crate::codec::{Properties, PropertiesBuf, Property, Qos};
use crate::config::AmqpNames;

const NOW_MS: i64 = 1_700_000_000_000;

fn record(headers: Headers<'_>, key: Option<&[u8]>) -> Record {
    let mut builder = BatchBuilder::new(0);
    builder.push_with(NOW_MS, key, headers.count as usize, headers.bytes, Some(b"payload"));
    records(builder.finish().bytes()).unwrap().next().unwrap().unwrap()
}

fn record_of_amqp(build: impl FnOnce(&mut HeaderWriter)) -> Record {
    let mut writer = HeaderWriter::default();
    writer.begin("amqp", None);
    build(&mut writer);
    record(writer.headers(), None)
}

fn record_of_a_producer(headers: &[(&[u8], Option<&[u8]>)], key: Option<&[u8]>) -> Record {
    let mut builder = BatchBuilder::new(0);
    builder.push(NOW_MS, key, headers, Some(b"payload"));
    records(builder.finish().bytes()).unwrap().next().unwrap().unwrap()
}

fn properties_of(outgoing: &Outgoing<'_>) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    outgoing.put_properties(NOW_MS, &mut properties);
    properties
}

fn built(properties: &[Property<'_>]) -> PropertiesBuf {
    let mut buf = PropertiesBuf::new();
    properties.iter().for_each(|&property| buf.push(property).unwrap());
    buf
}

const AUTHOR: Author<'static> = Author { client_id: "device", user: Some("ada") };

/// Any names, and those that the broker writes itself.
fn user_names() -> impl Strategy<Value = String> {
    let reserved = ["inver-origin", "user-id", "mqtt-topic", "mqtt-inbox-for", "expires", "type"];
    let reserved = (0usize..3, prop::sample::select(reserved.to_vec()));
    prop_oneof!["[a-z]{0,3}", reserved.prop_map(|(claims, name)| "claimed-".repeat(claims) + name)]
}

proptest! {
    #[test]
    fn messages_published_over_mqtt_round_trip(
        topic in "[a-z/é]{1,20}",
        qos in 0u8..3,
        retain in any::<bool>(),
        format in prop::option::of(0u8..2),
        expiry_s in prop::option::of(1u32..100_000),
        content_type in prop::option::of("[a-z/]{0,10}"),
        response in prop::option::of("[a-z/.%]{1,10}"),
        correlation in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        user in prop::collection::vec((user_names(), "[a-z]{0,3}"), 0..6),
    ) {
        let qos = Qos::from_bits(qos).unwrap();
        let user = user.iter().map(|(name, value)| Property::UserProperty(name, value));
        let properties = format.map(Property::PayloadFormatIndicator).into_iter()
            .chain(expiry_s.map(Property::MessageExpiryInterval))
            .chain(content_type.as_deref().map(Property::ContentType))
            .chain(response.as_deref().map(Property::ResponseTopic))
            .chain(correlation.as_deref().map(Property::CorrelationData))
            .chain(user);
        let wire = built(&properties.collect::<Vec<_>>());
        let mut writer = HeaderWriter::default();
        let incoming = Incoming::read(wire.as_ref(), AmqpNames::Reversible).unwrap();
        let record = record(incoming.headers(&mut writer, AUTHOR, &topic, qos, retain, NOW_MS), None);
        let outgoing = Outgoing::read(&record, None, AmqpNames::Reversible).unwrap();
        prop_assert_eq!(&outgoing.topic, &topic);
        prop_assert_eq!((outgoing.qos, outgoing.retain, outgoing.client_id), (qos, retain, Some(&b"device"[..])));
        prop_assert_eq!(properties_of(&outgoing), wire);

        // A copy for an inbox round-trips too, with the way it is delivered.
        let mut writer = HeaderWriter::default();
        let terms = InboxFor { granted: Qos::AtLeastOnce, retain, shared: !retain, subscription_id: expiry_s };
        let copy = self::record(inbox_copy(&mut writer, &record, "t", terms), None);
        let again = Outgoing::read(&copy, None, AmqpNames::Reversible).unwrap();
        prop_assert_eq!(again.inbox_for, Some(terms));
        prop_assert_eq!(properties_of(&again), properties_of(&outgoing));
        prop_assert_eq!(&again.topic, &topic);
    }
}

#[test]
fn a_subscription_identifier_from_a_client_is_refused() {
    assert!(
        Incoming::read(built(&[Property::SubscriptionIdentifier(1)]).as_ref(), AmqpNames::Reversible)
            .is_err()
    );
    assert!(Incoming::read(Properties::EMPTY, AmqpNames::Reversible).is_ok());
}

#[test]
fn the_remaining_expiry_is_rounded_up_to_seconds() {
    let mut writer = HeaderWriter::default();
    let wire = built(&[Property::MessageExpiryInterval(6)]);
    let headers = Incoming::read(wire.as_ref(), AmqpNames::Reversible).unwrap().headers(
        &mut writer,
        AUTHOR,
        "t",
        Qos::AtMostOnce,
        false,
        NOW_MS,
    );
    let record = record(headers, None);
    let outgoing = Outgoing::read(&record, None, AmqpNames::Reversible).unwrap();
    let mut properties = PropertiesBuf::new();
    outgoing.put_properties(NOW_MS + 2_500, &mut properties);
    assert_eq!(properties, built(&[Property::MessageExpiryInterval(4)]));
    assert!(!outgoing.is_expired(NOW_MS + 5_999));
    assert!(outgoing.is_expired(NOW_MS + 6_000));
}

#[test]
fn an_amqp_record_maps_to_mqtt_properties() {
    let record = record_of_amqp(|writer| {
        writer.property(b"exchange", b"amq.topic");
        writer.property(name::ROUTING_KEY, b"a%2Eb.c");
        writer.property(name::DELIVERY_MODE, b"2");
        writer.property(name::CONTENT_TYPE, b"text/plain");
        writer.property(name::CORRELATION_ID, b"\x00\xff");
        writer.property(name::REPLY_TO, b"answers.here");
        writer.property(b"message-id", b"m1");
        writer.property(b"priority", b"5");
        writer.property(b"amqp-properties", b"\x00\x01");
        writer.user(b"k", Some(b"v"));
        writer.user(b"k", None);
        writer.user(b"binary", Some(b"\xff\xfe"));
    });
    let outgoing = Outgoing::read(&record, None, AmqpNames::Reversible).unwrap();
    assert_eq!((&*outgoing.topic, outgoing.qos), ("a.b/c", Qos::AtLeastOnce));
    assert_eq!(
        properties_of(&outgoing),
        built(&[
            Property::ContentType("text/plain"),
            Property::ResponseTopic("answers/here"),
            Property::CorrelationData(b"\x00\xff"),
            Property::UserProperty("message-id", "m1"),
            Property::UserProperty("priority", "5"),
            Property::UserProperty("k", "v"),
            Property::UserProperty("k", ""),
        ])
    );
}

#[test]
fn a_producers_record_takes_its_topic_from_its_header_or_its_address() {
    let record = record_of_a_producer(&[(name::ADDRESS, Some(b"d/1")), (b"h", Some(b"v"))], Some(b"key"));
    let outgoing = Outgoing::read(&record, Some(b"commands"), AmqpNames::Reversible).unwrap();
    assert_eq!((&*outgoing.topic, outgoing.qos), ("d/1", Qos::AtLeastOnce));
    assert_eq!(
        properties_of(&outgoing),
        built(&[Property::UserProperty(name::RECORD_KEY, "key"), Property::UserProperty("h", "v")])
    );
    let record = record_of_a_producer(&[], None);
    assert_eq!(Outgoing::read(&record, Some(b"a.b.c"), AmqpNames::Reversible).unwrap().topic, "a/b/c");
    assert!(Outgoing::read(&record, None, AmqpNames::Reversible).is_none());
}

#[test]
fn a_producers_headers_claim_nothing_that_the_broker_says() {
    let headers: [(&[u8], Option<&[u8]>); 5] = [
        (b"user-id", Some(b"admin")),
        (b"inver-key", Some(b"other")),
        (name::ADDRESS, Some(b"d/1")),
        (name::ADDRESS, Some(b"d/2")),
        (b"content-type", Some(b"text")),
    ];
    let record = record_of_a_producer(&headers, Some(b"key"));
    let outgoing = Outgoing::read(&record, Some(b"commands"), AmqpNames::Reversible).unwrap();
    assert_eq!(outgoing.topic, "d/1");
    assert_eq!(
        properties_of(&outgoing),
        built(&[
            Property::ContentType("text"),
            Property::UserProperty("inver-key", "key"),
            Property::UserProperty("claimed-user-id", "admin"),
            Property::UserProperty("claimed-inver-key", "other"),
            Property::UserProperty("claimed-mqtt-topic", "d/2"),
        ])
    );
}

#[test]
fn what_another_protocols_client_sent_is_shown_as_a_claim() {
    let record = record_of_amqp(|writer| {
        writer.property(name::USER_ID, b"app");
        writer.user(b"user-id", Some(b"admin"));
        writer.user(b"mqtt-retain", Some(b"1"));
    });
    let outgoing = Outgoing::read(&record, Some(b"a"), AmqpNames::Reversible).unwrap();
    assert!(!outgoing.retain);
    assert_eq!(
        properties_of(&outgoing),
        built(&[
            Property::UserProperty("user-id", "app"),
            Property::UserProperty("claimed-user-id", "admin"),
            Property::UserProperty("claimed-mqtt-retain", "1"),
        ])
    );
}

#[test]
fn a_producers_record_is_read_as_it_was_routed() {
    let mut far = vec![(&b"h"[..], Some(&b"v"[..])); 70];
    far.push((name::ADDRESS, Some(b"d/1")));
    for (headers, topic, shown) in [
        (vec![(&b"claimed-mqtt-topic"[..], Some(&b"d/1"[..]))], "commands", Some("claimed-mqtt-topic")),
        (vec![(name::ADDRESS, None), (name::ADDRESS, Some(b"d/1"))], "commands", Some("claimed-mqtt-topic")),
        (far, "d/1", None),
    ] {
        let record = record_of_a_producer(&headers, None);
        let named = HeaderView::of(&record).named_address();
        let outgoing = Outgoing::read(&record, Some(b"commands"), AmqpNames::Reversible).unwrap();
        assert_eq!(&*outgoing.topic, topic);
        assert_eq!(named, (topic == "d/1").then_some(&b"d/1"[..]));
        let properties = properties_of(&outgoing);
        let is_shown = |name: &str| {
            let wanted = Property::UserProperty(name, "d/1");
            properties.as_ref().iter().any(|property| property == wanted)
        };
        assert_eq!(is_shown("claimed-mqtt-topic"), shown.is_some());
        // A copy for an inbox tells the same.
        let inbox_for =
            InboxFor { granted: Qos::AtLeastOnce, retain: false, shared: false, subscription_id: None };
        let mut writer = HeaderWriter::default();
        let copy = self::record(inbox_copy(&mut writer, &record, &outgoing.topic, inbox_for), None);
        assert_eq!(properties_of(&Outgoing::read(&copy, None, AmqpNames::Reversible).unwrap()), properties);
    }
    let claims: [(&[u8], Option<&[u8]>); 2] =
        [(b"claimed-mqtt-qos", Some(b"2")), (b"claimed-mqtt-retain", Some(b"1"))];
    let record = record_of_a_producer(&claims, None);
    let outgoing = Outgoing::read(&record, Some(b"t"), AmqpNames::Reversible).unwrap();
    assert_eq!((outgoing.qos, outgoing.retain), (Qos::AtLeastOnce, false));
}

#[test]
fn characters_that_topic_names_forbid_are_escaped() {
    let record = record_of_a_producer(&[], None);
    for (dotted, topic) in [(&b"a.#.+"[..], "a/%23/%2B"), (b"a.\xff\x00b", "a/%FF%00b")] {
        assert_eq!(Outgoing::read(&record, Some(dotted), AmqpNames::Reversible).unwrap().topic, topic);
    }
    assert!(Outgoing::read(&record, Some(b""), AmqpNames::Reversible).is_none());
    assert!(Outgoing::read(&record, Some(&vec![b'a'; 70_000]), AmqpNames::Reversible).is_none());
}

#[test]
fn a_producers_headers_are_the_properties_of_its_message() {
    let headers: [(&[u8], Option<&[u8]>); 12] = [
        (name::ADDRESS, Some(b"d/1")),
        (b"h", Some(b"v")),
        (name::QOS, Some(b"2")),
        (b"mqtt-retain", Some(b"1")),
        (b"mqtt-payload-format", Some(b"1")),
        (name::CONTENT_TYPE, Some(b"text/plain")),
        (name::REPLY_TO, Some(b"answers/a.b")),
        (name::CORRELATION_ID, Some(b"\x00\xff")),
        (name::EXPIRES, Some(b"1700000060000")),
        (name::QOS, Some(b"1")),
        (name::CONTENT_TYPE, Some(b"again")),
        (name::EXPIRES, Some(b"never")),
    ];
    let record = record_of_a_producer(&headers, None);
    let outgoing = Outgoing::read(&record, Some(b"commands"), AmqpNames::Reversible).unwrap();
    assert_eq!((&*outgoing.topic, outgoing.qos, outgoing.retain), ("d/1", Qos::ExactlyOnce, true));
    assert_eq!(outgoing.expires_ms, Some(1_700_000_060_000));
    let mut properties = PropertiesBuf::new();
    outgoing.put_properties(1_700_000_000_000, &mut properties);
    let expected = built(&[
        Property::PayloadFormatIndicator(1),
        Property::MessageExpiryInterval(60),
        Property::ContentType("text/plain"),
        Property::ResponseTopic("answers/a.b"),
        Property::CorrelationData(b"\x00\xff"),
        Property::UserProperty("h", "v"),
        Property::UserProperty("claimed-mqtt-qos", "1"),
        Property::UserProperty("content-type", "again"),
        Property::UserProperty("expires", "never"),
    ]);
    assert_eq!(properties, expected);
    // A copy for an inbox tells the same.
    let inbox_for =
        InboxFor { granted: Qos::ExactlyOnce, retain: true, shared: false, subscription_id: None };
    let mut writer = HeaderWriter::default();
    let copy = self::record(inbox_copy(&mut writer, &record, &outgoing.topic, inbox_for), None);
    let copied = Outgoing::read(&copy, None, AmqpNames::Reversible).unwrap();
    assert_eq!((&*copied.topic, copied.qos, copied.retain), ("d/1", Qos::ExactlyOnce, true));
    properties.clear();
    copied.put_properties(1_700_000_000_000, &mut properties);
    assert_eq!(properties, expected);
}

#[test]
fn headers_of_a_wrong_form_are_no_properties() {
    for (header, value) in [
        (name::QOS, &b"3"[..]),
        (b"mqtt-retain", b"yes"),
        (b"mqtt-payload-format", b"2"),
        (name::EXPIRES, b""),
    ] {
        let record = record_of_a_producer(&[(header, Some(value))], None);
        let outgoing = Outgoing::read(&record, Some(b"t"), AmqpNames::Reversible).unwrap();
        assert_eq!((outgoing.qos, outgoing.retain, outgoing.expires_ms), (Qos::AtLeastOnce, false, None));
        let shown = properties_of(&outgoing);
        let all: Vec<_> = shown.as_ref().iter().collect();
        assert!(matches!(all[..], [Property::UserProperty(..)]), "{all:?}");
    }
}
