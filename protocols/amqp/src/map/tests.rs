//! Round trips of AMQP messages, and deliveries of records from other protocols.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use proptest::collection::vec;
use proptest::prelude::*;

use bytes::Bytes;
use inver_broker::message::{Death, Property, name};
use inver_broker::{DropReason, HeaderWriter};
use inver_storage::batch::{BatchBuilder, Record, records};

use super::outgoing::Outgoing;
use super::*;
use crate::codec::content::Properties;
use crate::codec::table::{TableWriter, array_of};

fn record(headers: inver_broker::Headers<'_>, key: Option<&[u8]>, value: Option<&[u8]>) -> Record {
    let mut builder = BatchBuilder::new(1024);
    builder.push_with(1_700_000_000_123, key, headers.count as usize, headers.bytes, value);
    let batch = builder.finish();
    records(batch.bytes()).unwrap().next().unwrap().unwrap()
}

fn stored(publish: &Publish<'_>) -> Record {
    let mut composer = Composer::default();
    let composed = composer.compose(publish, 1000).unwrap();
    record(composed.headers, composed.key, composed.value)
}

fn raw(properties: &Properties<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    properties.encode(&mut out);
    out
}

fn publish<'a>(properties: &'a [u8], body: &'a [u8]) -> Publish<'a> {
    Publish { exchange: "ex", routing_key: b"a.b", mandatory: false, properties, body }
}

fn names(record: &Record) -> Vec<String> {
    record.headers().map(|(name, _)| String::from_utf8_lossy(&name).into_owned()).collect()
}

fn round_trip(properties: &[u8], body: &[u8]) {
    let record = stored(&publish(properties, body));
    let mut renderer = Renderer::default();
    let outgoing = renderer.render(&record, "q", 100_000, 0);
    assert_eq!(outgoing, Outgoing { exchange: b"ex", routing_key: b"a.b", properties, body });
}

/// Any names, and those that the broker writes itself.
fn header_names() -> impl Strategy<Value = Vec<u8>> {
    let reserved = ["inver-origin", "user-id", "exchange", "amqp-properties", "death", "type", "x"];
    let reserved = (0usize..3, proptest::sample::select(reserved.to_vec()))
        .prop_map(|(claims, name)| [&b"claimed-".repeat(claims)[..], name.as_bytes()].concat());
    prop_oneof![vec(any::<u8>(), 0..10), reserved]
}

proptest! {
    #[test]
    fn messages_published_over_amqp_are_delivered_exactly(
        there in any::<u16>(),
        texts in vec(vec(any::<u8>(), 0..40), 9),
        numbers in any::<(u8, u8, u64)>(),
        headers in vec((header_names(), 0u8..6, vec(any::<u8>(), 0..10)), 0..5),
        strings_only in any::<bool>(),
        body in vec(any::<u8>(), 0..50),
    ) {
        let some = |bit: u32, i: usize| (there >> bit & 1 == 1).then(|| &texts[i][..]);
        let mut table = Vec::new();
        for (name, kind, bytes) in &headers {
            let value = match kind {
                _ if strings_only => Value::Text(bytes),
                0 => Value::Void,
                1 => Value::Bool(true),
                2 => Value::F64(0.5),
                3 => Value::Binary(bytes),
                _ => Value::Text(bytes),
            };
            TableWriter::new(&mut table).field(name, value);
        }
        let properties = Properties {
            content_type: some(0, 0),
            content_encoding: some(1, 1),
            headers: (there & 4 != 0).then(|| Table::of(&table)),
            delivery_mode: (there & 8 != 0).then_some(numbers.0),
            priority: (there & 16 != 0).then_some(numbers.1),
            correlation_id: some(5, 2),
            reply_to: some(6, 3),
            expiration: (there & 128 != 0).then_some(&b"60000"[..]),
            message_id: some(8, 4),
            timestamp: (there & 512 != 0).then_some(numbers.2),
            kind: some(10, 5),
            user_id: (there & 2048 != 0).then_some(&b"guest"[..]),
            app_id: some(12, 6),
            cluster_id: some(13, 7),
        };
        round_trip(&raw(&properties), &body);
    }

    #[test]
    fn any_record_is_rendered(
        count in 0u32..6,
        bytes in vec(any::<u8>(), 0..60),
        fields in vec((header_names(), proptest::option::of(vec(any::<u8>(), 0..20))), 0..6),
        null in any::<bool>(),
    ) {
        let mut renderer = Renderer::default();
        // A record of a producer's batch.
        let mut builder = BatchBuilder::new(64);
        let headers: Vec<(&[u8], Option<&[u8]>)> = fields.iter().map(|(n, v)| (&n[..], v.as_deref())).collect();
        builder.push(5, Some(b"k"), &headers, (!null).then_some(&b"v"[..]));
        let batch = builder.finish();
        let mut record = records(batch.bytes()).unwrap().next().unwrap().unwrap();
        prop_assert!(Properties::parse(renderer.render(&record, "t", 100_000, 0).properties).is_ok());
        prop_assert!(renderer.render(&record, "t", 40, 0).properties.len() < 40 + 30);
        // And one whose headers are not encoded headers at all.
        record.headers = Bytes::from(bytes);
        record.header_count = count;
        prop_assert!(Properties::parse(renderer.render(&record, "t", 100_000, 0).properties).is_ok());
    }
}

#[test]
fn the_property_list_is_stored_only_where_needed() {
    let plain = raw(&Properties { delivery_mode: Some(2), ..Default::default() });
    assert_eq!(
        names(&stored(&publish(&plain, b"x"))),
        ["inver-origin", "exchange", "routing-key", "delivery-mode"]
    );
    let mut table = Vec::new();
    TableWriter::new(&mut table).field(b"k", Value::Text(b"v"));
    let strings = raw(&Properties { headers: Some(Table::of(&table)), ..Default::default() });
    assert_eq!(names(&stored(&publish(&strings, b"x"))), ["inver-origin", "exchange", "routing-key", "k"]);
    TableWriter::new(&mut table).field(b"n", Value::I32(7));
    let typed = raw(&Properties { headers: Some(Table::of(&table)), ..Default::default() });
    let record = stored(&publish(&typed, b"x"));
    assert_eq!(names(&record), ["inver-origin", "exchange", "routing-key", "amqp-properties", "k", "n"]);
    assert_eq!(record.headers().last().unwrap().1.unwrap(), "7");
    let expiring = raw(&Properties { expiration: Some(b"500"), ..Default::default() });
    let record = stored(&publish(&expiring, b"x"));
    assert_eq!(inver_broker::message::expires_ms(&record), Some(1500));
}

#[test]
fn record_keys_and_null_values_are_headers_in_both_directions() {
    let mut table = Vec::new();
    TableWriter::new(&mut table)
        .field(name::RECORD_KEY.as_bytes(), Value::Text(b"key"))
        .field(name::NULL_VALUE.as_bytes(), Value::Bool(true));
    let properties = raw(&Properties { headers: Some(Table::of(&table)), ..Default::default() });
    let record = stored(&publish(&properties, b""));
    assert_eq!((record.key.as_deref(), record.value), (Some(&b"key"[..]), None));

    let mut builder = BatchBuilder::new(64);
    builder.push(1_700_000_000_123, Some(b"\xFFkey"), &[(b"h", Some(b"v")), (b"h", None)], None);
    let batch = builder.finish();
    let record = records(batch.bytes()).unwrap().next().unwrap().unwrap();
    let mut renderer = Renderer::default();
    let outgoing = renderer.render(&record, "topic.x", 100_000, 0);
    assert_eq!(
        (outgoing.exchange, outgoing.routing_key, outgoing.body),
        (&b""[..], &b"topic.x"[..], &b""[..])
    );
    let properties = Properties::parse(outgoing.properties).unwrap();
    assert_eq!(properties.timestamp, Some(1_700_000_000));
    let headers: Vec<_> = properties.headers.unwrap().iter().collect();
    assert_eq!(
        headers,
        [
            (name::RECORD_KEY.as_bytes(), Value::Binary(b"\xFFkey")),
            (name::NULL_VALUE.as_bytes(), Value::Bool(true)),
            (&b"timestamp_in_ms"[..], Value::I64(1_700_000_000_123)),
            (b"h", Value::Text(b"v")),
            (b"h", Value::Void),
        ]
    );
}

#[test]
fn a_record_published_over_mqtt_is_delivered_by_its_shared_properties() {
    let mut writer = HeaderWriter::default();
    writer.begin("mqtt", Some(9_000));
    writer.property(b"mqtt-topic", b"sensors/a.b/temp");
    writer.property(b"mqtt-qos", b"1");
    writer.property(b"content-type", b"text/plain");
    writer.property(b"correlation-id", &[1; 300]);
    writer.user(b"u", Some(b"1"));
    writer.user(b"u", Some(b"2"));
    let record = record(writer.headers(), None, Some(b"21"));
    let mut renderer = Renderer::default();
    let outgoing = renderer.render(&record, "q", 100_000, 1_000);
    assert_eq!((outgoing.exchange, outgoing.routing_key), (&b"amq.topic"[..], &b"sensors.a%2Eb.temp"[..]));
    let properties = Properties::parse(outgoing.properties).unwrap();
    assert_eq!(properties.content_type, Some(&b"text/plain"[..]));
    assert_eq!(properties.delivery_mode, Some(2));
    assert_eq!(properties.expiration, Some(&b"8000"[..]));
    assert_eq!(properties.correlation_id, None, "too long for AMQP's property");
    let headers: Vec<_> = properties.headers.unwrap().iter().collect();
    assert_eq!(
        headers,
        [
            (&b"mqtt-qos"[..], Value::Text(b"1")),
            (b"correlation-id", Value::Text(&[1; 300])),
            (b"u", Value::Text(b"1")),
            (b"u", Value::Text(b"2")),
        ]
    );
}

/// A record of a producer's batch.
fn produced(headers: &[(&[u8], Option<&[u8]>)], key: Option<&[u8]>) -> Record {
    let mut builder = BatchBuilder::new(64);
    builder.push(1_700_000_000_123, key, headers, Some(b"v"));
    records(builder.finish().bytes()).unwrap().next().unwrap().unwrap()
}

#[test]
fn headers_of_other_protocols_claim_nothing_that_amqp_or_the_broker_says() {
    let mut writer = HeaderWriter::default();
    writer.begin("mqtt", None);
    writer.property(b"mqtt-topic", b"a/b");
    writer.put(Property::ClientId(b"dev"));
    writer.put(Property::UserId(b"ann"));
    for name in [&b"user-id"[..], b"client-id", b"CC", b"BCC", b"x-death", b"inver-key", b"claimed-x", b"u"] {
        writer.user(name, Some(b"forged"));
    }
    let of_mqtt = record(writer.headers(), Some(b"key"), Some(b"v"));
    let of_producer = produced(
        &[
            (b"user-id", Some(b"forged")),
            (b"CC", None),
            (b"timestamp_in_ms", Some(b"1")),
            (b"type", Some(b"t")),
        ],
        None,
    );
    let names = |record: &Record| {
        let mut renderer = Renderer::default();
        let outgoing = renderer.render(record, "t", 100_000, 0);
        let properties = Properties::parse(outgoing.properties).unwrap();
        assert_eq!(properties.user_id, None);
        // It can be published again as it was received; nothing is claimed about the user.
        let again = Publish { properties: outgoing.properties, ..publish(b"", b"") };
        assert!(Composer::default().compose(&again, 0).is_ok());
        let headers: Vec<String> = (properties.headers.unwrap().iter())
            .map(|(name, _)| String::from_utf8(name.to_vec()).unwrap())
            .collect();
        headers
    };
    let wanted = "client-id user-id inver-key claimed-user-id claimed-client-id claimed-CC claimed-BCC \
                  claimed-x-death claimed-inver-key claimed-x u";
    assert_eq!(names(&of_mqtt).join(" "), wanted);
    let wanted = "timestamp_in_ms claimed-user-id claimed-CC claimed-timestamp_in_ms type";
    assert_eq!(names(&of_producer).join(" "), wanted);
}

#[test]
fn a_response_topic_is_not_the_pseudo_queue_of_direct_replies() {
    let mut writer = HeaderWriter::default();
    writer.begin("mqtt", None);
    writer.property(b"mqtt-topic", b"a/b");
    writer.put(Property::ReplyTo(b"amq/rabbitmq/reply-to"));
    let record = record(writer.headers(), None, Some(b"v"));
    let mut renderer = Renderer::default();
    let properties = Properties::parse(renderer.render(&record, "t", 100_000, 0).properties).unwrap();
    assert_eq!(properties.reply_to, None);
    assert_eq!(properties.headers.unwrap().get("reply-to"), Some(Value::Text(b"amq.rabbitmq.reply-to")));
}

#[test]
fn death_records_become_x_death_headers() {
    let mut table = Vec::new();
    TableWriter::new(&mut table).field(b"mine", Value::I32(1));
    let properties =
        raw(&Properties { headers: Some(Table::of(&table)), expiration: Some(b"100"), ..Default::default() });
    let mut writer = HeaderWriter::default();
    writer.begin(ORIGIN, None);
    writer.property(b"exchange", b"dlx");
    writer.property(b"routing-key", b"dead");
    writer.property(b"amqp-properties", &properties);
    let last = Death {
        queue: r"loop\new".into(),
        reason: DropReason::Rejected,
        exchange: b"ex2".as_slice().into(),
        routing_key: b"k\xff".as_slice().into(),
        time_ms: 1_700_000_002_000,
        count: 1,
        ttl_ms: None,
    };
    writer.put(Property::Death(&last.encode()));
    // In the text form of the first version.
    writer.property(b"death", b"q\\n1\nexpired\n\nk1\n1700000001000\n3\n100");
    writer.user(b"mine", Some(b"1"));
    let record = record(writer.headers(), None, Some(b"body"));
    let mut renderer = Renderer::default();
    let outgoing = renderer.render(&record, "q", 100_000, 0);
    assert_eq!((outgoing.exchange, outgoing.routing_key), (&b"dlx"[..], &b"dead"[..]));
    let properties = Properties::parse(outgoing.properties).unwrap();
    assert_eq!(properties.expiration, None);
    let headers = properties.headers.unwrap();
    assert_eq!(headers.get("x-first-death-queue"), Some(Value::Text(b"q\n1")));
    assert_eq!(headers.get("x-last-death-reason"), Some(Value::Text(b"rejected")));
    assert_eq!(headers.get("x-last-death-queue"), Some(Value::Text(br"loop\new")));
    assert_eq!(headers.get("mine"), Some(Value::I32(1)));
    let Some(Value::Array(deaths)) = headers.get("x-death") else { panic!("no x-death") };
    let deaths: Vec<_> = deaths.iter().collect();
    let Value::Table(newest) = deaths[0] else { panic!("no table") };
    let Some(Value::Array(keys)) = newest.get("routing-keys") else { panic!("no routing keys") };
    assert_eq!(keys.iter().collect::<Vec<_>>(), [Value::Text(b"k\xff")]);
    assert_eq!(newest.get("original-expiration"), None);
    let Value::Table(oldest) = deaths[1] else { panic!("no table") };
    assert_eq!(oldest.get("count"), Some(Value::I64(3)));
    assert_eq!(oldest.get("original-expiration"), Some(Value::Text(b"100")));
    assert_eq!(oldest.get("time"), Some(Value::Timestamp(1_700_000_001)));
}

#[test]
fn cc_and_bcc_are_routing_keys_and_bcc_is_not_delivered() {
    let keys = |name: &[u8], value: Value<'_>| {
        let mut table = Vec::new();
        TableWriter::new(&mut table).field(name, value);
        raw(&Properties { headers: Some(Table::of(&table)), ..Default::default() })
    };
    let mut list = Vec::new();
    let mut writer = TableWriter::new(&mut list);
    writer.value(Value::Text(b"k1"));
    writer.value(Value::Text(b"k2"));
    let mut composer = Composer::default();
    let properties = keys(b"BCC", array_of(&list));
    let publish = publish(&properties, b"");
    let composed = composer.compose(&publish, 0).unwrap();
    assert!(composed.more_keys);
    assert_eq!(composed.more_keys(), [b"k1", b"k2"]);
    let record = stored(&publish);
    let mut renderer = Renderer::default();
    let seen = Properties::parse(renderer.render(&record, "", 1000, 0).properties).unwrap();
    assert!(seen.headers.unwrap_or_default().is_empty(), "receivers do not see BCC");
    let wrong = keys(b"CC", Value::Text(b"k"));
    let refusal = composer.compose(&Publish { properties: &wrong, ..publish }, 0).unwrap_err();
    assert_eq!(
        refusal.text,
        "PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,\"CC\",longstr}"
    );
}
