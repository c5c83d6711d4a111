//! MQTT's settings: what of [`MqttConfig`] can be configured, and the plug made of it.

use std::sync::Arc;
use std::time::Duration;

use inver_broker::ProtocolPlugin;
use inver_mqtt::{Mqtt, MqttConfig};

use super::{Setting, setting};
use crate::config::Config;
use crate::config::value::{self, Value};

const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

/// The longest packet that MQTT's length field can say.
const PACKET_BYTES_MAX: u64 = 268_435_455;

/// See the module's text.
#[rustfmt::skip]
pub(super) const SETTINGS: &[Setting] = &[
    setting("receive_maximum", "1024",
        "Messages at QoS 1 and 2 that an MQTT 5 client may have unacknowledged (Receive Maximum).",
        |v| id_count(v).map(drop)),
    setting("inflight_max", "1024",
        "Messages at QoS 1 and 2 that a client is sent unacknowledged; its own Receive Maximum can lower it.",
        |v| id_count(v).map(drop)),
    setting("topic_alias_maximum", "64", "Topic aliases that a client may set; 0 for none.",
        |v| short(v).map(drop)),
    setting("outgoing_topic_aliases_max", "64",
        "Topic aliases set towards a client; its own Topic Alias Maximum can lower it. 0 for none.",
        |v| short(v).map(drop)),
    setting("keep_alive_s_max", "0",
        "The longest keep alive in seconds; who asks for a longer one or none is given this one. 0: as the client wants it.",
        |v| short(v).map(drop)),
    setting("session_expiry_s_max", "0",
        "The longest time in seconds that a session outlives its connection. 0: as the client wants it, for ever too.",
        |v| seconds(v).map(drop)),
    setting("live_messages_max", "100000",
        "Messages at QoS 0 that wait for a slow client; more are dropped and counted.",
        |v| value::number(v, 1, 100_000_000).map(drop)),
    setting("live_bytes_max", "32 MiB", "Bytes that they hold; payloads are shared among all who wait for them.",
        |v| value::bytes(v, KIB, 1024 * GIB).map(drop)),
    setting("output_bytes_max", "256 KiB",
        "Bytes written to a client ahead of what it takes; beyond it nothing more is read from it or delivered to it.",
        |v| value::bytes(v, 4 * KIB, GIB).map(drop)),
    setting("topic_levels_max", "128", "Levels of a topic name or filter.",
        |v| value::number(v, 1, 65_535).map(drop)),
    setting("connect_bytes_max", "512 KiB", "Size of the largest CONNECT that is taken: who sends it is not known yet.",
        |v| value::bytes(v, KIB, PACKET_BYTES_MAX).map(drop)),
    setting("connect_timeout_ms", "10000", "Time that a connection has to send its CONNECT.",
        |v| connect_timeout(v).map(drop)),
    setting("sys_interval_s", "10",
        "Seconds between two values of a `$SYS` topic; 0: they come once, when a client subscribes.",
        |v| short(v).map(drop)),
    Setting {
        name: "refused_filters", default: "[]", list: true,
        help: "Topic filters that nobody may subscribe to, compared by their text.",
        check: |v| value::texts(v).map(drop),
    },
];

/// MQTT as configured.
pub(super) fn make(config: &Config) -> Result<Arc<dyn ProtocolPlugin>, String> {
    Ok(Arc::new(Mqtt::new(settings(config)?)))
}

fn settings(config: &Config) -> Result<MqttConfig, String> {
    let of = |name: &str| config.setting(&format!("mqtt.{name}"));
    let size = |name: &str| Ok::<_, String>(value::bytes(of(name)?, 0, u64::MAX)? as usize);
    let keep_alive_s_max = short(of("keep_alive_s_max")?)?;
    let session_expiry_s_max = seconds(of("session_expiry_s_max")?)?;
    Ok(MqttConfig {
        packet_bytes_max: config.message_bytes_max,
        connect_bytes_max: size("connect_bytes_max")?,
        connect_timeout: connect_timeout(of("connect_timeout_ms")?)?,
        receive_maximum: id_count(of("receive_maximum")?)?,
        inflight_max: id_count(of("inflight_max")?)?,
        topic_alias_maximum: short(of("topic_alias_maximum")?)?,
        outgoing_topic_aliases_max: short(of("outgoing_topic_aliases_max")?)?,
        keep_alive_s_max: (keep_alive_s_max != 0).then_some(keep_alive_s_max),
        session_expiry_s_max: (session_expiry_s_max != 0).then_some(session_expiry_s_max),
        live_messages_max: value::number(of("live_messages_max")?, 1, u64::MAX)?,
        live_bytes_max: value::bytes(of("live_bytes_max")?, 0, u64::MAX)?,
        output_bytes_max: size("output_bytes_max")?,
        topic_levels_max: value::count(of("topic_levels_max")?, 1, 65_535)?,
        sys_interval_s: short(of("sys_interval_s")?)?,
        refused_filters: value::texts(of("refused_filters")?)?,
    })
}

fn connect_timeout(value: &Value) -> Result<Duration, String> {
    const HOUR_MS: u64 = 3_600_000;
    value::milliseconds(value, 10, HOUR_MS)
}

fn seconds(value: &Value) -> Result<u32, String> {
    Ok(value::number(value, 0, u64::from(u32::MAX))? as u32)
}

fn short(value: &Value) -> Result<u16, String> {
    Ok(value::number(value, 0, u64::from(u16::MAX))? as u16)
}

/// A number of packet identifiers; there is no 0.
fn id_count(value: &Value) -> Result<u16, String> {
    Ok(value::number(value, 1, u64::from(u16::MAX))? as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::defaults;
    use crate::protocols::tests::{assert_refused, with_all};

    #[test]
    fn the_defaults_are_the_plugs() {
        let config = defaults();
        let wanted = MqttConfig { packet_bytes_max: config.message_bytes_max, ..MqttConfig::default() };
        assert_eq!(settings(&config), Ok(wanted));
    }

    #[test]
    fn every_setting_reaches_the_plug() {
        let values = [
            ("RECEIVE_MAXIMUM", "1"),
            ("INFLIGHT_MAX", "2"),
            ("TOPIC_ALIAS_MAXIMUM", "3"),
            ("OUTGOING_TOPIC_ALIASES_MAX", "4"),
            ("KEEP_ALIVE_S_MAX", "5"),
            ("SESSION_EXPIRY_S_MAX", "6"),
            ("LIVE_MESSAGES_MAX", "7"),
            ("LIVE_BYTES_MAX", "8 MiB"),
            ("OUTPUT_BYTES_MAX", "9 KiB"),
            ("TOPIC_LEVELS_MAX", "10"),
            ("CONNECT_BYTES_MAX", "11 KiB"),
            ("CONNECT_TIMEOUT_MS", "1200"),
            ("SYS_INTERVAL_S", "13"),
            ("REFUSED_FILTERS", r##"["#", "a/b"]"##),
        ];
        let config = with_all("mqtt", SETTINGS, &values);
        let wanted = MqttConfig {
            packet_bytes_max: config.message_bytes_max,
            connect_bytes_max: 11 * 1024,
            connect_timeout: Duration::from_millis(1200),
            receive_maximum: 1,
            inflight_max: 2,
            topic_alias_maximum: 3,
            outgoing_topic_aliases_max: 4,
            keep_alive_s_max: Some(5),
            session_expiry_s_max: Some(6),
            live_messages_max: 7,
            live_bytes_max: 8 * 1024 * 1024,
            output_bytes_max: 9 * 1024,
            topic_levels_max: 10,
            sys_interval_s: 13,
            refused_filters: vec!["#".into(), "a/b".into()],
        };
        assert_eq!(settings(&config), Ok(wanted));
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        let values = [
            ("RECEIVE_MAXIMUM", "0"),
            ("INFLIGHT_MAX", "65536"),
            ("KEEP_ALIVE_S_MAX", "65536"),
            ("SESSION_EXPIRY_S_MAX", "4294967296"),
            ("REFUSED_FILTERS", "[1]"),
            ("REFUSED_FILTERS", "\"#\""),
        ];
        assert_refused("mqtt", &values);
    }
}
