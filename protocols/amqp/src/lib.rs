//! AMQP 0-9-1 with RabbitMQ's extensions.
//!
//! Owns the wire format ([`codec`]), the state machine of a connection and its channels without a socket (`session`),
//! the conversion between messages and records (`map`), reply codes and texts (`error`), and the connection's task
//! (`connection`). Does not own storage, routing and subscriptions: the broker crate does.

pub mod codec;
mod connection;
mod error;
mod events;
mod firehose;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod map;
mod operator;
#[cfg(test)]
#[path = "../../../core/test-support/seeds.rs"]
mod seeds;
mod session;
mod topology;

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use inver_broker::{Broker, Connection, ProtocolPlugin};
use inver_driver::Connections;

pub use events::publish_events;
pub use operator::{GotMessage, MessageProperties, NewMessage, Operator, Refused, RefusedKind, Settle};
pub use session::{Limits, RABBITMQ_VERSION};

/// The beginning of the names of queues of direct reply-to.
pub const REPLY_QUEUES: &str = map::DIRECT_REPLY_TO;

/// AMQP 0-9-1 as a protocol of the broker.
#[derive(Debug, Clone)]
pub struct Amqp {
    limits: Arc<Limits>,
    connections: Arc<Connections>,
}

impl Default for Amqp {
    fn default() -> Self {
        Amqp::new(Limits::default())
    }
}

impl Amqp {
    /// Serves connections within these limits.
    pub fn new(limits: Limits) -> Self {
        Amqp { limits: Arc::new(limits), connections: Connections::new(map::ORIGIN) }
    }
}

/// The typed headers of a stored message, of whatever protocol, by which headers exchanges route it.
#[must_use]
pub fn stored_headers(bytes: &[u8], count: u32) -> inver_broker::Arguments {
    map::routed_headers(&inver_broker::message::HeaderView::of_encoded(bytes, count))
}

#[async_trait]
impl ProtocolPlugin for Amqp {
    fn name(&self) -> &'static str {
        map::ORIGIN
    }

    // Not an `async fn`: its future would hold the arguments beside the connection that is made of them.
    fn serve<'a, 'async_trait>(
        &'a self,
        connection: Connection,
        broker: Broker,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'async_trait>>
    where
        'a: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(connection::serve(connection, broker, &self.limits, &self.connections))
    }
}
