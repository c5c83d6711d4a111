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

pub(crate) use inbox::{InboxFor, inbox_copy};
pub(crate) use incoming::{Author, Incoming};
pub(crate) use outgoing::Outgoing;

/// This plug's name, as origins and metrics have it.
pub(crate) const ORIGIN: &str = "mqtt";

/// Names of properties.
pub(crate) mod name {
    pub(crate) const TOPIC: &[u8] = b"mqtt-topic";
    pub(crate) const QOS: &[u8] = b"mqtt-qos";
    pub(crate) const RETAIN: &[u8] = b"mqtt-retain";
    pub(crate) const PAYLOAD_FORMAT: &[u8] = b"mqtt-payload-format";
    /// On a copy that was made for one session's inbox: `granted QoS/RETAIN/shared/subscription identifier`.
    pub(crate) const INBOX_FOR: &[u8] = b"mqtt-inbox-for";
    pub(crate) const CLIENT_ID: &[u8] = b"client-id";
    pub(crate) const USER_ID: &[u8] = b"user-id";
    pub(crate) const CONTENT_TYPE: &[u8] = b"content-type";
    pub(crate) const CORRELATION_ID: &[u8] = b"correlation-id";
    pub(crate) const REPLY_TO: &[u8] = b"reply-to";
    pub(crate) const ROUTING_KEY: &[u8] = b"routing-key";
    pub(crate) const DELIVERY_MODE: &[u8] = b"delivery-mode";
    pub(crate) const EXPIRES: &[u8] = b"expires";
    /// What MQTT has no field for: carried as user properties under these names.
    pub(crate) const AS_USER_PROPERTIES: [&[u8]; 7] =
        [b"message-id", b"type", b"app-id", USER_ID, b"timestamp", b"priority", b"content-encoding"];
    /// The key of a record that came as a finished batch, likewise.
    pub(crate) const RECORD_KEY: &str = "inver-key";
}
