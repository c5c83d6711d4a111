//! Conversion between PUBLISH packets and the core's records.
//!
//! A record published over MQTT stores its properties under the names of [`inver_broker::message`] and of `names`, so an
//! MQTT subscriber receives exactly what was published, user properties in their order and with duplicates. Records of
//! other origins are read through the same names. Their user headers, and properties without an MQTT equivalent, become
//! user properties; a user header that claims to be a property gets a prefix.
//!
//! This module does not decide who receives a message, or at which QoS.

mod inbox;
mod incoming;
mod names;
mod outgoing;
mod produced;
#[cfg(test)]
mod tests;

pub(crate) use inbox::{InboxFor, inbox_copy, server_headers};
pub(crate) use incoming::{Author, Incoming};
pub(crate) use names::ORIGIN;
pub(crate) use outgoing::Outgoing;
