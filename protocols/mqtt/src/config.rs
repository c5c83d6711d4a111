//! What can be set. Every bound of this plug is here, with its default.

use std::time::Duration;

/// MQTT's settings. [`MqttConfig::default`] is what a server without configuration has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttConfig {
    /// The longest packet taken, in bytes; told to MQTT 5 clients.
    pub packet_bytes_max: usize,
    /// The longest CONNECT taken, in bytes: who sends it is not known yet.
    pub connect_bytes_max: usize,
    /// How long a connection may take to send its CONNECT.
    pub connect_timeout: Duration,
    /// QoS 1 and 2 messages that an MQTT 5 client may have unacknowledged (Receive Maximum).
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages that a client gets unacknowledged at most; its own Receive Maximum can lower it.
    pub inflight_max: u16,
    /// Topic aliases that a client may set.
    pub topic_alias_maximum: u16,
    /// Topic aliases set towards a client; its own Topic Alias Maximum can lower it.
    pub outgoing_topic_aliases_max: u16,
    /// The longest keep alive, in seconds. A client that asks for a longer one, or for none, gets this one
    /// (Server Keep Alive). `None`: as the client wants it.
    pub keep_alive_s_max: Option<u16>,
    /// The longest session expiry, in seconds. `None`: as the client wants it, for ever too.
    pub session_expiry_s_max: Option<u32>,
    /// QoS 0 messages that wait for a slow client, at most; more are dropped and counted.
    pub live_messages_max: u64,
    /// Bytes that they hold, at most. Payloads are shared among all who wait for them.
    pub live_bytes_max: u64,
    /// Bytes written to a client ahead of what its socket takes; beyond it, nothing more is read or delivered.
    pub output_bytes_max: usize,
    /// Levels of a topic name or filter, at most.
    pub topic_levels_max: usize,
    /// Seconds between two values of a `$SYS` topic; 0: they come once, when a client subscribes.
    pub sys_interval_s: u16,
    /// Topic filters that nobody may subscribe to, compared by their text; answered with SUBACK 0x80.
    pub refused_filters: Vec<String>,
}

impl Default for MqttConfig {
    fn default() -> MqttConfig {
        MqttConfig {
            packet_bytes_max: 16 * 1024 * 1024,
            connect_bytes_max: 512 * 1024,
            connect_timeout: Duration::from_secs(10),
            receive_maximum: 1024,
            inflight_max: 1024,
            topic_alias_maximum: 64,
            outgoing_topic_aliases_max: 64,
            keep_alive_s_max: None,
            session_expiry_s_max: None,
            live_messages_max: 100_000,
            live_bytes_max: 32 * 1024 * 1024,
            output_bytes_max: 256 * 1024,
            topic_levels_max: 128,
            sys_interval_s: 10,
            refused_filters: Vec::new(),
        }
    }
}
