//! The list of protocols: the one place that names the protocols that the broker speaks.
//!
//! A further protocol is a crate of its own and an entry in [`PROTOCOLS`]. Listeners, TLS, WebSocket, connection
//! limits, the keys of its configuration section, their variables and the labels of metrics follow from the entry.

use std::sync::Arc;

use inver_access::Rule;
use inver_amqp::Amqp;
pub(crate) use inver_amqp::{
    GotMessage, MessageProperties, NewMessage, Operator, RABBITMQ_VERSION, REPLY_QUEUES, Refused,
    RefusedKind, Settle, publish_events,
};
use inver_broker::ProtocolPlugin;
use inver_driver::Timeouts;
use inver_kafka::{Kafka, KafkaConfig};
pub(crate) use inver_mqtt::bridge::{Bridge, BridgeHost, Dial, forget as forget_bridge};
use inver_mqtt::{AmqpNames, Mqtt, MqttConfig};
pub(crate) use inver_mqtt::{BRIDGES_MAX, BridgeSpec, BridgeTls};
use inver_stream::{StreamConfig, StreamProtocol};

use crate::config::acl_file;
use crate::settings::Settings;

/// The record header by which a record of a log topic names its address in the hub.
pub(crate) const ADDRESS_HEADER: &str = inver_broker::message::name::ADDRESS_TEXT;

/// Reads the headers by which exchanges route stored messages: AMQP has the exchanges that do so.
pub(crate) const STORED_HEADERS: inver_broker::StoredHeaders = inver_amqp::stored_headers;

/// The protocol that has bridges to other servers.
pub(crate) const BRIDGED: &str = "mqtt";

/// Whether connections of a protocol have channels.
pub(crate) fn has_channels(protocol: &str) -> bool {
    protocol == "amqp"
}

/// A protocol as the server sees it.
pub(crate) struct ProtocolEntry {
    /// Section of the configuration, label of metrics and logs.
    pub(crate) name: &'static str,
    /// Its name in sentences.
    pub(crate) title: &'static str,
    /// Default TCP port.
    pub(crate) port: u16,
    /// Default TLS port.
    pub(crate) tls_port: u16,
    /// Its form over WebSocket, if it has one.
    pub(crate) websocket: Option<WebSocketForm>,
    /// Whether it tells clients an address to connect to.
    pub(crate) advertises: bool,
    /// Its own settings with their defaults.
    pub(crate) settings: fn() -> Box<dyn ProtocolSettings>,
}

/// How a protocol runs over WebSocket.
pub(crate) struct WebSocketForm {
    /// Default port.
    pub(crate) port: u16,
    /// Accepted subprotocols, best first.
    pub(crate) subprotocols: &'static [&'static str],
}

/// Settings that all protocols share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedSettings {
    /// `limits.message_bytes_max`.
    pub(crate) message_bytes_max: usize,
    /// Bounds of time of a connection.
    pub(crate) timeouts: Timeouts,
    /// Memory that all of the broker's caches and buffers fit into, each with a part of it.
    pub(crate) memory_limit: usize,
}

/// What bridges need of the settings of their protocol.
pub(crate) struct BridgeSettings {
    /// The bridges of the configuration.
    pub(crate) configured: Vec<BridgeSpec>,
    /// What the broker makes of topics.
    pub(crate) amqp_names: AmqpNames,
}

/// A protocol's own section of the configuration.
pub(crate) trait ProtocolSettings: Settings {
    /// The protocol with these settings.
    fn protocol(&self, shared: SharedSettings) -> Arc<dyn ProtocolPlugin>;

    /// The address that clients of the listener made by the short keys are told; `tls_port` is the port of the TLS listener,
    /// none for the one without TLS.
    fn advertised(&self, tls_port: Option<u16>) -> Option<(String, u16)> {
        let _ = tls_port;
        None
    }

    /// Permission rules in files that its section names.
    fn rules(&self) -> anyhow::Result<Vec<Rule>> {
        Ok(Vec::new())
    }

    /// Partitions of a log topic created without a number of partitions, if the protocol's clients create such topics.
    fn default_partitions(&self) -> Option<u32> {
        None
    }

    /// Settings of bridges, if the protocol has bridges.
    fn bridges(&self) -> Option<BridgeSettings> {
        None
    }
}

/// The address of the listener with TLS, or of the one without: the former's default is the host of the latter.
fn advertised(
    plain: Option<&(String, u16)>,
    tls: Option<&(String, u16)>,
    tls_port: Option<u16>,
) -> Option<(String, u16)> {
    let Some(tls_port) = tls_port else { return plain.cloned() };
    let same_host = || plain.map(|(host, _)| (host.clone(), tls_port));
    tls.cloned().or_else(same_host).filter(|(_, port)| *port != 0)
}

impl ProtocolSettings for KafkaConfig {
    fn protocol(&self, shared: SharedSettings) -> Arc<dyn ProtocolPlugin> {
        let message_bytes_bound = u32::try_from(shared.message_bytes_max).unwrap_or(u32::MAX);
        let (own, memory) = (&self.limits, shared.memory_limit);
        let limits = inver_kafka::Limits {
            timeouts: shared.timeouts,
            large_requests_bytes_max: own.large_requests_bytes_max.min(memory / 8),
            fetched_bytes_max: own.fetched_bytes_max.min(memory / 16),
            read_ahead_bytes_max: own.read_ahead_bytes_max.min(memory / 32),
            ..own.clone()
        };
        Arc::new(Kafka::new(KafkaConfig { message_bytes_bound, limits, ..self.clone() }))
    }

    fn advertised(&self, tls_port: Option<u16>) -> Option<(String, u16)> {
        advertised(self.advertised.as_ref(), self.tls_advertised.as_ref(), tls_port)
    }

    fn default_partitions(&self) -> Option<u32> {
        Some(self.default_partitions)
    }
}

impl ProtocolSettings for MqttConfig {
    fn protocol(&self, shared: SharedSettings) -> Arc<dyn ProtocolPlugin> {
        Arc::new(Mqtt::new(MqttConfig {
            packet_bytes_max: shared.message_bytes_max,
            timeouts: shared.timeouts,
            ..self.clone()
        }))
    }

    fn rules(&self) -> anyhow::Result<Vec<Rule>> {
        self.acl_file.as_deref().map_or_else(|| Ok(Vec::new()), acl_file::read)
    }

    fn bridges(&self) -> Option<BridgeSettings> {
        Some(BridgeSettings { configured: self.bridges.0.clone(), amqp_names: self.amqp_names })
    }
}

impl ProtocolSettings for inver_amqp::Limits {
    fn protocol(&self, shared: SharedSettings) -> Arc<dyn ProtocolPlugin> {
        let message_bytes_max = shared.message_bytes_max as u64;
        Arc::new(Amqp::new(inver_amqp::Limits {
            message_bytes_max,
            timeouts: shared.timeouts,
            ..self.clone()
        }))
    }
}

impl ProtocolSettings for StreamConfig {
    fn protocol(&self, shared: SharedSettings) -> Arc<dyn ProtocolPlugin> {
        Arc::new(StreamProtocol::new(StreamConfig {
            message_bytes_max: shared.message_bytes_max,
            version: RABBITMQ_VERSION,
            timeouts: shared.timeouts,
            ..self.clone()
        }))
    }

    fn advertised(&self, tls_port: Option<u16>) -> Option<(String, u16)> {
        advertised(self.advertised.as_ref(), self.tls_advertised.as_ref(), tls_port)
    }
}

/// Every protocol that the broker speaks.
pub(crate) static PROTOCOLS: &[ProtocolEntry] = &[
    ProtocolEntry {
        name: "kafka",
        title: "Kafka",
        port: 9092,
        tls_port: 9093,
        websocket: None,
        advertises: true,
        settings: || Box::new(KafkaConfig::default()),
    },
    ProtocolEntry {
        name: "mqtt",
        title: "MQTT",
        port: 1883,
        tls_port: 8883,
        websocket: Some(WebSocketForm { port: 8083, subprotocols: &["mqtt", "mqttv3.1"] }),
        advertises: false,
        settings: || Box::new(MqttConfig::default()),
    },
    ProtocolEntry {
        name: "amqp",
        title: "AMQP 0-9-1",
        port: 5672,
        tls_port: 5671,
        websocket: None,
        advertises: false,
        settings: || Box::new(inver_amqp::Limits::default()),
    },
    ProtocolEntry {
        name: "stream",
        title: "RabbitMQ streams",
        port: 5552,
        tls_port: 5551,
        websocket: None,
        advertises: true,
        settings: || Box::new(StreamConfig::default()),
    },
];
