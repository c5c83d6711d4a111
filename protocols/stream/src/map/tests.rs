use inver_broker::HeaderWriter;
use inver_broker::message::{HeaderView, Property, filter_value};
use inver_storage::batch::{BatchBuilder, Record, records};
use proptest::prelude::*;

use super::*;
use crate::codec::message::{Body, Message, Section, Value, put_data};

fn stored(message: &[u8], filter: Option<&str>) -> Record {
    let (mut composer, mut builder) = (Composer::default(), BatchBuilder::new(0));
    let composed = composer.compose(message, filter);
    let (count, bytes) = (composed.headers.count as usize, composed.headers.bytes);
    builder.push_with(1, composed.key, count, bytes, Some(composed.value));
    records(builder.finish().bytes()).unwrap().next().unwrap().unwrap()
}

fn message_of(record: &Record) -> Vec<u8> {
    let mut out = Vec::new();
    put_message(&mut out, record);
    out
}

#[test]
fn a_plain_body_is_stored_without_more() {
    let mut message = Vec::new();
    put_data(&mut message, b"hello");
    let record = stored(&message, None);
    assert_eq!((record.value.as_deref(), record.header_count), (Some(&b"hello"[..]), 1));
    assert_eq!(message_of(&record), message);
}

#[test]
fn what_other_protocols_have_is_stored_as_theirs() {
    let mut message = Vec::new();
    let mut annotations = Section::annotations(&mut message);
    annotations.symbol(b"x-basic-type");
    annotations.text(b"kind");
    annotations.symbol(b"x-more");
    annotations.byte(7);
    annotations.end_map();
    let mut properties = Section::properties(&mut message);
    properties.text(b"id");
    properties.binary(b"user");
    properties.null();
    properties.null();
    properties.null();
    properties.text(b"corr");
    properties.symbol(b"text/plain");
    properties.end_list();
    let mut application = Section::application(&mut message);
    application.text(b"colour");
    application.text(b"red");
    application.text(b"inver-key");
    application.text(b"k1");
    application.end_map();
    put_data(&mut message, b"body");
    let record = stored(&message, Some("eu"));
    let view = HeaderView::of(&record);
    let properties: Vec<Property<'_>> =
        view.typed_properties().filter(|property| !matches!(property, Property::Other(..))).collect();
    let wanted = [
        Property::MessageId(b"id"),
        Property::CorrelationId(b"corr"),
        Property::ContentType(b"text/plain"),
        Property::Type(b"kind"),
    ];
    assert_eq!(properties, wanted);
    let user: Vec<_> = view.written().collect();
    let header = |name: &'static str, value: &'static str| (name.as_bytes(), Some(value.as_bytes()));
    let wanted = [
        header("x-stream-filter-value", "eu"),
        header("x-more", "7"),
        header("colour", "red"),
        header("inver-key", "k1"),
    ];
    assert_eq!(user, wanted);
    assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(&b"k1"[..]), Some(&b"body"[..])));
    assert_eq!(filter_value(&record), Some(&b"eu"[..]));
    assert_eq!(message_of(&record), message);
}

#[test]
fn records_of_other_protocols_are_messages() {
    let (mut headers, mut builder) = (HeaderWriter::default(), BatchBuilder::new(0));
    headers.begin("other", None);
    headers.put(Property::Exchange(b"ex"));
    headers.put(Property::RoutingKey(b"a.b"));
    headers.put(Property::MessageId(b"id"));
    headers.put(Property::AppId(b"app"));
    headers.user(b"colour", Some(b"red"));
    headers.user(b"x-level", Some(b"5"));
    let headers = headers.headers();
    builder.push_with(1, Some(b"key"), headers.count as usize, headers.bytes, Some(b"body"));
    let record = records(builder.finish().bytes()).unwrap().next().unwrap().unwrap();
    let bytes = message_of(&record);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.body, Body::Data(b"body"));
    let annotations: Vec<Value<'_>> = message.annotations.collect();
    let texts = ["x-exchange", "ex", "x-routing-key", "a.b", "x-level", "5"];
    assert_eq!(annotations, texts.map(Value::Text));
    let fields: Vec<Value<'_>> = message.properties.collect();
    assert_eq!((fields.len(), fields[0], fields[10]), (11, Value::Text("id"), Value::Text("app")));
    let application: Vec<Value<'_>> = message.application.collect();
    assert_eq!(application, ["colour", "red", "inver-key", "key"].map(Value::Text));
}

proptest! {
    #[test]
    fn any_message_comes_back_byte_for_byte(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        kind in 0..5u8,
        filter in proptest::option::of("[a-z]{0,4}"),
    ) {
        let message = match kind {
            0 => bytes,
            1 => [&b"\0\x53\x77\xb1\0\0\0\x02ab"[..], &bytes].concat(),
            2 => [&b"\0\x53\x74\xd1"[..], &bytes].concat(),
            3 => [&b"\0\x53\x75\xa0\x01a\0\x53\x75\xb0\0\0\0\x01b"[..], &bytes].concat(),
            _ => {
                let mut message = Vec::new();
                put_data(&mut message, &bytes);
                message
            }
        };
        prop_assert_eq!(message_of(&stored(&message, filter.as_deref())), message);
    }
}
