//! Wire ↔ core: an AMQP message as a record, and any record as an AMQP message.
//!
//! A publish becomes a record whose properties speak the vocabulary that all protocols share; on the way back a record
//! that came from AMQP is what it was, to the byte. The property list is kept verbatim (`amqp-properties`) where the
//! vocabulary alone would not give the same bytes again: with an expiration, or with headers that are not all strings.
//!
//! Records of other origins are told by the vocabulary: what AMQP has a property for goes there, the rest into the headers
//! table under the vocabulary's names. A record's key is the header [`KEY`], in both directions; a null value is an empty
//! body with the header [`NULL`].

mod deaths;
mod incoming;
mod outgoing;
mod text;

pub use incoming::{Composed, Composer};
pub use outgoing::{Outgoing, Renderer};

use crate::codec::table::{Table, Value};
use inver_broker::{Arguments, Value as CoreValue};

/// This protocol's name as an origin.
pub const ORIGIN: &str = "amqp";
/// Header of a message whose record has a key, or is to have one.
pub const KEY: &str = "inver-key";
/// Header of a message whose record has the null value (a tombstone), or is to have it.
pub const NULL: &str = "inver-null";

/// Names of properties that more than one side of this room uses.
mod name {
    pub(super) const EXCHANGE: &[u8] = b"exchange";
    pub(super) const ROUTING_KEY: &[u8] = b"routing-key";
    pub(super) const PROPERTIES: &[u8] = b"amqp-properties";
    pub(super) const DELIVERY_MODE: &[u8] = b"delivery-mode";
    pub(super) const CONTENT_TYPE: &[u8] = b"content-type";
    pub(super) const CONTENT_ENCODING: &[u8] = b"content-encoding";
    pub(super) const PRIORITY: &[u8] = b"priority";
    pub(super) const CORRELATION_ID: &[u8] = b"correlation-id";
    pub(super) const REPLY_TO: &[u8] = b"reply-to";
    pub(super) const MESSAGE_ID: &[u8] = b"message-id";
    pub(super) const TIMESTAMP: &[u8] = b"timestamp";
    pub(super) const KIND: &[u8] = b"type";
    pub(super) const USER_ID: &[u8] = b"user-id";
    pub(super) const APP_ID: &[u8] = b"app-id";
    pub(super) const EXPIRES: &[u8] = b"expires";
    pub(super) const DEATH: &[u8] = b"death";
    pub(super) const MQTT_TOPIC: &[u8] = b"mqtt-topic";
    pub(super) const MQTT_QOS: &[u8] = b"mqtt-qos";
}

/// A value for the core to compare and to keep.
pub fn core_value(value: Value<'_>) -> CoreValue {
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
pub fn core_arguments(table: Table<'_>) -> Arguments {
    let mut arguments = Arguments::new();
    for (name, value) in table.iter() {
        arguments.entry(String::from_utf8_lossy(name).into_owned()).or_insert_with(|| core_value(value));
    }
    arguments
}

#[cfg(test)]
mod tests;
