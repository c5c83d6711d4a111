//! Kafka's settings: what of [`KafkaConfig`] can be configured, and the plug made of it.

use std::sync::Arc;
use std::time::Duration;

use inver_broker::Protocol;
use inver_kafka::{GroupLimits, Kafka, KafkaConfig, Limits};

use super::{PARTITIONS_MAX, Setting, default_partitions, setting};
use crate::config::Config;
use crate::config::value::{self, Value};

const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const DAY_MS: u64 = 86_400_000;

/// The longest request that Kafka's length field can say.
const REQUEST_BYTES_MAX: u64 = i32::MAX as u64;

/// See the module's text.
#[rustfmt::skip]
pub(super) const SETTINGS: &[Setting] = &[
    setting("advertised", "",
        "`host:port` that clients are told to connect to; where it is empty, the address that they came in by.",
        |v| value::host_port(v).map(drop)),
    setting("node_id", "1", "Number of this node, as clients see it.", |v| node_id(v).map(drop)),
    setting("auto_create_topics", "true", "Whether asking for a topic that is not there makes it, if the client wants that.",
        |v| value::truth(v).map(drop)),
    setting("default_partitions", "4", "Partitions of a topic that is made without saying how many.",
        |v| value::number(v, 1, PARTITIONS_MAX).map(drop)),
    setting("produce_bytes_max", "100 MiB", "Size of the largest produce request that is taken.",
        |v| request_bytes(v).map(drop)),
    setting("request_bytes_max", "16 MiB", "Size of the largest other request that is taken.",
        |v| request_bytes(v).map(drop)),
    setting("stranger_bytes_max", "64 KiB", "Size of the largest request that is taken before login.",
        |v| request_bytes(v).map(drop)),
    setting("large_requests_bytes_max", "512 MiB",
        "Memory for requests above 1 MiB that come in, of all connections together; further ones wait.",
        |v| value::bytes(v, KIB, TIB).map(drop)),
    setting("request_time_max_ms", "120000", "Time within which a request that has begun to come in has to be whole.",
        |v| time(v).map(drop)),
    setting("login_max_ms", "10000", "Time within which a client has to log in, where there are users.",
        |v| time(v).map(drop)),
    setting("idle_max_ms", "600000", "A connection without a request for so long is closed.", |v| time(v).map(drop)),
    setting("fetched_bytes_max", "256 MiB",
        "Memory for records on their way to clients, of all connections together, and as much again for what is read from the disk; further fetches wait.",
        |v| value::bytes(v, KIB, TIB).map(drop)),
    setting("read_ahead_bytes_max", "32 MiB",
        "Memory for records that are read from the disk before they are asked for, for clients that read on, of all connections together. `0`: none.",
        |v| value::bytes(v, 0, TIB).map(drop)),
    setting("fetch_bytes_max", "16 MiB", "Bytes of records in one fetch response, whatever the client asks for.",
        |v| value::bytes(v, KIB, GIB).map(drop)),
    setting("fetch_wait_ms_max", "300000", "The longest time that a fetch waits for records.", |v| time(v).map(drop)),
    setting("fetch_partitions_max", "100000", "Partitions of a fetch or a fetch session.", |v| many(v).map(drop)),
    setting("cold_reads_max", "4", "Reads from the disk that one fetch has under way at a time.",
        |v| value::count(v, 1, 1024).map(drop)),
    setting("pipeline_requests_max", "512", "Requests of a connection that were taken and not answered.",
        |v| value::count(v, 1, 1_000_000).map(drop)),
    setting("output_bytes_max", "1 MiB", "Bytes that wait to be written to a connection before no more of it is read.",
        |v| value::bytes(v, KIB, GIB).map(drop)),
    setting("new_partitions_max", "10000", "Partitions that one request may make.", |v| many(v).map(drop)),
    setting("page_partitions_max", "2000", "Partitions described in one page of DescribeTopicPartitions.",
        |v| many(v).map(drop)),
    setting("groups_max", "100000", "Groups that have members.", |v| many(v).map(drop)),
    setting("group_members_max", "10000", "Members of a group.", |v| many(v).map(drop)),
    setting("group_bytes_max", "64 MiB", "What the members of a group may have kept for them.",
        |v| value::bytes(v, KIB, TIB).map(drop)),
    setting("group_protocols_max", "100", "Protocols (assignors) that a member of a group may offer.",
        |v| value::count(v, 1, 10_000).map(drop)),
    setting("group_session_timeout_min_ms", "6000", "The shortest session timeout that a member may ask for.",
        |v| time(v).map(drop)),
    setting("group_session_timeout_max_ms", "1800000", "The longest session timeout that a member may ask for.",
        |v| time(v).map(drop)),
    setting("group_initial_delay_ms", "100", "How long an empty group waits for more members after the first.",
        |v| value::milliseconds(v, 0, DAY_MS).map(drop)),
    setting("group_new_member_timeout_max_ms", "300000", "A new member that waits longer than this to be let in is given up.",
        |v| time(v).map(drop)),
    setting("offsets_retention_ms", "604800000",
        "How long the positions of a group are kept after its last member left; 0: for ever.",
        |v| retention(v).map(drop)),
    setting("offset_metadata_bytes_max", "4096", "Bytes that a client may have kept beside a committed offset.",
        |v| value::bytes(v, 0, GIB).map(drop)),
];

/// Kafka as configured.
pub(super) fn make(config: &Config) -> Result<Arc<dyn Protocol>, String> {
    Ok(Arc::new(Kafka::new(settings(config)?)))
}

fn settings(config: &Config) -> Result<KafkaConfig, String> {
    let of = |name: &str| config.setting(&format!("kafka.{name}"));
    let size = |name: &str| Ok::<_, String>(value::bytes(of(name)?, 0, u64::MAX)? as usize);
    let count = |name: &str| value::count(of(name)?, 0, usize::MAX);
    let duration = |name: &str| value::milliseconds(of(name)?, 0, DAY_MS);
    Ok(KafkaConfig {
        advertised: value::host_port(of("advertised")?)?,
        node_id: node_id(of("node_id")?)?,
        auto_create_topics: value::truth(of("auto_create_topics")?)?,
        default_partitions: default_partitions(config)?,
        message_bytes_max: u32::try_from(config.message_bytes_max).unwrap_or(u32::MAX),
        groups: GroupLimits {
            session_timeout_min: duration("group_session_timeout_min_ms")?,
            session_timeout_max: duration("group_session_timeout_max_ms")?,
            initial_delay: duration("group_initial_delay_ms")?,
            new_member_timeout_max: duration("group_new_member_timeout_max_ms")?,
            members_max: count("group_members_max")?,
            protocols_max: count("group_protocols_max")?,
            bytes_max: size("group_bytes_max")?,
            offsets_retention: retention(of("offsets_retention_ms")?)?,
        },
        limits: Limits {
            produce_bytes_max: size("produce_bytes_max")?,
            request_bytes_max: size("request_bytes_max")?,
            stranger_bytes_max: size("stranger_bytes_max")?,
            large_requests_bytes_max: size("large_requests_bytes_max")?,
            request_time_max: duration("request_time_max_ms")?,
            login_max: duration("login_max_ms")?,
            fetched_bytes_max: size("fetched_bytes_max")?,
            pipeline_requests_max: count("pipeline_requests_max")?,
            output_bytes_max: size("output_bytes_max")?,
            read_ahead_bytes_max: size("read_ahead_bytes_max")?,
            fetch_bytes_max: size("fetch_bytes_max")?,
            fetch_wait_max: duration("fetch_wait_ms_max")?,
            fetch_partitions_max: count("fetch_partitions_max")?,
            cold_reads_max: count("cold_reads_max")?,
            groups_max: count("groups_max")?,
            offset_metadata_bytes_max: size("offset_metadata_bytes_max")?,
            idle_max: duration("idle_max_ms")?,
            new_partitions_max: many(of("new_partitions_max")?)?,
            page_partitions_max: count("page_partitions_max")?,
        },
    })
}

fn node_id(value: &Value) -> Result<i32, String> {
    Ok(value::number(value, 0, REQUEST_BYTES_MAX)? as i32)
}

fn request_bytes(value: &Value) -> Result<u64, String> {
    value::bytes(value, KIB, REQUEST_BYTES_MAX)
}

fn time(value: &Value) -> Result<Duration, String> {
    value::milliseconds(value, 10, DAY_MS)
}

fn retention(value: &Value) -> Result<Duration, String> {
    const YEARS: u64 = 100 * 365;
    value::milliseconds(value, 0, YEARS * DAY_MS)
}

fn many(value: &Value) -> Result<u32, String> {
    Ok(value::number(value, 1, 100_000_000)? as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{defaults, load};
    use crate::protocols::tests::assert_refused;

    #[test]
    fn the_defaults_are_the_plugs() {
        let config = defaults();
        let wanted = KafkaConfig {
            message_bytes_max: config.message_bytes_max as u32,
            // The plug's own is Kafka's, 1.
            default_partitions: 4,
            ..KafkaConfig::default()
        };
        assert_eq!(settings(&config), Ok(wanted));
    }

    #[test]
    fn every_setting_reaches_the_plug() {
        let changed = |setting: &Setting| match setting.name {
            "advertised" => "example.org:9".to_string(),
            "auto_create_topics" => "false".to_string(),
            name if name.contains("bytes") => "1234567".to_string(),
            _ => "123".to_string(),
        };
        for setting in SETTINGS {
            let variable = format!("INVER_KAFKA_{}", setting.name.to_uppercase());
            let loaded = load(None, [(variable.clone(), changed(setting))]).unwrap();
            assert_ne!(settings(&loaded.config), settings(&defaults()), "{variable}");
        }
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        let values = [
            ("NODE_ID", "-1"),
            ("AUTO_CREATE_TOPICS", "maybe"),
            ("PRODUCE_BYTES_MAX", "4 GiB"),
            ("LOGIN_MAX_MS", "0"),
            ("GROUP_MEMBERS_MAX", "0"),
            ("ADVERTISED", "host"),
        ];
        assert_refused("kafka", &values);
    }
}
