//! Workloads across protocols.

use anyhow::Result;

use super::mqtt::PAYLOAD_BYTES;
use super::{Connections, Figures, Kind, Lengths, fresh, run_clients};
use crate::bridge::{CAPTURE_PARTITIONS, CAPTURE_TOPIC};
use crate::broker::Broker;
use crate::load::{Link, RunState, amqp, kafka, mqtt};

/// Bound of the messages ahead of the consumers.
const WINDOW: u64 = 10_000;
/// Records in a batch for AMQP consumers.
const BATCH_RECORDS: usize = 100;

pub(super) fn run(broker: &Broker, lengths: Lengths, kind: Kind) -> Result<Figures> {
    let name = fresh("x");
    let mut connections: Connections = Vec::new();
    match kind {
        Kind::MqttToKafka { qos, publishers, inflight } => {
            for partition in 0..CAPTURE_PARTITIONS {
                let mut consumer = kafka::Consumer::new(CAPTURE_TOPIC, partition, None, false);
                consumer.skip_to_end(broker.kafka)?;
                connections.push((Link::connect(broker.kafka)?, Box::new(consumer)));
            }
            for index in 0..publishers {
                let topic = format!("bench/{name}/{index}");
                let publisher = mqtt::Publisher::new(&topic, qos, PAYLOAD_BYTES, inflight, None);
                let link = mqtt::connect(broker.mqtt, &format!("{name}-{index}"), true)?;
                connections.push((link, Box::new(publisher)));
            }
        }
        Kind::AmqpToMqtt => {
            let mut subscriber = mqtt::connect(broker.mqtt, &name, true)?;
            mqtt::subscribe(&mut subscriber, &format!("bench/{name}"), 0)?;
            connections.push((subscriber, Box::new(mqtt::Subscriber)));
            let key = format!("bench.{name}");
            let publisher = amqp::Publisher::new("amq.topic", &[key], PAYLOAD_BYTES, false, None, None);
            connections.push((amqp::Channel::open(broker.amqp)?.link, Box::new(publisher)));
        }
        Kind::KafkaToAmqp { consumers } => {
            kafka::create_topic(broker.kafka, &name, 1)?;
            for _ in 0..consumers {
                let mut consumer = amqp::Channel::open(broker.amqp)?;
                consumer.consume_shared(&name, "bench", 1000)?;
                connections.push((consumer.link, Box::new(amqp::Consumer::new(true))));
            }
            let producer =
                kafka::Producer::new(&[(&name, vec![0])], PAYLOAD_BYTES, BATCH_RECORDS, kafka::INFLIGHT_MAX);
            connections.push((Link::connect(broker.kafka)?, Box::new(producer.windowed())));
        }
        _ => anyhow::bail!("not a workload across protocols"),
    }
    let figures = run_clients(broker, lengths, kind, connections, RunState::new(WINDOW, 1));
    if matches!(kind, Kind::KafkaToAmqp { .. }) {
        kafka::delete_topic(broker.kafka, &name)?;
    }
    figures
}
