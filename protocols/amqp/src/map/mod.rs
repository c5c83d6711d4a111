//! The conversion between AMQP messages and stored records.
//!
//! A publish becomes a record with the properties that all protocols share. A record that was published over AMQP is
//! delivered byte for byte as it was published: where the shared properties would not give the same property list again
//! (with an expiration, or with headers other than strings), the list is stored as well, in the property
//! `amqp-properties`.
//!
//! A record from another protocol is delivered by its shared properties: those that AMQP has become properties, the
//! others become headers under their stored names. A header of the publisher whose name AMQP or the broker gives a
//! meaning gets a prefix, so that no consumer mistakes it, and so that it can be published again as it was received. A record's key is the header [`RECORD_KEY`] in both directions; a
//! null value is an empty body with the header [`NULL_VALUE`].
//!
//! [`RECORD_KEY`]: inver_broker::message::name::RECORD_KEY
//! [`NULL_VALUE`]: inver_broker::message::name::NULL_VALUE

mod deaths;
mod incoming;
mod outgoing;
mod pid;
mod text;

pub(crate) use incoming::{Composer, Publish, more_keys_of};
pub(crate) use outgoing::{Outgoing, Renderer, Tells, Told, routed_headers};
pub(crate) use pid::{channel_pid, connection_pid};

use crate::codec::table::{Table, Value};
use inver_broker::{Arguments, Value as CoreValue};

/// The origin of messages published over AMQP.
pub(crate) const ORIGIN: &str = "amqp";

/// The property with a message's property list as it was on the wire.
const PROPERTY_LIST: &[u8] = b"amqp-properties";

/// The headers with further routing keys. Consumers do not see `BCC`.
const CC: &[u8] = b"CC";
const BCC: &[u8] = b"BCC";

/// The pseudo-queue of direct reply-to.
pub(crate) const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// A field value as a value of the model.
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
        // Recursion is bounded: decoding validated the nesting.
        Value::Array(array) => CoreValue::List(array.iter().map(core_value).collect()),
        Value::Table(table) => CoreValue::Map(core_arguments(table)),
        integer => CoreValue::Int(integer.as_integer().unwrap_or_default().into()),
    }
}

/// A table as arguments. Of duplicate names the first counts.
pub(crate) fn core_arguments(table: Table<'_>) -> Arguments {
    let mut arguments = Arguments::new();
    for (name, value) in table.iter() {
        arguments.entry(String::from_utf8_lossy(name).into_owned()).or_insert_with(|| core_value(value));
    }
    arguments
}

#[cfg(test)]
mod tests;
