//! MQTT 3.1, 3.1.1 and 5 for the broker.
//!
//! Modules, from the bottom up: [`codec`] (bytes ↔ packets, no I/O), `map` (packets ↔ the core's records), `session`
//! (state machine of one connection, no sockets), `connection` (the session on the connection driver). [`bridge`] is a
//! client: it uses the codec and the configuration.

pub mod bridge;
mod buffers;
pub mod codec;
mod config;
mod connection;
mod enhanced_auth;
mod error;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod fuzz;
mod map;
#[cfg(test)]
#[path = "../../../core/test-support/seeds.rs"]
mod seeds;
mod server;
mod session;
mod sys;
mod token;

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use inver_broker::{Broker, Connection, ProtocolPlugin};

pub use config::{
    AmqpNames, AutoSubscription, AutoSubscriptions, BRIDGES_MAX, BridgeSpec, BridgeTls, BridgeTopic,
    BridgeVersion, ClientIdBinding, ClientRule, ClientRules, ConfiguredBridges, Direction, MqttConfig,
    RewriteAction, RewriteRule, RewriteRules,
};

/// The MQTT protocol.
#[derive(Clone)]
pub struct Mqtt {
    server: Arc<server::Server>,
}

impl Default for Mqtt {
    fn default() -> Mqtt {
        Mqtt::new(MqttConfig::default())
    }
}

impl Mqtt {
    /// MQTT with these settings.
    #[must_use]
    pub fn new(config: MqttConfig) -> Mqtt {
        Mqtt { server: server::Server::new(config) }
    }
}

#[async_trait]
impl ProtocolPlugin for Mqtt {
    fn name(&self) -> &'static str {
        map::ORIGIN
    }

    // Desugared by hand: an `async fn` would keep its arguments in memory beside the connection made from them.
    fn serve<'a, 'async_trait>(
        &'a self,
        connection: Connection,
        broker: Broker,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'async_trait>>
    where
        'a: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(connection::serve(connection, broker, self.server.clone()))
    }
}
