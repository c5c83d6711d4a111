//! Bytes ↔ packets of MQTT 3.1, 3.1.1 and 5, both directions, without I/O.
//!
//! [`decode`] reads one packet from the start of a buffer and borrows all fields from it. It allocates nothing for a
//! PUBLISH, less than the packet's size for the others, and nothing for a length that is only announced. Decoded packets
//! satisfy the rules of the specification that concern one packet alone (UTF-8, flags, properties, wildcards); the
//! session checks those that depend on earlier packets.
//!
//! Clauses in brackets (`[MQTT-3.1.4-2]`) are those of MQTT 5 where both versions have one.
//!
//! The codec does not own buffers, timers or packet identifiers, and gives packets no meaning.

mod ack;
mod auth;
mod connack;
mod connect;
mod error;
mod packet;
mod properties;
mod property;
mod property_codec;
mod publish;
mod reader;
mod reason;
mod suback;
mod subscribe;
mod text;
mod types;
mod writer;

#[cfg(test)]
mod tests;

pub use ack::Ack;
pub use auth::{Auth, Disconnect};
pub use connack::ConnAck;
pub use connect::{Connect, Will};
pub use error::{DecodeError, EncodeError};
pub use packet::{Packet, decode};
pub use properties::{Iter as PropertiesIter, Properties, PropertiesBuf};
pub use property::{Place, Property};
pub use publish::Publish;
pub use reason::Reason;
pub use suback::{SubAck, UnsubAck};
pub use subscribe::{RetainHandling, Subscribe, SubscribeOptions, Unsubscribe};
pub(crate) use text::check_filter;
pub use text::{Shared, split_shared};
pub use types::{PACKET_BYTES_MAX, Qos, REMAINING_LENGTH_MAX, Version};
