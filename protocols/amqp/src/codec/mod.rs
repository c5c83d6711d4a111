//! Bytes ↔ frames, without I/O.
//!
//! Everything decoded borrows from the bytes it was decoded from: no allocation, in either direction. What a peer claims
//! (a frame's size, a string's length, a table's nesting) is checked against a bound or against the bytes that are there
//! before anything relies on it. Nothing here recurses: nesting is walked with an explicit, bounded stack.
//!
//! Deliberately absent: channels' states, meanings of methods, sockets.

pub mod content;
mod error;
pub mod frame;
#[cfg(test)]
mod interop;
pub mod method;
pub mod table;
#[cfg(test)]
mod tests;
pub mod wire;
pub mod write;

pub use content::{ContentHeader, Properties};
pub use error::Malformed;
pub use frame::{Frame, FrameError, Next};
pub use method::Method;
pub use table::{Table, TableWriter, Value};

/// The frame types of AMQP 0-9-1, section 4.2.3 (and RabbitMQ's definition of them).
pub const FRAME_METHOD: u8 = 1;
/// A content header frame.
pub const FRAME_HEADER: u8 = 2;
/// A content body frame.
pub const FRAME_BODY: u8 = 3;
/// A heartbeat frame; always on channel 0 and empty.
pub const FRAME_HEARTBEAT: u8 = 8;
/// The octet that ends each frame.
pub const FRAME_END: u8 = 0xCE;
/// Bytes that a frame takes beside its payload: type, channel, size, end octet.
pub const FRAME_OVERHEAD: usize = 8;
/// The smallest `frame_max` that may be negotiated, and the bound that holds until one has been
/// (RabbitMQ 4; the specification has 4,096, which is too small for the tokens of some clients).
pub const FRAME_SIZE_MIN: u32 = 8192;
/// The class id of `basic`, the one class that carries content.
pub const CLASS_BASIC: u16 = 60;
/// What a client sends first.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";
