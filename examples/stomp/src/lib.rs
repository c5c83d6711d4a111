//! A STOMP 1.2 server on the connection driver: an example of a protocol.
//!
//! Modules, from the bottom up: [`frame`] (bytes ↔ frames), `session` (the state machine), and the protocol itself here.
//! A destination `/queue/NAME`, or just `NAME`, is the durable queue NAME, which other protocols use as well.
//!
//! Not implemented: NACK, UNSUBSCRIBE, transactions, heart-beats, topics, a configuration.

pub mod frame;
mod session;

use std::sync::Arc;

use inver_broker::{Broker, Connection, ProtocolPlugin};
use inver_driver::{Connections, Driver, Serving, Timeouts};

use crate::session::Session;

/// The protocol's name, and the origin of messages published over it.
pub const NAME: &str = "stomp";

/// The STOMP protocol.
#[derive(Debug)]
pub struct Stomp {
    connections: Arc<Connections>,
    timeouts: Timeouts,
}

impl Stomp {
    /// STOMP with these bounds of time.
    #[must_use]
    pub fn new(timeouts: Timeouts) -> Stomp {
        Stomp { connections: Connections::new(NAME), timeouts }
    }
}

#[async_trait::async_trait]
impl ProtocolPlugin for Stomp {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn serve(&self, connection: Connection, broker: Broker) {
        let session = Session::new(broker, connection.peer.ip(), self.timeouts);
        Serving::Running(Driver::new(connection, &self.connections, session)).await;
    }
}
