//! Bytes to requests and responses to bytes. No I/O.
//!
//! Invariant: what is reserved while decoding is bounded by a small multiple of the bytes that arrived, because every
//! count is checked against them first ([`reader`]); nothing panics on any bytes.

pub mod api;
pub mod api_key;
pub mod error_code;
pub mod frame;
pub mod header;
pub(crate) mod messages;
pub mod reader;
pub mod text;
pub mod wire;

#[cfg(test)]
pub(crate) mod tests;
