//! Kafka's settings: the keys of [`KafkaConfig`] and the protocol made from them.

use std::sync::Arc;
use std::time::Duration;

use inver_broker::ProtocolPlugin;
use inver_kafka::{GroupLimits, Kafka, KafkaConfig, Limits};

use super::{PARTITIONS_MAX, Setting, default_partitions, setting};
use crate::config::Config;
use crate::config::value::{self, Value};

const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const DAY_MS: u64 = 86_400_000;

/// Longest request that Kafka's 32-bit length field can express.
const REQUEST_BYTES_MAX: u64 = i32::MAX as u64;

/// The keys below `kafka`.
#[rustfmt::skip]
pub(super) const SETTINGS: &[Setting] = &[
    setting("advertised", "",
        "`host:port` advertised to clients; empty: the address that the client connected to.",
        |v| value::host_port(v).map(drop)),
    setting("node_id", "1", "Id of this node, as clients see it.", |v| node_id(v).map(drop)),
    setting("auto_create_topics", "true", "Whether a metadata request creates a missing topic when the client allows it.",
        |v| value::truth(v).map(drop)),
    setting("default_partitions", "4", "Partitions of a topic created without a partition count.",
        |v| value::number(v, 1, PARTITIONS_MAX).map(drop)),
    setting("produce_bytes_max", "100 MiB", "Largest produce request accepted.",
        |v| request_bytes(v).map(drop)),
    setting("request_bytes_max", "16 MiB", "Largest request of any other kind accepted.",
        |v| request_bytes(v).map(drop)),
    setting("unauthenticated_request_bytes_max", "64 KiB", "Largest request accepted from a client that has not authenticated.",
        |v| request_bytes(v).map(drop)),
    setting("large_requests_bytes_max", "512 MiB",
        "Memory for requests above 1 MiB being received, across all connections; further ones wait.",
        |v| value::bytes(v, KIB, TIB).map(drop)),
    setting("request_time_max_ms", "120000", "Longest time from the first byte of a request to its last.",
        |v| time(v).map(drop)),
    setting("login_max_ms", "10000", "Longest time a client may take to authenticate, where users are configured.",
        |v| time(v).map(drop)),
    setting("idle_max_ms", "600000", "Idle time after which a connection is closed.", |v| time(v).map(drop)),
    setting("fetched_bytes_max", "256 MiB",
        "Memory for records in unsent fetch responses, across all connections, and as much again for reads from disk; further fetches wait.",
        |v| value::bytes(v, KIB, TIB).map(drop)),
    setting("read_ahead_bytes_max", "32 MiB",
        "Memory for records read ahead from disk for sequential readers, across all connections. `0`: no read-ahead.",
        |v| value::bytes(v, 0, TIB).map(drop)),
    setting("fetch_bytes_max", "16 MiB", "Records in one fetch response at most, whatever the client asks for.",
        |v| value::bytes(v, KIB, GIB).map(drop)),
    setting("fetch_wait_ms_max", "300000", "Longest time a fetch waits for records.", |v| time(v).map(drop)),
    setting("fetch_partitions_max", "100000", "Partitions in one fetch or fetch session.", |v| many(v).map(drop)),
    setting("cold_reads_max", "4", "Concurrent disk reads of one fetch.",
        |v| value::count(v, 1, 1024).map(drop)),
    setting("pipeline_requests_max", "512", "Unanswered requests of one connection.",
        |v| value::count(v, 1, 1_000_000).map(drop)),
    setting("output_bytes_max", "1 MiB", "Unsent output of a connection at which reading from it pauses.",
        |v| value::bytes(v, KIB, GIB).map(drop)),
    setting("new_partitions_max", "10000", "Partitions that one request may create.", |v| many(v).map(drop)),
    setting("describe_page_partitions_max", "2000", "Partitions in one page of DescribeTopicPartitions.",
        |v| many(v).map(drop)),
    setting("groups_max", "100000", "Consumer groups with members.", |v| many(v).map(drop)),
    setting("group_members_max", "10000", "Members of one group.", |v| many(v).map(drop)),
    setting("group_bytes_max", "64 MiB", "Metadata and assignments kept for the members of one group.",
        |v| value::bytes(v, KIB, TIB).map(drop)),
    setting("group_protocols_max", "100", "Protocols (assignors) that one member may offer.",
        |v| value::count(v, 1, 10_000).map(drop)),
    setting("group_session_timeout_min_ms", "6000", "Shortest session timeout that a member may request.",
        |v| time(v).map(drop)),
    setting("group_session_timeout_max_ms", "1800000", "Longest session timeout that a member may request.",
        |v| time(v).map(drop)),
    setting("group_initial_delay_ms", "100", "How long an empty group waits for more members after the first joins.",
        |v| value::milliseconds(v, 0, DAY_MS).map(drop)),
    setting("group_new_member_timeout_max_ms", "300000", "Longest time a new member waits to be admitted before it is removed.",
        |v| time(v).map(drop)),
    setting("offsets_retention_ms", "604800000",
        "How long committed offsets are kept after the last member of their group left; 0: forever.",
        |v| retention(v).map(drop)),
    setting("offset_metadata_bytes_max", "4096", "Metadata that a client may store with a committed offset.",
        |v| value::bytes(v, 0, GIB).map(drop)),
];

/// Builds the protocol from the configuration.
pub(super) fn make(config: &Config) -> Result<Arc<dyn ProtocolPlugin>, String> {
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
            unauthenticated_request_bytes_max: size("unauthenticated_request_bytes_max")?,
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
            describe_page_partitions_max: count("describe_page_partitions_max")?,
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
    fn the_defaults_match_the_protocols_own() {
        let config = defaults();
        let wanted = KafkaConfig {
            message_bytes_max: config.message_bytes_max as u32,
            // The crate's own default is Kafka's, 1.
            default_partitions: 4,
            ..KafkaConfig::default()
        };
        assert_eq!(settings(&config), Ok(wanted));
    }

    #[test]
    fn every_setting_reaches_the_protocol() {
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
