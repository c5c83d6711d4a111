//! MQTT 3.1, 3.1.1 and 5 as a plug.
//!
//! Rooms: [`codec`] (bytes ↔ packets, no I/O), `session` (the state machine of a connection, no sockets), `connection`
//! (the task with the socket), `map` (wire ↔ core's records).
//!
//! Deliberately absent: enhanced authentication (AUTH), bridges.

mod buffers;
pub mod codec;
mod config;
mod connected;
mod connection;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod map;
mod session;
mod sys;

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use inver_broker::{Broker, Connection, ProtocolPlugin};

pub use config::MqttConfig;

/// The plug.
#[derive(Clone)]
pub struct Mqtt {
    plug: Arc<sys::Plug>,
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
        Mqtt { plug: sys::Plug::new(config) }
    }
}

#[async_trait]
impl ProtocolPlugin for Mqtt {
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
        Box::pin(connection::serve(connection, broker, self.plug.clone()))
    }
}
