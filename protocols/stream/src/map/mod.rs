//! Wire ↔ model: messages of AMQP 1.0 as records, and records as messages.
//!
//! A record of a stream client has the body as its value, and what other protocols have of the rest as properties and headers.
//! The message is what is before the body, followed by the value: if that is more than the shortest section of data has, it
//! is the record's property `stream-message`, so that stream clients get every message byte for byte.

mod incoming;
mod outgoing;
#[cfg(test)]
mod tests;

pub(crate) use incoming::Composer;
pub(crate) use outgoing::put_message;

/// The protocol's name, and the origin of messages published over it.
pub(crate) const ORIGIN: &str = "stream";

/// The property with the bytes before the body. The first byte is the version of the form.
const MESSAGE: &[u8] = b"stream-message";
const MESSAGE_VERSION: u8 = 1;

/// Annotations that other protocols have properties for.
mod annotation {
    pub(super) const EXCHANGE: &[u8] = b"x-exchange";
    pub(super) const ROUTING_KEY: &[u8] = b"x-routing-key";
    pub(super) const TYPE: &[u8] = b"x-basic-type";
    /// The beginning of the names of annotations that are headers in other protocols.
    pub(super) const PREFIX: &[u8] = b"x-";
}
