//! A view of a stored record's headers in place: its origin, its properties and its user's headers. Nothing is copied.

use std::borrow::Cow;

use inver_storage::batch::Record;

use super::headers::Headers;
use super::origin::{self, NEUTRAL_ORIGIN, Origin};
use super::properties::{ENCODED_EXPIRES, Property, name, parse};
use super::reserved::{self, From};

/// A header: its name, and its value, which can be null.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// An iterator over encoded headers: lengths as zigzag varints, names, values. The log has checked them; iteration ends
/// at a header that is damaged all the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawHeaders<'a> {
    bytes: &'a [u8],
    left: u32,
}

impl<'a> RawHeaders<'a> {
    /// All headers of a record.
    #[must_use]
    pub fn of(record: &'a Record) -> Self {
        RawHeaders { bytes: &record.headers, left: record.header_count }
    }

    /// `count` headers, encoded.
    pub(crate) fn encoded(bytes: &'a [u8], count: u32) -> Self {
        RawHeaders { bytes, left: count }
    }

    /// The headers that are left, encoded.
    pub(crate) fn as_headers(self) -> Headers<'a> {
        Headers { count: self.left, bytes: self.bytes, expires_ms: None }
    }

    /// The most headers that are left.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.left
    }

    /// A field with its length; the inner `None` is null.
    #[inline]
    fn field(&mut self) -> Option<Option<&'a [u8]>> {
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        // The common case: fewer than 64 bytes.
        let z = if first & 0x80 == 0 { u64::from(first) } else { self.long_length(first)? };
        if z & 1 == 1 {
            return (z == 1).then_some(None);
        }
        let (field, rest) = self.bytes.split_at_checked(usize::try_from(z >> 1).ok()?)?;
        self.bytes = rest;
        Some(Some(field))
    }

    /// The header of a name of this encoding, if it is the next: its value, and what is behind it. Costs less than
    /// decoding the name.
    #[inline]
    fn behind(self, encoded_name: &[u8]) -> Option<(Option<&'a [u8]>, RawHeaders<'a>)> {
        let mut rest =
            RawHeaders { left: self.left.checked_sub(1)?, bytes: self.bytes.strip_prefix(encoded_name)? };
        Some((rest.field()?, rest))
    }

    /// A length of several bytes, behind the first of them.
    #[cold]
    fn long_length(&mut self, first: u8) -> Option<u64> {
        let (mut z, mut shift) = (u64::from(first & 0x7f), 7);
        loop {
            let (&byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            z |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(z);
            }
            shift += 7;
            if shift > 28 {
                return None;
            }
        }
    }
}

impl<'a> Iterator for RawHeaders<'a> {
    type Item = Header<'a>;

    #[inline]
    fn next(&mut self) -> Option<Header<'a>> {
        self.left = self.left.checked_sub(1)?;
        let name = self.field()??;
        Some((name, self.field()?))
    }
}

/// The origin, the properties and the user's headers of a record. Cheap to make and to copy.
#[derive(Clone, Copy, Debug)]
pub struct HeaderView<'a> {
    origin: Option<&'a [u8]>,
    /// The headers behind the origin, or all if there is none.
    rest: RawHeaders<'a>,
    properties: u32,
}

impl<'a> HeaderView<'a> {
    /// The view of a record.
    #[must_use]
    pub fn of(record: &'a Record) -> Self {
        let all = RawHeaders::of(record);
        if record.is_marked {
            return HeaderView { origin: None, rest: all, properties: 0 };
        }
        HeaderView::over(all)
    }

    /// The view of `count` encoded headers of a message that the broker composed.
    #[must_use]
    pub fn of_encoded(bytes: &'a [u8], count: u32) -> Self {
        HeaderView::over(RawHeaders::encoded(bytes, count))
    }

    pub(crate) fn over(all: RawHeaders<'a>) -> Self {
        let first = all.behind(&origin::ENCODED_HEADER);
        match first.and_then(|(value, rest)| Some((Origin::decode(value?)?, rest))) {
            Some((origin, rest)) => {
                HeaderView { origin: Some(origin.name), rest, properties: u32::from(origin.properties) }
            }
            None => HeaderView { origin: None, rest: all, properties: 0 },
        }
    }

    /// The origin's short name; none for a record from a producer's batch.
    #[must_use]
    pub fn origin(&self) -> Option<&'a [u8]> {
        self.origin
    }

    /// The properties as they are stored, in order; none for a record from a producer's batch.
    #[must_use]
    pub fn properties(&self) -> RawHeaders<'a> {
        RawHeaders { left: self.properties.min(self.rest.left), ..self.rest }
    }

    /// The properties, decoded, in order.
    pub fn typed_properties(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        self.properties().map(|(name, value)| Property::decode(name, value))
    }

    /// The user's headers as the user wrote them, in order: for readers of the protocol that the message came from.
    pub fn written(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        // In a producer's batch nothing was put before a name.
        let is_composed = self.origin.is_some();
        self.user()
            .map(move |(name, value)| (if is_composed { reserved::unclaimed(name) } else { name }, value))
    }

    /// The user's headers as readers of other protocols are shown them, in order: a name under which readers expect
    /// the broker's own word is shown with the prefix [`CLAIMED`](super::CLAIMED). The header in which a producer's
    /// record names its address is left out.
    pub fn shown(&self) -> impl Iterator<Item = (Cow<'a, [u8]>, Option<&'a [u8]>)> + use<'a> {
        self.shown_numbered().map(|(_, name, value)| (name, value))
    }

    /// As [`shown`](Self::shown), each with its place among the user's headers.
    pub fn shown_numbered(&self) -> impl Iterator<Item = (usize, Cow<'a, [u8]>, Option<&'a [u8]>)> + use<'a> {
        let from = match self.origin {
            None => From::Producer { recomposed: false },
            Some(origin) if origin == NEUTRAL_ORIGIN.as_bytes() => From::Producer { recomposed: true },
            Some(_) => From::Composed,
        };
        let mut names_address = self.origin.is_none();
        self.user().enumerate().filter_map(move |(place, (name, value))| {
            let is_address = names_address && name == name::ADDRESS;
            names_address &= !is_address;
            (!is_address || value.is_none()).then(|| (place, reserved::shown(name, from), value))
        })
    }

    /// The address that a producer's record names itself.
    #[must_use]
    pub fn named_address(&self) -> Option<&'a [u8]> {
        if self.origin.is_some() {
            return None;
        }
        self.user().find(|(name, _)| *name == name::ADDRESS).and_then(|(_, value)| value)
    }

    /// Whether there are headers of the user.
    #[must_use]
    pub fn has_user(&self) -> bool {
        self.rest.left > self.properties
    }

    /// The user's headers as they are stored, in order. Skips the properties one by one.
    #[must_use]
    pub fn user(&self) -> RawHeaders<'a> {
        let mut user = self.rest;
        for _ in 0..self.properties {
            if user.next().is_none() {
                break;
            }
        }
        user
    }
}

/// The value by which readers of streams filter a message.
#[must_use]
pub fn filter_value(record: &Record) -> Option<&[u8]> {
    HeaderView::of(record)
        .written()
        .find(|(name, _)| *name == name::FILTER_VALUE)
        .and_then(|(_, value)| value)
}

/// The priority that the publisher gave the message.
#[must_use]
pub(crate) fn priority(record: &Record) -> Option<u8> {
    HeaderView::of(record).typed_properties().find_map(|property| match property {
        Property::Priority(priority) => Some(priority),
        _ => None,
    })
}

/// When the message expires, in milliseconds since 1970, if it has a time to live.
#[must_use]
pub fn expires_ms(record: &Record) -> Option<i64> {
    // Read for every message that is delivered: the first two headers tell.
    if record.is_marked {
        return None;
    }
    let (_, headers) = RawHeaders::of(record).behind(&origin::ENCODED_HEADER)?;
    let (expires, _) = headers.behind(&ENCODED_EXPIRES)?;
    parse(expires?)
}
