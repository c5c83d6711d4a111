//! Settings of topics: names, defaults and valid values.
//!
//! All of Kafka's settings are accepted and stored, so that tools that set them work. The documentation of those
//! without effect says so.

use inver_broker::{HubMode, Namespace, Topic, TopicConfig};

use crate::config::{KafkaConfig, ReplicationFactor};
use crate::map::batch::Rules;

/// The type of a setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Boolean,
    Text,
    /// 32 bits, with this minimum.
    Int(i64),
    /// 32 bits, one of the first numbers to the second, or this other one.
    Level(i64, i64, Option<i64>),
    /// 64 bits, with this minimum.
    Long(i64),
    /// A number from 0 to 1.
    Ratio,
    /// One of these values.
    OneOf(&'static [&'static str]),
    /// A comma-separated list of these values.
    SomeOf(&'static [&'static str]),
    /// A comma-separated list of any values.
    List,
}

impl Kind {
    /// Type code in DescribeConfigs.
    pub(crate) fn config_type(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::Text | Kind::OneOf(_) => 2,
            Kind::Int(_) | Kind::Level(..) => 3,
            Kind::Long(_) => 5,
            Kind::Ratio => 6,
            Kind::SomeOf(_) | Kind::List => 7,
        }
    }

    pub(crate) fn is_list(self) -> bool {
        matches!(self, Kind::SomeOf(_) | Kind::List)
    }

    /// Why a value is not allowed, in Kafka's words; empty where the name says it.
    fn reason(self, value: &str) -> String {
        let is_number = value.parse::<i64>().is_ok();
        match self {
            Kind::Int(_) | Kind::Level(..) if !is_number => ": Not a number of type INT".to_owned(),
            Kind::Long(_) if !is_number => ": Not a number of type LONG".to_owned(),
            Kind::Int(min) | Kind::Long(min) => format!(": Value must be at least {min}"),
            Kind::Level(min, max, Some(other)) => {
                format!(": Value must be between {min} and {max} or equal to {other}")
            }
            Kind::Level(_, max, None) => format!(": Value must be no more than {max}"),
            Kind::OneOf(all) | Kind::SomeOf(all) => format!(": String must be one of: {}", all.join(", ")),
            Kind::Boolean | Kind::Text | Kind::Ratio | Kind::List => String::new(),
        }
    }

    fn allows(self, value: &str) -> bool {
        let number = |min: i64, max: i64| value.parse::<i64>().is_ok_and(|n| (min..=max).contains(&n));
        match self {
            Kind::Boolean => matches!(value.to_ascii_lowercase().as_str(), "true" | "false"),
            Kind::Text | Kind::List => true,
            Kind::Int(min) => number(min, i64::from(i32::MAX)),
            Kind::Level(min, max, other) => {
                number(min, max) || other.is_some_and(|other| number(other, other))
            }
            Kind::Long(min) => number(min, i64::MAX),
            Kind::Ratio => value.parse::<f64>().is_ok_and(|n| (0.0..=1.0).contains(&n)),
            Kind::OneOf(all) => all.contains(&value),
            Kind::SomeOf(all) => {
                let mut parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
                parts.all(|part| all.contains(&part))
            }
        }
    }
}

/// What the defaults of one topic's settings depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults<'a> {
    config: &'a KafkaConfig,
    hub: HubMode,
}

impl<'a> Defaults<'a> {
    pub(crate) fn new(config: &'a KafkaConfig, hub: HubMode) -> Defaults<'a> {
        Defaults { config, hub }
    }

    /// Those of a topic of this name.
    pub(crate) fn of(topic: &str, namespace: &Namespace, config: &'a KafkaConfig) -> Defaults<'a> {
        Defaults::new(config, HubMode::default_of(topic, namespace.hub_default()))
    }
}

/// A setting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    default: &'static str,
    pub(crate) documentation: &'static str,
}

impl Setting {
    /// The value while none is set.
    pub(crate) fn default(&self, defaults: &Defaults<'_>) -> String {
        match self.name {
            MAX_MESSAGE_BYTES => defaults.config.default_message_bytes_max().to_string(),
            HUB => defaults.hub.as_str().to_owned(),
            _ => self.default.to_owned(),
        }
    }

    /// Checks a value; the error says why it is invalid.
    pub(crate) fn check(&self, value: &str) -> Result<(), String> {
        if self.name == REMOTE_STORAGE && value.eq_ignore_ascii_case("true") {
            let text = "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.";
            return Err(text.to_owned());
        }
        match self.kind.allows(value) {
            true => Ok(()),
            false => {
                let reason = self.kind.reason(value);
                Err(format!("Invalid value {value} for configuration {}{reason}", self.name))
            }
        }
    }
}

/// The replication factor that clients are told.
pub(crate) const REPLICATION_FACTOR: &str = "inver.replication.factor";
pub(crate) const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
const MIN_COMPACTION_LAG: &str = "min.compaction.lag.ms";
const MAX_COMPACTION_LAG: &str = "max.compaction.lag.ms";
const HUB: &str = "inver.hub";
const CLEANUP_POLICY: &str = "cleanup.policy";
const REMOTE_STORAGE: &str = "remote.storage.enable";
const TIMESTAMP_AFTER_MAX: &str = "message.timestamp.after.max.ms";
const TIMESTAMP_BEFORE_MAX: &str = "message.timestamp.before.max.ms";
const TIMESTAMP_TYPE: &str = "message.timestamp.type";

/// One hour, as in Kafka 4.
const TIMESTAMP_AFTER_MAX_DEFAULT: i64 = 3_600_000;

const NO_EFFECT: &str = "Stored and described; has no effect in this broker.";

const fn setting(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    documentation: &'static str,
) -> Setting {
    Setting { name, kind, default, documentation }
}

/// Every setting of a topic, ordered by name.
pub(crate) const SETTINGS: &[Setting] = &[
    setting(
        CLEANUP_POLICY,
        Kind::SomeOf(&["compact", "delete"]),
        "delete",
        "delete: records are deleted by age and size; compact: the last record of every key is kept, and all records need keys.",
    ),
    setting("compression.gzip.level", Kind::Level(1, 9, Some(-1)), "-1", NO_EFFECT),
    setting("compression.lz4.level", Kind::Level(1, 17, None), "9", NO_EFFECT),
    setting(
        "compression.type",
        Kind::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "producer",
        "Compression of batches that the broker composes (inver.capture.filter). Producers' batches are stored as received.",
    ),
    setting("compression.zstd.level", Kind::Level(-131_072, 22, None), "3", NO_EFFECT),
    setting(
        "delete.retention.ms",
        Kind::Long(0),
        "86400000",
        "How long compaction keeps a tombstone from when it found it first, in milliseconds.",
    ),
    setting("errors.deadletterqueue.group.enable", Kind::Boolean, "false", NO_EFFECT),
    setting("file.delete.delay.ms", Kind::Long(0), "60000", NO_EFFECT),
    setting("flush.messages", Kind::Long(1), "9223372036854775807", NO_EFFECT),
    setting("flush.ms", Kind::Long(0), "9223372036854775807", NO_EFFECT),
    setting("follower.replication.throttled.replicas", Kind::List, "", NO_EFFECT),
    setting("index.interval.bytes", Kind::Int(0), "4096", NO_EFFECT),
    setting(
        "inver.capture.filter",
        Kind::Text,
        "",
        "Messages published to an address that this filter matches are appended to the topic.",
    ),
    setting(
        "inver.capture.key",
        Kind::Text,
        "",
        "Template for the key of captured records; empty: the full address.",
    ),
    setting(
        "inver.capture.tombstones",
        Kind::Boolean,
        "false",
        "Whether a captured message that clears a retained message is appended with a null value.",
    ),
    setting(
        "inver.headers",
        Kind::List,
        "all",
        "Message properties that captured records carry as headers: all, none, or a list of names.",
    ),
    setting(
        HUB,
        Kind::OneOf(&["named", "open", "off"]),
        "named",
        "named: the topic meets MQTT and AMQP clients that name it exactly; open: subscriptions and bindings with wildcards too; off: none of them. Always off for internal topics.",
    ),
    setting(
        "inver.hub.retain",
        Kind::Boolean,
        "false",
        "Whether records with the headers mqtt-topic and mqtt-retain = 1 set the retained message of that topic; an empty value clears it.",
    ),
    setting(
        REPLICATION_FACTOR,
        Kind::Level(1, 32_767, None),
        "1",
        "The replication factor that the topic was created with, where kafka.replication_factor is show: clients are told of so many replicas, all of them this node.",
    ),
    setting("leader.replication.throttled.replicas", Kind::List, "", NO_EFFECT),
    setting("local.retention.bytes", Kind::Long(-2), "-2", NO_EFFECT),
    setting("local.retention.ms", Kind::Long(-2), "-2", NO_EFFECT),
    setting(
        MAX_COMPACTION_LAG,
        Kind::Long(1),
        "9223372036854775807",
        "Time after which written records are compacted whatever their share, in milliseconds.",
    ),
    setting("max.decompressed.message.bytes", Kind::Int(1), "2147483639", NO_EFFECT),
    setting(MAX_MESSAGE_BYTES, Kind::Int(0), "", "Largest record batch accepted, in bytes."),
    setting(
        TIMESTAMP_AFTER_MAX,
        Kind::Long(0),
        "3600000",
        "How far a timestamp may be ahead of the broker's clock, in milliseconds.",
    ),
    setting(
        TIMESTAMP_BEFORE_MAX,
        Kind::Long(0),
        "9223372036854775807",
        "How far a timestamp may be behind the broker's clock, in milliseconds.",
    ),
    setting(
        TIMESTAMP_TYPE,
        Kind::OneOf(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        "CreateTime: records keep the producer's timestamps; LogAppendTime: the broker assigns them.",
    ),
    setting(
        "min.cleanable.dirty.ratio",
        Kind::Ratio,
        "0.5",
        "Share of a partition that must be uncompacted before it is compacted.",
    ),
    setting(
        MIN_COMPACTION_LAG,
        Kind::Long(0),
        "0",
        "Time for which records are not compacted after they were written, in milliseconds.",
    ),
    setting(
        "min.insync.replicas",
        Kind::Int(1),
        "1",
        "Stored and described; there is one node, and acks=all waits for its commit.",
    ),
    setting("preallocate", Kind::Boolean, "false", NO_EFFECT),
    setting("remote.copy.lag.bytes", Kind::Long(-2), "-1", NO_EFFECT),
    setting("remote.copy.lag.ms", Kind::Long(-2), "0", NO_EFFECT),
    setting("remote.log.copy.disable", Kind::Boolean, "false", NO_EFFECT),
    setting("remote.log.delete.on.disable", Kind::Boolean, "false", NO_EFFECT),
    setting(REMOTE_STORAGE, Kind::Boolean, "false", NO_EFFECT),
    setting(
        "retention.bytes",
        Kind::Long(-1),
        "-1",
        "Bytes that a partition keeps before its oldest records are deleted; -1: no limit.",
    ),
    setting(
        "retention.ms",
        Kind::Long(-1),
        "604800000",
        "Age at which records are deleted, in milliseconds; -1: never.",
    ),
    setting("segment.bytes", Kind::Int(1_048_576), "1073741824", NO_EFFECT),
    setting("segment.index.bytes", Kind::Int(4), "10485760", NO_EFFECT),
    setting("segment.jitter.ms", Kind::Long(0), "0", NO_EFFECT),
    setting("segment.ms", Kind::Long(1), "604800000", NO_EFFECT),
    setting("unclean.leader.election.enable", Kind::Boolean, "false", NO_EFFECT),
];

/// Whether the topic's cleanup policy deletes records by age and size.
pub(crate) fn deletes(config: &TopicConfig) -> bool {
    config.get(CLEANUP_POLICY).is_none_or(|policy| policy.split(',').any(|item| item.trim() == "delete"))
}

/// The setting with this name.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.binary_search_by_key(&name, |setting| setting.name).ok().and_then(|place| SETTINGS.get(place))
}

/// Checks the settings of a topic of this name; the error describes the first invalid one. Blanks around values are
/// dropped, as by Kafka.
pub(crate) fn check(topic: &str, config: &mut TopicConfig) -> Result<(), String> {
    for (name, value) in config.iter_mut() {
        let setting = find(name).ok_or_else(|| format!("Unknown topic config name: {name}"))?;
        if !matches!(setting.kind, Kind::Text) && value.trim() != value {
            *value = value.trim().to_owned();
        }
        setting.check(value)?;
    }
    let lag = |name: &str| config.get(name).and_then(|value| value.parse::<i64>().ok());
    if let (min, Some(max)) = (lag(MIN_COMPACTION_LAG).unwrap_or(0), lag(MAX_COMPACTION_LAG))
        && min > max
    {
        return Err(format!(
            "conflict topic config setting {MIN_COMPACTION_LAG} ({min}) > {MAX_COMPACTION_LAG} ({max})"
        ));
    }
    Namespace::check_config(topic, config).map_err(|error| error.to_string())
}

/// The replicas of a topic's partitions that clients are told of.
pub(crate) fn replicas(topic: &Topic, config: &KafkaConfig) -> Vec<i32> {
    let factor = match config.replication_factor {
        ReplicationFactor::Show => {
            topic.config().get(REPLICATION_FACTOR).and_then(|value| value.parse().ok())
        }
        ReplicationFactor::Accept | ReplicationFactor::Refuse => None,
    };
    vec![config.node_id; factor.unwrap_or(1)]
}

/// The settings of a topic that Produce depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProduceSettings {
    pub(crate) message_bytes_max: usize,
    pub(crate) compacted: bool,
    pub(crate) append_time: bool,
    after_max_ms: i64,
    before_max_ms: i64,
}

impl ProduceSettings {
    pub(crate) fn of(topic: &Topic, config: &KafkaConfig) -> ProduceSettings {
        ProduceSettings::from(&topic.config(), config)
    }

    fn from(set: &TopicConfig, config: &KafkaConfig) -> ProduceSettings {
        let number = |name: &str, default: i64| {
            set.get(name).and_then(|value| value.trim().parse().ok()).unwrap_or(default)
        };
        let bytes_max = number(MAX_MESSAGE_BYTES, i64::from(config.default_message_bytes_max()));
        let bytes_max = bytes_max.min(i64::from(config.message_bytes_bound));
        ProduceSettings {
            message_bytes_max: usize::try_from(bytes_max).unwrap_or(0),
            compacted: set.get(CLEANUP_POLICY).is_some_and(|policy| policy.contains("compact")),
            append_time: set.get(TIMESTAMP_TYPE).is_some_and(|kind| kind == "LogAppendTime"),
            after_max_ms: number(TIMESTAMP_AFTER_MAX, TIMESTAMP_AFTER_MAX_DEFAULT),
            before_max_ms: number(TIMESTAMP_BEFORE_MAX, i64::MAX),
        }
    }

    /// The rules for records that arrive now.
    pub(crate) fn rules(&self, now_ms: i64) -> Rules {
        let bounds = (now_ms.saturating_sub(self.before_max_ms), now_ms.saturating_add(self.after_max_ms));
        Rules { keyed: self.compacted, times: (!self.append_time).then_some(bounds) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_names_are_sorted() {
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.name));
        for setting in SETTINGS {
            let config = KafkaConfig::default();
            let default = setting.default(&Defaults::new(&config, HubMode::default()));
            assert_eq!(setting.check(&default), Ok(()), "{}", setting.name);
        }
    }

    #[test]
    fn values_are_checked() {
        let config = |name: &str, value: &str| TopicConfig::from([(name.to_owned(), value.to_owned())]);
        assert_eq!(check("t", &mut config("cleanup.policy", "compact,delete")), Ok(()));
        assert_eq!(check("t", &mut config("retention.ms", "-1")), Ok(()));
        assert_eq!(check("t", &mut config("inver.hub", "open")), Ok(()));
        assert!(check("_t", &mut config("inver.hub", "open")).is_err());
        for (name, value) in [
            ("compression.gzip.level", "-1"),
            ("compression.zstd.level", "22"),
            ("errors.deadletterqueue.group.enable", "true"),
            ("max.decompressed.message.bytes", "5"),
            ("remote.copy.lag.bytes", "1"),
            ("remote.copy.lag.ms", "1"),
        ] {
            assert_eq!(check("t", &mut config(name, value)), Ok(()), "{name}");
        }
        let mut blanks = config("retention.ms", " 5 ");
        assert_eq!(check("t", &mut blanks), Ok(()));
        assert_eq!(blanks, config("retention.ms", "5"));
        let mut lags = config("min.compaction.lag.ms", "5");
        lags.extend(config("max.compaction.lag.ms", "3"));
        let conflict = "conflict topic config setting min.compaction.lag.ms (5) > max.compaction.lag.ms (3)";
        assert_eq!(check("t", &mut lags), Err(conflict.to_owned()));
        for (name, value, reason) in [
            ("segment.bytes", "1000", "Value must be at least 1048576"),
            ("compression.gzip.level", "10", "Value must be between 1 and 9 or equal to -1"),
            ("compression.lz4.level", "18", "Value must be no more than 17"),
            ("cleanup.policy", "none", "String must be one of: compact, delete"),
            ("retention.ms", "", "Not a number of type LONG"),
        ] {
            let expected = format!("Invalid value {value} for configuration {name}: {reason}");
            assert_eq!(check("t", &mut config(name, value)), Err(expected));
        }
        for (name, value) in [
            ("cleanup.policy", "shred"),
            ("retention.ms", "-2"),
            ("retention.ms", "soon"),
            ("max.message.bytes", "4294967296"),
            ("preallocate", "maybe"),
            ("remote.storage.enable", "true"),
            ("min.cleanable.dirty.ratio", "1.5"),
            ("inver.hub", "closed"),
            ("no.such.setting", "1"),
        ] {
            assert!(check("t", &mut config(name, value)).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn produce_settings_follow_the_topics_settings() {
        let defaults = KafkaConfig::default();
        let plain = ProduceSettings::from(&TopicConfig::new(), &defaults);
        let expected = ProduceSettings {
            message_bytes_max: 1_048_588,
            compacted: false,
            append_time: false,
            after_max_ms: 3_600_000,
            before_max_ms: i64::MAX,
        };
        assert_eq!(plain, expected);
        let after = |config| find(TIMESTAMP_AFTER_MAX).unwrap().default(&Defaults::new(config, HubMode::Off));
        assert_eq!(after(&defaults), expected.after_max_ms.to_string());
        let rules = plain.rules(10);
        assert_eq!((rules.keyed, rules.times), (false, Some((10 - i64::MAX, 3_600_010))));
        let set =
            [("max.message.bytes", "10"), (CLEANUP_POLICY, "compact"), (TIMESTAMP_TYPE, "LogAppendTime")];
        let set = set.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let expected =
            ProduceSettings { message_bytes_max: 10, compacted: true, append_time: true, ..expected };
        let set = ProduceSettings::from(&TopicConfig::from(set), &defaults);
        assert_eq!(set, expected);
        assert_eq!((set.rules(10).keyed, set.rules(10).times), (true, None));
    }
}
