//! What kinds of work there are, and what each wants of who is asked and of how it is played.

use std::time::Duration;

/// Records of a batch where many partitions are written evenly.
pub(super) const EVEN_RECORDS: usize = 10;

/// What there are many of.
#[derive(Clone, Copy)]
pub(crate) enum Noun {
    /// Kafka topics of one partition.
    Topics,
    /// Durable AMQP queues.
    Queues,
    /// MQTT sessions with a QoS 1 subscription each, whose clients are away.
    Sessions,
}

/// What is done in a work, and how much of it.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    KafkaProduce {
        value: usize,
        producers: i32,
    },
    KafkaConsume {
        value: usize,
    },
    /// Reads what was written long ago while more is written.
    KafkaBacklog {
        value: usize,
        bytes: usize,
        per_s: u64,
    },
    /// All producers together write `per_s`.
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
    /// Publishers and subscribers of each topic.
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
    /// MQTT in, Kafka out.
    MqttToKafka {
        qos: u8,
        publishers: usize,
        inflight: usize,
    },
    AmqpToMqtt,
    /// Kafka in, AMQP consumers of one shared subscription out.
    KafkaToAmqp {
        consumers: usize,
    },
    /// A publish to one subscriber beside very many other subscriptions.
    MqttSubscriptions {
        subscriptions: usize,
    },
    MqttIdle {
        connections: usize,
    },
    Scale {
        noun: Noun,
        count: usize,
    },
    Start,
}

impl Kind {
    /// Messages before the window: who makes a partition's files when it is first written to has made them.
    pub(super) fn done_before(self) -> u64 {
        match self {
            Self::KafkaPartitions { partitions } => partitions as u64 * EVEN_RECORDS as u64,
            _ => 0,
        }
    }

    /// Whether messages go through the broker in a window.
    pub(crate) fn has_window(self) -> bool {
        !matches!(self, Self::Start | Self::MqttIdle { .. } | Self::Scale { .. })
    }

    pub(crate) fn is_latency(self) -> bool {
        matches!(self, Self::KafkaLatency { .. } | Self::AmqpLatency { .. } | Self::MqttLatency { .. })
    }

    /// Whether it is played only to who has just been started: a start is measured by starting, and memory by who has
    /// not used it before. Nobody goes on with what it leaves in them, so that all are started anew after it as well.
    pub(crate) fn wants_fresh(self) -> bool {
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
            _ => self.wants_fresh() && !self.is_start(),
        }
    }

    /// Whether those who compile while they run are started anew by it, or may not survive it: they are cold after it.
    pub(crate) fn leaves_cold(self) -> bool {
        self.is_start() || matches!(self, Self::KafkaPartitions { .. } if self.is_long())
    }

    pub(crate) fn is_start(self) -> bool {
        matches!(self, Self::Start)
    }

    /// A guess of how long a round takes each contestant, where that is not told by the window.
    pub(crate) fn usual_time(self) -> Option<Duration> {
        let seconds = match self {
            Self::KafkaBacklog { .. } => 14,
            Self::KafkaPartitions { partitions } if partitions > 1000 => 14,
            Self::MqttSubscriptions { .. } => 15,
            Self::MqttIdle { .. } | Self::Start => 4,
            Self::Scale { noun: Noun::Topics, .. } => 30,
            Self::Scale { noun: Noun::Queues, .. } => 10,
            Self::Scale { noun: Noun::Sessions, .. } => 200,
            _ => return None,
        };
        Some(Duration::from_secs(seconds))
    }
}

#[cfg(test)]
mod tests {
    use crate::works::WORKS;

    #[test]
    fn nobody_goes_on_with_what_a_work_of_size_left_in_it() {
        let fresh: Vec<&str> =
            WORKS.iter().filter(|work| work.kind.wants_fresh()).map(|work| work.id).collect();
        assert_eq!(fresh, ["M6", "M6s", "S2t", "S2q", "S2s", "S1", "S1r", "S1m"]);
    }
}
