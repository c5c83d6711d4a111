//! The brokers that are measured: Inver in several settings, its peers, and their configuration.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A broker in one setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BrokerKind {
    /// Inver with the durability of its peers: acknowledged from the page cache.
    InverOs,
    /// Inver by default: acknowledged when synced to disk.
    InverAlways,
    Kafka,
    Rabbitmq,
    Mosquitto,
    /// Mosquitto, a bridge process and Kafka: the alternative for MQTT to Kafka.
    Bridged,
    /// A process that only answers, to measure the load generators.
    #[value(skip)]
    Sink,
    /// Inver on every core, one runtime per core with pinned connections.
    InverPerCore,
    /// Inver on every core, one work-stealing runtime.
    InverMultiThread,
}

impl BrokerKind {
    pub(crate) fn is_inver(self) -> bool {
        matches!(self, Self::InverOs | Self::InverAlways | Self::InverPerCore | Self::InverMultiThread)
    }

    /// Environment variables of Inver.
    pub(crate) fn variables(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::InverOs => &[("INVER_LOG_COMMIT", "os"), ("INVER_CAPTURE_RULES", "[]")],
            Self::InverAlways => &[("INVER_LOG_COMMIT", "always")],
            Self::InverPerCore => &[("INVER_LOG_COMMIT", "os"), ("INVER_RUNTIME_KIND", "per-core")],
            Self::InverMultiThread => &[("INVER_LOG_COMMIT", "os"), ("INVER_RUNTIME_KIND", "multi-thread")],
            _ => &[],
        }
    }

    pub(crate) fn has_jit_compiler(self) -> bool {
        matches!(self, Self::Kafka | Self::Bridged)
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::InverOs => "Inver, commit=os",
            Self::InverAlways => "Inver, default",
            Self::Kafka => "Apache Kafka",
            Self::Rabbitmq => "RabbitMQ",
            Self::Mosquitto => "Mosquitto",
            Self::Bridged => "Mosquitto + bridge + Kafka",
            Self::Sink => "sink",
            Self::InverPerCore => "Inver, one runtime per core",
            Self::InverMultiThread => "Inver, multi-thread",
        }
    }

    /// Its settings, for the report.
    pub(crate) fn settings(self) -> &'static str {
        match self {
            Self::InverOs => {
                "log.commit = \"os\" (written to the page cache before it is acknowledged), capture.rules = [] (MQTT publishes are not stored for Kafka consumers)"
            }
            Self::InverAlways => {
                "defaults: log.commit = \"always\" (synced to the disk before it is acknowledged), MQTT publishes also stored in the topic `mqtt`"
            }
            Self::Kafka => {
                "one KRaft node, heap 1 GiB, G1 as in Kafka's own start script, replication 1, socket buffers left to the kernel, files of deleted topics removed at once, in K6 segment.index.bytes = 65536, otherwise defaults: nothing is synced before it is acknowledged"
            }
            Self::Rabbitmq => {
                "no plugins, classic queues, Erlang without busy waiting (+sbwt none), as its guide advises on few cores; nothing is synced before it is confirmed"
            }
            Self::Mosquitto => {
                "persistence off, max_queued_messages 0 and max_inflight_messages 0 so that it drops nothing; set_tcp_nodelay true where latency is measured, false (its default) elsewhere, which is cheaper for it"
            }
            Self::Bridged => {
                "Mosquitto and Kafka as above; between them a small bridge written for this bench (QoS 1 subscription, acknowledged after Kafka has: all messages of one read are one batch), all on one core"
            }
            Self::Sink => "reads, counts and answers",
            Self::InverPerCore => {
                "runtime.kind = \"per-core\" (the default), log.commit = \"os\", on every core"
            }
            Self::InverMultiThread => "runtime.kind = \"multi-thread\", log.commit = \"os\", on every core",
        }
    }
}

impl fmt::Display for BrokerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.title())
    }
}
