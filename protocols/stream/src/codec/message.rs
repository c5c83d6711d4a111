//! AMQP 1.0 messages, as far as other protocols have what they contain (OASIS AMQP 1.0, part 1 and part 3, section 3.2).

use super::wire::{Malformed, Reader};

/// Codes of sections.
mod section {
    pub(super) const HEADER: u64 = 0x70;
    pub(super) const DELIVERY_ANNOTATIONS: u64 = 0x71;
    pub(super) const MESSAGE_ANNOTATIONS: u64 = 0x72;
    pub(super) const PROPERTIES: u64 = 0x73;
    pub(super) const APPLICATION_PROPERTIES: u64 = 0x74;
    pub(super) const DATA: u64 = 0x75;
    pub(super) const SEQUENCE: u64 = 0x76;
    pub(super) const VALUE: u64 = 0x77;
    pub(super) const FOOTER: u64 = 0x78;
}

/// Described values within each other.
const DESCRIBED_DEPTH_MAX: u32 = 4;

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer without a sign.
    Unsigned(u64),
    /// An integer with a sign.
    Signed(i64),
    /// A number of either size.
    Float(f64),
    /// Milliseconds since 1970.
    Timestamp(i64),
    /// A UUID.
    Uuid([u8; 16]),
    /// Bytes.
    Binary(&'a [u8]),
    /// A string or a symbol.
    Text(&'a str),
    /// A list or a map.
    Items(Items<'a>),
    /// What no other protocol has.
    Other,
}

/// The elements of a list, or the keys and values of a map.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Items<'a> {
    bytes: &'a [u8],
    left: u32,
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        let mut reader = Reader(self.bytes);
        let value = value(&mut reader, DESCRIBED_DEPTH_MAX).ok()?;
        self.bytes = reader.0;
        Some(value)
    }
}

impl<'a> Value<'a> {
    /// The bytes of a text or of bytes.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match self {
            Value::Text(text) => Some(text.as_bytes()),
            Value::Binary(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// The body of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Body<'a> {
    /// One section of bytes, which is the end of the message.
    Data(&'a [u8]),
    /// One string or bytes as a value.
    Text(&'a [u8]),
    /// Something else: the encoded sections from the first one on.
    Sections(&'a [u8]),
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Message<'a> {
    /// Keys and values of the annotations.
    pub annotations: Items<'a>,
    /// The fields of the section of properties, in the order of the specification.
    pub properties: Items<'a>,
    /// Keys and values of the application's properties.
    pub application: Items<'a>,
    /// The body.
    pub body: Body<'a>,
}

impl<'a> Message<'a> {
    /// Parses a message.
    pub fn parse(bytes: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let mut message = Message {
            annotations: Items::default(),
            properties: Items::default(),
            application: Items::default(),
            body: Body::Data(&[]),
        };
        let mut reader = Reader(bytes);
        loop {
            let start = reader.0;
            let code = descriptor(&mut reader)?;
            let value = value(&mut reader, DESCRIBED_DEPTH_MAX)?;
            match (code, value) {
                (section::HEADER | section::DELIVERY_ANNOTATIONS, _) => {}
                (section::MESSAGE_ANNOTATIONS, Value::Items(items)) => message.annotations = items,
                (section::PROPERTIES, Value::Items(items)) => message.properties = items,
                (section::APPLICATION_PROPERTIES, Value::Items(items)) => message.application = items,
                (section::DATA, Value::Binary(data)) if reader.0.is_empty() => {
                    return Ok(Message { body: Body::Data(data), ..message });
                }
                (section::VALUE, Value::Text(text)) if reader.0.is_empty() => {
                    return Ok(Message { body: Body::Text(text.as_bytes()), ..message });
                }
                (section::VALUE, Value::Binary(data)) if reader.0.is_empty() => {
                    return Ok(Message { body: Body::Text(data), ..message });
                }
                (section::DATA | section::SEQUENCE | section::VALUE, _) => {
                    while !reader.0.is_empty() {
                        match descriptor(&mut reader)? {
                            section::DATA | section::SEQUENCE | section::VALUE | section::FOOTER => {}
                            _ => return Err(Malformed),
                        }
                        self::value(&mut reader, DESCRIBED_DEPTH_MAX)?;
                    }
                    return Ok(Message { body: Body::Sections(start), ..message });
                }
                _ => return Err(Malformed),
            }
        }
    }
}

/// The code of the section that begins here.
fn descriptor(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    if reader.u8()? != 0 {
        return Err(Malformed);
    }
    match reader.u8()? {
        0x53 => reader.u8().map(u64::from),
        0x80 => reader.u64(),
        _ => Err(Malformed),
    }
}

fn value<'a>(reader: &mut Reader<'a>, depth: u32) -> Result<Value<'a>, Malformed> {
    let code = reader.u8()?;
    Ok(match code {
        0x00 => {
            let depth = depth.checked_sub(1).ok_or(Malformed)?;
            value(reader, depth)?;
            value(reader, depth)?;
            Value::Other
        }
        0x40 => Value::Null,
        0x41 => Value::Bool(true),
        0x42 => Value::Bool(false),
        0x43 | 0x44 => Value::Unsigned(0),
        0x45 => Value::Items(Items::default()),
        0x50 | 0x52 | 0x53 => Value::Unsigned(reader.u8()?.into()),
        0x51 | 0x54 | 0x55 => Value::Signed(i64::from(reader.u8()? as i8)),
        0x56 => Value::Bool(reader.u8()? != 0),
        0x60 => Value::Unsigned(reader.u16()?.into()),
        0x61 => Value::Signed(i64::from(reader.u16()? as i16)),
        0x70 => Value::Unsigned(reader.u32()?.into()),
        0x71 => Value::Signed(i64::from(reader.u32()? as i32)),
        0x72 => Value::Float(f32::from_bits(reader.u32()?).into()),
        0x80 => Value::Unsigned(reader.u64()?),
        0x81 => Value::Signed(reader.i64()?),
        0x82 => Value::Float(f64::from_bits(reader.u64()?)),
        0x83 => Value::Timestamp(reader.i64()?),
        0x98 => Value::Uuid(reader.take(16)?.try_into().map_err(|_| Malformed)?),
        _ => {
            let length = match code >> 4 {
                0x4 => 0,
                0x5 => 1,
                0x6 => 2,
                0x7 => 4,
                0x8 => 8,
                0x9 => 16,
                0xa | 0xc | 0xe => reader.u8()?.into(),
                0xb | 0xd | 0xf => reader.u32()? as usize,
                _ => return Err(Malformed),
            };
            let bytes = reader.take(length)?;
            match code {
                0xa0 | 0xb0 => Value::Binary(bytes),
                0xa1 | 0xb1 | 0xa3 | 0xb3 => Value::Text(std::str::from_utf8(bytes).map_err(|_| Malformed)?),
                0xc0 | 0xc1 => {
                    let mut items = Reader(bytes);
                    let left = items.u8()?.into();
                    Value::Items(Items { bytes: items.0, left })
                }
                0xd0 | 0xd1 => {
                    let mut items = Reader(bytes);
                    let left = items.u32()?;
                    Value::Items(Items { bytes: items.0, left })
                }
                _ => Value::Other,
            }
        }
    })
}

/// Bytes of the section of data before the body of this length.
#[must_use]
pub fn data_prefix(length: usize) -> ([u8; 8], usize) {
    match u8::try_from(length) {
        Ok(length) => ([0, 0x53, 0x75, 0xa0, length, 0, 0, 0], 5),
        Err(_) => {
            let [a, b, c, d] = (length as u32).to_be_bytes();
            ([0, 0x53, 0x75, 0xb0, a, b, c, d], 8)
        }
    }
}

/// Appends a section of data.
pub fn put_data(out: &mut Vec<u8>, data: &[u8]) {
    let (prefix, length) = data_prefix(data.len());
    out.extend_from_slice(prefix.get(..length).unwrap_or_default());
    out.extend_from_slice(data);
}

/// A section that is a list or a map, under construction. Nothing is left of one without elements.
pub struct Section<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    count: u32,
    /// Elements up to the last one that is not null.
    kept: (u32, usize),
}

/// Bytes of a section before its elements.
const SECTION_BYTES: usize = 12;

impl<'o> Section<'o> {
    fn begin(out: &'o mut Vec<u8>, code: u64, constructor: u8) -> Section<'o> {
        let start = out.len();
        out.extend_from_slice(&[0, 0x53, code as u8, constructor]);
        out.extend_from_slice(&[0; SECTION_BYTES - 4]);
        let kept = (0, out.len());
        Section { out, start, count: 0, kept }
    }

    /// The section with durability and priority.
    pub fn header(out: &'o mut Vec<u8>) -> Section<'o> {
        Section::begin(out, section::HEADER, 0xd0)
    }

    /// The section of annotations.
    pub fn annotations(out: &'o mut Vec<u8>) -> Section<'o> {
        Section::begin(out, section::MESSAGE_ANNOTATIONS, 0xd1)
    }

    /// The section of properties.
    pub fn properties(out: &'o mut Vec<u8>) -> Section<'o> {
        Section::begin(out, section::PROPERTIES, 0xd0)
    }

    /// The section of the application's properties.
    pub fn application(out: &'o mut Vec<u8>) -> Section<'o> {
        Section::begin(out, section::APPLICATION_PROPERTIES, 0xd1)
    }

    fn sized(&mut self, code: u8, bytes: &[u8]) {
        match u8::try_from(bytes.len()) {
            Ok(length) => self.out.extend_from_slice(&[code, length]),
            Err(_) => {
                self.out.push(code | 0x10);
                self.out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            }
        }
        self.out.extend_from_slice(bytes);
        self.added();
    }

    fn added(&mut self) {
        self.count += 1;
        self.kept = (self.count, self.out.len());
    }

    /// Adds null.
    pub fn null(&mut self) {
        self.out.push(0x40);
        self.count += 1;
    }

    /// Adds a value by `write`, or null.
    pub fn optional(&mut self, value: Option<&[u8]>, write: impl FnOnce(&mut Section<'o>, &[u8])) {
        match value {
            Some(value) => write(self, value),
            None => self.null(),
        }
    }

    /// Adds a string, or bytes where it is not UTF-8.
    pub fn text(&mut self, bytes: &[u8]) {
        self.sized(if std::str::from_utf8(bytes).is_ok() { 0xa1 } else { 0xa0 }, bytes);
    }

    /// Adds a symbol, which is ASCII.
    pub fn symbol(&mut self, bytes: &[u8]) {
        if bytes.is_ascii() { self.sized(0xa3, bytes) } else { self.null() }
    }

    /// Adds bytes.
    pub fn binary(&mut self, bytes: &[u8]) {
        self.sized(0xa0, bytes);
    }

    /// Adds a boolean.
    pub fn boolean(&mut self, value: bool) {
        self.out.push(if value { 0x41 } else { 0x42 });
        self.added();
    }

    /// Adds an integer of one byte.
    pub fn byte(&mut self, value: u8) {
        self.out.extend_from_slice(&[0x50, value]);
        self.added();
    }

    /// Adds a time, milliseconds since 1970.
    pub fn timestamp(&mut self, ms: i64) {
        self.out.push(0x83);
        self.out.extend_from_slice(&ms.to_be_bytes());
        self.added();
    }

    /// Ends a list. Nulls at its end are left out.
    pub fn end_list(self) {
        let (count, length) = self.kept;
        self.out.truncate(length);
        finish(self.out, self.start, count);
    }

    /// Ends a map.
    pub fn end_map(self) {
        finish(self.out, self.start, self.count);
    }
}

fn finish(out: &mut Vec<u8>, start: usize, count: u32) {
    if count == 0 {
        out.truncate(start);
        return;
    }
    let size = (out.len() - start - SECTION_BYTES + 4) as u32;
    if let Some(field) = out.get_mut(start + 4..start + SECTION_BYTES) {
        let (size_field, count_field) = field.split_at_mut(4);
        size_field.copy_from_slice(&size.to_be_bytes());
        count_field.copy_from_slice(&count.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_parsed() {
        let mut out = Vec::new();
        let mut header = Section::header(&mut out);
        header.boolean(true);
        header.byte(5);
        header.end_list();
        let mut properties = Section::properties(&mut out);
        properties.text(b"id");
        properties.null();
        properties.symbol(b"text/plain");
        properties.null();
        properties.end_list();
        let mut application = Section::application(&mut out);
        application.text(b"k");
        application.binary(&[0xff; 300]);
        application.end_map();
        Section::annotations(&mut out).end_map();
        put_data(&mut out, b"body");
        let message = Message::parse(&out).unwrap();
        let fields: Vec<Value<'_>> = message.properties.collect();
        assert_eq!(fields, [Value::Text("id"), Value::Null, Value::Text("text/plain")]);
        let pairs: Vec<Value<'_>> = message.application.collect();
        assert_eq!(pairs, [Value::Text("k"), Value::Binary(&[0xff; 300])]);
        assert_eq!(message.body, Body::Data(b"body"));
    }

    #[test]
    fn bodies_of_all_kinds_are_parsed() {
        let body = |bytes: &'static [u8]| Message::parse(bytes).map(|message| message.body);
        assert_eq!(body(b"\0\x53\x77\xa1\x02ab"), Ok(Body::Text(b"ab")));
        assert_eq!(body(b"\0\x53\x77\x54\x02"), Ok(Body::Sections(b"\0\x53\x77\x54\x02")));
        let two = b"\0\x53\x75\xa0\x01a\0\x53\x75\xa0\x01b";
        assert_eq!(body(two), Ok(Body::Sections(two)));
        assert_eq!(body(b"\0\x80\0\0\0\0\0\0\0\x75\xa0\x01a"), Ok(Body::Data(b"a")));
        for bad in [&b"hello"[..], b"", b"\0\x53\x75", b"\0\x53\x75\xa0\x05ab", b"\0\x53\x73\x45"] {
            assert_eq!(body(bad), Err(Malformed), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_to_something_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            for bytes in [bytes.clone(), [&b"\0\x53\x74\xd1"[..], &bytes].concat()] {
                if let Ok(message) = Message::parse(&bytes) {
                    prop_assert!(message.application.count() <= bytes.len());
                }
            }
        }
    }
}
