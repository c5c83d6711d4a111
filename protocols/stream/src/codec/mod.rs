//! The wire format of the stream protocol: bytes ↔ frames, chunks and AMQP 1.0 messages. No I/O, no state.
//!
//! Source: the protocol's description in RabbitMQ's repository, and part 1 and 3 of AMQP 1.0 (OASIS) for messages.

pub mod chunk;
pub mod entry;
pub mod frame;
pub mod message;
pub mod request;
pub mod wire;
