//! RabbitMQ's stream protocol.
//!
//! Owns the wire format ([`codec`]), the conversion between messages and records (`map`), the state machine of a connection
//! (`session`), and what the connections of the broker know of each other (`watch`). Does not own storage and topics:
//! the broker crate does.

pub mod codec;
mod config;
mod map;
mod session;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use inver_broker::{Broker, Connection, ProtocolPlugin};
use inver_driver::{Connections, Driver, Serving};

pub use config::StreamConfig;

use crate::session::Session;
use crate::watch::Watchers;

/// The stream protocol as a protocol of the broker.
#[derive(Debug)]
pub struct StreamProtocol {
    config: Arc<StreamConfig>,
    connections: Arc<Connections>,
    watchers: Arc<Watchers>,
}

impl StreamProtocol {
    /// Serves connections with these settings.
    #[must_use]
    pub fn new(config: StreamConfig) -> StreamProtocol {
        let connections = Connections::new(map::ORIGIN);
        StreamProtocol { config: Arc::new(config), connections, watchers: Arc::default() }
    }
}

#[async_trait]
impl ProtocolPlugin for StreamProtocol {
    fn name(&self) -> &'static str {
        map::ORIGIN
    }

    async fn serve(&self, connection: Connection, broker: Broker) {
        let session = Session::new(broker, &connection, self.config.clone(), self.watchers.clone());
        Serving::Running(Driver::new(connection, &self.connections, session)).await;
    }
}
