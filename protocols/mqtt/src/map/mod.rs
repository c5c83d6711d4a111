//! Wire ↔ core: what a PUBLISH is as a record, and what a record of any origin is as a PUBLISH.
//!
//! A record that MQTT made carries its properties under the names below, so that MQTT gets back exactly what it sent,
//! user properties in their order and repeated ones included. A record of another origin is read through the same
//! names, its user headers become user properties, and what MQTT has no field for becomes a user property too.
//!
//! Deliberately absent: who receives what, and at which quality of service.

mod inbox;
mod incoming;
mod outgoing;
#[cfg(test)]
mod tests;

use inver_broker::message::name;

pub(crate) use inbox::{InboxFor, inbox_copy};
pub(crate) use incoming::{Author, Incoming};
pub(crate) use outgoing::Outgoing;

/// This plug's name, as origins and metrics have it.
pub(crate) const ORIGIN: &str = "mqtt";

/// Names of the properties that only MQTT has.
pub(crate) mod own {
    pub(crate) const RETAIN: &[u8] = b"mqtt-retain";
    pub(crate) const PAYLOAD_FORMAT: &[u8] = b"mqtt-payload-format";
    /// On a copy that was made for one session's inbox: `granted QoS/RETAIN/shared/subscription identifier`.
    pub(crate) const INBOX_FOR: &[u8] = b"mqtt-inbox-for";
}

/// What MQTT has no field for: carried as user properties under these names.
const AS_USER_PROPERTIES: [&[u8]; 7] = [
    name::MESSAGE_ID,
    name::TYPE,
    name::APP_ID,
    name::USER_ID,
    name::TIMESTAMP,
    name::PRIORITY,
    name::CONTENT_ENCODING,
];
