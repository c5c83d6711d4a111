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
use inver_broker::{Broker, Connection, Protocol};

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
impl Protocol for Mqtt {
    fn name(&self) -> &'static str {
        map::ORIGIN
    }

    fn default_port(&self) -> u16 {
        1883
    }

    /// A connection begins with CONNECT: its type, a length, and `MQTT` or `MQIsdp`.
    fn recognizes(&self, first_bytes: &[u8]) -> bool {
        let Some((0x10, rest)) = first_bytes.split_first() else { return false };
        let length_bytes = rest.iter().take(4).take_while(|&&byte| byte & 0x80 != 0).count() + 1;
        rest.get(length_bytes..)
            .is_some_and(|body| body.starts_with(b"\x00\x04MQTT") || body.starts_with(b"\x00\x06MQIsdp"))
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
