//! Kafka sink: keeps some tens of megabytes of batches unchanged and serves them as often as they are fetched.

use std::collections::{HashMap, VecDeque};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use super::{Shared, lock, pump};
use crate::load::Fields;
use crate::load::kafka::keyed_batch;

/// Bytes of batches kept for the consumers of a partition.
const KEPT_BYTES: usize = 48 << 20;

#[derive(Default)]
struct Partition {
    end: i64,
    bytes: usize,
    /// Base offset and batch.
    batches: VecDeque<(i64, Box<[u8]>)>,
    /// A consumer fetches it: new batches replace old ones.
    read: bool,
}

impl Partition {
    fn append(&mut self, batch: &[u8]) {
        let records = batch.get(23..27).map_or(0, |last| i64::from(Fields(last).i32()) + 1);
        if self.read || self.bytes < KEPT_BYTES {
            let mut kept: Box<[u8]> = batch.into();
            if let Some(base) = kept.get_mut(..8) {
                base.copy_from_slice(&self.end.to_be_bytes());
            }
            self.bytes += kept.len();
            self.batches.push_back((self.end, kept));
            while self.bytes > KEPT_BYTES {
                let Some((_, oldest)) = self.batches.pop_front() else { break };
                self.bytes -= oldest.len();
            }
        }
        self.end += records;
    }
}

#[derive(Default)]
struct Topic {
    partitions: HashMap<i32, Partition>,
    /// Number of partitions at its creation.
    count: i32,
}

/// All topics.
#[derive(Default)]
pub(super) struct Logs {
    topics: Mutex<HashMap<Vec<u8>, Topic>>,
    grown: Condvar,
}

impl Logs {
    pub(super) fn is_asked_for(&self, topic: &[u8]) -> bool {
        lock(&self.topics).contains_key(topic)
    }

    /// Appends as many records as were published over MQTT, without their content.
    pub(super) fn capture(&self, topic: &[u8], records: usize) {
        let batch = keyed_batch((0..records).map(|_| (Some([0; 24].as_slice()), [0; 64].as_slice())));
        let mut topics = lock(&self.topics);
        topics.entry(topic.to_vec()).or_default().partitions.entry(0).or_default().append(&batch);
        self.grown.notify_all();
    }

    fn append(&self, topic: &[u8], partition: i32, batch: &[u8]) {
        let mut topics = lock(&self.topics);
        match topics.get_mut(topic) {
            Some(topic) => topic.partitions.entry(partition).or_default().append(batch),
            None => topics
                .entry(topic.to_vec())
                .or_default()
                .partitions
                .entry(partition)
                .or_default()
                .append(batch),
        }
        self.grown.notify_all();
    }

    /// Appends batches from `offset` on to `into`; waits for some, up to `wait`.
    fn read(
        &self,
        topic: &[u8],
        partition: i32,
        offset: i64,
        bytes_max: usize,
        wait: Duration,
        into: &mut Vec<u8>,
    ) {
        let lacks = |topics: &mut HashMap<Vec<u8>, Topic>| {
            let partition =
                topics.entry(topic.to_vec()).or_default().partitions.entry(partition).or_default();
            partition.read = true;
            partition.end <= offset
        };
        let waited = self.grown.wait_timeout_while(lock(&self.topics), wait, |topics| lacks(topics));
        let (topics, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let Some(partition) = topics.get(topic).and_then(|topic| topic.partitions.get(&partition)) else {
            return;
        };
        let first = partition.batches.partition_point(|(base, _)| *base <= offset).saturating_sub(1);
        for (_, batch) in partition.batches.range(first..).filter(|_| partition.end > offset) {
            if !into.is_empty() && into.len() + batch.len() > bytes_max {
                break;
            }
            into.extend_from_slice(batch);
        }
    }
}

fn put_string(into: &mut Vec<u8>, text: &[u8]) {
    into.extend_from_slice(&(text.len() as i16).to_be_bytes());
    into.extend_from_slice(text);
}

fn produce(logs: &Logs, mut fields: Fields<'_>, answer: &mut Vec<u8>) {
    fields.take(8);
    fields.i32();
    let topic = fields.string();
    let partitions = fields.i32();
    answer.extend_from_slice(&1_i32.to_be_bytes());
    put_string(answer, topic);
    answer.extend_from_slice(&partitions.to_be_bytes());
    for _ in 0..partitions {
        let (partition, length) = (fields.i32(), fields.i32());
        logs.append(topic, partition, fields.take(length as usize));
        answer.extend_from_slice(&partition.to_be_bytes());
        answer.extend_from_slice(&[0; 2 + 24]);
    }
    answer.extend_from_slice(&[0; 4]);
}

fn fetch(logs: &Logs, mut fields: Fields<'_>, answer: &mut Vec<u8>) {
    fields.i32();
    let wait = Duration::from_millis(fields.i32() as u64);
    fields.take(4 + 4 + 1 + 4 + 4 + 4);
    let topic = fields.string();
    fields.i32();
    let partition = fields.i32();
    fields.i32();
    let offset = fields.u64() as i64;
    fields.take(8);
    let mut records = Vec::new();
    logs.read(topic, partition, offset, fields.i32() as usize, wait, &mut records);
    answer.extend_from_slice(&[0; 4 + 2 + 4]);
    answer.extend_from_slice(&1_i32.to_be_bytes());
    put_string(answer, topic);
    answer.extend_from_slice(&1_i32.to_be_bytes());
    answer.extend_from_slice(&partition.to_be_bytes());
    answer.extend_from_slice(&[0; 2 + 24 + 4 + 4]);
    answer.extend_from_slice(&(records.len() as i32).to_be_bytes());
    answer.extend_from_slice(&records);
}

/// The end of each partition.
fn list_offsets(logs: &Logs, mut fields: Fields<'_>, answer: &mut Vec<u8>) {
    fields.take(8);
    let topic = fields.string();
    let partitions = fields.i32();
    answer.extend_from_slice(&1_i32.to_be_bytes());
    put_string(answer, topic);
    answer.extend_from_slice(&partitions.to_be_bytes());
    let mut topics = lock(&logs.topics);
    let topic = topics.entry(topic.to_vec()).or_default();
    for _ in 0..partitions {
        let partition = fields.i32();
        fields.take(8);
        answer.extend_from_slice(&partition.to_be_bytes());
        answer.extend_from_slice(&[0; 2 + 8]);
        let end = topic.partitions.get(&partition).map_or(0, |partition| partition.end);
        answer.extend_from_slice(&end.to_be_bytes());
    }
}

/// No brokers; the topic with its partitions, led by 0.
fn metadata(logs: &Logs, mut fields: Fields<'_>, answer: &mut Vec<u8>) {
    fields.i32();
    let topic = fields.string();
    let count = lock(&logs.topics).get(topic).map_or(0, |topic| topic.count);
    answer.extend_from_slice(&[0; 4 + 4 + 2 + 4]);
    answer.extend_from_slice(&1_i32.to_be_bytes());
    answer.extend_from_slice(&[0; 2]);
    put_string(answer, topic);
    answer.push(0);
    answer.extend_from_slice(&count.to_be_bytes());
    for _ in 0..count {
        answer.extend_from_slice(&[0; 2 + 4 + 4 + 4 + 4]);
    }
}

pub(super) fn serve(stream: TcpStream, logs: &Logs) -> Result<()> {
    let own: Shared = Arc::new(Mutex::new(stream.try_clone()?));
    pump(stream, &own, |input, output| {
        let mut taken = 0;
        while let Some(rest) = input.get(taken..) {
            let Some(size) = rest.get(..4) else { break };
            let Some(frame) = rest.get(4..4 + Fields(size).i32() as usize) else { break };
            taken += 4 + frame.len();
            let mut fields = Fields(frame);
            let (key, _version, correlation) = (fields.i16(), fields.i16(), fields.i32());
            fields.string();
            let start = output.len();
            output.extend_from_slice(&[0; 4]);
            output.extend_from_slice(&correlation.to_be_bytes());
            match key {
                0 => produce(logs, fields, output),
                1 => fetch(logs, fields, output),
                2 => list_offsets(logs, fields, output),
                3 => metadata(logs, fields, output),
                // CreateTopics: no error.
                19 => {
                    fields.i32();
                    let topic = fields.string();
                    lock(&logs.topics).entry(topic.to_vec()).or_default().count = fields.i32();
                    output.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]);
                    put_string(output, topic);
                    output.extend_from_slice(&[0, 0, 0xff, 0xff]);
                }
                // DeleteTopics: no topic in the response.
                _ => output.extend_from_slice(&[0; 8]),
            }
            let length = (output.len() - start - 4) as u32;
            if let Some(place) = output.get_mut(start..start + 4) {
                place.copy_from_slice(&length.to_be_bytes());
            }
        }
        Ok(taken)
    })
}
