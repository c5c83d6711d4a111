//! Encoded record headers, and the writer that composes them: the origin, the properties, then the user's headers.

use inver_storage::batch::Record;

use super::origin::{self, COUNT_BYTES, NEUTRAL_ORIGIN, PROPERTIES_MAX};
use super::properties::Property;
use super::reserved;
use super::view::{HeaderView, RawHeaders};

/// Encoded record headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    /// The number of headers.
    pub count: u32,
    /// The name and the value of each, with their lengths as zigzag varints.
    pub bytes: &'a [u8],
    /// When the message expires, if it has a time to live: milliseconds since 1970.
    pub expires_ms: Option<i64>,
}

/// Composes the headers of a message in one reusable buffer.
#[derive(Debug, Default)]
pub struct HeaderWriter {
    buf: Vec<u8>,
    count: u32,
    properties: u8,
    /// The position of the property count in `buf`.
    count_at: usize,
    expires_ms: Option<i64>,
}

impl HeaderWriter {
    /// Begins a message of this origin (a short lower-case name); `expires_ms` is absolute.
    pub fn begin(&mut self, origin: &str, expires_ms: Option<i64>) {
        self.buf.clear();
        self.count = 1;
        self.expires_ms = expires_ms;
        self.properties = 0;
        self.buf.extend_from_slice(&origin::ENCODED_HEADER);
        put_varint(&mut self.buf, (origin.len() + COUNT_BYTES) as i64);
        self.buf.extend_from_slice(origin.as_bytes());
        self.count_at = self.buf.len();
        self.buf.extend_from_slice(&origin::count(0));
        if let Some(at) = expires_ms {
            self.put(Property::ExpiresMs(at));
        }
    }

    /// Begins a message of the same origin as another.
    pub fn begin_like(&mut self, other: &HeaderView<'_>, expires_ms: Option<i64>) {
        let origin = other.origin().and_then(|name| std::str::from_utf8(name).ok());
        self.begin(origin.unwrap_or(NEUTRAL_ORIGIN), expires_ms);
    }

    /// Begins with the headers of a producer's record as they are, for a batch that the broker composes; further ones of
    /// the producer can be added by [`producers`](Self::producers).
    pub(crate) fn copy(&mut self, record: &Record) {
        self.buf.clear();
        self.count = 0;
        self.properties = 0;
        self.expires_ms = None;
        let mut all = RawHeaders::of(record);
        if record.is_marked
            && let Some((name, value)) = all.next()
        {
            // The first header would be read as the origin.
            self.producers(&reserved::claimed(name), value);
        }
        self.user_encoded(all.as_headers());
    }

    /// Begins with encoded headers as they are.
    pub(crate) fn begin_with(&mut self, headers: Headers<'_>) {
        self.buf.clear();
        self.count = 0;
        self.properties = 0;
        self.expires_ms = headers.expires_ms;
        self.user_encoded(headers);
    }

    /// Adds a header of a producer's record under its name.
    pub(crate) fn producers(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.count += 1;
        put_bytes(&mut self.buf, name);
        self.put_value(value);
    }

    /// Adds a property.
    pub fn put(&mut self, property: Property<'_>) {
        property.encode(|name, value| self.property(name, value));
    }

    /// Adds a property as it is stored. Before the first user's header only; beyond 99, properties are left out.
    pub fn property(&mut self, name: &[u8], value: &[u8]) {
        debug_assert!(self.count == u32::from(self.properties) + 1, "a property after a user's header");
        if self.properties == PROPERTIES_MAX || self.count > u32::from(self.properties) + 1 {
            return;
        }
        self.properties += 1;
        self.count += 1;
        put_bytes(&mut self.buf, name);
        put_bytes(&mut self.buf, value);
        let count = origin::count(self.properties);
        if let Some(stored) = self.buf.get_mut(self.count_at..self.count_at + COUNT_BYTES) {
            stored.copy_from_slice(&count);
        }
    }

    /// Adds a user's header. A name that the broker writes itself gets the prefix [`CLAIMED`](reserved::CLAIMED).
    pub fn user(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.count += 1;
        if reserved::needs_claim(name) {
            put_varint(&mut self.buf, (reserved::CLAIMED.len() + name.len()) as i64);
            self.buf.extend_from_slice(reserved::CLAIMED);
            self.buf.extend_from_slice(name);
        } else {
            put_bytes(&mut self.buf, name);
        }
        self.put_value(value);
    }

    /// Adds the user's headers of another message.
    pub fn user_of(&mut self, other: &HeaderView<'_>) {
        match other.origin() {
            Some(_) => self.user_encoded(other.user().as_headers()),
            None => other.user().for_each(|(name, value)| self.user(name, value)),
        }
    }

    fn put_value(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => put_bytes(&mut self.buf, value),
            None => put_varint(&mut self.buf, -1),
        }
    }

    /// Adds user's headers that are encoded already.
    pub(crate) fn user_encoded(&mut self, headers: Headers<'_>) {
        self.count += headers.count;
        self.buf.extend_from_slice(headers.bytes);
    }

    /// The headers composed since [`begin`](Self::begin).
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        Headers { count: self.count, bytes: &self.buf, expires_ms: self.expires_ms }
    }
}

fn put_bytes(buf: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        // Most: the zig-zag length has one byte.
        short @ 0..64 => buf.push((short * 2) as u8),
        long => put_varint(buf, long as i64),
    }
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
