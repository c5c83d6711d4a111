//! The encoding of Kafka's primitive types. [`super::messages`] composes structures from them.

use bytes::{BufMut, Bytes, BytesMut};

use super::error_code::ErrorCode;
use super::reader::{DecodeError, Reader, STRING_BYTES_MAX};
use super::text::Str;

/// The version of a request and its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Number of the version.
    pub number: i16,
    /// Whether it has compact lengths and tagged fields (KIP-482).
    pub flexible: bool,
}

/// A type with an encoding.
pub trait Wire: Sized + Default {
    /// Name of the type in Kafka's message schema.
    #[cfg(test)]
    fn schema_type() -> String;
    /// A sample value, for round trips.
    #[cfg(test)]
    fn sample(seed: &mut Seed, version: Version) -> Self;
    /// Fewest bytes that a value takes.
    fn bytes_min(version: Version) -> usize;
    /// Reads a value.
    fn read(reader: &mut Reader, version: Version) -> Result<Self, DecodeError>;
    /// Appends a value.
    fn write(&self, out: &mut BytesMut, version: Version);
    /// Tells in a response that has a field for it for how long the client's next requests wait, milliseconds.
    fn throttle(&mut self, _throttle_time_ms: i32) {}
    /// Calls `report` for every error code in the value other than [`ErrorCode::NONE`].
    fn each_error(&self, report: &mut impl FnMut(ErrorCode)) {
        let _ = report;
    }
    /// Adds the declarations of the structures in the type.
    #[cfg(test)]
    fn collect_structures(into: &mut Vec<StructureSchema>) {
        let _ = into;
    }
}

/// A type that can be null. `Option` of it is [`Wire`].
pub trait Nullable: Wire {
    /// Reads a value or null.
    fn read_nullable(reader: &mut Reader, version: Version) -> Result<Option<Self>, DecodeError>;
    /// Appends a null.
    fn write_null(out: &mut BytesMut, version: Version);
    /// Appends a value to a field that can be null.
    fn write_present(&self, out: &mut BytesMut, version: Version) {
        self.write(out, version);
    }
}

/// Appends an unsigned variable-length integer.
pub fn write_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Appends the length of a byte string, a set of records or an array.
pub fn write_length(out: &mut BytesMut, length: usize, flexible: bool) {
    if flexible {
        write_varint(out, u32::try_from(length).unwrap_or(u32::MAX - 1) + 1);
    } else {
        out.put_i32(i32::try_from(length).unwrap_or(i32::MAX));
    }
}

/// Appends an empty section of tagged fields, which ends every flexible structure.
pub fn write_no_tagged_fields(out: &mut BytesMut, version: Version) {
    if version.flexible {
        out.put_u8(0);
    }
}

macro_rules! numbers {
    ($($type:ty, $schema:literal, $get:ident, $put:ident;)*) => {
        $(
            impl Wire for $type {
                #[cfg(test)]
                fn schema_type() -> String {
                    $schema.into()
                }
                #[cfg(test)]
                fn sample(seed: &mut Seed, _: Version) -> Self {
                    seed.draw() as $type
                }
                fn bytes_min(_: Version) -> usize {
                    size_of::<$type>()
                }
                #[inline]
                fn read(reader: &mut Reader, _: Version) -> Result<Self, DecodeError> {
                    reader.$get()
                }
                #[inline]
                fn write(&self, out: &mut BytesMut, _: Version) {
                    out.$put(*self);
                }
            }
        )*
    };
}

numbers! {
    i8, "int8", i8, put_i8;
    i16, "int16", i16, put_i16;
    u16, "uint16", u16, put_u16;
    i32, "int32", i32, put_i32;
    i64, "int64", i64, put_i64;
    f64, "float64", f64, put_f64;
}

impl Wire for bool {
    #[cfg(test)]
    fn schema_type() -> String {
        "bool".into()
    }
    #[cfg(test)]
    fn sample(seed: &mut Seed, _: Version) -> Self {
        seed.draw().is_multiple_of(2)
    }
    fn bytes_min(_: Version) -> usize {
        1
    }
    fn read(reader: &mut Reader, _: Version) -> Result<Self, DecodeError> {
        Ok(reader.u8()? != 0)
    }
    fn write(&self, out: &mut BytesMut, _: Version) {
        out.put_u8(u8::from(*self));
    }
}

impl Wire for ErrorCode {
    #[cfg(test)]
    fn schema_type() -> String {
        "int16".into()
    }
    #[cfg(test)]
    fn sample(seed: &mut Seed, _: Version) -> Self {
        ErrorCode(seed.draw() as i16)
    }
    fn bytes_min(_: Version) -> usize {
        2
    }
    fn read(reader: &mut Reader, _: Version) -> Result<Self, DecodeError> {
        reader.i16().map(ErrorCode)
    }
    fn write(&self, out: &mut BytesMut, _: Version) {
        out.put_i16(self.0);
    }
    #[inline]
    fn each_error(&self, report: &mut impl FnMut(ErrorCode)) {
        if !self.is_none() {
            report(*self);
        }
    }
}

/// An opaque id of 16 bytes: of a topic or a log directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(pub u128);

impl Uuid {
    /// The id that stands for none.
    pub const ZERO: Uuid = Uuid(0);
}

impl Wire for Uuid {
    #[cfg(test)]
    fn schema_type() -> String {
        "uuid".into()
    }
    #[cfg(test)]
    fn sample(seed: &mut Seed, _: Version) -> Self {
        Uuid(u128::from(seed.draw()) << 32 | 1)
    }
    fn bytes_min(_: Version) -> usize {
        16
    }
    fn read(reader: &mut Reader, _: Version) -> Result<Self, DecodeError> {
        reader.array().map(u128::from_be_bytes).map(Uuid)
    }
    fn write(&self, out: &mut BytesMut, _: Version) {
        out.put_u128(self.0);
    }
}

impl Wire for Str {
    #[cfg(test)]
    fn schema_type() -> String {
        "string".into()
    }
    #[cfg(test)]
    fn sample(seed: &mut Seed, _: Version) -> Self {
        "é".repeat((seed.draw() % 100) as usize).into()
    }
    fn bytes_min(version: Version) -> usize {
        if version.flexible { 1 } else { 2 }
    }
    fn read(reader: &mut Reader, version: Version) -> Result<Self, DecodeError> {
        reader.string(version.flexible)?.ok_or(DecodeError::UnexpectedNull)
    }
    fn write(&self, out: &mut BytesMut, version: Version) {
        // Strings from requests fit; error messages composed here may have to be truncated.
        let text = match self.len() > STRING_BYTES_MAX {
            true => self.get(..self.floor_char_boundary(STRING_BYTES_MAX)).unwrap_or_default(),
            false => self.as_str(),
        };
        if version.flexible {
            write_varint(out, text.len() as u32 + 1);
        } else {
            out.put_i16(text.len() as i16);
        }
        out.put_slice(text.as_bytes());
    }
}

impl Nullable for Str {
    fn read_nullable(reader: &mut Reader, version: Version) -> Result<Option<Self>, DecodeError> {
        reader.string(version.flexible)
    }
    fn write_null(out: &mut BytesMut, version: Version) {
        if version.flexible { out.put_u8(0) } else { out.put_i16(-1) }
    }
}

impl Wire for Bytes {
    #[cfg(test)]
    fn schema_type() -> String {
        "bytes".into()
    }
    #[cfg(test)]
    fn sample(seed: &mut Seed, _: Version) -> Self {
        vec![7; (seed.draw() % 200) as usize].into()
    }
    fn bytes_min(version: Version) -> usize {
        if version.flexible { 1 } else { 4 }
    }
    fn read(reader: &mut Reader, version: Version) -> Result<Self, DecodeError> {
        reader.bytes(version.flexible)?.ok_or(DecodeError::UnexpectedNull)
    }
    fn write(&self, out: &mut BytesMut, version: Version) {
        write_length(out, self.len(), version.flexible);
        out.put_slice(self);
    }
}

impl Nullable for Bytes {
    fn read_nullable(reader: &mut Reader, version: Version) -> Result<Option<Self>, DecodeError> {
        reader.bytes(version.flexible)
    }
    fn write_null(out: &mut BytesMut, version: Version) {
        if version.flexible { out.put_u8(0) } else { out.put_i32(-1) }
    }
}

impl<T: Wire> Wire for Vec<T> {
    #[cfg(test)]
    fn schema_type() -> String {
        format!("[]{}", T::schema_type())
    }
    #[cfg(test)]
    fn sample(seed: &mut Seed, version: Version) -> Self {
        (0..seed.draw() % 4).map(|_| T::sample(seed, version)).collect()
    }
    fn bytes_min(version: Version) -> usize {
        if version.flexible { 1 } else { 4 }
    }
    fn read(reader: &mut Reader, version: Version) -> Result<Self, DecodeError> {
        Self::read_nullable(reader, version)?.ok_or(DecodeError::UnexpectedNull)
    }
    fn write(&self, out: &mut BytesMut, version: Version) {
        write_length(out, self.len(), version.flexible);
        for element in self {
            element.write(out, version);
        }
    }
    fn each_error(&self, report: &mut impl FnMut(ErrorCode)) {
        self.iter().for_each(|element| element.each_error(report));
    }
    #[cfg(test)]
    fn collect_structures(into: &mut Vec<StructureSchema>) {
        T::collect_structures(into);
    }
}

impl<T: Wire> Nullable for Vec<T> {
    fn read_nullable(reader: &mut Reader, version: Version) -> Result<Option<Self>, DecodeError> {
        let Some(count) = reader.count(version.flexible, T::bytes_min(version))? else { return Ok(None) };
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(T::read(reader, version)?);
        }
        Ok(Some(elements))
    }
    fn write_null(out: &mut BytesMut, version: Version) {
        if version.flexible { out.put_u8(0) } else { out.put_i32(-1) }
    }
}

impl<T: Nullable> Wire for Option<T> {
    #[cfg(test)]
    fn schema_type() -> String {
        T::schema_type()
    }
    #[cfg(test)]
    fn sample(seed: &mut Seed, version: Version) -> Self {
        (!seed.draw().is_multiple_of(4)).then(|| T::sample(seed, version))
    }
    fn bytes_min(version: Version) -> usize {
        T::bytes_min(version).min(1)
    }
    fn read(reader: &mut Reader, version: Version) -> Result<Self, DecodeError> {
        T::read_nullable(reader, version)
    }
    fn write(&self, out: &mut BytesMut, version: Version) {
        match self {
            Some(value) => value.write_present(out, version),
            None => T::write_null(out, version),
        }
    }
    fn each_error(&self, report: &mut impl FnMut(ErrorCode)) {
        if let Some(value) = self {
            value.each_error(report);
        }
    }
    #[cfg(test)]
    fn collect_structures(into: &mut Vec<StructureSchema>) {
        T::collect_structures(into);
    }
}

/// Writes a nullable field in a version where it cannot be null: null becomes the empty value.
pub fn write_never_null<T: Nullable>(value: &Option<T>, out: &mut BytesMut, version: Version) {
    match value {
        Some(value) => value.write(out, version),
        None => T::default().write(out, version),
    }
}

/// A pseudo-random generator for sample values.
#[cfg(test)]
#[derive(Debug)]
pub struct Seed(pub u64);

#[cfg(test)]
impl Seed {
    /// The next number (splitmix64).
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A structure as declared, for the comparison with Kafka's schema.
#[cfg(test)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StructureSchema {
    /// Name of the structure.
    pub name: String,
    /// Fields in order.
    pub fields: Vec<FieldSchema>,
}

/// A field as declared, for the comparison with Kafka's schema.
#[cfg(test)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldSchema {
    /// Name in snake case.
    pub name: &'static str,
    /// Type, as Kafka's schema names it.
    pub kind: String,
    /// Versions with the field, as written in the declaration.
    pub versions: &'static str,
    /// Versions in which it can be null, as written in the declaration; empty if there are none.
    pub null: &'static str,
    /// Tag, if it is a tagged field.
    pub tag: Option<u32>,
}
