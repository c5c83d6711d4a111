//! The list of plugs: the one place that names the protocols the broker speaks.
//!
//! A further protocol is a crate of its own and an entry in [`PLUGS`]. Listeners, TLS, WebSocket, limits,
//! configuration keys, their variables and the metrics' labels all follow from the entry.

mod amqp;
mod kafka;
mod mqtt;

use std::sync::Arc;

use inver_broker::ProtocolPlugin;

use crate::config::Config;
use crate::config::value::{self, Value};

/// A protocol as the server sees it.
pub(crate) struct Plug {
    /// Section of the configuration, label of metrics and logs.
    pub(crate) name: &'static str,
    /// Its name in sentences.
    pub(crate) title: &'static str,
    /// TCP port by default.
    pub(crate) port: u16,
    /// TLS port by default.
    pub(crate) tls_port: u16,
    /// Its form over WebSocket, where it has one.
    pub(crate) websocket: Option<WebSocketForm>,
    /// Configuration keys beyond the listeners', below the plug's name.
    pub(crate) settings: &'static [Setting],
    /// Makes it, from a configuration whose settings were checked.
    pub(crate) make: fn(&Config) -> Result<Arc<dyn ProtocolPlugin>, String>,
}

/// How a protocol runs over WebSocket.
pub(crate) struct WebSocketForm {
    /// Port by default.
    pub(crate) port: u16,
    /// Subprotocols that are answered, best first.
    pub(crate) subprotocols: &'static [&'static str],
}

/// A key of a plug's own.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) help: &'static str,
    /// Whether its value is a list, written as TOML in a variable.
    pub(crate) list: bool,
    pub(crate) check: fn(&Value) -> Result<(), String>,
}

/// A key with a single value.
const fn setting(
    name: &'static str,
    default: &'static str,
    help: &'static str,
    check: fn(&Value) -> Result<(), String>,
) -> Setting {
    Setting { name, default, help, list: false, check }
}

/// The record header by which a record of a log topic names its address in the hub.
pub(crate) const ADDRESS_HEADER: &str = inver_broker::message::name::ADDRESS_TEXT;

/// Partitions of topics that are made without saying how many.
pub(crate) fn default_partitions(config: &Config) -> Result<u32, String> {
    let number = value::number(config.setting("kafka.default_partitions")?, 1, PARTITIONS_MAX)?;
    u32::try_from(number).map_err(|error| error.to_string())
}

/// The most partitions that `kafka.default_partitions` may ask for.
const PARTITIONS_MAX: u64 = 10_000;

/// Every protocol that the broker speaks.
pub(crate) static PLUGS: &[Plug] = &[
    Plug {
        name: "kafka",
        title: "Kafka",
        port: 9092,
        tls_port: 9093,
        websocket: None,
        settings: kafka::SETTINGS,
        make: kafka::make,
    },
    Plug {
        name: "mqtt",
        title: "MQTT",
        port: 1883,
        tls_port: 8883,
        websocket: Some(WebSocketForm { port: 8083, subprotocols: &["mqtt", "mqttv3.1"] }),
        settings: mqtt::SETTINGS,
        make: mqtt::make,
    },
    Plug {
        name: "amqp",
        title: "AMQP 0-9-1",
        port: 5672,
        tls_port: 5671,
        websocket: None,
        settings: amqp::SETTINGS,
        make: amqp::make,
    },
];

/// What the plugs' settings are tried with.
#[cfg(test)]
mod tests {
    use super::Setting;
    use crate::config::{Config, load};

    fn variable(plug: &str, (name, text): (&str, &str)) -> (String, String) {
        (format!("INVER_{}_{name}", plug.to_uppercase()), text.to_string())
    }

    /// A configuration where each of the plug's settings has a value of its own.
    pub(super) fn with_all(plug: &str, settings: &[Setting], values: &[(&str, &str)]) -> Config {
        assert_eq!(values.len(), settings.len());
        let loaded = load(None, values.iter().map(|&value| variable(plug, value))).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        loaded.config
    }

    /// None of these values is taken.
    pub(super) fn assert_refused(plug: &str, values: &[(&str, &str)]) {
        for &value in values {
            assert!(load(None, [variable(plug, value)]).is_err(), "{plug}: {value:?}");
        }
    }
}
