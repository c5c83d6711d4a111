//! State shared by all connections of one MQTT protocol instance: settings, `$SYS` topics, connected clients.

use std::ops::Deref;
use std::sync::Arc;

use inver_broker::SessionTerms;
use inver_driver::Connections;

use crate::config::MqttConfig;
use crate::map::ORIGIN;
use crate::sys::SysTopics;
use crate::token;

/// Shared state of the protocol; every connection holds a reference.
pub(crate) struct Server {
    pub(crate) config: MqttConfig,
    pub(crate) sys: Arc<SysTopics>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) session_terms: Arc<SessionTerms>,
}

impl Server {
    pub(crate) fn new(config: MqttConfig) -> Arc<Server> {
        Arc::new(Server {
            sys: Arc::new(SysTopics::new(config.sys_interval_s)),
            connections: Connections::new(ORIGIN),
            session_terms: Arc::new(session_terms(&config)),
            config,
        })
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
