//! The headers of a stored record, told apart in place: nothing is copied, and no counter is touched.

use inver_storage::batch::Record;

use super::{EXPIRES, Headers, ORIGIN};

/// A header: its name, and its value, which can be null.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// A walk over encoded headers: lengths as zigzag varints, names, values. The log has checked them; the walk ends
/// where they do not hold.
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

    /// So many headers, as they are encoded.
    pub(crate) fn encoded(bytes: &'a [u8], count: u32) -> Self {
        RawHeaders { bytes, left: count }
    }

    /// Those that are left, as they are encoded.
    pub(crate) fn as_headers(self) -> Headers<'a> {
        Headers { count: self.left, bytes: self.bytes, expires_ms: None }
    }

    /// How many there are at most.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.left
    }

    /// A field with its length; the inner `None` is null.
    fn field(&mut self) -> Option<Option<&'a [u8]>> {
        let (mut z, mut shift) = (0u64, 0);
        loop {
            let (&byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            z |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 28 {
                return None;
            }
        }
        if z & 1 == 1 {
            return (z == 1).then_some(None);
        }
        let (field, rest) = self.bytes.split_at_checked(usize::try_from(z >> 1).ok()?)?;
        self.bytes = rest;
        Some(Some(field))
    }
}

impl<'a> Iterator for RawHeaders<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.left = self.left.checked_sub(1)?;
        let name = self.field()??;
        Some((name, self.field()?))
    }
}

/// Where a record came from, its properties and its user headers. Cheap to make and to copy.
#[derive(Clone, Copy, Debug)]
pub struct HeaderView<'a> {
    origin: Option<&'a [u8]>,
    /// Behind the first header, if that is the origin's.
    rest: RawHeaders<'a>,
    properties: u32,
}

impl<'a> HeaderView<'a> {
    /// The view of a record.
    #[must_use]
    pub fn of(record: &'a Record) -> Self {
        HeaderView::over(RawHeaders::of(record))
    }

    pub(crate) fn over(all: RawHeaders<'a>) -> Self {
        let mut rest = all;
        match rest.next() {
            Some((ORIGIN, Some([origin @ .., b'/', tens @ b'0'..=b'9', ones @ b'0'..=b'9'])))
                if !origin.is_empty() =>
            {
                let properties = u32::from(tens - b'0') * 10 + u32::from(ones - b'0');
                HeaderView { origin: Some(origin), rest, properties }
            }
            _ => HeaderView { origin: None, rest: all, properties: 0 },
        }
    }

    /// The origin's short name; none for a record that came as part of a finished batch.
    #[must_use]
    pub fn origin(&self) -> Option<&'a [u8]> {
        self.origin
    }

    /// The properties, in order; none for a record that came as part of a finished batch.
    #[must_use]
    pub fn properties(&self) -> RawHeaders<'a> {
        RawHeaders { left: self.properties.min(self.rest.left), ..self.rest }
    }

    /// The user's own headers, in order. Walks over the properties.
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

/// When the message dies, in milliseconds since 1970, if it says so.
#[must_use]
pub fn expires_ms(record: &Record) -> Option<i64> {
    // Looked at for every message that is handed out: the first two headers tell.
    let mut headers = RawHeaders::of(record);
    if record.header_count < 2 || headers.next()?.0 != ORIGIN {
        return None;
    }
    match headers.next()? {
        (EXPIRES, Some(value)) => std::str::from_utf8(value).ok()?.parse().ok(),
        _ => None,
    }
}
