//! From a record to a message.

use inver_broker::message::{HeaderView, Property, name};
use inver_broker::{Form, rewrite};
use inver_storage::batch::Record;

use super::{MESSAGE, MESSAGE_VERSION, ORIGIN, annotation};
use crate::codec::message::{Section, data_prefix, put_data};

/// Appends the message of a record.
pub(crate) fn put_message(out: &mut Vec<u8>, record: &Record) {
    let headers = HeaderView::of(record);
    let value = record.value.as_deref().unwrap_or_default();
    if headers.origin() == Some(ORIGIN.as_bytes()) {
        let head = headers.typed_properties().find_map(|property| match property {
            Property::Other(MESSAGE, head) => Some(head),
            _ => None,
        });
        match head.map(<[u8]>::split_first) {
            None => {
                let (prefix, length) = data_prefix(value.len());
                out.extend_from_slice(prefix.get(..length).unwrap_or_default());
                return out.extend_from_slice(value);
            }
            Some(Some((&MESSAGE_VERSION, head))) => {
                out.extend_from_slice(head);
                return out.extend_from_slice(value);
            }
            // Of a later version.
            Some(_) => {}
        }
    }
    put_foreign(out, record, &headers);
    put_data(out, value);
}

/// The properties of a record of another protocol.
#[derive(Default)]
struct Known<'a> {
    durable: bool,
    priority: Option<u8>,
    exchange: Option<&'a [u8]>,
    routing_key: Option<&'a [u8]>,
    address: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
    message_id: Option<&'a [u8]>,
    user_id: Option<&'a [u8]>,
    reply_to: Option<&'a [u8]>,
    correlation_id: Option<&'a [u8]>,
    content_type: Option<&'a [u8]>,
    content_encoding: Option<&'a [u8]>,
    created_ms: Option<i64>,
    app_id: Option<&'a [u8]>,
}

impl<'a> Known<'a> {
    fn of(headers: &HeaderView<'a>) -> Known<'a> {
        let mut known = Known::default();
        for property in headers.typed_properties() {
            match property {
                Property::DeliveryMode(mode) => known.durable |= mode == 2,
                Property::Qos(level) => known.durable |= level > 0,
                Property::Priority(priority) => known.priority = Some(priority),
                Property::Exchange(name) => known.exchange = Some(name),
                Property::RoutingKey(key) => known.routing_key = Some(key),
                Property::Address(address) => known.address = Some(address),
                Property::Type(kind) => known.kind = Some(kind),
                Property::MessageId(id) => known.message_id = Some(id),
                Property::UserId(id) => known.user_id = Some(id),
                Property::ReplyTo(address) => known.reply_to = Some(address),
                Property::CorrelationId(id) => known.correlation_id = Some(id),
                Property::ContentType(kind) => known.content_type = Some(kind),
                Property::ContentEncoding(kind) => known.content_encoding = Some(kind),
                Property::TimestampS(seconds) => {
                    known.created_ms = i64::try_from(seconds).ok().and_then(|s| s.checked_mul(1000));
                }
                Property::AppId(id) => known.app_id = Some(id),
                _ => {}
            }
        }
        known.address = known.address.or_else(|| headers.named_address());
        known
    }
}

/// Appends all sections before the body.
fn put_foreign(out: &mut Vec<u8>, record: &Record, headers: &HeaderView<'_>) {
    let known = Known::of(headers);
    if known.durable || known.priority.is_some() {
        let mut section = Section::header(out);
        section.boolean(known.durable);
        if let Some(priority) = known.priority {
            section.byte(priority);
        }
        section.end_list();
    }
    let dotted = known.address.map(|address| rewrite(Form::Slashed, Form::Dotted, address));
    let mut annotations = Section::annotations(out);
    let mut annotate = |name: &[u8], value: Option<&[u8]>| {
        if let Some(value) = value.filter(|_| name.is_ascii()) {
            annotations.symbol(name);
            annotations.text(value);
        }
    };
    annotate(annotation::EXCHANGE, known.exchange);
    annotate(annotation::ROUTING_KEY, known.routing_key.or(dotted.as_deref()));
    annotate(annotation::TYPE, known.kind);
    for (name, value) in headers.shown() {
        if name.starts_with(annotation::PREFIX) {
            annotate(&name, value);
        }
    }
    annotations.end_map();
    let mut properties = Section::properties(out);
    properties.optional(known.message_id, Section::text);
    properties.optional(known.user_id, Section::binary);
    // The address and the subject.
    properties.null();
    properties.null();
    properties.optional(known.reply_to, Section::text);
    properties.optional(known.correlation_id, Section::text);
    properties.optional(known.content_type, Section::symbol);
    properties.optional(known.content_encoding, Section::symbol);
    // The time of expiry.
    properties.null();
    match known.created_ms {
        Some(ms) => properties.timestamp(ms),
        None => properties.null(),
    }
    properties.optional(known.app_id, Section::text);
    properties.end_list();
    let mut application = Section::application(out);
    for (name, value) in headers.shown().filter(|(name, _)| !name.starts_with(annotation::PREFIX)) {
        if std::str::from_utf8(&name).is_err() {
            continue;
        }
        application.text(&name);
        match value {
            Some(value) => application.text(value),
            None => application.null(),
        }
    }
    if let Some(key) = &record.key {
        application.text(name::RECORD_KEY.as_bytes());
        application.text(key);
    }
    if record.value.is_none() {
        application.text(name::NULL_VALUE.as_bytes());
        application.boolean(true);
    }
    application.end_map();
}
