//! From a PUBLISH or a will to the headers of a record.

use inver_broker::message::{HeaderWriter, Headers, Property as Stored};

use super::names::{ORIGIN, own};
use crate::codec::{DecodeError, Properties, Property, Qos};
use crate::config::AmqpNames;

/// Milliseconds per second of a Message Expiry Interval.
const SECOND_MS: i64 = 1000;

/// The publishing client, as stored with the message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Author<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) user: Option<&'a str>,
}

/// Properties of a PUBLISH or a will.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Incoming<'a> {
    pub(crate) topic_alias: Option<u16>,
    pub(crate) will_delay_s: u32,
    pub(crate) expiry_s: Option<u32>,
    payload_format: Option<u8>,
    content_type: Option<&'a str>,
    response_topic: Option<&'a str>,
    correlation_data: Option<&'a [u8]>,
    properties: Properties<'a>,
    names: AmqpNames,
}

impl<'a> Incoming<'a> {
    /// Reads the properties. Fails on a subscription identifier, which clients must not send [MQTT-3.3.4-6].
    pub(crate) fn read(properties: Properties<'a>, names: AmqpNames) -> Result<Incoming<'a>, DecodeError> {
        let mut incoming = Incoming { properties, names, ..Incoming::default() };
        for property in properties {
            match property {
                Property::PayloadFormatIndicator(format) => incoming.payload_format = Some(format),
                Property::MessageExpiryInterval(seconds) => incoming.expiry_s = Some(seconds),
                Property::ContentType(text) => incoming.content_type = Some(text),
                Property::ResponseTopic(topic) => incoming.response_topic = Some(topic),
                Property::CorrelationData(bytes) => incoming.correlation_data = Some(bytes),
                Property::TopicAlias(alias) => incoming.topic_alias = Some(alias),
                Property::WillDelayInterval(seconds) => incoming.will_delay_s = seconds,
                Property::SubscriptionIdentifier(_) => {
                    return Err(DecodeError::protocol(
                        "a client's PUBLISH with a Subscription Identifier [MQTT-3.3.4-6]",
                    ));
                }
                _ => {}
            }
        }
        Ok(incoming)
    }

    /// The message without expiry. That of a will runs from its publication, and the broker adds it then.
    pub(crate) fn without_expiry(self) -> Incoming<'a> {
        Incoming { expiry_s: None, ..self }
    }

    /// Composes the record's headers.
    pub(crate) fn headers<'w>(
        &self,
        writer: &'w mut HeaderWriter,
        author: Author<'_>,
        topic: &str,
        qos: Qos,
        retain: bool,
        now_ms: i64,
    ) -> Headers<'w> {
        writer.begin(ORIGIN, self.expiry_s.map(|seconds| now_ms + i64::from(seconds) * SECOND_MS));
        writer.put(Stored::Address(topic.as_bytes()));
        match qos {
            Qos::AtMostOnce => {}
            Qos::AtLeastOnce => writer.put(Stored::Qos(1)),
            Qos::ExactlyOnce => writer.put(Stored::Qos(2)),
        }
        if retain {
            writer.property(own::RETAIN, b"1");
        }
        writer.put(Stored::ClientId(author.client_id.as_bytes()));
        if let Some(user) = author.user {
            writer.put(Stored::UserId(user.as_bytes()));
        }
        if self.properties.is_empty() {
            return writer.headers();
        }
        match self.payload_format {
            None => {}
            Some(0) => writer.property(own::PAYLOAD_FORMAT, b"0"),
            Some(_) => writer.property(own::PAYLOAD_FORMAT, b"1"),
        }
        if let Some(text) = self.content_type {
            writer.put(Stored::ContentType(text.as_bytes()));
        }
        if let Some(topic) = self.response_topic {
            writer.put(Stored::ReplyTo(self.names.topic(topic).as_bytes()));
        }
        if let Some(bytes) = self.correlation_data {
            writer.put(Stored::CorrelationId(bytes));
        }
        for property in self.properties {
            if let Property::UserProperty(name, value) = property {
                writer.user(name.as_bytes(), Some(value.as_bytes()));
            }
        }
        writer.headers()
    }
}
