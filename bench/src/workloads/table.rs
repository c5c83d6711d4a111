//! The table of workloads in the order of the report, with their targets.

use super::Bound::{AtMost, Times, TimesOf};
use super::{Bound, Kind, Object, Protocol, Target, Workload};
use crate::broker_kind::BrokerKind::{self, InverAlways as Always, InverOs as Os};

const CPU: &str = "cpu_s_per_million";
const THROUGHPUT: &str = "per_s";
const P50: &str = "p50_us";
const P99: &str = "p99_us";

const fn target(figure: &'static str, bound: Bound, of: BrokerKind) -> Target {
    Target { figure, of, bound }
}

const PRODUCE_SMALL: &[Target] = &[target(CPU, Times(4.0), Always), target(THROUGHPUT, Times(1.0), Always)];
const PRODUCE: &[Target] = &[target(CPU, Times(3.0), Always), target(THROUGHPUT, Times(1.0), Always)];
const START: &[Target] = &[target("start_ms", AtMost(100.0), Always), target("rss_mb", AtMost(15.0), Always)];
const TOPICS: &[Target] = &[
    target("rss_mb", AtMost(1073.7), Always),
    target("made_s", AtMost(60.0), Always),
    target("restart_ms", AtMost(5000.0), Always),
];

const fn workload(
    id: &'static str,
    title: &'static str,
    protocol: Protocol,
    unit: &'static str,
    targets: &'static [Target],
    kind: Kind,
) -> Workload {
    Workload { id, title, protocol, unit, targets, kind }
}

/// A workload that compares Inver's two runtimes.
const fn runtime(id: &'static str, title: &'static str, unit: &'static str, kind: Kind) -> Workload {
    workload(id, title, Protocol::Runtime, unit, &[], kind)
}

/// 16 B transient, automatic ack: one publisher and one consumer per queue.
const fn transient(queues: usize) -> Kind {
    Kind::AmqpStream { body: 16, persistent: false, queues, window: 10_000, unconfirmed: 0, prefetch: 0 }
}

/// 1 KB persistent with confirms and acknowledgements.
const fn persistent(queues: usize) -> Kind {
    Kind::AmqpStream { body: 1024, persistent: true, queues, window: 10_000, unconfirmed: 100, prefetch: 100 }
}

/// One publisher and one subscriber per topic.
const fn one_to_one(qos: u8, topics: usize) -> Kind {
    let inflight = if qos == 0 { 0 } else { 100 };
    Kind::MqttStream { qos, topics, publishers: 1, subscribers: 1, window: 10_000, inflight }
}

const fn fan_out(subscribers: usize) -> Kind {
    Kind::MqttStream { qos: 0, topics: 1, publishers: 1, subscribers, window: 20_000, inflight: 0 }
}

const fn fan_in(publishers: usize) -> Kind {
    Kind::MqttStream { qos: 0, topics: 1, publishers, subscribers: 1, window: 10_000, inflight: 0 }
}

const fn mqtt_to_kafka(publishers: usize) -> Kind {
    Kind::MqttToKafka { qos: 1, publishers, inflight: 100 }
}

#[rustfmt::skip]
pub(crate) const WORKLOADS: &[Workload] = &[
    workload("K1", "Produce, acks=all, 100 B records in 16 KB batches, 1 producer", Protocol::Kafka, "record", PRODUCE_SMALL, Kind::KafkaProduce { value: 100, producers: 1 }),
    workload("K1x4", "The same, 4 producers, a partition each", Protocol::Kafka, "record", PRODUCE_SMALL, Kind::KafkaProduce { value: 100, producers: 4 }),
    workload("K2", "Produce, acks=all, 1 KB records in 16 KB batches, 1 producer", Protocol::Kafka, "record", PRODUCE, Kind::KafkaProduce { value: 1000, producers: 1 }),
    workload("K2x4", "The same, 4 producers, a partition each", Protocol::Kafka, "record", PRODUCE, Kind::KafkaProduce { value: 1000, producers: 4 }),
    workload("K3", "Consume from the tail (32 MB), 100 B records", Protocol::Kafka, "record", &[target(CPU, Times(2.0), Always)], Kind::KafkaConsume { value: 100 }),
    workload("K3-1K", "Consume from the tail (32 MB), 1 KB records", Protocol::Kafka, "record", &[target(CPU, Times(2.0), Always)], Kind::KafkaConsume { value: 1000 }),
    workload("K4", "Consume 2 GB of backlog, 1 KB records, while 10,000 records/s are produced", Protocol::Kafka, "record", &[], Kind::KafkaBacklog { value: 1000, bytes: 2_000_000_000, per_s: 10_000 }),
    workload("K5", "End to end at 10,000 records/s of 100 B, linger 0", Protocol::Kafka, "record", &[target(P99, Times(5.0), Always)], Kind::KafkaLatency { per_s: 10_000, producers: 1 }),
    workload("K6", "Produce evenly over 1,000 partitions, 100 B records, 10 a batch, 64 batches a request", Protocol::Kafka, "record", &[target(CPU, Times(10.0), Always)], Kind::KafkaPartitions { partitions: 1000 }),
    workload("K6-20k", "The same over 20,000 partitions, 1,000 of each of 20 topics", Protocol::Kafka, "record", &[target(CPU, TimesOf(1.2, "K6"), Always), target(CPU, TimesOf(1.2, "K6"), Os)], Kind::KafkaPartitions { partitions: 20_000 }),
    workload("A1", "16 B transient, one publisher, one consumer, automatic ack", Protocol::Amqp, "message", &[target(CPU, Times(15.0), Os)], transient(1)),
    workload("A2", "1 KB persistent, confirms, manual ack, prefetch 100, 1 queue", Protocol::Amqp, "message", &[target(CPU, Times(10.0), Always)], persistent(1)),
    workload("A2x50", "The same over 50 queues, a publisher and a consumer each", Protocol::Amqp, "message", &[target(CPU, Times(10.0), Always)], persistent(50)),
    workload("A3", "Fan-out of 16 B to 10 queues, automatic ack", Protocol::Amqp, "delivery", &[target(CPU, Times(15.0), Os)], Kind::AmqpFanOut { queues: 10 }),
    workload("A3t", "Topic exchange with 10,000 bindings, 16 B, 1 queue", Protocol::Amqp, "message", &[target(CPU, Times(15.0), Os)], Kind::AmqpTopic { bindings: 10_000 }),
    workload("A4", "End to end at 10,000 messages/s, 100 B transient", Protocol::Amqp, "message", &[target(P99, Times(3.0), Os), target(P50, AtMost(100.0), Os)], Kind::AmqpLatency { persistent: false, per_s: 10_000 }),
    workload("A4p", "End to end at 10,000 messages/s, 100 B persistent with confirms", Protocol::Amqp, "message", &[target(P99, Times(3.0), Always)], Kind::AmqpLatency { persistent: true, per_s: 10_000 }),
    workload("M1", "QoS 0, one to one, 64 B", Protocol::Mqtt, "delivery", &[target(CPU, Times(5.0), Os)], one_to_one(0, 1)),
    workload("M2", "QoS 1, one to one, 64 B", Protocol::Mqtt, "delivery", &[target(CPU, Times(3.0), Always)], one_to_one(1, 1)),
    workload("M3", "QoS 2, one to one, 64 B", Protocol::Mqtt, "delivery", &[target(CPU, Times(3.0), Always)], one_to_one(2, 1)),
    workload("M4", "QoS 0, fan-out 1 to 100, 64 B", Protocol::Mqtt, "delivery", &[target(CPU, Times(5.0), Os)], fan_out(100)),
    workload("M5", "QoS 0, fan-in 100 to 1, 64 B", Protocol::Mqtt, "delivery", &[target(CPU, Times(5.0), Os)], fan_in(100)),
    workload("M6", "10,000 idle connections, memory each", Protocol::Mqtt, "connection", &[target("rss_bytes_each", AtMost(1536.0), Always)], Kind::MqttIdle { connections: 10_000 }),
    workload("M6s", "QoS 0, one to one, 64 B, beside 1,000,000 other subscriptions", Protocol::Mqtt, "delivery", &[], Kind::MqttSubscriptions { subscriptions: 1_000_000 }),
    workload("M7", "End to end at 10,000 messages/s, 64 B, QoS 0", Protocol::Mqtt, "message", &[], Kind::MqttLatency { qos: 0, per_s: 10_000 }),
    workload("M7q1", "End to end at 10,000 messages/s, 64 B, QoS 1", Protocol::Mqtt, "message", &[], Kind::MqttLatency { qos: 1, per_s: 10_000 }),
    workload("X1", "MQTT QoS 1 in, 64 B, a Kafka consumer out", Protocol::Cross, "message", &[target(CPU, Times(5.0), Always)], mqtt_to_kafka(1)),
    workload("X2a", "AMQP publish to amq.topic in, 64 B transient, an MQTT subscriber out, QoS 0", Protocol::Own, "message", &[], Kind::AmqpToMqtt),
    workload("X2k", "Kafka produce in, 64 B, 100 a batch, 4 AMQP consumers of a shared subscription out, manual ack", Protocol::Own, "message", &[], Kind::KafkaToAmqp { consumers: 4 }),
    workload("S2t", "1,000,000 Kafka topics", Protocol::Scale, "topic", TOPICS, Kind::Scale { object: Object::Topics, count: 1_000_000 }),
    workload("S2q", "100,000 durable AMQP queues", Protocol::Scale, "queue", &[], Kind::Scale { object: Object::Queues, count: 100_000 }),
    workload("S2s", "1,000,000 MQTT sessions of disconnected clients, a QoS 1 subscription each", Protocol::Scale, "session", &[], Kind::Scale { object: Object::Sessions, count: 1_000_000 }),
    workload("S1", "Start, and memory when idle (Kafka)", Protocol::Kafka, "start", START, Kind::Start),
    workload("S1r", "Start, and memory when idle (RabbitMQ)", Protocol::Amqp, "start", START, Kind::Start),
    workload("S1m", "Start, and memory when idle (Mosquitto)", Protocol::Mqtt, "start", START, Kind::Start),

    runtime("R-K1-1", "K1 with 1 producer", "record", Kind::KafkaProduce { value: 100, producers: 1 }),
    runtime("R-A1-1", "A1 with 1 queue, a publisher and a consumer each", "message", transient(1)),
    runtime("R-M1-1", "M1 with 1 topic, a publisher and a subscriber each", "delivery", one_to_one(0, 1)),
    runtime("R-M4-1", "M4 with 1 subscriber", "delivery", fan_out(1)),
    runtime("R-X1-1", "X1 with 1 publisher", "message", mqtt_to_kafka(1)),
    runtime("R-K5-1", "K5 with 1 producer, a partition and a consumer each", "record", Kind::KafkaLatency { per_s: 10_000, producers: 1 }),
    runtime("R-K1-64", "K1 with 64 producers", "record", Kind::KafkaProduce { value: 100, producers: 64 }),
    runtime("R-A1-64", "A1 with 32 queues, a publisher and a consumer each", "message", transient(32)),
    runtime("R-M1-64", "M1 with 32 topics, a publisher and a subscriber each", "delivery", one_to_one(0, 32)),
    runtime("R-M4-64", "M4 with 64 subscribers", "delivery", fan_out(64)),
    runtime("R-X1-64", "X1 with 64 publishers", "message", mqtt_to_kafka(64)),
    runtime("R-K5-64", "K5 with 64 producers, a partition and a consumer each", "record", Kind::KafkaLatency { per_s: 10_000, producers: 64 }),
    runtime("R-K1-1000", "K1 with 1000 producers", "record", Kind::KafkaProduce { value: 100, producers: 1000 }),
    runtime("R-A1-1000", "A1 with 500 queues, a publisher and a consumer each", "message", transient(500)),
    runtime("R-M1-1000", "M1 with 500 topics, a publisher and a subscriber each", "delivery", one_to_one(0, 500)),
    runtime("R-M4-1000", "M4 with 1000 subscribers", "delivery", fan_out(1000)),
    runtime("R-X1-1000", "X1 with 1000 publishers", "message", mqtt_to_kafka(1000)),
    runtime("R-K5-1000", "K5 with 1000 producers, a partition and a consumer each", "record", Kind::KafkaLatency { per_s: 10_000, producers: 1000 }),
];
