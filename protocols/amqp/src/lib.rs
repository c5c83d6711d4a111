//! The plug.

pub mod codec;
