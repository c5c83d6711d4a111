//! The properties of a stored message: their names on disk, and one typed codec for every protocol.
//!
//! A property is a header between the origin and the user's headers. Numbers are decimal text, everything else is
//! bytes. The names are part of the stored format and do not change. A property that only one protocol writes and reads
//! has its name there and is a [`Property::Other`] here.

use std::str::FromStr;

use itoa::Buffer;

use super::origin::encoded_name;

/// The names of the properties that more than one reader knows, and of headers with a meaning.
pub mod name {
    /// When the message expires: milliseconds since 1970. Always the first property.
    pub const EXPIRES: &[u8] = b"expires";
    /// The exchange that the message was published to.
    pub const EXCHANGE: &[u8] = b"exchange";
    /// The routing key that it was published with.
    pub const ROUTING_KEY: &[u8] = b"routing-key";
    /// The slashed address that it was published to, as text for configuration.
    pub const ADDRESS_TEXT: &str = "mqtt-topic";
    /// The slashed address that it was published to. In a producer's batch this is a user's header.
    pub const ADDRESS: &[u8] = ADDRESS_TEXT.as_bytes();
    /// The quality of service that it was published at: 1 or 2; absent for 0.
    pub const QOS: &[u8] = b"mqtt-qos";
    /// `1` for a message that sets the retained value of its address. In a producer's batch this is a user's header.
    pub const RETAIN: &[u8] = b"mqtt-retain";
    /// 2 for a persistent message.
    pub const DELIVERY_MODE: &[u8] = b"delivery-mode";
    /// The priority, 0 to 255.
    pub const PRIORITY: &[u8] = b"priority";
    /// Further routing keys that it was published with, in the form of [`more_keys`](crate::message::more_keys). Not shown
    /// to consumers: some are meant to be hidden from them.
    pub const MORE_KEYS: &[u8] = b"more-routing-keys";
    /// The time that the publisher set: seconds since 1970.
    pub const TIMESTAMP: &[u8] = b"timestamp";
    /// The body's media type.
    pub const CONTENT_TYPE: &[u8] = b"content-type";
    /// The body's encoding.
    pub const CONTENT_ENCODING: &[u8] = b"content-encoding";
    /// Correlates a response with its request.
    pub const CORRELATION_ID: &[u8] = b"correlation-id";
    /// Where responses are sent, in the form of the message's origin.
    pub const REPLY_TO: &[u8] = b"reply-to";
    /// The publisher's id of the message.
    pub const MESSAGE_ID: &[u8] = b"message-id";
    /// The publisher's type of the message.
    pub const TYPE: &[u8] = b"type";
    /// The publisher's authenticated user.
    pub const USER_ID: &[u8] = b"user-id";
    /// The publishing application.
    pub const APP_ID: &[u8] = b"app-id";
    /// The publisher's client id.
    pub const CLIENT_ID: &[u8] = b"client-id";
    /// A death record; see [`Death`](crate::message::Death).
    pub const DEATH: &[u8] = b"death";
    /// A user's header by which clients without record keys read and set the record's key.
    pub const RECORD_KEY: &str = "inver-key";
    /// A user's header by which clients without null values read and set the record's null value (a tombstone).
    pub const NULL_VALUE: &str = "inver-null";
    /// A user's header by whose value readers of streams filter.
    pub const FILTER_VALUE: &[u8] = b"x-stream-filter-value";
}

/// The name of [`Property::ExpiresMs`] as it is stored, with its length.
pub(super) const ENCODED_EXPIRES: [u8; name::EXPIRES.len() + 1] = encoded_name(name::EXPIRES);

/// A property, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property<'a> {
    /// [`name::EXPIRES`]
    ExpiresMs(i64),
    /// [`name::EXCHANGE`]
    Exchange(&'a [u8]),
    /// [`name::ROUTING_KEY`]
    RoutingKey(&'a [u8]),
    /// [`name::MORE_KEYS`]
    MoreKeys(&'a [u8]),
    /// [`name::ADDRESS`]
    Address(&'a [u8]),
    /// [`name::QOS`]
    Qos(u8),
    /// [`name::DELIVERY_MODE`]
    DeliveryMode(u8),
    /// [`name::PRIORITY`]
    Priority(u8),
    /// [`name::TIMESTAMP`]
    TimestampS(u64),
    /// [`name::CONTENT_TYPE`]
    ContentType(&'a [u8]),
    /// [`name::CONTENT_ENCODING`]
    ContentEncoding(&'a [u8]),
    /// [`name::CORRELATION_ID`]
    CorrelationId(&'a [u8]),
    /// [`name::REPLY_TO`]
    ReplyTo(&'a [u8]),
    /// [`name::MESSAGE_ID`]
    MessageId(&'a [u8]),
    /// [`name::TYPE`]
    Type(&'a [u8]),
    /// [`name::USER_ID`]
    UserId(&'a [u8]),
    /// [`name::APP_ID`]
    AppId(&'a [u8]),
    /// [`name::CLIENT_ID`]
    ClientId(&'a [u8]),
    /// [`name::DEATH`], encoded; see [`Death::decode`](crate::message::Death::decode).
    Death(&'a [u8]),
    /// A property whose name only one protocol knows.
    Other(&'a [u8], &'a [u8]),
    /// A property of a known name whose value has the wrong form.
    Malformed,
}

impl<'a> Property<'a> {
    /// Decodes a property; a null value counts as empty.
    #[must_use]
    pub fn decode(name: &'a [u8], value: Option<&'a [u8]>) -> Property<'a> {
        let value = value.unwrap_or_default();
        match name {
            name::EXPIRES => number(value, Property::ExpiresMs),
            name::EXCHANGE => Property::Exchange(value),
            name::ROUTING_KEY => Property::RoutingKey(value),
            name::MORE_KEYS => Property::MoreKeys(value),
            name::ADDRESS => Property::Address(value),
            name::QOS => number(value, Property::Qos),
            name::DELIVERY_MODE => number(value, Property::DeliveryMode),
            name::PRIORITY => number(value, Property::Priority),
            name::TIMESTAMP => number(value, Property::TimestampS),
            name::CONTENT_TYPE => Property::ContentType(value),
            name::CONTENT_ENCODING => Property::ContentEncoding(value),
            name::CORRELATION_ID => Property::CorrelationId(value),
            name::REPLY_TO => Property::ReplyTo(value),
            name::MESSAGE_ID => Property::MessageId(value),
            name::TYPE => Property::Type(value),
            name::USER_ID => Property::UserId(value),
            name::APP_ID => Property::AppId(value),
            name::CLIENT_ID => Property::ClientId(value),
            name::DEATH => Property::Death(value),
            _ => Property::Other(name, value),
        }
    }

    /// The name and the value as they are stored, which `write` takes; [`Property::Malformed`] is not stored.
    pub(super) fn encode(self, mut write: impl FnMut(&[u8], &[u8])) {
        match self {
            Property::ExpiresMs(at) => write(name::EXPIRES, Buffer::new().format(at).as_bytes()),
            Property::Exchange(value) => write(name::EXCHANGE, value),
            Property::RoutingKey(value) => write(name::ROUTING_KEY, value),
            Property::MoreKeys(value) => write(name::MORE_KEYS, value),
            Property::Address(value) => write(name::ADDRESS, value),
            Property::Qos(level) => write(name::QOS, Buffer::new().format(level).as_bytes()),
            Property::DeliveryMode(mode) => write(name::DELIVERY_MODE, Buffer::new().format(mode).as_bytes()),
            Property::Priority(level) => write(name::PRIORITY, Buffer::new().format(level).as_bytes()),
            Property::TimestampS(at) => write(name::TIMESTAMP, Buffer::new().format(at).as_bytes()),
            Property::ContentType(value) => write(name::CONTENT_TYPE, value),
            Property::ContentEncoding(value) => write(name::CONTENT_ENCODING, value),
            Property::CorrelationId(value) => write(name::CORRELATION_ID, value),
            Property::ReplyTo(value) => write(name::REPLY_TO, value),
            Property::MessageId(value) => write(name::MESSAGE_ID, value),
            Property::Type(value) => write(name::TYPE, value),
            Property::UserId(value) => write(name::USER_ID, value),
            Property::AppId(value) => write(name::APP_ID, value),
            Property::ClientId(value) => write(name::CLIENT_ID, value),
            Property::Death(value) => write(name::DEATH, value),
            Property::Other(name, value) => write(name, value),
            Property::Malformed => {}
        }
    }
}

/// The value of [`name::MORE_KEYS`]: each key with its length before it, four bytes, big-endian.
#[must_use]
pub fn more_keys(keys: &[&[u8]]) -> Vec<u8> {
    let mut value = Vec::new();
    for key in keys {
        value.extend_from_slice(&(key.len() as u32).to_be_bytes());
        value.extend_from_slice(key);
    }
    value
}

/// The keys in the value of [`name::MORE_KEYS`]; it ends where it is damaged.
pub(crate) fn split_more_keys(mut value: &[u8]) -> Vec<&[u8]> {
    let mut keys = Vec::new();
    while let Some((length, rest)) = value.split_first_chunk::<4>()
        && let Some((key, rest)) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)
    {
        keys.push(key);
        value = rest;
    }
    keys
}

fn number<'a, T: FromStr>(value: &[u8], property: fn(T) -> Property<'a>) -> Property<'a> {
    parse(value).map_or(Property::Malformed, property)
}

/// A number in decimal text.
pub(super) fn parse<T: FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_decodes_to_what_was_encoded() {
        let all = [
            (Property::ExpiresMs(-5), "expires", "-5"),
            (Property::Exchange(b"e"), "exchange", "e"),
            (Property::RoutingKey(b"r"), "routing-key", "r"),
            (Property::MoreKeys(b"k"), "more-routing-keys", "k"),
            (Property::Address(b"a/b"), "mqtt-topic", "a/b"),
            (Property::Qos(2), "mqtt-qos", "2"),
            (Property::DeliveryMode(2), "delivery-mode", "2"),
            (Property::Priority(255), "priority", "255"),
            (Property::TimestampS(u64::MAX), "timestamp", "18446744073709551615"),
            (Property::ContentType(b"1"), "content-type", "1"),
            (Property::ContentEncoding(b"2"), "content-encoding", "2"),
            (Property::CorrelationId(b"3"), "correlation-id", "3"),
            (Property::ReplyTo(b"4"), "reply-to", "4"),
            (Property::MessageId(b"5"), "message-id", "5"),
            (Property::Type(b"6"), "type", "6"),
            (Property::UserId(b"7"), "user-id", "7"),
            (Property::AppId(b"8"), "app-id", "8"),
            (Property::ClientId(b"9"), "client-id", "9"),
            (Property::Death(b"10"), "death", "10"),
            (Property::Other(b"other", b"11"), "other", "11"),
        ];
        for (property, name, value) in all {
            let mut stored = Vec::new();
            property.encode(|name, value| stored.push((name.to_vec(), value.to_vec())));
            assert_eq!(stored, [(name.as_bytes().to_vec(), value.as_bytes().to_vec())]);
            assert_eq!(Property::decode(name.as_bytes(), Some(value.as_bytes())), property);
        }
    }

    #[test]
    fn more_keys_are_read_as_they_were_written() {
        let keys: [&[u8]; 3] = [b"a", b"", b"b\0c"];
        assert_eq!(split_more_keys(&more_keys(&keys)), keys);
        assert_eq!(split_more_keys(b"\0\0\0\x01a\0\0\0\x05b"), [b"a"]);
    }

    #[test]
    fn a_number_that_is_none_is_malformed_and_not_stored() {
        for (name, value) in [(name::PRIORITY, &b"256"[..]), (name::EXPIRES, b"soon"), (name::QOS, b"\xff")] {
            let property = Property::decode(name, Some(value));
            assert_eq!(property, Property::Malformed);
            property.encode(|_, _| panic!("it is stored"));
        }
        assert_eq!(Property::decode(name::TIMESTAMP, None), Property::Malformed);
    }
}
