//! Workloads of Kafka producers and consumers.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::kind::EVEN_RECORDS;
use super::{Connections, Figures, Kind, Lengths, fresh, run_clients};
use crate::broker::Broker;
use crate::load::{Link, Pace, RunState, kafka};

/// Batch size, by default that of the Java producer.
const BATCH_BYTES: usize = 16 * 1024;
/// Size of the data that consumers read from the tail.
const TAIL_BYTES: usize = 32 * 1024 * 1024;
/// Settings of a topic with many partitions. Kafka creates indexes at full length (10 MB) as sparse files, and a kernel with
/// a large read-ahead fills them with zeros page by page; small indexes avoid that.
const SMALL_INDEXES: &[(&str, &str)] = &[("segment.index.bytes", "65536")];
/// Partitions of one topic. No broker accepts more than 10,000 in one request, so more partitions are several topics.
const TOPIC_PARTITIONS_MAX: i32 = 1000;
/// Time limit for creating all partitions.
const MAKE_TIME_MAX: Duration = Duration::from_secs(60);
/// Batches in a request to many partitions.
const EVEN_BATCHES: usize = 64;

pub(super) fn run(broker: &Broker, lengths: Lengths, kind: Kind) -> Result<Figures> {
    let topic = fresh("bench");
    let mut connections: Connections = Vec::new();
    let mut partitions = 1;
    let mut more: Vec<String> = Vec::new();
    match kind {
        Kind::KafkaProduce { value, producers } => {
            partitions = producers;
            kafka::create_topic(broker.kafka, &topic, partitions)?;
            let per_batch = kafka::records_in(BATCH_BYTES, value);
            for partition in 0..producers {
                let producer =
                    kafka::Producer::new(&[(&topic, vec![partition])], value, per_batch, kafka::INFLIGHT_MAX);
                connections.push((Link::connect(broker.kafka)?, Box::new(producer)));
            }
        }
        Kind::KafkaPartitions { partitions: count } => {
            let topics = count / TOPIC_PARTITIONS_MAX;
            more = (1..topics).map(|index| format!("{topic}-{index}")).collect();
            let mut targets = Vec::new();
            let began = Instant::now();
            for (made, name) in std::iter::once(&topic).chain(&more).enumerate() {
                ensure!(
                    began.elapsed() < MAKE_TIME_MAX,
                    "{} of {count} partitions were created in {} s",
                    made as i32 * (count / topics),
                    began.elapsed().as_secs()
                );
                let partitions: Vec<i32> = (0..count / topics).collect();
                kafka::create_topic_with(broker.kafka, name, count / topics, SMALL_INDEXES)?;
                targets.extend(partitions.chunks(EVEN_BATCHES).map(|group| (name.as_str(), group.to_vec())));
            }
            let producer = kafka::Producer::new(&targets, 100, EVEN_RECORDS, kafka::INFLIGHT_MAX);
            connections.push((Link::connect(broker.kafka)?, Box::new(producer)));
        }
        Kind::KafkaConsume { value } => {
            kafka::create_topic(broker.kafka, &topic, partitions)?;
            let end = preload(broker, &topic, value, TAIL_BYTES)?;
            let consumer = kafka::Consumer::new(&topic, 0, Some(end), false);
            connections.push((Link::connect(broker.kafka)?, Box::new(consumer)));
        }
        Kind::KafkaBacklog { value, bytes, per_s } => {
            kafka::create_topic(broker.kafka, &topic, partitions)?;
            let end = preload(broker, &topic, value, bytes)?;
            let consumer = kafka::Consumer::new(&topic, 0, Some(end), false);
            let producer = kafka::PacedProducer::new(&topic, 0, value, Pace::new(per_s));
            connections.push((Link::connect(broker.kafka)?, Box::new(consumer)));
            connections.push((Link::connect(broker.kafka)?, Box::new(producer)));
        }
        Kind::KafkaLatency { per_s, producers } => {
            partitions = producers;
            kafka::create_topic(broker.kafka, &topic, partitions)?;
            for partition in 0..producers {
                let pace = Pace::new(per_s / producers as u64);
                let producer = kafka::PacedProducer::new(&topic, partition, 100, pace);
                let consumer = kafka::Consumer::new(&topic, partition, None, true);
                connections.push((Link::connect(broker.kafka)?, Box::new(consumer)));
                connections.push((Link::connect(broker.kafka)?, Box::new(producer)));
            }
        }
        _ => anyhow::bail!("not a workload of Kafka"),
    }
    let figures = run_clients(broker, lengths, kind, connections, RunState::new(u64::MAX, 1));
    for name in std::iter::once(&topic).chain(&more) {
        kafka::delete_topic(broker.kafka, name)?;
    }
    figures
}

/// Writes about this many bytes of records and returns the offset after them.
fn preload(broker: &Broker, topic: &str, value: usize, bytes: usize) -> Result<i64> {
    let (per_batch, batches) = (kafka::records_in(BATCH_BYTES, value), bytes / BATCH_BYTES);
    kafka::preload(broker.kafka, topic, value, per_batch, batches)?;
    Ok((per_batch * batches) as i64)
}
