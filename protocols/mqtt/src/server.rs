//! State shared by all connections of one MQTT protocol instance: settings, `$SYS` topics, connected clients.

mod flapping;

use std::ops::Deref;
use std::sync::Arc;

use inver_broker::SessionTerms;
use inver_driver::Connections;

use crate::config::MqttConfig;
use crate::map::ORIGIN;
use crate::sys::{self, SysTopics};
use crate::token;

use self::flapping::Flapping;

/// Shared state of the protocol; every connection holds a reference.
pub(crate) struct Server {
    pub(crate) config: MqttConfig,
    pub(crate) sys: Arc<SysTopics>,
    pub(crate) flapping: Flapping,
    pub(crate) connections: Arc<Connections>,
    pub(crate) session_terms: Arc<SessionTerms>,
}

impl Server {
    pub(crate) fn new(config: MqttConfig) -> Arc<Server> {
        Arc::new(Server {
            sys: Arc::new(SysTopics::new(config.sys_interval_s)),
            flapping: Flapping::default(),
            connections: Connections::new(ORIGIN),
            session_terms: Arc::new(session_terms(&config)),
            config,
        })
    }
}

/// What came of the input of a connection.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) bytes: usize,
    pub(crate) packets: u64,
    /// Packets that are answered by one.
    pub(crate) answers: u64,
}

impl Server {
    /// Counts a connection that was opened.
    pub(crate) fn count_socket(&self) {
        sys::count(sys::Count::Sockets, 1);
        self.sys.end_turn();
    }

    /// Counts a CONNECT of so many bytes.
    pub(crate) fn count_connect(&self, bytes: usize) {
        sys::count(sys::Count::Connects, 1);
        self.count_input(&Taken { bytes, packets: 1, answers: 1 });
    }

    /// Counts what was taken of the input in the turn of a connection.
    pub(crate) fn count_input(&self, taken: &Taken) {
        sys::count(sys::Count::BytesReceived, taken.bytes as u64);
        sys::count(sys::Count::PacketsReceived, taken.packets);
        sys::count(sys::Count::PacketsSent, taken.answers);
    }

    /// Counts bytes that were written in the turn of a connection.
    pub(crate) fn count_output(&self, bytes: usize) {
        sys::count(sys::Count::BytesSent, bytes as u64);
    }
}

/// Bounds and wake-up tokens that the broker applies to every MQTT session.
fn session_terms(config: &MqttConfig) -> SessionTerms {
    SessionTerms {
        inbox_token: token::INBOX,
        live_token: token::LIVE,
        taken_over_token: token::TAKEN_OVER,
        live_messages_max: config.qos_0_messages_max,
        live_bytes_max: config.qos_0_bytes_max,
    }
}

/// One connected client: counted in `$SYS` until it is dropped.
pub(crate) struct ConnectedClient {
    server: Arc<Server>,
}

impl ConnectedClient {
    pub(crate) fn new(server: &Arc<Server>) -> ConnectedClient {
        server.sys.count_connected();
        ConnectedClient { server: server.clone() }
    }

    pub(crate) fn shared(&self) -> Arc<Server> {
        self.server.clone()
    }
}

impl Deref for ConnectedClient {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Drop for ConnectedClient {
    fn drop(&mut self) {
        self.server.sys.count_disconnected();
    }
}
