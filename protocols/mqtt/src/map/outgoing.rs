//! From a record of any origin to the fields and properties of a PUBLISH.

use std::borrow::Cow;

use inver_broker::message::{CLAIMED, HeaderView, Property as Stored, name};
use inver_storage::batch::Record;

use super::inbox::InboxFor;
use super::names::{AS_USER_PROPERTIES, ORIGIN, own};
use super::produced::{Places, Produced, is_producers};
use crate::codec::{PropertiesBuf, Property, Qos};
use crate::config::AmqpNames;

/// A record as an MQTT message.
pub(crate) struct Outgoing<'a> {
    /// Topic name; valid, not empty.
    pub(crate) topic: Cow<'a, str>,
    /// The QoS that it was published at, or the closest equivalent.
    pub(crate) qos: Qos,
    /// Published with RETAIN.
    pub(crate) retain: bool,
    /// Client identifier of the publisher.
    pub(crate) client_id: Option<&'a [u8]>,
    /// Expiry time, in milliseconds since 1970.
    pub(crate) expires_ms: Option<i64>,
    /// How to deliver a copy made for one session's inbox.
    pub(crate) inbox_for: Option<InboxFor>,
    payload_format: Option<u8>,
    content_type: Option<&'a [u8]>,
    reply_to: Option<&'a [u8]>,
    correlation_id: Option<&'a [u8]>,
    headers: HeaderView<'a>,
    names: AmqpNames,
    /// Of a record that a producer wrote: which of its headers are properties.
    produced: Option<Places>,
    key: Option<&'a [u8]>,
}

impl<'a> Outgoing<'a> {
    /// Reads a record. `address` is the dotted address it was published to, for records that do not store theirs. `None`:
    /// neither is known, or the topic name would be longer than 65,535 bytes.
    pub(crate) fn read(
        record: &'a Record,
        address: Option<&'a [u8]>,
        names: AmqpNames,
    ) -> Option<Outgoing<'a>> {
        let headers = HeaderView::of(record);
        let is_produced = is_producers(&headers);
        let mut outgoing = Outgoing {
            names,
            topic: Cow::Borrowed(""),
            qos: Qos::AtMostOnce,
            retain: false,
            client_id: None,
            expires_ms: None,
            inbox_for: None,
            payload_format: None,
            content_type: None,
            reply_to: None,
            correlation_id: None,
            headers,
            key: if is_produced { record.key.as_deref() } else { None },
            produced: None,
        };
        let mut slashed = None;
        if is_produced {
            slashed = outgoing.take_produced();
        }
        let mut dotted = None;
        for property in headers.typed_properties() {
            match property {
                Stored::Address(address) => slashed = Some(address),
                Stored::Qos(level) => outgoing.qos = Qos::from_bits(level).unwrap_or(Qos::AtMostOnce),
                Stored::ClientId(id) => outgoing.client_id = Some(id),
                Stored::ExpiresMs(at) => outgoing.expires_ms = Some(at),
                Stored::ContentType(text) => outgoing.content_type = Some(text),
                Stored::ReplyTo(address) => outgoing.reply_to = Some(address),
                Stored::CorrelationId(bytes) => outgoing.correlation_id = Some(bytes),
                Stored::RoutingKey(key) => dotted = Some(key),
                // A persistent message (AMQP delivery mode 2) is delivered at least once.
                Stored::DeliveryMode(2) => outgoing.qos = outgoing.qos.max(Qos::AtLeastOnce),
                Stored::Other(own::RETAIN, value) => outgoing.retain = value == b"1",
                Stored::Other(own::PAYLOAD_FORMAT, value) => {
                    outgoing.payload_format = Some(u8::from(value == b"1"));
                }
                Stored::Other(own::INBOX_FOR, value) => outgoing.inbox_for = InboxFor::read(value),
                _ => {}
            }
        }
        outgoing.topic = match (slashed, dotted.or(address)) {
            (Some(slashed), _) => topic(Cow::Borrowed(slashed)),
            (None, Some(dotted)) => topic(names.topic_of(dotted)),
            (None, None) => return None,
        };
        let length = outgoing.topic.len();
        (length > 0 && length <= usize::from(u16::MAX)).then_some(outgoing)
    }

    /// Takes the properties that a producer gave its record; its address, if it names one.
    #[cold]
    fn take_produced(&mut self) -> Option<&'a [u8]> {
        let said = Produced::read(&self.headers);
        // Records of a producer's batch were acknowledged to their producer as durable.
        self.qos = said.qos.unwrap_or(Qos::AtLeastOnce);
        self.retain = said.retain;
        self.expires_ms = said.expires_ms;
        self.payload_format = said.payload_format;
        self.content_type = said.content_type;
        self.reply_to = said.reply_to;
        self.correlation_id = said.correlation_id;
        self.produced = Some(said.places);
        said.address
    }

    /// Whether the message has expired.
    pub(crate) fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_ms.is_some_and(|at| at <= now_ms)
    }

    /// Appends the MQTT 5 properties. Values that MQTT cannot express (fields that are too long, text that is not UTF-8) are
    /// omitted.
    pub(crate) fn put_properties(&self, now_ms: i64, out: &mut PropertiesBuf) {
        let mut push = |property: Property<'_>| {
            let _omitted_if_too_long = out.push(property);
        };
        if let Some(format) = self.payload_format {
            push(Property::PayloadFormatIndicator(format));
        }
        if let Some(at) = self.expires_ms {
            // The remaining interval, rounded up to seconds [MQTT-3.3.2-6].
            let left_s = (at - now_ms).max(0).saturating_add(999) / 1000;
            push(Property::MessageExpiryInterval(u32::try_from(left_s).unwrap_or(u32::MAX)));
        }
        if let Some(text) = self.content_type.and_then(text) {
            push(Property::ContentType(text));
        }
        let is_own = self.headers.origin() == Some(ORIGIN.as_bytes());
        if let Some(reply_to) = self.reply_to.filter(|reply_to| !reply_to.is_empty()) {
            let is_slashed = is_own || self.produced.is_some();
            let slashed = if is_slashed { Cow::Borrowed(reply_to) } else { self.names.topic_of(reply_to) };
            push(Property::ResponseTopic(&topic(slashed)));
        }
        if let Some(bytes) = self.correlation_id {
            push(Property::CorrelationData(bytes));
        }
        if !is_own {
            for (header, value) in self.headers.properties() {
                if AS_USER_PROPERTIES.contains(&header)
                    && let (Some(header), Some(value)) = (text(header), value.and_then(text))
                {
                    push(Property::UserProperty(header, value));
                }
            }
            if let Some(key) = self.key.and_then(text) {
                push(Property::UserProperty(name::RECORD_KEY, key));
            }
        }
        let mut user = |header: &[u8], value: Option<&[u8]>| {
            if let (Some(header), Some(value)) = (text(header), text(value.unwrap_or_default())) {
                push(Property::UserProperty(header, value));
            }
        };
        if is_own {
            self.headers.written().for_each(|(header, value)| user(header, value));
        } else {
            for (place, header, value) in self.headers.shown_numbered() {
                if self.produced.is_some_and(|places| places.contains(place)) {
                    continue;
                }
                if self.key.is_some() && *header == *name::RECORD_KEY.as_bytes() {
                    user(&[CLAIMED, &*header].concat(), value);
                } else {
                    user(&header, value);
                }
            }
        }
    }
}

/// A UTF-8 string without U+0000 [MQTT-1.5.4-2]; `None` for other bytes.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.as_bytes().contains(&0))
}

/// The topic name of an address. Other protocols allow what topic names must not contain: wildcards [MQTT-3.3.2-2],
/// U+0000 and invalid UTF-8. These are percent-escaped.
fn topic(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    let is_valid = |text: &str| !text.bytes().any(|byte| matches!(byte, b'+' | b'#' | 0));
    match bytes {
        Cow::Borrowed(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if is_valid(text) => Cow::Borrowed(text),
            _ => Cow::Owned(escaped(bytes)),
        },
        Cow::Owned(bytes) => match String::from_utf8(bytes) {
            Ok(text) if is_valid(&text) => Cow::Owned(text),
            Ok(text) => Cow::Owned(escaped(text.as_bytes())),
            Err(error) => Cow::Owned(escaped(error.as_bytes())),
        },
    }
}

fn escaped(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if matches!(char, '+' | '#' | '\0') {
                let _infallible = write!(out, "%{:02X}", char as u32);
            } else {
                out.push(char);
            }
        }
        for byte in chunk.invalid() {
            let _infallible = write!(out, "%{byte:02X}");
        }
    }
    out
}
