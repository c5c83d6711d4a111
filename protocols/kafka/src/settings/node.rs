//! Settings of the node under Kafka's names, where an equivalent exists. Read-only over the wire.

use inver_broker::DelegationConfig;

use crate::codec::text::Str;
use crate::config::KafkaConfig;

/// A setting of the node.
pub(crate) struct NodeSetting {
    pub(crate) name: &'static str,
    /// Type code in DescribeConfigs.
    pub(crate) config_type: i8,
    pub(crate) value: String,
    pub(crate) documentation: &'static str,
}

/// The settings, by name. `address` is the advertised host and port.
pub(crate) fn settings(
    config: &KafkaConfig,
    delegation: &DelegationConfig,
    address: &(Str, i32),
) -> Vec<NodeSetting> {
    let groups = &config.groups;
    let all = [
        (
            "advertised.listeners",
            7,
            format!("PLAINTEXT://{}:{}", address.0, address.1),
            "Address advertised to clients.",
        ),
        (
            "auto.create.topics.enable",
            1,
            config.auto_create_topics.to_string(),
            "Metadata requests create missing topics.",
        ),
        ("broker.id", 3, config.node_id.to_string(), "Id of this node."),
        ("default.replication.factor", 3, "1".to_owned(), "There is one node."),
        (
            "delegation.token.expiry.time.ms",
            5,
            delegation.expiry_ms.to_string(),
            "For how long a delegation token is valid once it is made or renewed.",
        ),
        (
            "delegation.token.max.lifetime.ms",
            5,
            delegation.max_lifetime_ms.to_string(),
            "For how long a delegation token can be renewed.",
        ),
        ("delete.topic.enable", 1, "true".to_owned(), "Topics can be deleted."),
        (
            "group.initial.rebalance.delay.ms",
            3,
            groups.initial_delay.as_millis().to_string(),
            "How long an empty group waits for more members after the first joins.",
        ),
        (
            "group.max.session.timeout.ms",
            3,
            groups.session_timeout_max.as_millis().to_string(),
            "Longest session timeout of a member.",
        ),
        ("group.max.size", 3, groups.members_max.to_string(), "Members of one group at most."),
        (
            "group.min.session.timeout.ms",
            3,
            groups.session_timeout_min.as_millis().to_string(),
            "Shortest session timeout of a member.",
        ),
        (
            "message.max.bytes",
            3,
            config.message_bytes_max.to_string(),
            "Largest record batch, unless the topic sets max.message.bytes.",
        ),
        ("min.insync.replicas", 3, "1".to_owned(), "There is one node."),
        ("node.id", 3, config.node_id.to_string(), "Id of this node."),
        (
            "num.partitions",
            3,
            config.default_partitions.to_string(),
            "Partitions of a topic created without a partition count.",
        ),
        (
            "offset.metadata.max.bytes",
            3,
            config.limits.offset_metadata_bytes_max.to_string(),
            "Largest metadata of a committed offset.",
        ),
        (
            "offsets.retention.minutes",
            3,
            (groups.offsets_retention.as_secs() / 60).to_string(),
            "How long committed offsets are kept after the last member of their group left; 0: forever.",
        ),
        ("offsets.topic.replication.factor", 4, "1".to_owned(), "There is one node."),
        ("transaction.state.log.replication.factor", 4, "1".to_owned(), "There is one node."),
    ];
    let setting =
        |(name, config_type, value, documentation)| NodeSetting { name, config_type, value, documentation };
    all.into_iter().map(setting).collect()
}
