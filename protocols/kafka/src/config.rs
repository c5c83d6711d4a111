//! The `kafka` section of the configuration: settings and bounds, each declared once.

use std::time::Duration;

use inver_driver::Timeouts;
use inver_settings::Setting;
use inver_settings::rules::{DAY_MS, GIB, KIB, TIB, bytes, count, flag, milliseconds, nested, no_key, value};
use inver_settings::serde::Deserializer;
use inver_settings::serde::de::{Deserialize as _, Error, Unexpected};

/// Longest request that the protocol's length field can express.
const REQUEST_BYTES_MAX: u64 = i32::MAX as u64;

inver_settings::section! {
    /// Settings of the protocol.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct KafkaConfig {
        /// Address that clients of `kafka.listen` are told to connect to. Empty: the address at which they reached the
        /// broker.
        pub advertised: Option<(String, u16)> = None => value("`host:port`, or empty"),
        /// Address that clients of `kafka.tls_listen` are told to connect to. Empty: the host of `kafka.advertised` and the
        /// port of `kafka.tls_listen`; without both, the address at which they reached the broker.
        pub tls_advertised: Option<(String, u16)> = None => value("`host:port`, or empty"),
        /// Number of this node in metadata responses.
        pub node_id: i32 = 1 => count(0..=i32::MAX as u64),
        /// Whether a metadata request for a missing topic creates it, if the client asks for that.
        pub auto_create_topics: bool = true => flag(),
        /// Partitions of a topic that is created without a number of partitions. 1 as in Kafka.
        pub default_partitions: u32 = 1 => count(1..=10_000),
        /// Replication factors above 1, as the settings of clients of a larger cluster ask for; there is one replica whatever
        /// they are. `accept`: accepted, and shown as 1. `show`: accepted, and shown as asked, for tools that compare: all
        /// replicas are this node. `refuse`: refused, as by a Kafka of one node.
        pub replication_factor: ReplicationFactor = ReplicationFactor::Accept => value(ReplicationFactor::VALUES),
        /// Default of the topic setting `max.message.bytes`: bytes of a record batch. Kafka's `message.max.bytes` has the same
        /// default. `limits.message_bytes_max` is above it, and above what topics set.
        pub message_bytes_max: u32 = 1_048_588 => bytes(KIB..=GIB),
        /// The server's limit of messages.
        pub message_bytes_bound: u32 = 16 << 20 => no_key(),
        /// Bounds of requests, responses and connections.
        pub limits: Limits = Limits::default() => nested(""),
        /// Bounds and delays of groups.
        pub groups: GroupLimits = GroupLimits::default() => nested("group_"),
        /// Bounds of transactions.
        pub transactions: TransactionLimits = TransactionLimits::default() => nested("transaction_"),
    }
}

/// What becomes of replication factors above 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicationFactor {
    /// Accepted, and shown as 1.
    Accept,
    /// Accepted, and shown as asked.
    Show,
    /// Refused.
    Refuse,
}

impl ReplicationFactor {
    const VALUES: &str = "`accept`, `show` or `refuse`";
}

impl Setting for ReplicationFactor {
    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let text = String::deserialize(value)?;
        match text.as_str() {
            "accept" => Ok(ReplicationFactor::Accept),
            "show" => Ok(ReplicationFactor::Show),
            "refuse" => Ok(ReplicationFactor::Refuse),
            other => Err(D::Error::invalid_value(Unexpected::Str(other), &ReplicationFactor::VALUES)),
        }
    }

    fn show(&self) -> String {
        let text = match self {
            ReplicationFactor::Accept => "accept",
            ReplicationFactor::Show => "show",
            ReplicationFactor::Refuse => "refuse",
        };
        text.to_owned()
    }
}

impl KafkaConfig {
    /// Default of the topic setting `max.message.bytes`, within the server's limit.
    pub(crate) fn default_message_bytes_max(&self) -> u32 {
        self.message_bytes_max.min(self.message_bytes_bound)
    }
}

inver_settings::section! {
    /// Bounds of what one client can make the broker hold.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Limits {
        /// Size of the largest produce request. Kafka's `socket.request.max.bytes` has the same default.
        pub produce_bytes_max: usize = 100 << 20 => bytes(KIB..=REQUEST_BYTES_MAX),
        /// Bytes that the records of one produce request decompress to. A client that exceeds it is told that its batches are too
        /// large, and sends smaller ones.
        pub inflated_bytes_max: usize = 512 << 20 => bytes(KIB..=TIB),
        /// Size of the largest request of any other kind.
        pub request_bytes_max: usize = 16 << 20 => bytes(KIB..=REQUEST_BYTES_MAX),
        /// Size of the largest request of a client that has not authenticated yet.
        pub unauthenticated_request_bytes_max: usize = 64 << 10 => bytes(KIB..=REQUEST_BYTES_MAX),
        /// Memory for incoming requests above 1 MiB, over all connections; further ones wait.
        pub large_requests_bytes_max: usize = 512 << 20 => bytes(KIB..=TIB),
        /// Time from the first byte of a request to its last. Time spent waiting for `large_requests_bytes_max` is not
        /// counted.
        pub request_time_max: Duration = Duration::from_secs(120) => milliseconds(10..=DAY_MS),
        /// Bounds of time of a connection: the server's, for all protocols.
        pub timeouts: Timeouts = Timeouts::default() => no_key(),
        /// A connection without a request for this long is closed. Kafka's default.
        pub idle_max: Duration = Duration::from_secs(600) => milliseconds(10..=DAY_MS),
        /// Memory for records in fetch responses that are not sent yet, over all connections, and as much again for
        /// records read from disk; further fetches wait.
        pub fetched_bytes_max: usize = 256 << 20 => bytes(KIB..=TIB),
        /// Memory for records read from disk ahead of requests, for clients that read sequentially, over all
        /// connections. 0: no read-ahead.
        pub read_ahead_bytes_max: usize = 32 << 20 => bytes(0..=TIB),
        /// Bytes of records in one fetch response, whatever the client requests.
        pub fetch_bytes_max: usize = 16 << 20 => bytes(KIB..=GIB),
        /// Longest time that a fetch waits for records.
        pub fetch_wait_max: Duration = Duration::from_secs(300) => milliseconds(10..=DAY_MS),
        /// Partitions of a fetch request or a fetch session.
        pub fetch_partitions_max: usize = 100_000 => count(1..=100_000_000),
        /// Concurrent disk reads of one fetch.
        pub cold_reads_max: usize = 4 => count(1..=1024),
        /// Requests of a connection that are accepted and not answered yet.
        pub pipeline_requests_max: usize = 512 => count(1..=1_000_000),
        /// Bytes of a connection's fetches that wait for another fetch of it, above which the connection is not read.
        pub waiting_bytes_max: usize = 4 << 20 => bytes(KIB..=GIB),
        /// Bytes waiting to be written to a connection, above which the connection is not read.
        pub output_bytes_max: usize = 1 << 20 => bytes(KIB..=GIB),
        /// Partitions that one request may create. Kafka's default.
        pub new_partitions_max: u32 = 10_000 => count(1..=100_000_000),
        /// Partitions in one page of DescribeTopicPartitions. Kafka's default.
        pub describe_page_partitions_max: usize = 2000 => count(1..=100_000_000),
        /// Groups that have members.
        pub groups_max: usize = 100_000 => count(1..=100_000_000),
        /// Share sessions of all connections. Kafka's default (`group.share.max.share.sessions`).
        pub share_sessions_max: usize = 2000 => count(1..=1_000_000),
        /// Bytes of records in one response to a share fetch, but for the first record, whatever the client requests. They
        /// are encoded for it, in the connection's turn.
        pub share_fetch_bytes_max: usize = 1 << 20 => bytes(KIB..=GIB),
        /// Bytes of metadata beside a committed offset. Kafka's default.
        pub offset_metadata_bytes_max: usize = 4096 => bytes(0..=GIB),
    }
}

inver_settings::section! {
    /// Bounds and delays of groups. The defaults are Kafka's, except for the initial delay (3 s there), the number of
    /// members and the bytes (no bound there).
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct GroupLimits {
        /// Members of a group, including those that were given a member id and have not rejoined with it.
        pub members_max: usize = 10_000 => count(1..=100_000_000),
        /// Bytes of metadata and assignments that all members of a group keep in the coordinator.
        pub bytes_max: usize = 64 << 20 => bytes(KIB..=TIB),
        /// Protocols (assignors) that a member of a group may offer.
        pub protocols_max: usize = 100 => count(1..=10_000),
        /// Shortest session timeout that a member may request.
        pub session_timeout_min: Duration = Duration::from_secs(6) => milliseconds(10..=DAY_MS),
        /// Longest session timeout that a member may request.
        pub session_timeout_max: Duration = Duration::from_secs(30 * 60) => milliseconds(10..=DAY_MS),
        /// Time that an empty group waits for further members after the first one joined, so that members that start
        /// together are not rebalanced one by one.
        pub initial_delay: Duration = Duration::from_millis(100) => milliseconds(0..=DAY_MS),
        /// Time after which a new member that is still waiting for its first rebalance is removed.
        pub new_member_timeout_max: Duration = Duration::from_secs(5 * 60) => milliseconds(10..=DAY_MS),
        /// Time between heartbeats that members of a consumer group are told, where the broker makes the assignment
        /// (`group.consumer.heartbeat.interval.ms`).
        pub consumer_heartbeat_interval: Duration = Duration::from_secs(5) => milliseconds(10..=DAY_MS),
        /// Time without a heartbeat after which such a member is removed (`group.consumer.session.timeout.ms`).
        pub consumer_session_timeout: Duration = Duration::from_secs(45) => milliseconds(10..=DAY_MS),
        /// Time between heartbeats that members of a share group are told (`group.share.heartbeat.interval.ms`).
        pub share_heartbeat_interval: Duration = Duration::from_secs(5) => milliseconds(10..=DAY_MS),
        /// Time without a heartbeat after which such a member is removed (`group.share.session.timeout.ms`).
        pub share_session_timeout: Duration = Duration::from_secs(45) => milliseconds(10..=DAY_MS),
        /// Time after which a record that a member of a share group acquired and did not acknowledge is given to others
        /// (`group.share.record.lock.duration.ms`).
        pub share_record_lock_duration: Duration = Duration::from_secs(30) => milliseconds(10..=DAY_MS),
        /// How often a record is delivered to a share group before it is given up (`group.share.delivery.count.limit`).
        pub share_deliveries_max: u32 = 5 => count(1..=1000),
        /// Records of a partition that the members of a share group hold at a time
        /// (`group.share.partition.max.record.locks`).
        pub share_record_locks_max: u32 = 2000 => count(1..=1_000_000),
        /// Time that committed offsets are kept after the last member left the group, or, in a group that never had
        /// members, after they were committed. 0: forever.
        pub offsets_retention: Duration = Duration::from_secs(7 * 24 * 60 * 60) => milliseconds(0..=36_500 * DAY_MS),
    }
}

inver_settings::section! {
    /// Bounds of transactions. The defaults are Kafka's.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct TransactionLimits {
        /// Longest time after which a producer may ask for its open transaction to be aborted (`transaction.max.timeout.ms`).
        pub timeout_max: Duration = Duration::from_secs(15 * 60) => milliseconds(1..=DAY_MS),
        /// Time after its last use that a transactional id without an open transaction is kept
        /// (`transactional.id.expiration.ms`).
        pub id_expiration: Duration = Duration::from_secs(7 * 24 * 60 * 60) => milliseconds(1..=36_500 * DAY_MS),
    }
}
