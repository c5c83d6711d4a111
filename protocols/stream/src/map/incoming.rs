//! From a message to a record.

use std::io::Write as _;

use inver_broker::message::{Property, name};
use inver_broker::{HeaderWriter, Headers};

use super::{MESSAGE, MESSAGE_VERSION, ORIGIN, annotation};
use crate::codec::message::{Body, Items, Message, Value, data_prefix};

/// Composes the headers of one record at a time, in reusable buffers.
#[derive(Debug, Default)]
pub(crate) struct Composer {
    headers: HeaderWriter,
    text: Vec<u8>,
}

/// A message as the parts of a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Composed<'a> {
    pub(crate) headers: Headers<'a>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: &'a [u8],
}

impl Composer {
    /// Composes the record of a message, which may be any bytes, with its filter value.
    pub(crate) fn compose<'a>(&'a mut self, message: &'a [u8], filter: Option<&str>) -> Composed<'a> {
        let parsed = Message::parse(message).ok();
        let value = match parsed.map(|parsed| parsed.body) {
            Some(Body::Data(bytes) | Body::Text(bytes) | Body::Sections(bytes)) => bytes,
            None => message,
        };
        let mut key = None;
        self.headers.begin(ORIGIN, None);
        if let Some(parsed) = &parsed {
            self.properties(parsed);
        }
        self.message_without(message, value);
        if let Some(filter) = filter {
            self.headers.user(name::FILTER_VALUE, Some(filter.as_bytes()));
        }
        if let Some(parsed) = parsed {
            for (name, value) in pairs(parsed.annotations) {
                let is_header = name.starts_with(annotation::PREFIX)
                    && !matches!(name, annotation::EXCHANGE | annotation::ROUTING_KEY | annotation::TYPE)
                    && (filter.is_none() || name != name::FILTER_VALUE);
                if is_header {
                    self.user(name, value);
                }
            }
            for (name, value) in pairs(parsed.application) {
                if name == name::RECORD_KEY.as_bytes() {
                    key = value.as_bytes();
                }
                self.user(name, value);
            }
        }
        Composed { headers: self.headers.headers(), key, value }
    }

    fn properties(&mut self, message: &Message<'_>) {
        let mut fields = message.properties;
        let mut put = |value: Option<Value<'_>>, property: fn(&[u8]) -> Property<'_>| {
            if let Some(value) = value
                && let Some(text) = text_form(value, &mut self.text)
            {
                self.headers.put(property(text));
            }
        };
        put(fields.next(), |text| Property::MessageId(text));
        // The user, who is not verified, the address and the subject.
        let (_user, _to, _subject) = (fields.next(), fields.next(), fields.next());
        put(fields.next(), |text| Property::ReplyTo(text));
        put(fields.next(), |text| Property::CorrelationId(text));
        put(fields.next(), |text| Property::ContentType(text));
        put(fields.next(), |text| Property::ContentEncoding(text));
        let (_expiry, created, group) = (fields.next(), fields.next(), fields.next());
        put(group, |text| Property::AppId(text));
        for (name, value) in pairs(message.annotations) {
            if name == annotation::TYPE {
                put(Some(value), |text| Property::Type(text));
            }
        }
        if let Some(Value::Timestamp(ms)) = created
            && let Ok(ms) = u64::try_from(ms)
        {
            self.headers.put(Property::TimestampS(ms / 1000));
        }
    }

    /// Keeps what is before the body, unless it is the shortest there is.
    fn message_without(&mut self, message: &[u8], value: &[u8]) {
        let head = message.strip_suffix(value).unwrap_or_default();
        let (prefix, length) = data_prefix(value.len());
        if prefix.get(..length) != Some(head) {
            self.text.clear();
            self.text.push(MESSAGE_VERSION);
            self.text.extend_from_slice(head);
            self.headers.put(Property::Other(MESSAGE, &self.text));
        }
    }

    fn user(&mut self, name: &[u8], value: Value<'_>) {
        match value {
            Value::Null => self.headers.user(name, None),
            value => {
                if let Some(text) = text_form(value, &mut self.text) {
                    self.headers.user(name, Some(text));
                }
            }
        }
    }
}

/// Keys and values of a map whose keys are texts.
fn pairs<'a>(mut items: Items<'a>) -> impl Iterator<Item = (&'a [u8], Value<'a>)> {
    std::iter::from_fn(move || Some((items.next()?, items.next()?)))
        .filter_map(|(key, value)| Some((key.as_bytes()?, value)))
}

/// A value in the form that protocols without types have; none for null, lists and maps.
fn text_form<'a>(value: Value<'a>, buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    buffer.clear();
    // Writing to memory does not fail.
    let written = match value {
        Value::Text(text) => return Some(text.as_bytes()),
        Value::Binary(bytes) => return Some(bytes),
        Value::Bool(value) => write!(buffer, "{value}"),
        Value::Unsigned(number) => write!(buffer, "{number}"),
        Value::Signed(number) | Value::Timestamp(number) => write!(buffer, "{number}"),
        Value::Float(number) => write!(buffer, "{number}"),
        Value::Uuid(bytes) => {
            let number = u128::from_be_bytes(bytes);
            write!(
                buffer,
                "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                number >> 96,
                (number >> 80) & 0xffff,
                (number >> 64) & 0xffff,
                (number >> 48) & 0xffff,
                number & 0xffff_ffff_ffff
            )
        }
        Value::Null | Value::Items(_) | Value::Other => return None,
    };
    written.ok()?;
    Some(buffer)
}
