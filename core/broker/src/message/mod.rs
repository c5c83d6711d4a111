//! What a message is on its way in, and how the headers of a stored one are told apart.
//!
//! A message that did not come as a finished record batch begins with the header [`ORIGIN`]: its value names
//! the origin and how many *properties* follow (`amqp/04`). The headers behind the properties are the user's
//! own, in order, duplicates and null values kept. So a property can never be mistaken for a user's header.
//! A record without that first header carries the user's headers only.

mod view;

use inver_storage::batch::Record;

use crate::value::HeaderLookup;

pub use view::{Header, HeaderView, RawHeaders, expires_ms};

/// The first header of a record that the broker composed.
pub const ORIGIN: &[u8] = b"inver-origin";

/// The property that says when a message dies: milliseconds since 1970, decimal. Always the first property.
pub const EXPIRES: &[u8] = b"expires";

/// The exchange that a message was published to.
pub const EXCHANGE: &[u8] = b"exchange";

/// The routing key that it was published with.
pub const ROUTING_KEY: &[u8] = b"routing-key";

/// One death of a message, newest first: lines `queue`, `reason`, `exchange`, `routing-key`, time (ms since
/// 1970), count, its time to live then (ms, or nothing). `\` and line ends inside a line are written `\\`, `\n`.
pub const DEATH: &[u8] = b"death";

/// The origin of a message that the broker had to give properties to and that came as a finished batch.
pub const NEUTRAL_ORIGIN: &str = "inver";

/// Properties are counted with two digits.
const PROPERTIES_MAX: u8 = 99;

/// A message handed to the publisher. All parts are borrowed: they are copied once, into the burst's batch.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The record's key, where the route does not set one.
    pub key: Option<&'a [u8]>,
    /// The body. A null value deletes the key in compacted topics.
    pub value: Option<&'a [u8]>,
    /// The headers, as [`HeaderWriter`] wrote them.
    pub headers: Headers<'a>,
    /// Whether the publisher was promised that the message survives a crash where it is stored durably.
    pub guaranteed: bool,
    /// Typed headers, for exchanges that route by them.
    pub lookup: Option<&'a dyn HeaderLookup>,
}

impl<'a> Message<'a> {
    /// A stored record as a message, its headers untouched.
    #[must_use]
    pub fn of_record(record: &'a Record, guaranteed: bool) -> Message<'a> {
        Message {
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: Headers {
                count: record.header_count,
                bytes: &record.headers,
                expires_ms: expires_ms(record),
            },
            guaranteed,
            lookup: None,
        }
    }
}

/// Encoded record headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    /// How many.
    pub count: u32,
    /// Name and value of each, with their lengths as zigzag varints.
    pub bytes: &'a [u8],
    /// When the message dies, if it says so.
    pub expires_ms: Option<i64>,
}

/// Composes the headers of a message in one reusable buffer: origin, properties, then the user's.
#[derive(Debug, Default)]
pub struct HeaderWriter {
    buf: Vec<u8>,
    count: u32,
    properties: u8,
    /// Where the two digits of the property count stand.
    digits_at: usize,
    expires_ms: Option<i64>,
}

impl HeaderWriter {
    /// Begins a message of this origin (a short lower-case name); `expires_ms` is absolute.
    pub fn begin(&mut self, origin: &str, expires_ms: Option<i64>) {
        self.buf.clear();
        self.count = 1;
        self.expires_ms = expires_ms;
        self.properties = 0;
        put_bytes(&mut self.buf, ORIGIN);
        put_varint(&mut self.buf, origin.len() as i64 + 3);
        self.buf.extend_from_slice(origin.as_bytes());
        self.buf.push(b'/');
        self.digits_at = self.buf.len();
        self.buf.extend_from_slice(b"00");
        if let Some(at) = expires_ms {
            self.property(EXPIRES, at.to_string().as_bytes());
        }
    }

    /// Begins with another message's headers, as they are; the user's can be added.
    pub(crate) fn copy(&mut self, headers: Headers<'_>) {
        self.buf.clear();
        self.buf.extend_from_slice(headers.bytes);
        self.count = headers.count;
        self.properties = 0;
        self.expires_ms = headers.expires_ms;
    }

    /// Adds a property. Before the first user header only; beyond 99 properties are left out.
    pub fn property(&mut self, name: &[u8], value: &[u8]) {
        if self.properties == PROPERTIES_MAX || self.count > u32::from(self.properties) + 1 {
            debug_assert!(false, "a property after a user header, or too many");
            return;
        }
        self.properties += 1;
        self.count += 1;
        put_bytes(&mut self.buf, name);
        put_bytes(&mut self.buf, value);
        self.buf[self.digits_at] = b'0' + self.properties / 10;
        self.buf[self.digits_at + 1] = b'0' + self.properties % 10;
    }

    /// Adds a header of the user's.
    pub fn user(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.count += 1;
        put_bytes(&mut self.buf, name);
        match value {
            Some(value) => put_bytes(&mut self.buf, value),
            None => put_varint(&mut self.buf, -1),
        }
    }

    /// Adds headers of the user's, as they are encoded.
    pub(crate) fn user_encoded(&mut self, headers: Headers<'_>) {
        self.count += headers.count;
        self.buf.extend_from_slice(headers.bytes);
    }

    /// What was composed since [`begin`](Self::begin).
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        Headers { count: self.count, bytes: &self.buf, expires_ms: self.expires_ms }
    }
}

fn put_bytes(buf: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(buf, bytes.len() as i64);
    buf.extend_from_slice(bytes);
}

fn put_varint(buf: &mut Vec<u8>, value: i64) {
    let mut z = ((value << 1) ^ (value >> 63)) as u64;
    while z >= 0x80 {
        buf.push(z as u8 | 0x80);
        z >>= 7;
    }
    buf.push(z as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use inver_storage::batch::{BatchBuilder, records};

    fn record(write: impl FnOnce(&mut HeaderWriter)) -> Record {
        let mut headers = HeaderWriter::default();
        write(&mut headers);
        let mut builder = BatchBuilder::new(0);
        let h = headers.headers();
        builder.push_with(7, None, h.count as usize, h.bytes, Some(b"v"));
        records(builder.finish().bytes()).unwrap().next().unwrap().unwrap()
    }

    #[test]
    fn properties_and_user_headers_are_told_apart() {
        let r = record(|w| {
            w.begin("plug", Some(1234));
            w.property(b"content-type", b"text/plain");
            w.user(b"content-type", Some(b"mine"));
            w.user(b"content-type", None);
        });
        let view = HeaderView::of(&r);
        assert_eq!((view.origin(), view.properties().left()), (Some(&b"plug"[..]), 2));
        assert_eq!(expires_ms(&r), Some(1234));
        let properties: Vec<_> = view.properties().map(|(n, _)| n).collect();
        assert_eq!(properties, [&b"expires"[..], b"content-type"]);
        let user: Vec<_> = view.user().map(|(_, v)| v).collect();
        assert_eq!(user, [Some(&b"mine"[..]), None]);
    }

    #[test]
    fn a_foreign_record_has_user_headers_only() {
        let mut builder = BatchBuilder::new(0);
        builder.push(0, None, &[(b"expires", Some(b"5")), (ORIGIN, Some(b"x/01"))], Some(b""));
        let r = records(builder.finish().bytes()).unwrap().next().unwrap().unwrap();
        let view = HeaderView::of(&r);
        assert!(view.origin().is_none());
        assert_eq!(view.properties().count(), 0);
        assert_eq!(expires_ms(&r), None);
        assert_eq!(view.user().count(), 2);
    }
}
