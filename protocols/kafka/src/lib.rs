//! Kafka's protocol: its clients use the broker as they use Kafka.
//!
//! The modules, top to bottom: `connection` (a client on the driver), `session` (requests in, responses out in order),
//! [`api`] (one file an API), `fetch` (the fetches of a connection), `node` (state that connections share), `access`
//! (what a client may do), `namespace_node` (state of a namespace), `coordinator` (its groups), `settings`, `map` (the wire and the model), [`codec`] (bytes and messages). The README walks
//! through adding an API.
//!
//! Does not own: storage, topics and committed offsets (`inver-broker`), listening and TLS (the server).

mod access;
pub mod api;
mod budget;
pub mod codec;
mod config;
mod connection;
mod coordinator;
mod error;
mod fetch;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod map;
mod metrics;
mod namespace_node;
mod namespace_rows;
mod node;
mod response;
mod sasl;
#[cfg(test)]
#[path = "../../../core/test-support/seeds.rs"]
mod seeds;
mod session;
mod settings;
mod share;
mod ticket;
mod traced;
mod transactions;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use inver_broker::{Broker, Connection, ProtocolPlugin};
use inver_driver::Connections;

use crate::codec::api::Api;
pub use crate::config::{GroupLimits, KafkaConfig, Limits, ReplicationFactor};
use crate::node::Node;

/// The protocol.
pub struct Kafka {
    config: KafkaConfig,
    node: OnceLock<Option<Arc<Node>>>,
    connections: Arc<Connections>,
}

impl Kafka {
    /// The protocol with these settings.
    #[must_use]
    pub fn new(config: KafkaConfig) -> Kafka {
        Kafka { config, node: OnceLock::new(), connections: Connections::new(metrics::NAME) }
    }

    /// The state that connections share; created for the first connection.
    fn node(&self, broker: &Broker) -> Option<Arc<Node>> {
        let create = || match Node::new(broker.clone(), self.config.clone(), Api::ALL) {
            Ok(node) => Some(Arc::new(node)),
            Err(error) => {
                tracing::error!(%error, "failed to start the Kafka protocol");
                None
            }
        };
        self.node.get_or_init(create).clone()
    }
}

#[async_trait]
impl ProtocolPlugin for Kafka {
    fn name(&self) -> &'static str {
        metrics::NAME
    }

    async fn serve(&self, connection: Connection, broker: Broker) {
        if let Some(node) = self.node(&broker) {
            connection::serve(connection, node, self.connections.clone()).await;
        }
    }
}
