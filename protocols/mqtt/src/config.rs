//! The `mqtt` section of the configuration: settings and bounds, each declared once.

mod auto_subscribe;
mod bridge;
mod client_limits;
mod names;
mod rewrite;
pub(crate) mod template;

use std::path::PathBuf;

use inver_driver::Timeouts;
use inver_settings::Setting;
use inver_settings::rules::{GIB, KIB, TIB, bytes, count, flag, no_key, seconds, value};
use inver_settings::serde::Deserializer;
use inver_settings::serde::de::{Deserialize as _, Error, Unexpected};

pub use auto_subscribe::{AutoSubscription, AutoSubscriptions};
pub use bridge::{
    BRIDGES_MAX, BridgeSpec, BridgeTls, BridgeTopic, BridgeVersion, ConfiguredBridges, Direction,
};
pub(crate) use client_limits::ClientLimits;
pub use client_limits::{ClientRule, ClientRules};
pub use names::AmqpNames;
pub(crate) use rewrite::{By, is_topic_name};
pub use rewrite::{RewriteAction, RewriteRule, RewriteRules};

/// Longest packet that the protocol's length field can express.
const PACKET_BYTES_MAX: u64 = 268_435_455;

inver_settings::section! {
    /// Settings of the protocol.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct MqttConfig {
        /// Longest packet accepted, in bytes; announced to MQTT 5 clients. The server's limit of messages.
        pub packet_bytes_max: usize = 16 << 20 => no_key(),
        /// QoS 1 and 2 messages that an MQTT 5 client may have unacknowledged (Receive Maximum).
        pub receive_maximum: u16 = 1024 => count(1..=65_535),
        /// QoS 1 and 2 messages sent to a client and not acknowledged yet. The client's own Receive Maximum can lower
        /// it.
        pub inflight_max: u16 = 1024 => count(1..=65_535),
        /// Topic aliases that a client may define. 0: none.
        pub topic_alias_maximum: u16 = 64 => count(0..=65_535),
        /// Topic aliases that the broker defines towards a client; the client's own Topic Alias Maximum can lower it.
        /// 0: none.
        pub outgoing_topic_aliases_max: u16 = 64 => count(0..=65_535),
        /// Longest keep alive; a client that requests a longer one, or none, is given this one (Server Keep Alive).
        /// 0: as the client requests.
        pub keep_alive_s_max: Option<u16> = None => seconds(0..=65_535),
        /// The highest QoS of what clients publish (an MQTT 5 client that publishes at another one is disconnected with 0x9B) and
        /// subscribe to (a subscription is granted at most this one).
        pub maximum_qos: u16 = 2 => count(0..=2),
        /// Whether clients may publish retained messages; others are disconnected (0x9A).
        pub retain_available: bool = true => flag(),
        /// Whether clients may subscribe with wildcards; else SUBACK answers 0xA2.
        pub wildcard_subscriptions: bool = true => flag(),
        /// Whether clients may share subscriptions; else SUBACK answers 0x9E.
        pub shared_subscriptions: bool = true => flag(),
        /// Other values of the four keys above and of `mqtt.keep_alive_s_max` for the clients of a listener (by its name), of a
        /// user, or both. For each value the first rule counts that applies and sets it.
        pub client_limits: ClientRules = ClientRules::default()
            => value("an array of tables with `listener`, `user` and these keys"),
        /// Messages are delivered at the QoS of the subscription, even if it is higher than that of the publish.
        pub upgrade_outgoing_qos: bool = false => flag(),
        /// Response Information for MQTT 5 clients that ask for it: a beginning of topics for their responses, in which
        /// `{client_id}` and `{user}` stand for the client's. Permissions are not changed by it. Empty: none.
        pub response_information: String = String::new() => value("a text, or empty"),
        /// Rules that rewrite topics: tables with `source` (a filter), `destination` (a topic, in which `{1}` is what the first
        /// wildcard matched, `{client_id}` and `{user}` the client's) and `action` (`all`, `publish` or `subscribe`). The first
        /// rule that matches applies, before permissions are asked for.
        pub rewrite: RewriteRules = RewriteRules::default()
            => value("an array of tables with `source`, `destination` and optionally `action`"),
        /// How topics and routing keys of AMQP, and names of log topics, belong together. `reversible`: one to one, a separator
        /// of the other kind inside a level is escaped. `rabbitmq`: as RabbitMQ's MQTT plugin, a separator is replaced by the
        /// other, so that the topics `a.b` and `a/b` are one.
        pub amqp_names: AmqpNames = AmqpNames::Reversible => value("`reversible` or `rabbitmq`"),
        /// Subscriptions that are made for every client when it connects: tables with `filter` (in which `{client_id}` and
        /// `{user}` stand for the client's) and optionally `qos`, `no_local`, `retain_as_published`, `retain_handling`.
        pub auto_subscribe: AutoSubscriptions = AutoSubscriptions::default()
            => value("an array of tables with `filter` and optionally `qos`"),
        /// Bridges to other MQTT servers, see [bridges](mqtt.md#bridges-to-other-servers).
        pub bridges: ConfiguredBridges = ConfiguredBridges::default()
            => value("an array of tables with `name`, `address` and `topics`"),
        /// Connections of one client id in `mqtt.flapping_window_s`; a client with more of them is banned for
        /// `mqtt.flapping_ban_s`. 0: any number.
        pub flapping_connects_max: Option<u32> = None => count(0..=1_000_000),
        /// The time in which connections are counted.
        pub flapping_window_s: u32 = 60 => seconds(1..=86_400),
        /// For how long a client is banned that connects too often.
        pub flapping_ban_s: u32 = 300 => seconds(1..=31_536_000),
        /// Longest time that a session outlives its connection. 0: as the client requests, including for ever.
        pub session_expiry_s_max: Option<u32> = None => seconds(0..=u64::from(u32::MAX)),
        /// QoS 0 messages waiting for a slow client; further ones are dropped and counted.
        pub qos_0_messages_max: u64 = 100_000 => count(1..=100_000_000),
        /// Bytes of QoS 0 messages waiting for a slow client. Payloads are shared among all clients that wait for them.
        pub qos_0_bytes_max: u64 = 32 << 20 => bytes(KIB..=TIB),
        /// Bytes waiting to be written to a client, above which nothing more is read from it or delivered to it.
        pub output_bytes_max: usize = 256 << 10 => bytes(4 * KIB..=GIB),
        /// Levels of a topic name or filter.
        pub topic_levels_max: usize = 128 => count(1..=65_535),
        /// Size of the largest CONNECT packet: its sender has not authenticated yet.
        pub connect_bytes_max: usize = 512 << 10 => bytes(KIB..=PACKET_BYTES_MAX),
        /// Bounds of time of a connection: the server's, for all protocols.
        pub timeouts: Timeouts = Timeouts::default() => no_key(),
        /// Whether connections and disconnections are published: `$SYS/brokers/inver/clients/ID/connected` and
        /// `…/disconnected`.
        pub events: bool = true => flag(),
        /// A log topic to which these events are appended, by client id. Empty: none.
        pub events_topic: String = String::new() => value("the name of a topic, or empty"),
        /// Seconds between two values of a `$SYS` topic. 0: one value, on subscription.
        pub sys_interval_s: u16 = 10 => seconds(0..=65_535),
        /// How the client id of a client with a user is bound to the user's name: `none`; `user`: it is the name; `prefix`:
        /// it begins with the name, with nothing or a character that is no letter or digit behind. A client without a
        /// client id is given one that fits.
        pub client_id_binding: ClientIdBinding = ClientIdBinding::None => value("`none`, `user` or `prefix`"),
        /// A file of permissions in the form of Mosquitto's `acl_file`. Its rules add to the others, and are read-only.
        /// Empty: none.
        pub acl_file: Option<PathBuf> = None => value("a path, or empty"),
        /// Topic filters that no client may subscribe to, compared by their text. SUBACK answers 0x80.
        pub refused_filters: Vec<String> = Vec::new() => value("an array of texts"),
    }
}

impl MqttConfig {
    /// What a client may use of the protocol.
    pub(crate) fn limits_of(&self, listener: &str, user: Option<&str>) -> ClientLimits {
        let general = ClientLimits {
            maximum_qos: self.maximum_qos.min(2) as u8,
            retain: self.retain_available,
            wildcards: self.wildcard_subscriptions,
            shared: self.shared_subscriptions,
            keep_alive_s_max: self.keep_alive_s_max,
        };
        self.client_limits.of(general, listener, user)
    }
}

/// How client ids are bound to users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientIdBinding {
    /// Not at all.
    #[default]
    None,
    /// The client id is the user's name.
    User,
    /// The client id begins with the user's name.
    Prefix,
}

impl ClientIdBinding {
    /// Whether the user may use the client id.
    pub(crate) fn allows(self, user: &str, client_id: &str) -> bool {
        match self {
            ClientIdBinding::None => true,
            ClientIdBinding::User => client_id == user,
            ClientIdBinding::Prefix => client_id
                .strip_prefix(user)
                .is_some_and(|rest| !rest.chars().next().is_some_and(char::is_alphanumeric)),
        }
    }
}

impl Setting for ClientIdBinding {
    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let text = String::deserialize(value)?;
        match text.as_str() {
            "none" => Ok(ClientIdBinding::None),
            "user" => Ok(ClientIdBinding::User),
            "prefix" => Ok(ClientIdBinding::Prefix),
            other => Err(D::Error::invalid_value(Unexpected::Str(other), &"`none`, `user` or `prefix`")),
        }
    }

    fn show(&self) -> String {
        match self {
            ClientIdBinding::None => "none".to_owned(),
            ClientIdBinding::User => "user".to_owned(),
            ClientIdBinding::Prefix => "prefix".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ClientIdBinding::{None, Prefix, User};

    #[test]
    fn a_prefix_ends_where_the_name_ends() {
        assert!(None.allows("ann", "x"));
        assert!(User.allows("ann", "ann") && !User.allows("ann", "ann-1"));
        assert!(
            Prefix.allows("ann", "ann") && Prefix.allows("ann", "ann-1") && Prefix.allows("ann", "ann/1")
        );
        assert!(
            !Prefix.allows("ann", "anna") && !Prefix.allows("ann", "an") && !Prefix.allows("ann", "ann1")
        );
    }
}
