//! The wire format: bytes ↔ frames, without I/O.
//!
//! Decoded values borrow from the input; neither direction allocates. Sizes that a peer claims (of a frame, a string, a
//! table's nesting) are checked against a bound or against the bytes received before anything relies on them. Nothing
//! recurses: nesting is followed with an explicit, bounded stack.
//!
//! Does not own channel states, the meaning of methods, or sockets.

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

/// A method frame (AMQP 0-9-1, section 4.2.3; types as RabbitMQ uses them).
pub const FRAME_METHOD: u8 = 1;
/// A content header frame.
pub const FRAME_HEADER: u8 = 2;
/// A content body frame.
pub const FRAME_BODY: u8 = 3;
/// A heartbeat frame: always on channel 0, and empty.
pub const FRAME_HEARTBEAT: u8 = 8;
/// The octet that ends each frame.
pub const FRAME_END: u8 = 0xCE;
/// Bytes of a frame beside its payload: type, channel, size, end octet.
pub const FRAME_OVERHEAD: usize = 8;
/// The bound of a frame's size until `frame_max` is negotiated. RabbitMQ 4's; the specification's 4,096 is too small
/// for the tokens of some clients.
pub const FRAME_SIZE_MIN: u32 = 8192;
/// The class id of `basic`, the only class with content.
pub const CLASS_BASIC: u16 = 60;
/// The protocol header, which a client sends first.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";
