//! Kinds of workloads, and what each requires of the broker and of the run.

use std::time::Duration;

/// Records in a batch for many partitions.
pub(super) const EVEN_RECORDS: usize = 10;

/// Objects created in large numbers.
#[derive(Clone, Copy)]
pub(crate) enum Object {
    /// Kafka topics of one partition.
    Topics,
    /// Durable AMQP queues.
    Queues,
    /// MQTT sessions of disconnected clients, with a QoS 1 subscription each.
    Sessions,
}

/// The kind of a workload, with its parameters.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    KafkaProduce {
        value: usize,
        producers: i32,
    },
    KafkaConsume {
        value: usize,
    },
    /// Consumes a backlog while more is produced.
    KafkaBacklog {
        value: usize,
        bytes: usize,
        per_s: u64,
    },
    /// `per_s` is the rate of all producers together.
    KafkaLatency {
        per_s: u64,
        producers: i32,
    },
    KafkaPartitions {
        partitions: i32,
    },
    AmqpStream {
        body: usize,
        persistent: bool,
        queues: usize,
        window: u64,
        unconfirmed: u64,
        prefetch: u16,
    },
    AmqpFanOut {
        queues: usize,
    },
    AmqpTopic {
        bindings: usize,
    },
    AmqpLatency {
        persistent: bool,
        per_s: u64,
    },
    /// Publishers and subscribers are per topic.
    MqttStream {
        qos: u8,
        topics: usize,
        publishers: usize,
        subscribers: usize,
        window: u64,
        inflight: usize,
    },
    MqttLatency {
        qos: u8,
        per_s: u64,
    },
    /// From MQTT to Kafka.
    MqttToKafka {
        qos: u8,
        publishers: usize,
        inflight: usize,
    },
    AmqpToMqtt,
    /// From Kafka to AMQP consumers of one shared subscription.
    KafkaToAmqp {
        consumers: usize,
    },
    /// Publishes to one subscriber while very many other subscriptions exist.
    MqttSubscriptions {
        subscriptions: usize,
    },
    MqttIdle {
        connections: usize,
    },
    Scale {
        object: Object,
        count: usize,
    },
    Start,
}

impl Kind {
    /// Messages before the window: brokers that create a partition's files on its first write have done so by then.
    pub(super) fn messages_before(self) -> u64 {
        match self {
            Self::KafkaPartitions { partitions } => partitions as u64 * EVEN_RECORDS as u64,
            _ => 0,
        }
    }

    /// Whether messages are measured in a window.
    pub(crate) fn has_window(self) -> bool {
        !matches!(self, Self::Start | Self::MqttIdle { .. } | Self::Scale { .. })
    }

    pub(crate) fn is_latency(self) -> bool {
        matches!(self, Self::KafkaLatency { .. } | Self::AmqpLatency { .. } | Self::MqttLatency { .. })
    }

    /// Whether it needs newly started brokers: it measures their start, or memory that must not be in use before. All brokers
    /// are restarted after it, because of the state that it leaves behind.
    pub(crate) fn needs_fresh_broker(self) -> bool {
        matches!(
            self,
            Self::Start | Self::MqttIdle { .. } | Self::MqttSubscriptions { .. } | Self::Scale { .. }
        )
    }

    /// Whether a round takes much longer than its window.
    pub(crate) fn is_long(self) -> bool {
        match self {
            Self::KafkaPartitions { partitions } => partitions > 1000,
            Self::KafkaBacklog { .. } => true,
            _ => self.needs_fresh_broker() && !self.is_start(),
        }
    }

    /// Whether brokers with a JIT compiler are cold after it, because it restarts them or they may not survive it.
    pub(crate) fn leaves_brokers_cold(self) -> bool {
        self.is_start() || matches!(self, Self::KafkaPartitions { .. } if self.is_long())
    }

    pub(crate) fn is_start(self) -> bool {
        matches!(self, Self::Start)
    }

    /// Estimated duration of a round on one broker, where the window does not determine it.
    pub(crate) fn estimated_time(self) -> Option<Duration> {
        let seconds = match self {
            Self::KafkaBacklog { .. } => 14,
            Self::KafkaPartitions { partitions } if partitions > 1000 => 14,
            Self::MqttSubscriptions { .. } => 15,
            Self::MqttIdle { .. } | Self::Start => 4,
            Self::Scale { object: Object::Topics, .. } => 30,
            Self::Scale { object: Object::Queues, .. } => 10,
            Self::Scale { object: Object::Sessions, .. } => 200,
            _ => return None,
        };
        Some(Duration::from_secs(seconds))
    }
}

#[cfg(test)]
mod tests {
    use crate::workloads::WORKLOADS;

    #[test]
    fn workloads_of_size_and_start_need_fresh_brokers() {
        let fresh: Vec<&str> = WORKLOADS
            .iter()
            .filter(|workload| workload.kind.needs_fresh_broker())
            .map(|workload| workload.id)
            .collect();
        assert_eq!(fresh, ["M6", "M6s", "S2t", "S2q", "S2s", "S1", "S1r", "S1m"]);
    }
}
