//! AMQP 0-9-1 with RabbitMQ's extensions, as a plug.
//!
//! Rooms: [`codec`] (bytes ↔ frames), [`session`] (the state machine, no sockets), `connection` (the task), [`map`] (wire ↔
//! core), [`error`] (what a client is told), [`fuzz`] (what is tried with any bytes). Deliberately absent: storage, routing, subscriptions: those are the core's.

pub mod codec;
mod connection;
pub mod error;
pub mod fuzz;
pub mod map;
pub mod session;

use std::sync::Arc;

use async_trait::async_trait;
use inver_broker::{Broker, Connection, ProtocolPlugin};
use tracing::Instrument;

pub use session::Limits;

/// The plug.
#[derive(Debug, Clone, Default)]
pub struct Amqp {
    limits: Arc<Limits>,
}

impl Amqp {
    /// A plug whose connections keep to these limits.
    pub fn new(limits: Limits) -> Self {
        Amqp { limits: Arc::new(limits) }
    }
}

#[async_trait]
impl ProtocolPlugin for Amqp {
    fn name(&self) -> &'static str {
        map::ORIGIN
    }

    async fn serve(&self, connection: Connection, broker: Broker) {
        let span = tracing::info_span!("amqp", peer = %connection.peer);
        connection::serve(connection, broker, self.limits.clone()).instrument(span).await;
    }
}
