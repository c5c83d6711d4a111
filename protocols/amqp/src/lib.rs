//! AMQP 0-9-1 with RabbitMQ's extensions, as a plug.
//!
//! Rooms: [`codec`] (bytes ↔ frames), [`session`] (the state machine, no sockets), `connection` (the task), [`map`] (wire ↔
//! core), [`error`] (what a client is told), [`fuzz`] (what is tried with any bytes). Deliberately absent: storage, routing, subscriptions: those are the core's.

pub mod codec;
mod connection;
mod error;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod map;
mod session;

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use inver_broker::{Broker, Connection, ProtocolPlugin};
use inver_driver::Connections;
use tracing::Instrument;

pub use session::Limits;

/// The plug.
#[derive(Debug, Clone, Default)]
pub struct Amqp {
    limits: Arc<Limits>,
    connections: Arc<Connections>,
}

impl Amqp {
    /// A plug whose connections keep to these limits.
    pub fn new(limits: Limits) -> Self {
        Amqp { limits: Arc::new(limits), connections: Connections::new() }
    }
}

#[async_trait]
impl ProtocolPlugin for Amqp {
    fn name(&self) -> &'static str {
        map::ORIGIN
    }

    // Written out: as an `async fn` it would keep its arguments beside the connection made of them.
    fn serve<'a, 'async_trait>(
        &'a self,
        connection: Connection,
        broker: Broker,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'async_trait>>
    where
        'a: 'async_trait,
        Self: 'async_trait,
    {
        let span = tracing::info_span!("amqp", peer = %connection.peer);
        Box::pin(connection::serve(connection, broker, &self.limits, &self.connections).instrument(span))
    }
}
