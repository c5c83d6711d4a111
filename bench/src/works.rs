//! The works: what is asked of a broker, each with the figure that is wanted of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::broker::{Broker, Contestant};
use crate::load::drive::{Outcome, Plan, drive};
use crate::load::{Actor, Link, Pace, Stage, amqp, kafka, mqtt};

/// Figures by name; see [`crate::report::FIGURES`].
pub(crate) type Figures = BTreeMap<String, f64>;

/// Which peers a work is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Kafka,
    Amqp,
    Mqtt,
    /// From one protocol to another.
    Cross,
}

impl Field {
    /// The peer comes last.
    pub(crate) fn contestants(self) -> &'static [Contestant] {
        match self {
            Self::Kafka => &[Os, Always, Contestant::Kafka],
            Self::Amqp => &[Os, Always, Contestant::Rabbitmq],
            Self::Mqtt => &[Os, Always, Contestant::Mosquitto],
            Self::Cross => &[Always, Contestant::Bridged],
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
    KafkaLatency {
        per_s: u64,
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
    MqttStream {
        qos: u8,
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
        inflight: usize,
    },
    MqttIdle {
        connections: usize,
    },
    Start,
}

impl Kind {
    /// How many times as long a warm-up it wants: Kafka makes a partition's files when it is first written to.
    fn warmup_factor(self) -> u32 {
        if matches!(self, Self::KafkaPartitions { .. }) { 10 } else { 1 }
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
    Work { id: "K5", title: "End to end at 10,000 records/s of 100 B, linger 0", field: Field::Kafka, unit: "record", wanted: wanted(P99, 5.0, Always), kind: Kind::KafkaLatency { per_s: 10_000 } },
    Work { id: "K6", title: "Produce evenly over 1,000 partitions, 100 B records, 10 a batch, 64 batches a request", field: Field::Kafka, unit: "record", wanted: wanted(CPU, 10.0, Always), kind: Kind::KafkaPartitions { partitions: 1000 } },
    Work { id: "K6-20k", title: "The same over 20,000 partitions", field: Field::Kafka, unit: "record", wanted: None, kind: Kind::KafkaPartitions { partitions: 20_000 } },

    Work { id: "A1", title: "16 B transient, one publisher, one consumer, automatic ack", field: Field::Amqp, unit: "message", wanted: wanted(CPU, 15.0, Os), kind: Kind::AmqpStream { body: 16, persistent: false, queues: 1, window: 10_000, unconfirmed: 0, prefetch: 0 } },
    Work { id: "A2", title: "1 KB persistent, confirms, manual ack, prefetch 100, 1 queue", field: Field::Amqp, unit: "message", wanted: wanted(CPU, 10.0, Always), kind: Kind::AmqpStream { body: 1024, persistent: true, queues: 1, window: 10_000, unconfirmed: 100, prefetch: 100 } },
    Work { id: "A2x50", title: "The same over 50 queues, a publisher and a consumer each", field: Field::Amqp, unit: "message", wanted: wanted(CPU, 10.0, Always), kind: Kind::AmqpStream { body: 1024, persistent: true, queues: 50, window: 10_000, unconfirmed: 100, prefetch: 100 } },
    Work { id: "A3", title: "Fan-out of 16 B to 10 queues, automatic ack", field: Field::Amqp, unit: "delivery", wanted: wanted(CPU, 15.0, Os), kind: Kind::AmqpFanOut { queues: 10 } },
    Work { id: "A3t", title: "Topic exchange with 10,000 bindings, 16 B, 1 queue", field: Field::Amqp, unit: "message", wanted: wanted(CPU, 15.0, Os), kind: Kind::AmqpTopic { bindings: 10_000 } },
    Work { id: "A4", title: "End to end at 10,000 messages/s, 100 B transient", field: Field::Amqp, unit: "message", wanted: wanted(P99, 3.0, Os), kind: Kind::AmqpLatency { persistent: false, per_s: 10_000 } },
    Work { id: "A4p", title: "End to end at 10,000 messages/s, 100 B persistent with confirms", field: Field::Amqp, unit: "message", wanted: wanted(P99, 3.0, Always), kind: Kind::AmqpLatency { persistent: true, per_s: 10_000 } },

    Work { id: "M1", title: "QoS 0, one to one, 64 B", field: Field::Mqtt, unit: "delivery", wanted: wanted(CPU, 5.0, Os), kind: Kind::MqttStream { qos: 0, publishers: 1, subscribers: 1, window: 10_000, inflight: 0 } },
    Work { id: "M2", title: "QoS 1, one to one, 64 B", field: Field::Mqtt, unit: "delivery", wanted: wanted(CPU, 3.0, Always), kind: Kind::MqttStream { qos: 1, publishers: 1, subscribers: 1, window: 10_000, inflight: 100 } },
    Work { id: "M3", title: "QoS 2, one to one, 64 B", field: Field::Mqtt, unit: "delivery", wanted: wanted(CPU, 3.0, Always), kind: Kind::MqttStream { qos: 2, publishers: 1, subscribers: 1, window: 10_000, inflight: 100 } },
    Work { id: "M4", title: "QoS 0, fan-out 1 to 100, 64 B", field: Field::Mqtt, unit: "delivery", wanted: wanted(CPU, 5.0, Os), kind: Kind::MqttStream { qos: 0, publishers: 1, subscribers: 100, window: 20_000, inflight: 0 } },
    Work { id: "M5", title: "QoS 0, fan-in 100 to 1, 64 B", field: Field::Mqtt, unit: "delivery", wanted: wanted(CPU, 5.0, Os), kind: Kind::MqttStream { qos: 0, publishers: 100, subscribers: 1, window: 10_000, inflight: 0 } },
    Work { id: "M6", title: "10,000 idle connections, memory each", field: Field::Mqtt, unit: "connection", wanted: None, kind: Kind::MqttIdle { connections: 10_000 } },
    Work { id: "M7", title: "End to end at 10,000 messages/s, 64 B, QoS 0", field: Field::Mqtt, unit: "message", wanted: None, kind: Kind::MqttLatency { qos: 0, per_s: 10_000 } },
    Work { id: "M7q1", title: "End to end at 10,000 messages/s, 64 B, QoS 1", field: Field::Mqtt, unit: "message", wanted: None, kind: Kind::MqttLatency { qos: 1, per_s: 10_000 } },

    Work { id: "X1", title: "MQTT QoS 1 in, 64 B, a Kafka consumer out", field: Field::Cross, unit: "message", wanted: wanted(CPU, 5.0, Always), kind: Kind::MqttToKafka { qos: 1, inflight: 100 } },

    Work { id: "S1", title: "Start, and memory when idle (Kafka)", field: Field::Kafka, unit: "start", wanted: None, kind: Kind::Start },
    Work { id: "S1r", title: "Start, and memory when idle (RabbitMQ)", field: Field::Amqp, unit: "start", wanted: None, kind: Kind::Start },
    Work { id: "S1m", title: "Start, and memory when idle (Mosquitto)", field: Field::Mqtt, unit: "start", wanted: None, kind: Kind::Start },
];

/// Batches as large as producers make them by default.
const BATCH_BYTES: usize = 16 * 1024;
/// Data for those who consume what was just written.
const TAIL_BYTES: usize = 32 * 1024 * 1024;
/// Records of a batch, and batches of a request, where many partitions are written evenly.
const EVEN_RECORDS: usize = 10;
const EVEN_BATCHES: usize = 64;

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
        warmup: lengths.warmup * kind.warmup_factor(),
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
    pub(crate) fn run(&self, broker: &Broker, lengths: Lengths) -> Result<Figures> {
        let kind = self.kind;
        match kind {
            Kind::KafkaProduce { value, producers } => {
                let per_batch = kafka::records_in(BATCH_BYTES, value);
                let groups: Vec<Vec<Vec<i32>>> =
                    (0..producers).map(|partition| vec![vec![partition]]).collect();
                produce(broker, lengths, kind, producers, &groups, value, per_batch)
            }
            Kind::KafkaPartitions { partitions } => {
                let all: Vec<i32> = (0..partitions).collect();
                let groups = vec![all.chunks(EVEN_BATCHES).map(<[i32]>::to_vec).collect()];
                produce(broker, lengths, kind, partitions, &groups, 100, EVEN_RECORDS)
            }
            Kind::KafkaConsume { value } => {
                let topic = fresh("consume");
                let per_batch = kafka::records_in(BATCH_BYTES, value);
                kafka::create_topic(broker.kafka, &topic, 1)?;
                kafka::preload(broker.kafka, &topic, value, per_batch, TAIL_BYTES / BATCH_BYTES)?;
                let seat = (
                    Link::connect(broker.kafka)?,
                    Box::new(kafka::Consumer::new(&topic, 0, true, false)) as _,
                );
                let figures = play(broker, lengths, kind, vec![seat], Stage::new(u64::MAX, 1));
                kafka::delete_topic(broker.kafka, &topic)?;
                figures
            }
            Kind::KafkaLatency { per_s } => {
                let topic = fresh("latency");
                kafka::create_topic(broker.kafka, &topic, 1)?;
                let producer = kafka::PacedProducer::new(&topic, 0, 100, Pace::new(per_s));
                let consumer = kafka::Consumer::new(&topic, 0, false, true);
                let seats: Seats = vec![
                    (Link::connect(broker.kafka)?, Box::new(consumer)),
                    (Link::connect(broker.kafka)?, Box::new(producer)),
                ];
                let figures = play(broker, lengths, kind, seats, Stage::new(u64::MAX, 1));
                kafka::delete_topic(broker.kafka, &topic)?;
                figures
            }
            Kind::AmqpStream { .. }
            | Kind::AmqpFanOut { .. }
            | Kind::AmqpTopic { .. }
            | Kind::AmqpLatency { .. } => amqp_work(broker, lengths, kind),
            Kind::MqttStream { qos, publishers, subscribers, window, inflight } => {
                let name = fresh("m");
                let topic = format!("bench/{name}");
                let mut seats: Seats = Vec::new();
                for index in 0..subscribers {
                    // A QoS 1 or 2 subscriber is a session that outlives its connection: kept for it, not only sent.
                    let mut link = mqtt::connect(broker.mqtt, &format!("{name}-s{index}"), qos == 0)?;
                    mqtt::subscribe(&mut link, &topic, qos)?;
                    seats.push((link, Box::new(mqtt::Subscriber)));
                }
                for index in 0..publishers {
                    let publisher = mqtt::Publisher::new(&topic, qos, 64, inflight, None);
                    seats.push((
                        mqtt::connect(broker.mqtt, &format!("{name}-p{index}"), true)?,
                        Box::new(publisher),
                    ));
                }
                let figures = play(broker, lengths, kind, seats, Stage::new(window, subscribers as u64));
                for index in (0..subscribers).filter(|_| qos > 0) {
                    mqtt::connect(broker.mqtt, &format!("{name}-s{index}"), true)?;
                }
                figures
            }
            Kind::MqttLatency { qos, per_s } => {
                let name = fresh("l");
                let topic = format!("bench/{name}");
                let mut subscriber = mqtt::connect(broker.mqtt, &format!("{name}-s"), qos == 0)?;
                mqtt::subscribe(&mut subscriber, &topic, qos)?;
                let publisher = mqtt::Publisher::new(&topic, qos, 64, usize::MAX, Some(Pace::new(per_s)));
                let seats: Seats = vec![
                    (subscriber, Box::new(mqtt::Subscriber)),
                    (mqtt::connect(broker.mqtt, &format!("{name}-p"), true)?, Box::new(publisher)),
                ];
                let figures = play(broker, lengths, kind, seats, Stage::new(u64::MAX, 1));
                mqtt::connect(broker.mqtt, &format!("{name}-s"), true)?;
                figures
            }
            Kind::MqttToKafka { qos, inflight } => mqtt_to_kafka(broker, lengths, kind, qos, inflight),
            Kind::MqttIdle { connections } => mqtt_idle(broker, connections),
            Kind::Start => Ok(Figures::from([
                ("start_ms".to_owned(), broker.started_in.as_secs_f64() * 1e3),
                ("rss_mb".to_owned(), crate::usage::of(&broker.pids()).rss_bytes as f64 / 1e6),
            ])),
        }
    }
}

/// `groups`: for each producer the partitions of its requests, in turn.
fn produce(
    broker: &Broker,
    lengths: Lengths,
    kind: Kind,
    partitions: i32,
    groups: &[Vec<Vec<i32>>],
    value: usize,
    per_batch: usize,
) -> Result<Figures> {
    let topic = fresh("produce");
    kafka::create_topic(broker.kafka, &topic, partitions)?;
    let mut seats: Seats = Vec::new();
    for group in groups {
        let producer = kafka::Producer::new(&topic, group, value, per_batch, kafka::INFLIGHT_MAX);
        seats.push((Link::connect(broker.kafka)?, Box::new(producer)));
    }
    let figures = play(broker, lengths, kind, seats, Stage::new(u64::MAX, 1));
    kafka::delete_topic(broker.kafka, &topic)?;
    figures
}

fn amqp_work(broker: &Broker, lengths: Lengths, kind: Kind) -> Result<Figures> {
    let name = fresh("q");
    let queue = |index: usize| format!("{name}-{index}");
    let mut seats: Seats = Vec::new();
    let mut durable = Vec::new();
    let mut control = amqp::Channel::open(broker.amqp)?;
    let mut exchange = String::new();
    let stage = match kind {
        Kind::AmqpStream { body, persistent, queues, window, unconfirmed, prefetch } => {
            for index in 0..queues {
                let mut consumer = amqp::Channel::open(broker.amqp)?;
                consumer.declare_queue(&queue(index), persistent)?;
                consumer.consume(&queue(index), prefetch == 0, prefetch)?;
                seats.push((consumer.link, Box::new(amqp::Consumer::new(prefetch > 0))));
                let mut publisher = amqp::Channel::open(broker.amqp)?;
                if unconfirmed > 0 {
                    publisher.confirms()?;
                }
                let confirms = (unconfirmed > 0).then_some(unconfirmed);
                let actor = amqp::Publisher::new("", &[queue(index)], body, persistent, confirms, None);
                seats.push((publisher.link, Box::new(actor)));
                if persistent {
                    durable.push(queue(index));
                }
            }
            Stage::new(window, 1)
        }
        Kind::AmqpFanOut { queues } => {
            exchange.clone_from(&name);
            control.declare_exchange(&exchange, "fanout")?;
            for index in 0..queues {
                let mut consumer = amqp::Channel::open(broker.amqp)?;
                consumer.declare_queue(&queue(index), false)?;
                consumer.bind(&queue(index), &exchange, "")?;
                consumer.consume(&queue(index), true, 0)?;
                seats.push((consumer.link, Box::new(amqp::Consumer::new(false))));
            }
            let actor = amqp::Publisher::new(&exchange, &["key".into()], 16, false, None, None);
            seats.push((amqp::Channel::open(broker.amqp)?.link, Box::new(actor)));
            Stage::new(20_000, queues as u64)
        }
        Kind::AmqpTopic { bindings } => {
            exchange.clone_from(&name);
            control.declare_exchange(&exchange, "topic")?;
            let mut consumer = amqp::Channel::open(broker.amqp)?;
            consumer.declare_queue(&queue(0), false)?;
            for index in 0..bindings {
                consumer.bind(&queue(0), &exchange, &format!("site{index}.*.temp"))?;
            }
            consumer.consume(&queue(0), true, 0)?;
            seats.push((consumer.link, Box::new(amqp::Consumer::new(false))));
            let keys: Vec<String> = (0..bindings).map(|index| format!("site{index}.room7.temp")).collect();
            let actor = amqp::Publisher::new(&exchange, &keys, 16, false, None, None);
            seats.push((amqp::Channel::open(broker.amqp)?.link, Box::new(actor)));
            Stage::new(10_000, 1)
        }
        Kind::AmqpLatency { persistent, per_s } => {
            let mut consumer = amqp::Channel::open(broker.amqp)?;
            consumer.declare_queue(&queue(0), persistent)?;
            consumer.consume(&queue(0), !persistent, if persistent { 1000 } else { 0 })?;
            seats.push((consumer.link, Box::new(amqp::Consumer::new(persistent))));
            let mut publisher = amqp::Channel::open(broker.amqp)?;
            if persistent {
                publisher.confirms()?;
                durable.push(queue(0));
            }
            let confirms = persistent.then_some(u64::MAX);
            let actor =
                amqp::Publisher::new("", &[queue(0)], 100, persistent, confirms, Some(Pace::new(per_s)));
            seats.push((publisher.link, Box::new(actor)));
            Stage::new(u64::MAX, 1)
        }
        _ => anyhow::bail!("not a work of AMQP"),
    };
    let figures = play(broker, lengths, kind, seats, stage);
    for queue in durable {
        control.delete_queue(&queue)?;
    }
    if !exchange.is_empty() {
        control.delete_exchange(&exchange)?;
    }
    figures
}

/// The topic that MQTT publishes are kept in, and its partitions.
pub(crate) const CAPTURE_TOPIC: &str = "mqtt";
pub(crate) const CAPTURE_PARTITIONS: i32 = 4;

fn mqtt_to_kafka(broker: &Broker, lengths: Lengths, kind: Kind, qos: u8, inflight: usize) -> Result<Figures> {
    let name = fresh("x");
    let mut seats: Seats = Vec::new();
    for partition in 0..CAPTURE_PARTITIONS {
        let mut consumer = kafka::Consumer::new(CAPTURE_TOPIC, partition, false, false);
        consumer.skip_to_end(broker.kafka)?;
        seats.push((Link::connect(broker.kafka)?, Box::new(consumer)));
    }
    let publisher = mqtt::Publisher::new(&format!("bench/{name}"), qos, 64, inflight, None);
    seats.push((mqtt::connect(broker.mqtt, &name, true)?, Box::new(publisher)));
    play(broker, lengths, kind, seats, Stage::new(10_000, 1))
}

fn mqtt_idle(broker: &Broker, connections: usize) -> Result<Figures> {
    let before = crate::usage::of(&broker.pids());
    let mut links = Vec::with_capacity(connections);
    let name = fresh("i");
    for index in 0..connections {
        links.push(mqtt::connect(broker.mqtt, &format!("{name}-{index}"), true)?.stream);
    }
    std::thread::sleep(Duration::from_secs(1));
    let after = crate::usage::of(&broker.pids());
    let used = after - before;
    let each = |value: f64| value / connections as f64;
    Ok(Figures::from([
        ("rss_bytes_per_connection".to_owned(), each(after.rss_bytes as f64 - before.rss_bytes as f64)),
        ("cpu_s_per_million".to_owned(), each(used.cpu_s()) * 1e6),
        ("rss_mb".to_owned(), after.rss_bytes as f64 / 1e6),
    ]))
}
