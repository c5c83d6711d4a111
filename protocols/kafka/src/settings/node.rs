//! Settings of the node under Kafka's names: all of a broker's, those with a counterpart here with its value. Read-only over the
//! wire, but for the [dynamic] ones.

use inver_broker::Broker;

use super::broker_defaults::BROKER_DEFAULTS;
use super::dynamic;
use crate::codec::text::Str;
use crate::config::KafkaConfig;

/// Type code of a password in DescribeConfigs.
pub(crate) const PASSWORD: i8 = 9;
/// That of a number of 64 bits.
const LONG: i8 = 5;

/// Name of the only log directory. The path on disk is not sent to clients.
pub(crate) const LOG_DIR: &str = "log";

const ONE_NODE: &str = "There is one node.";
const NO_EFFECT: &str = "A setting of Kafka that has no effect in this broker.";

/// A setting of the node.
pub(crate) struct NodeSetting {
    pub(crate) name: &'static str,
    /// Type code in DescribeConfigs.
    pub(crate) config_type: i8,
    pub(crate) value: Option<String>,
    /// Whether the value is only Kafka's default.
    pub(crate) is_default: bool,
    /// Whether clients can set it.
    pub(crate) is_dynamic: bool,
    pub(crate) documentation: &'static str,
}

/// The settings, by name. `address` is the advertised host and port.
pub(crate) fn settings(config: &KafkaConfig, broker: &Broker, address: &(Str, i32)) -> Vec<NodeSetting> {
    let all = BROKER_DEFAULTS.iter().map(|(name, config_type, default)| {
        let own = own(name, config, broker, address);
        let is_default = own.is_none();
        let (value, documentation) = match own {
            Some((value, documentation)) => (Some(value), documentation),
            None => (default.map(str::to_owned), NO_EFFECT),
        };
        NodeSetting { name, config_type: *config_type, value, is_default, is_dynamic: false, documentation }
    });
    // Those that clients set are no settings of a broker's file.
    let dynamic = dynamic::KEPT.iter().map(|name| NodeSetting {
        name,
        config_type: LONG,
        value: None,
        is_default: true,
        is_dynamic: true,
        documentation: "Kept and described; there are no replicas.",
    });
    all.chain(dynamic).collect()
}

/// The value of a setting that has a counterpart, and what it is.
fn own(
    name: &str,
    config: &KafkaConfig,
    broker: &Broker,
    address: &(Str, i32),
) -> Option<(String, &'static str)> {
    let (groups, limits) = (&config.groups, &config.limits);
    let delegation = broker.access().delegation();
    let (host, port) = address;
    Some(match name {
        "advertised.listeners" => (format!("PLAINTEXT://{host}:{port}"), "Address advertised to clients."),
        "auto.create.topics.enable" => {
            (config.auto_create_topics.to_string(), "Metadata requests create missing topics.")
        }
        "broker.id" | "node.id" => (config.node_id.to_string(), "Id of this node."),
        "connections.max.idle.ms" => {
            (limits.idle_max.as_millis().to_string(), "Idle time after which a connection is closed.")
        }
        "controller.listener.names" => ("CONTROLLER".to_owned(), ONE_NODE),
        "controller.quorum.voters" => (format!("{}@{host}:{port}", config.node_id), ONE_NODE),
        "default.replication.factor"
        | "offsets.topic.replication.factor"
        | "share.coordinator.state.topic.replication.factor"
        | "transaction.state.log.replication.factor"
        | "min.insync.replicas"
        | "share.coordinator.state.topic.min.isr"
        | "transaction.state.log.min.isr" => ("1".to_owned(), ONE_NODE),
        "delegation.token.expiry.time.ms" => (
            delegation.expiry_ms.to_string(),
            "For how long a delegation token is valid once it is made or renewed.",
        ),
        "delegation.token.max.lifetime.ms" => {
            (delegation.max_lifetime_ms.to_string(), "For how long a delegation token can be renewed.")
        }
        "delete.topic.enable" => ("true".to_owned(), "Topics can be deleted."),
        "fetch.max.bytes" => (limits.fetch_bytes_max.to_string(), "Bytes of records in one fetch response."),
        "group.initial.rebalance.delay.ms" => (
            groups.initial_delay.as_millis().to_string(),
            "How long an empty group waits for more members after the first joins.",
        ),
        "group.max.session.timeout.ms" => {
            (groups.session_timeout_max.as_millis().to_string(), "Longest session timeout of a member.")
        }
        "group.max.size" => (groups.members_max.to_string(), "Members of one group at most."),
        "group.min.session.timeout.ms" => {
            (groups.session_timeout_min.as_millis().to_string(), "Shortest session timeout of a member.")
        }
        "group.share.delivery.count.limit" => (
            groups.share_deliveries_max.to_string(),
            "How often a record is delivered to a share group before it is given up.",
        ),
        "group.share.heartbeat.interval.ms" => (
            groups.share_heartbeat_interval.as_millis().to_string(),
            "Time between heartbeats of members of a share group.",
        ),
        "group.share.max.share.sessions" => {
            (limits.share_sessions_max.to_string(), "Share sessions of all connections.")
        }
        "group.share.partition.max.record.locks" => (
            groups.share_record_locks_max.to_string(),
            "Records of a partition that the members of a share group hold at a time.",
        ),
        "group.share.record.lock.duration.ms" => (
            groups.share_record_lock_duration.as_millis().to_string(),
            "Time after which a record that a member did not acknowledge is given to others.",
        ),
        "group.share.session.timeout.ms" => (
            groups.share_session_timeout.as_millis().to_string(),
            "Time without a heartbeat after which a member of a share group is removed.",
        ),
        "listeners" => (format!("PLAINTEXT://{host}:{port}"), "The listener that this client came by."),
        "log.dir" | "log.dirs" => {
            (LOG_DIR.to_owned(), "The only log directory. Its path is not told to clients.")
        }
        "max.request.partition.size.limit" => (
            limits.describe_page_partitions_max.to_string(),
            "Partitions in one page of DescribeTopicPartitions.",
        ),
        "message.max.bytes" => (
            config.default_message_bytes_max().to_string(),
            "Largest record batch, unless the topic sets max.message.bytes.",
        ),
        "num.partitions" => (
            config.default_partitions.to_string(),
            "Partitions of a topic created without a partition count.",
        ),
        "offset.metadata.max.bytes" => {
            (limits.offset_metadata_bytes_max.to_string(), "Largest metadata of a committed offset.")
        }
        "offsets.retention.minutes" => (
            (groups.offsets_retention.as_secs() / 60).to_string(),
            "How long committed offsets are kept after the last member of their group left; 0: forever.",
        ),
        "process.roles" => ("broker,controller".to_owned(), ONE_NODE),
        "socket.request.max.bytes" => {
            (limits.produce_bytes_max.to_string(), "Size of the largest produce request.")
        }
        "transaction.max.timeout.ms" => (
            config.transactions.timeout_max.as_millis().to_string(),
            "Longest timeout of a transaction that a producer may ask for.",
        ),
        "transactional.id.expiration.ms" => (
            config.transactions.id_expiration.as_millis().to_string(),
            "How long a transactional id is kept after its last use.",
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_sorted_and_hold_what_tools_ask_for() {
        assert!(BROKER_DEFAULTS.is_sorted_by_key(|(name, ..)| name));
        let is_there = |name: &str| BROKER_DEFAULTS.iter().any(|(known, ..)| *known == name);
        assert!(BROKER_DEFAULTS.len() > 300 && !dynamic::KEPT.into_iter().any(is_there));
        assert!(["log.dirs", "process.roles", "listeners", "log.retention.ms"].into_iter().all(is_there));
    }
}
