//! The works: what is asked of a broker, each with the figure that is wanted of it.

mod amqp;
mod cross;
mod kafka;
mod mqtt;
mod scale;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::broker::{Broker, Contestant};
use crate::load::drive::{Outcome, Plan, drive};
use crate::load::{Actor, Link, Stage};

pub(crate) use scale::Noun;

/// Figures by name; see [`crate::report::FIGURES`].
pub(crate) type Figures = BTreeMap<String, f64>;

/// Which peers a work is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Field {
    Kafka,
    Amqp,
    Mqtt,
    /// From one protocol to another, where there is another way.
    Cross,
    /// From one protocol to another, where there is none.
    Own,
    /// Very many of something.
    Scale,
    /// Inver's two ways to use the cores, against each other.
    Runtime,
}

impl Field {
    pub(crate) const ALL: [Self; 7] =
        [Self::Kafka, Self::Amqp, Self::Mqtt, Self::Cross, Self::Own, Self::Scale, Self::Runtime];

    /// The peer comes last.
    pub(crate) fn contestants(self) -> &'static [Contestant] {
        match self {
            Self::Kafka => &[Os, Always, Contestant::Kafka],
            Self::Amqp => &[Os, Always, Contestant::Rabbitmq],
            Self::Mqtt => &[Os, Always, Contestant::Mosquitto],
            Self::Cross => &[Always, Contestant::Bridged],
            Self::Own => &[Os, Always],
            Self::Scale => &[Always],
            Self::Runtime => &[Contestant::InverPerCore, Contestant::InverMultiThread],
        }
    }
}

/// What is wanted of Inver, against the peer of the same run.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) figure: &'static str,
    /// Peer ÷ Inver at least.
    pub(crate) ratio: f64,
    pub(crate) of: Contestant,
}

pub(crate) struct Work {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) field: Field,
    /// What a message is in its counts.
    pub(crate) unit: &'static str,
    pub(crate) wanted: Option<Wanted>,
    pub(crate) kind: Kind,
}

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
    /// Messages before the window: Kafka makes a partition's files when it is first written to.
    fn done_before(self) -> u64 {
        match self {
            Self::KafkaPartitions { partitions } => partitions as u64 * kafka::EVEN_RECORDS as u64,
            _ => 0,
        }
    }

    pub(crate) fn is_latency(self) -> bool {
        matches!(self, Self::KafkaLatency { .. } | Self::AmqpLatency { .. } | Self::MqttLatency { .. })
    }
}

const CPU: &str = "cpu_s_per_million";
const P99: &str = "p99_us";
const fn wanted(figure: &'static str, ratio: f64, of: Contestant) -> Option<Wanted> {
    Some(Wanted { figure, ratio, of })
}
use Contestant::{InverAlways as Always, InverOs as Os};

/// All works, in the order of the report.
#[rustfmt::skip]
pub(crate) const WORKS: &[Work] = &[
    Work { id: "K1", title: "Produce, acks=all, 100 B records in 16 KB batches, 1 producer", field: Field::Kafka, unit: "record", wanted: wanted(CPU, 4.0, Always), kind: Kind::KafkaProduce { value: 100, producers: 1 } },
    Work { id: "K1x4", title: "The same, 4 producers, a partition each", field: Field::Kafka, unit: "record", wanted: wanted(CPU, 4.0, Always), kind: Kind::KafkaProduce { value: 100, producers: 4 } },
    Work { id: "K2", title: "Produce, acks=all, 1 KB records in 16 KB batches, 1 producer", field: Field::Kafka, unit: "record", wanted: wanted(CPU, 3.0, Always), kind: Kind::KafkaProduce { value: 1000, producers: 1 } },
    Work { id: "K2x4", title: "The same, 4 producers, a partition each", field: Field::Kafka, unit: "record", wanted: wanted(CPU, 3.0, Always), kind: Kind::KafkaProduce { value: 1000, producers: 4 } },
    Work { id: "K3", title: "Consume what was just written (32 MB), 100 B records", field: Field::Kafka, unit: "record", wanted: wanted(CPU, 2.0, Always), kind: Kind::KafkaConsume { value: 100 } },
    Work { id: "K3-1K", title: "Consume what was just written (32 MB), 1 KB records", field: Field::Kafka, unit: "record", wanted: wanted(CPU, 2.0, Always), kind: Kind::KafkaConsume { value: 1000 } },
    Work { id: "K4", title: "Consume 2 GB of backlog, 1 KB records, while 10,000 records/s are produced", field: Field::Kafka, unit: "record", wanted: None, kind: Kind::KafkaBacklog { value: 1000, bytes: 2_000_000_000, per_s: 10_000 } },
    Work { id: "K5", title: "End to end at 10,000 records/s of 100 B, linger 0", field: Field::Kafka, unit: "record", wanted: wanted(P99, 5.0, Always), kind: Kind::KafkaLatency { per_s: 10_000, producers: 1 } },
    Work { id: "K6", title: "Produce evenly over 1,000 partitions, 100 B records, 10 a batch, 64 batches a request", field: Field::Kafka, unit: "record", wanted: wanted(CPU, 10.0, Always), kind: Kind::KafkaPartitions { partitions: 1000 } },
    Work { id: "K6-20k", title: "The same over 20,000 partitions", field: Field::Kafka, unit: "record", wanted: None, kind: Kind::KafkaPartitions { partitions: 20_000 } },

    Work { id: "A1", title: "16 B transient, one publisher, one consumer, automatic ack", field: Field::Amqp, unit: "message", wanted: wanted(CPU, 15.0, Os), kind: Kind::AmqpStream { body: 16, persistent: false, queues: 1, window: 10_000, unconfirmed: 0, prefetch: 0 } },
    Work { id: "A2", title: "1 KB persistent, confirms, manual ack, prefetch 100, 1 queue", field: Field::Amqp, unit: "message", wanted: wanted(CPU, 10.0, Always), kind: Kind::AmqpStream { body: 1024, persistent: true, queues: 1, window: 10_000, unconfirmed: 100, prefetch: 100 } },
    Work { id: "A2x50", title: "The same over 50 queues, a publisher and a consumer each", field: Field::Amqp, unit: "message", wanted: wanted(CPU, 10.0, Always), kind: Kind::AmqpStream { body: 1024, persistent: true, queues: 50, window: 10_000, unconfirmed: 100, prefetch: 100 } },
    Work { id: "A3", title: "Fan-out of 16 B to 10 queues, automatic ack", field: Field::Amqp, unit: "delivery", wanted: wanted(CPU, 15.0, Os), kind: Kind::AmqpFanOut { queues: 10 } },
    Work { id: "A3t", title: "Topic exchange with 10,000 bindings, 16 B, 1 queue", field: Field::Amqp, unit: "message", wanted: wanted(CPU, 15.0, Os), kind: Kind::AmqpTopic { bindings: 10_000 } },
    Work { id: "A4", title: "End to end at 10,000 messages/s, 100 B transient", field: Field::Amqp, unit: "message", wanted: wanted(P99, 3.0, Os), kind: Kind::AmqpLatency { persistent: false, per_s: 10_000 } },
    Work { id: "A4p", title: "End to end at 10,000 messages/s, 100 B persistent with confirms", field: Field::Amqp, unit: "message", wanted: wanted(P99, 3.0, Always), kind: Kind::AmqpLatency { persistent: true, per_s: 10_000 } },

    Work { id: "M1", title: "QoS 0, one to one, 64 B", field: Field::Mqtt, unit: "delivery", wanted: wanted(CPU, 5.0, Os), kind: Kind::MqttStream { qos: 0, topics: 1, publishers: 1, subscribers: 1, window: 10_000, inflight: 0 } },
    Work { id: "M2", title: "QoS 1, one to one, 64 B", field: Field::Mqtt, unit: "delivery", wanted: wanted(CPU, 3.0, Always), kind: Kind::MqttStream { qos: 1, topics: 1, publishers: 1, subscribers: 1, window: 10_000, inflight: 100 } },
    Work { id: "M3", title: "QoS 2, one to one, 64 B", field: Field::Mqtt, unit: "delivery", wanted: wanted(CPU, 3.0, Always), kind: Kind::MqttStream { qos: 2, topics: 1, publishers: 1, subscribers: 1, window: 10_000, inflight: 100 } },
    Work { id: "M4", title: "QoS 0, fan-out 1 to 100, 64 B", field: Field::Mqtt, unit: "delivery", wanted: wanted(CPU, 5.0, Os), kind: Kind::MqttStream { qos: 0, topics: 1, publishers: 1, subscribers: 100, window: 20_000, inflight: 0 } },
    Work { id: "M5", title: "QoS 0, fan-in 100 to 1, 64 B", field: Field::Mqtt, unit: "delivery", wanted: wanted(CPU, 5.0, Os), kind: Kind::MqttStream { qos: 0, topics: 1, publishers: 100, subscribers: 1, window: 10_000, inflight: 0 } },
    Work { id: "M6", title: "10,000 idle connections, memory each", field: Field::Mqtt, unit: "connection", wanted: None, kind: Kind::MqttIdle { connections: 10_000 } },
    Work { id: "M6s", title: "QoS 0, one to one, 64 B, beside 1,000,000 other subscriptions", field: Field::Mqtt, unit: "delivery", wanted: None, kind: Kind::MqttSubscriptions { subscriptions: 1_000_000 } },
    Work { id: "M7", title: "End to end at 10,000 messages/s, 64 B, QoS 0", field: Field::Mqtt, unit: "message", wanted: None, kind: Kind::MqttLatency { qos: 0, per_s: 10_000 } },
    Work { id: "M7q1", title: "End to end at 10,000 messages/s, 64 B, QoS 1", field: Field::Mqtt, unit: "message", wanted: None, kind: Kind::MqttLatency { qos: 1, per_s: 10_000 } },

    Work { id: "X1", title: "MQTT QoS 1 in, 64 B, a Kafka consumer out", field: Field::Cross, unit: "message", wanted: wanted(CPU, 5.0, Always), kind: Kind::MqttToKafka { qos: 1, publishers: 1, inflight: 100 } },

    Work { id: "X2a", title: "AMQP publish to amq.topic in, 64 B transient, an MQTT subscriber out, QoS 0", field: Field::Own, unit: "message", wanted: None, kind: Kind::AmqpToMqtt },
    Work { id: "X2k", title: "Kafka produce in, 64 B, 100 a batch, 4 AMQP consumers of a shared subscription out, manual ack", field: Field::Own, unit: "message", wanted: None, kind: Kind::KafkaToAmqp { consumers: 4 } },

    Work { id: "S2t", title: "1,000,000 Kafka topics", field: Field::Scale, unit: "topic", wanted: None, kind: Kind::Scale { noun: Noun::Topics, count: 1_000_000 } },
    Work { id: "S2q", title: "100,000 durable AMQP queues", field: Field::Scale, unit: "queue", wanted: None, kind: Kind::Scale { noun: Noun::Queues, count: 100_000 } },
    Work { id: "S2s", title: "1,000,000 MQTT sessions whose clients are away, a QoS 1 subscription each", field: Field::Scale, unit: "session", wanted: None, kind: Kind::Scale { noun: Noun::Sessions, count: 1_000_000 } },

    Work { id: "S1", title: "Start, and memory when idle (Kafka)", field: Field::Kafka, unit: "start", wanted: None, kind: Kind::Start },
    Work { id: "S1r", title: "Start, and memory when idle (RabbitMQ)", field: Field::Amqp, unit: "start", wanted: None, kind: Kind::Start },
    Work { id: "S1m", title: "Start, and memory when idle (Mosquitto)", field: Field::Mqtt, unit: "start", wanted: None, kind: Kind::Start },

    Work { id: "R-K1-1", title: "K1 with 1 producers", field: Field::Runtime, unit: "record", wanted: None, kind: Kind::KafkaProduce { value: 100, producers: 1 } },
    Work { id: "R-A1-1", title: "A1 with 1 queues, a publisher and a consumer each", field: Field::Runtime, unit: "message", wanted: None, kind: Kind::AmqpStream { body: 16, persistent: false, queues: 1, window: 10_000, unconfirmed: 0, prefetch: 0 } },
    Work { id: "R-M1-1", title: "M1 with 1 topics, a publisher and a subscriber each", field: Field::Runtime, unit: "delivery", wanted: None, kind: Kind::MqttStream { qos: 0, topics: 1, publishers: 1, subscribers: 1, window: 10_000, inflight: 0 } },
    Work { id: "R-M4-1", title: "M4 with 1 subscribers", field: Field::Runtime, unit: "delivery", wanted: None, kind: Kind::MqttStream { qos: 0, topics: 1, publishers: 1, subscribers: 1, window: 20_000, inflight: 0 } },
    Work { id: "R-X1-1", title: "X1 with 1 publishers", field: Field::Runtime, unit: "message", wanted: None, kind: Kind::MqttToKafka { qos: 1, publishers: 1, inflight: 100 } },
    Work { id: "R-K5-1", title: "K5 with 1 producers, a partition and a consumer each", field: Field::Runtime, unit: "record", wanted: None, kind: Kind::KafkaLatency { per_s: 10_000, producers: 1 } },
    Work { id: "R-K1-64", title: "K1 with 64 producers", field: Field::Runtime, unit: "record", wanted: None, kind: Kind::KafkaProduce { value: 100, producers: 64 } },
    Work { id: "R-A1-64", title: "A1 with 32 queues, a publisher and a consumer each", field: Field::Runtime, unit: "message", wanted: None, kind: Kind::AmqpStream { body: 16, persistent: false, queues: 32, window: 10_000, unconfirmed: 0, prefetch: 0 } },
    Work { id: "R-M1-64", title: "M1 with 32 topics, a publisher and a subscriber each", field: Field::Runtime, unit: "delivery", wanted: None, kind: Kind::MqttStream { qos: 0, topics: 32, publishers: 1, subscribers: 1, window: 10_000, inflight: 0 } },
    Work { id: "R-M4-64", title: "M4 with 64 subscribers", field: Field::Runtime, unit: "delivery", wanted: None, kind: Kind::MqttStream { qos: 0, topics: 1, publishers: 1, subscribers: 64, window: 20_000, inflight: 0 } },
    Work { id: "R-X1-64", title: "X1 with 64 publishers", field: Field::Runtime, unit: "message", wanted: None, kind: Kind::MqttToKafka { qos: 1, publishers: 64, inflight: 100 } },
    Work { id: "R-K5-64", title: "K5 with 64 producers, a partition and a consumer each", field: Field::Runtime, unit: "record", wanted: None, kind: Kind::KafkaLatency { per_s: 10_000, producers: 64 } },
    Work { id: "R-K1-1000", title: "K1 with 1000 producers", field: Field::Runtime, unit: "record", wanted: None, kind: Kind::KafkaProduce { value: 100, producers: 1000 } },
    Work { id: "R-A1-1000", title: "A1 with 500 queues, a publisher and a consumer each", field: Field::Runtime, unit: "message", wanted: None, kind: Kind::AmqpStream { body: 16, persistent: false, queues: 500, window: 10_000, unconfirmed: 0, prefetch: 0 } },
    Work { id: "R-M1-1000", title: "M1 with 500 topics, a publisher and a subscriber each", field: Field::Runtime, unit: "delivery", wanted: None, kind: Kind::MqttStream { qos: 0, topics: 500, publishers: 1, subscribers: 1, window: 10_000, inflight: 0 } },
    Work { id: "R-M4-1000", title: "M4 with 1000 subscribers", field: Field::Runtime, unit: "delivery", wanted: None, kind: Kind::MqttStream { qos: 0, topics: 1, publishers: 1, subscribers: 1000, window: 20_000, inflight: 0 } },
    Work { id: "R-X1-1000", title: "X1 with 1000 publishers", field: Field::Runtime, unit: "message", wanted: None, kind: Kind::MqttToKafka { qos: 1, publishers: 1000, inflight: 100 } },
    Work { id: "R-K5-1000", title: "K5 with 1000 producers, a partition and a consumer each", field: Field::Runtime, unit: "record", wanted: None, kind: Kind::KafkaLatency { per_s: 10_000, producers: 1000 } },
];

/// Lengths of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths {
    pub(crate) warmup: Duration,
    pub(crate) window: Duration,
}

type Seats = Vec<(Link, Box<dyn Actor>)>;

/// A name that no run before it had.
fn fresh(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn play(broker: &Broker, lengths: Lengths, kind: Kind, seats: Seats, mut stage: Stage) -> Result<Figures> {
    let plan = Plan {
        warmup: lengths.warmup,
        done_before: kind.done_before(),
        window: lengths.window,
        spin: kind.is_latency(),
        pids: broker.pids(),
    };
    let outcome = drive(seats, &mut stage, &plan)?;
    Ok(figures(&outcome, &stage))
}

fn figures(outcome: &Outcome, stage: &Stage) -> Figures {
    let mut figures = Figures::new();
    let mut set = |name: &str, value: f64| {
        figures.insert(name.to_owned(), value);
    };
    let messages = outcome.messages as f64;
    set("per_s", messages / outcome.seconds);
    if messages > 0.0 {
        set("cpu_s_per_million", outcome.used.cpu_s() * 1e6 / messages);
        set("cpu_user_s_per_million", outcome.used.cpu_user_s * 1e6 / messages);
        set("cpu_system_s_per_million", outcome.used.cpu_system_s * 1e6 / messages);
        set("switches_per_message", outcome.used.switches as f64 / messages);
        set("disk_bytes_per_message", outcome.used.disk_bytes as f64 / messages);
    }
    set("broker_core_share", outcome.used.cpu_s() / outcome.seconds);
    set("load_core_share", outcome.load_cpu_s / outcome.seconds);
    set("rss_mb", outcome.rss_bytes_max as f64 / 1e6);
    set("lost", stage.lost as f64);
    for (name, latency) in [("", &stage.latency), ("confirm_", &stage.confirm)] {
        if !latency.is_empty() {
            set(&format!("{name}p50_us"), latency.percentile_us(0.5));
            set(&format!("{name}p99_us"), latency.percentile_us(0.99));
            set(&format!("{name}p999_us"), latency.percentile_us(0.999));
            set(&format!("{name}max_us"), latency.max_us());
        }
    }
    figures
}

impl Work {
    pub(crate) fn named(id: &str) -> Option<&'static Self> {
        WORKS.iter().find(|work| work.id.eq_ignore_ascii_case(id))
    }

    /// One run against a broker that is up.
    pub(crate) fn run(&self, broker: &mut Broker, lengths: Lengths) -> Result<Figures> {
        use Kind::*;
        let kind = self.kind;
        match kind {
            KafkaProduce { .. }
            | KafkaConsume { .. }
            | KafkaBacklog { .. }
            | KafkaLatency { .. }
            | KafkaPartitions { .. } => kafka::run(broker, lengths, kind),
            AmqpStream { .. } | AmqpFanOut { .. } | AmqpTopic { .. } | AmqpLatency { .. } => {
                amqp::run(broker, lengths, kind)
            }
            MqttStream { .. } | MqttLatency { .. } | MqttSubscriptions { .. } | MqttIdle { .. } => {
                mqtt::run(broker, lengths, kind)
            }
            MqttToKafka { .. } | AmqpToMqtt | KafkaToAmqp { .. } => cross::run(broker, lengths, kind),
            Scale { .. } => scale::run(broker, kind),
            Start => Ok(Figures::from([
                ("start_ms".to_owned(), broker.started_in.as_secs_f64() * 1e3),
                ("rss_mb".to_owned(), crate::usage::of(&broker.pids()).rss_bytes as f64 / 1e6),
            ])),
        }
    }
}
