//! Conversion between PUBLISH packets and the core's records.
//!
//! A record published over MQTT stores its properties under the names of [`inver_broker::message`] and of [`own`], so an
//! MQTT subscriber receives exactly what was published, user properties in their order and with duplicates. Records of
//! other origins are read through the same names. Their user headers, and properties without an MQTT equivalent, become
//! user properties.
//!
//! This module does not decide who receives a message, or at which QoS.

mod inbox;
mod incoming;
mod outgoing;
#[cfg(test)]
mod tests;

use inver_broker::message::name;

pub(crate) use inbox::{InboxFor, inbox_copy};
pub(crate) use incoming::{Author, Incoming};
pub(crate) use outgoing::Outgoing;

/// Name of the protocol in origins and metrics.
pub(crate) const ORIGIN: &str = "mqtt";

/// Names of the stored properties that only MQTT has.
pub(crate) mod own {
    pub(crate) const RETAIN: &[u8] = b"mqtt-retain";
    pub(crate) const PAYLOAD_FORMAT: &[u8] = b"mqtt-payload-format";
    /// Of a copy in a session's inbox: `granted QoS/RETAIN/shared/subscription identifier`.
    pub(crate) const INBOX_FOR: &[u8] = b"mqtt-inbox-for";
}

/// Stored properties without an MQTT equivalent: delivered as user properties of these names.
const AS_USER_PROPERTIES: [&[u8]; 7] = [
    name::MESSAGE_ID,
    name::TYPE,
    name::APP_ID,
    name::USER_ID,
    name::TIMESTAMP,
    name::PRIORITY,
    name::CONTENT_ENCODING,
];
