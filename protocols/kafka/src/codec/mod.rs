//! The codec: request bytes to messages, messages to response bytes. No I/O.
//!
//! Owns the encoding of primitives, headers and frames. The messages themselves are declared beside their handlers in
//! [`crate::api`].
//!
//! Invariants: memory reserved while decoding is bounded by a small multiple of the bytes received, because every
//! count is checked against them first ([`reader`]); no input panics.

pub mod api;
pub mod error_code;
pub mod frame;
pub mod header;
pub(crate) mod messages;
pub mod reader;
pub mod text;
pub mod wire;

#[cfg(test)]
mod tests;
