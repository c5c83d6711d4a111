//! Wire ↔ core: an AMQP message as a record, and any record as an AMQP message.
//!
//! A publish becomes a record whose properties speak the vocabulary that all protocols share; on the way back a record
//! that came from AMQP is what it was, to the byte. The property list is kept verbatim (`amqp-properties`) where the
//! vocabulary alone would not give the same bytes again: with an expiration, or with headers that are not all strings.
//!
//! Records of other origins are told by the vocabulary: what AMQP has a property for goes there, the rest into the headers
//! table under the vocabulary's names. A record's key is the header [`RECORD_KEY`], in both directions; a null value is an
//! empty body with the header [`NULL_VALUE`].
//!
//! [`RECORD_KEY`]: inver_broker::message::name::RECORD_KEY
//! [`NULL_VALUE`]: inver_broker::message::name::NULL_VALUE

mod deaths;
mod incoming;
mod outgoing;
mod text;

pub(crate) use incoming::{Composer, Publish};
pub(crate) use outgoing::Renderer;

use crate::codec::table::{Table, Value};
use inver_broker::{Arguments, Value as CoreValue};

/// The name of AMQP as a message's origin.
pub(crate) const ORIGIN: &str = "amqp";

/// The property that only AMQP has: a message's property list as it was on the wire.
const PROPERTY_LIST: &[u8] = b"amqp-properties";

/// A value for the core to compare and to keep.
pub(crate) fn core_value(value: Value<'_>) -> CoreValue {
    match value {
        Value::Void => CoreValue::Null,
        Value::Bool(flag) => CoreValue::Bool(flag),
        Value::F32(number) => CoreValue::Float(number.into()),
        Value::F64(number) => CoreValue::Float(number),
        Value::Decimal { scale, value } => CoreValue::Decimal { scale, unscaled: value.into() },
        Value::Text(bytes) => CoreValue::Text(bytes.to_vec()),
        Value::Binary(bytes) => CoreValue::Bytes(bytes.to_vec()),
        Value::Timestamp(seconds) => CoreValue::Timestamp(seconds),
        // No deeper than the codec lets tables be.
        Value::Array(array) => CoreValue::List(array.iter().map(core_value).collect()),
        Value::Table(table) => CoreValue::Map(core_arguments(table)),
        integer => CoreValue::Int(integer.as_integer().unwrap_or_default().into()),
    }
}

/// A table as arguments. Of a name that comes twice the first counts.
pub(crate) fn core_arguments(table: Table<'_>) -> Arguments {
    let mut arguments = Arguments::new();
    for (name, value) in table.iter() {
        arguments.entry(String::from_utf8_lossy(name).into_owned()).or_insert_with(|| core_value(value));
    }
    arguments
}

#[cfg(test)]
mod tests;
