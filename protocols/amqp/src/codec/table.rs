//! Field tables (AMQP 0-9-1, section 4.2.5.5, with the type letters as RabbitMQ reads them).
//!
//! A [`Table`] borrows the encoded fields: order, duplicate names and type letters are kept, and nothing is built.
//! [`validate`] checks a table once with a bounded stack. Iteration over a validated table does not fail; over any
//! other it ends at the first error.

use super::Malformed;
use super::wire::{Reader, Writer};

/// The deepest nesting of tables and arrays, the outermost included. A frame of 128 KiB could hold 20,000 levels.
pub const DEPTH_MAX: usize = 32;

/// An encoded table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Table<'a> {
    raw: &'a [u8],
}

/// An encoded array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Array<'a> {
    raw: &'a [u8],
}

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s` (as RabbitMQ reads it; a short string in the specification, which no client sends)
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l` and `L`
    I64(i64),
    /// `f`
    F32(f32),
    /// `d`
    F64(f64),
    /// `D`: value × 10^-scale
    Decimal {
        /// Digits after the point.
        scale: u8,
        /// All digits.
        value: u32,
    },
    /// `S`
    Text(&'a [u8]),
    /// `x`
    Binary(&'a [u8]),
    /// `T`: seconds since the epoch
    Timestamp(u64),
    /// `F`
    Table(Table<'a>),
    /// `A`
    Array(Array<'a>),
    /// `V`
    Void,
}

impl Value<'_> {
    /// The type's name in RabbitMQ's error texts.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Bool(_) => "bool",
            Value::I8(_) => "byte",
            Value::U8(_) => "unsignedbyte",
            Value::I16(_) => "short",
            Value::U16(_) => "unsignedshort",
            Value::I32(_) => "signedint",
            Value::U32(_) => "unsignedint",
            Value::I64(_) => "long",
            Value::F32(_) => "float",
            Value::F64(_) => "double",
            Value::Decimal { .. } => "decimal",
            Value::Text(_) => "longstr",
            Value::Binary(_) => "binary",
            Value::Timestamp(_) => "timestamp",
            Value::Table(_) => "table",
            Value::Array(_) => "array",
            Value::Void => "void",
        }
    }

    /// The value as an integer, if it is one.
    pub fn as_integer(&self) -> Option<i64> {
        match *self {
            Value::I8(n) => Some(n.into()),
            Value::U8(n) => Some(n.into()),
            Value::I16(n) => Some(n.into()),
            Value::U16(n) => Some(n.into()),
            Value::I32(n) => Some(n.into()),
            Value::U32(n) => Some(n.into()),
            Value::I64(n) => Some(n),
            _ => None,
        }
    }
}

impl<'a> Table<'a> {
    /// The table without a field.
    pub const EMPTY: Table<'static> = Table { raw: &[] };

    /// A table of these bytes, without the length before them.
    pub fn of(raw: &'a [u8]) -> Self {
        Table { raw }
    }

    /// The encoded fields.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Whether it has no field.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The fields, in order.
    pub fn iter(&self) -> TableIter<'a> {
        TableIter { reader: Reader::new(self.raw) }
    }

    /// The first field of that name.
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        self.iter().find(|(field, _)| *field == name.as_bytes()).map(|(_, value)| value)
    }
}

impl<'a> Array<'a> {
    /// The encoded values.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The values, in order.
    pub fn iter(&self) -> ArrayIter<'a> {
        ArrayIter { reader: Reader::new(self.raw) }
    }
}

/// An iterator over the fields of a table.
#[derive(Debug, Clone)]
pub struct TableIter<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for TableIter<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.rest().is_empty() {
            return None;
        }
        let name = self.reader.short_bytes().ok()?;
        Some((name, value(&mut self.reader).ok()?))
    }
}

/// An iterator over the values of an array.
#[derive(Debug, Clone)]
pub struct ArrayIter<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for ArrayIter<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.rest().is_empty() {
            return None;
        }
        value(&mut self.reader).ok()
    }
}

/// Reads one value. Tables and arrays are not checked inside.
fn value<'a>(reader: &mut Reader<'a>) -> Result<Value<'a>, Malformed> {
    Ok(match reader.octet()? {
        b't' => Value::Bool(reader.octet()? != 0),
        b'b' => Value::I8(reader.octet()?.cast_signed()),
        b'B' => Value::U8(reader.octet()?),
        b's' => Value::I16(reader.short()?.cast_signed()),
        b'u' => Value::U16(reader.short()?),
        b'I' => Value::I32(reader.long()?.cast_signed()),
        b'i' => Value::U32(reader.long()?),
        b'l' | b'L' => Value::I64(reader.longlong()?.cast_signed()),
        b'f' => Value::F32(f32::from_bits(reader.long()?)),
        b'd' => Value::F64(f64::from_bits(reader.longlong()?)),
        b'D' => Value::Decimal { scale: reader.octet()?, value: reader.long()? },
        b'S' => Value::Text(reader.longstr()?),
        b'x' => Value::Binary(reader.longstr()?),
        b'T' => Value::Timestamp(reader.longlong()?),
        b'F' => Value::Table(Table { raw: reader.longstr()? }),
        b'A' => Value::Array(Array { raw: reader.longstr()? }),
        b'V' => Value::Void,
        other => return Err(Malformed::UnknownFieldType(other)),
    })
}

/// Validates a table in full: every length is within its container, every type is known, and the nesting is at most
/// [`DEPTH_MAX`].
pub fn validate(raw: &[u8]) -> Result<(), Malformed> {
    // For each open container: the bytes of `raw` that follow its end, and whether its values have names.
    let mut open = [(0usize, true); DEPTH_MAX];
    let mut depth = 1usize;
    let mut reader = Reader::new(raw);
    while depth > 0 {
        let Some(&(left_behind, named)) = open.get(depth - 1) else {
            return Err(Malformed::TooDeep(DEPTH_MAX));
        };
        let here = reader.rest().len().checked_sub(left_behind).ok_or(Malformed::Truncated)?;
        if here == 0 {
            depth -= 1;
            continue;
        }
        // Read within this container only, so that a value that exceeds it is truncated.
        let mut inner = Reader::new(reader.rest().get(..here).ok_or(Malformed::Truncated)?);
        if named {
            inner.short_bytes()?;
        }
        let nested = match value(&mut inner)? {
            Value::Table(table) => Some((table.raw.len(), true)),
            Value::Array(array) => Some((array.raw.len(), false)),
            _ => None,
        };
        let mut used = here - inner.rest().len();
        if let Some((length, named)) = nested {
            used -= length;
            let slot = open.get_mut(depth).ok_or(Malformed::TooDeep(DEPTH_MAX))?;
            *slot = (reader.rest().len() - used - length, named);
            depth += 1;
        }
        reader.take(used)?;
    }
    Ok(())
}

impl<'a> Reader<'a> {
    /// Reads a field table and validates it in full.
    pub fn table(&mut self) -> Result<Table<'a>, Malformed> {
        let raw = self.longstr()?;
        validate(raw)?;
        Ok(Table::of(raw))
    }
}

impl Writer<'_> {
    /// A field table.
    pub fn table(&mut self, value: Table<'_>) {
        self.longstr(value.raw());
    }
}

/// Appends the fields of a table to a buffer. A nested table is written to a buffer of its own first.
#[derive(Debug)]
pub struct TableWriter<'a> {
    writer: Writer<'a>,
}

impl<'a> TableWriter<'a> {
    /// Appends fields to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        TableWriter { writer: Writer::new(out) }
    }

    /// Appends a field.
    pub fn field(&mut self, name: &[u8], value: Value<'_>) -> &mut Self {
        self.writer.short_bytes(name);
        self.value(value);
        self
    }

    /// Appends a value without a name, as in an array.
    pub fn value(&mut self, value: Value<'_>) {
        let writer = &mut self.writer;
        match value {
            Value::Bool(flag) => tagged(writer, b't', &[flag.into()]),
            Value::I8(n) => tagged(writer, b'b', &n.to_be_bytes()),
            Value::U8(n) => tagged(writer, b'B', &n.to_be_bytes()),
            Value::I16(n) => tagged(writer, b's', &n.to_be_bytes()),
            Value::U16(n) => tagged(writer, b'u', &n.to_be_bytes()),
            Value::I32(n) => tagged(writer, b'I', &n.to_be_bytes()),
            Value::U32(n) => tagged(writer, b'i', &n.to_be_bytes()),
            Value::I64(n) => tagged(writer, b'l', &n.to_be_bytes()),
            Value::F32(n) => tagged(writer, b'f', &n.to_bits().to_be_bytes()),
            Value::F64(n) => tagged(writer, b'd', &n.to_bits().to_be_bytes()),
            Value::Timestamp(n) => tagged(writer, b'T', &n.to_be_bytes()),
            Value::Void => tagged(writer, b'V', &[]),
            Value::Decimal { scale, value } => {
                tagged(writer, b'D', &[scale]);
                writer.long(value);
            }
            Value::Text(bytes) => long(writer, b'S', bytes),
            Value::Binary(bytes) => long(writer, b'x', bytes),
            Value::Table(table) => long(writer, b'F', table.raw),
            Value::Array(array) => long(writer, b'A', array.raw),
        }
    }
}

/// An array of these encoded values.
pub fn array_of(raw: &[u8]) -> Value<'_> {
    Value::Array(Array { raw })
}

fn tagged(writer: &mut Writer<'_>, tag: u8, bytes: &[u8]) {
    writer.octet(tag);
    writer.raw(bytes);
}

fn long(writer: &mut Writer<'_>, tag: u8, bytes: &[u8]) {
    writer.octet(tag);
    writer.longstr(bytes);
}
