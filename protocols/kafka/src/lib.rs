//! Kafka as a plug: its clients speak to the broker as they do to Kafka.
//!
//! The rooms: [`codec`] (bytes to requests, responses to bytes), [`session`] (what requests do; no sockets),
//! `connection` (the task of one connection), `coordinator` (all groups), `node` (what connections share), `map` (the
//! wire's terms and the core's), [`fuzz`] (what fuzzers call).

mod alarm;
mod budget;
pub mod codec;
mod config;
mod connection;
mod coordinator;
mod error;
pub mod fuzz;
mod map;
mod node;
pub mod session;
mod ticket;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use inver_broker::{Broker, Connection, ProtocolPlugin};

pub use crate::config::{KafkaConfig, Limits};
pub use crate::error::ConnectionError;
use crate::node::Node;
pub use crate::session::group::GroupLimits;

/// The plug.
pub struct Kafka {
    config: KafkaConfig,
    node: OnceLock<Option<Arc<Node>>>,
}

impl Kafka {
    /// With these settings.
    #[must_use]
    pub fn new(config: KafkaConfig) -> Kafka {
        Kafka { config, node: OnceLock::new() }
    }

    /// What connections share; made when the first one comes.
    fn node(&self, broker: &Broker) -> Option<Arc<Node>> {
        let make = || match Node::new(broker.clone(), self.config.clone()) {
            Ok(node) => Some(Arc::new(node)),
            Err(error) => {
                tracing::error!(%error, "Kafka clients cannot be served");
                None
            }
        };
        self.node.get_or_init(make).clone()
    }
}

#[async_trait]
impl ProtocolPlugin for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    async fn serve(&self, connection: Connection, broker: Broker) {
        if let Some(node) = self.node(&broker) {
            node.coordinator.start();
            connection::serve(connection, node).await;
        }
    }
}
