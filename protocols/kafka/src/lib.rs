//! Kafka as a plug.

pub mod codec;
pub mod session;
