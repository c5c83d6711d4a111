//! The broker's own settings under Kafka's names, as far as there is one that means the same. They are told, and
//! changed in the configuration file only.

use crate::codec::text::Str;
use crate::config::KafkaConfig;

/// A setting of the node.
pub(super) struct NodeSetting {
    pub(super) name: &'static str,
    /// The number of its type in DescribeConfigs.
    pub(super) config_type: i8,
    pub(super) value: String,
    pub(super) documentation: &'static str,
}

/// All of them, by name. `address` is where clients are told to connect to.
pub(super) fn all(config: &KafkaConfig, address: &(Str, i32)) -> Vec<NodeSetting> {
    let groups = &config.groups;
    let all = [
        (
            "advertised.listeners",
            7,
            format!("PLAINTEXT://{}:{}", address.0, address.1),
            "Where clients are told to connect to.",
        ),
        (
            "auto.create.topics.enable",
            1,
            config.auto_create_topics.to_string(),
            "Asking for a topic makes it.",
        ),
        ("broker.id", 3, config.node_id.to_string(), "The number of this node."),
        ("default.replication.factor", 3, "1".to_owned(), "There is one node."),
        ("delete.topic.enable", 1, "true".to_owned(), "Topics can be deleted."),
        (
            "group.initial.rebalance.delay.ms",
            3,
            groups.initial_delay.as_millis().to_string(),
            "How long an empty group waits for more members.",
        ),
        (
            "group.max.session.timeout.ms",
            3,
            groups.session_timeout_max.as_millis().to_string(),
            "The longest session timeout of a member.",
        ),
        ("group.max.size", 3, groups.members_max.to_string(), "Members of a group."),
        (
            "group.min.session.timeout.ms",
            3,
            groups.session_timeout_min.as_millis().to_string(),
            "The shortest session timeout of a member.",
        ),
        (
            "message.max.bytes",
            3,
            config.message_bytes_max.to_string(),
            "The largest batch, where a topic does not say.",
        ),
        ("min.insync.replicas", 3, "1".to_owned(), "There is one node."),
        ("node.id", 3, config.node_id.to_string(), "The number of this node."),
        (
            "num.partitions",
            3,
            config.default_partitions.to_string(),
            "Partitions of a topic made without saying how many.",
        ),
        (
            "offset.metadata.max.bytes",
            3,
            config.limits.offset_metadata_bytes_max.to_string(),
            "What may be noted beside a committed offset.",
        ),
        (
            "offsets.retention.minutes",
            3,
            (groups.offsets_retention.as_secs() / 60).to_string(),
            "How long the positions of a group are kept after its last member left; 0: for ever.",
        ),
        ("offsets.topic.replication.factor", 4, "1".to_owned(), "There is one node."),
        ("transaction.state.log.replication.factor", 4, "1".to_owned(), "There is one node."),
    ];
    let setting =
        |(name, config_type, value, documentation)| NodeSetting { name, config_type, value, documentation };
    all.into_iter().map(setting).collect()
}
