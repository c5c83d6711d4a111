//! What can be set, and every bound with its default.

use std::time::Duration;

use crate::session::group::GroupLimits;

/// Settings of the plug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Where clients are told to connect to. `None`: the address that they reached the broker at.
    pub advertised: Option<(String, u16)>,
    /// Number of this node. Default 1.
    pub node_id: i32,
    /// Whether asking for a topic's metadata makes the topic, if the client wants that. Default true.
    pub auto_create_topics: bool,
    /// Partitions of a topic that is made without saying how many. Default 1.
    pub default_partitions: u32,
    /// Default of the topic setting `max.message.bytes`. Default 1,048,588, as in Kafka.
    pub message_bytes_max: u32,
    /// Groups.
    pub groups: GroupLimits,
    /// Everything else that is bounded.
    pub limits: Limits,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        KafkaConfig {
            advertised: None,
            node_id: 1,
            auto_create_topics: true,
            default_partitions: 1,
            message_bytes_max: 1_048_588,
            groups: GroupLimits::default(),
            limits: Limits::default(),
        }
    }
}

/// Bounds of what one client can make the broker hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a produce request. Default 100 MiB, as in Kafka.
    pub produce_bytes_max: usize,
    /// Bytes of any other request. Default 16 MiB.
    pub request_bytes_max: usize,
    /// Bytes of a request of a client that has not shown who it is. Default 64 KiB.
    pub unauthenticated_request_bytes_max: usize,
    /// Bytes of all requests above 1 MiB, of all connections together, that are on their way in: further ones wait
    /// until there is room. Default 512 MiB.
    pub large_requests_bytes_max: usize,
    /// A request that has begun to come in has to be whole within this time, however its bytes drip. What it
    /// waits for room among the large ones does not count. Default 2 minutes.
    pub request_time_max: Duration,
    /// Where clients have to log in: they have to have done so within this time of connecting, whatever else they
    /// send. Default 10 s.
    pub login_max: Duration,
    /// Bytes of records in all fetch responses together that are not sent yet: further fetches wait. Twice as much
    /// may be held, since what is read from the disk is counted apart. Default 256 MiB.
    pub fetched_bytes_max: usize,
    /// Bytes of records that are read from the disk before they are asked for, for clients that read on, of all
    /// connections together; 0: none. Default 32 MiB.
    pub read_ahead_bytes_max: usize,
    /// Requests of a connection that were taken and not answered. Default 512.
    pub pipeline_requests_max: usize,
    /// Bytes that wait to be written to a connection before no more of it is read. Default 1 MiB.
    pub output_bytes_max: usize,
    /// Bytes of records in one fetch response, whatever the client asks for. Default 16 MiB.
    pub fetch_bytes_max: usize,
    /// Longest time that a fetch waits. Default 5 minutes.
    pub fetch_wait_max: Duration,
    /// Partitions of a fetch session. Default 100,000.
    pub fetch_partitions_max: usize,
    /// Reads from the disk that one fetch has under way at a time. Default 4.
    pub cold_reads_max: usize,
    /// Groups that have members. Default 100,000.
    pub groups_max: usize,
    /// Bytes of the metadata of a committed offset. Default 4,096, as in Kafka.
    pub offset_metadata_bytes_max: usize,
    /// A connection without a request for so long is closed. Default 10 minutes, as in Kafka.
    pub idle_max: Duration,
    /// Partitions that one request may make. Default 10,000, as in Kafka.
    pub new_partitions_max: u32,
    /// Partitions described in one page. Default 2,000, as in Kafka.
    pub describe_page_partitions_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            produce_bytes_max: 100 << 20,
            request_bytes_max: 16 << 20,
            unauthenticated_request_bytes_max: 64 << 10,
            large_requests_bytes_max: 512 << 20,
            request_time_max: Duration::from_secs(120),
            login_max: Duration::from_secs(10),
            fetched_bytes_max: 256 << 20,
            read_ahead_bytes_max: 32 << 20,
            pipeline_requests_max: 512,
            output_bytes_max: 1 << 20,
            fetch_bytes_max: 16 << 20,
            fetch_wait_max: Duration::from_secs(300),
            fetch_partitions_max: 100_000,
            cold_reads_max: 4,
            groups_max: 100_000,
            offset_metadata_bytes_max: 4096,
            idle_max: Duration::from_secs(600),
            new_partitions_max: 10_000,
            describe_page_partitions_max: 2000,
        }
    }
}
