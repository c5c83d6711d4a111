//! Kafka as a plug.

pub mod codec;
