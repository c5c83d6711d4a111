//! Kafka producers: as fast as allowed, at a pace, or once beforehand.

use std::collections::VecDeque;
use std::net::SocketAddr;

use anyhow::{Result, ensure};

use super::batch::{batch, keyed_batch};
use super::{INFLIGHT_MAX, Request, frame_at, frame_length};
use crate::load::{Client, Fields, Link, Pace, RunState};

/// Requests in flight where data is only prepared for consumers.
const PRELOAD_INFLIGHT: usize = 64;

fn produce_request(topic: &str, partitions: &[i32], batch: &[u8]) -> Vec<u8> {
    let mut request =
        Request::new(0, 7).i16(-1).i16(-1).i32(30_000).i32(1).string(topic).i32(partitions.len() as i32);
    for partition in partitions {
        request = request.i32(*partition).i32(batch.len() as i32).raw(batch);
    }
    request.done()
}

/// Checks a Produce response and returns its number of partitions.
fn produced(answer: &[u8]) -> Result<usize> {
    let mut fields = Fields(answer);
    let mut partitions = 0;
    for _ in 0..fields.i32() {
        fields.string();
        for _ in 0..fields.i32() {
            let (partition, code) = (fields.i32(), fields.i16());
            ensure!(code == 0, "Produce to partition {partition}: error {code}");
            fields.take(24);
            partitions += 1;
        }
    }
    Ok(partitions)
}

/// Produces batches to partition 0 and waits for them: data for consumers.
pub(crate) fn preload(
    to: SocketAddr,
    topic: &str,
    value_bytes: usize,
    per_batch: usize,
    batches: usize,
) -> Result<()> {
    let value = vec![b'x'; value_bytes];
    let bytes = batch((0..per_batch).map(|_| value.as_slice()));
    let request = produce_request(topic, &[0], &bytes);
    let mut link = Link::connect(to)?;
    for index in 0..batches + PRELOAD_INFLIGHT {
        if index < batches {
            link.write(&request)?;
        }
        if index >= PRELOAD_INFLIGHT {
            let answer = link.frame(frame_length)?;
            produced(answer.get(8..).unwrap_or_default())?;
        }
    }
    Ok(())
}

/// Produces keys and values to partition 0 and waits for the acknowledgement.
pub(crate) fn write(link: &mut Link, topic: &str, messages: &[(&[u8], &[u8])]) -> Result<()> {
    let bytes = keyed_batch(messages.iter().map(|(key, value)| (Some(*key), *value)));
    link.write(&produce_request(topic, &[0], &bytes))?;
    produced(link.frame(frame_length)?.get(8..).unwrap_or_default())?;
    Ok(())
}

/// Sends prepared Produce requests, acks=all, several in flight.
pub(crate) struct Producer {
    requests: Vec<Vec<u8>>,
    next: usize,
    records: u64,
    inflight: usize,
    inflight_max: usize,
    /// The consumer counts messages, and the run's window bounds how far this is ahead of it.
    windowed: bool,
}

impl Producer {
    /// `targets`: topic and partitions of each request, in turn; `per_batch` records for each partition.
    pub(crate) fn new(
        targets: &[(&str, Vec<i32>)],
        value_bytes: usize,
        per_batch: usize,
        inflight_max: usize,
    ) -> Self {
        let value = vec![b'x'; value_bytes];
        let bytes = batch((0..per_batch).map(|_| value.as_slice()));
        let requests =
            targets.iter().map(|(topic, partitions)| produce_request(topic, partitions, &bytes)).collect();
        Self { requests, next: 0, records: per_batch as u64, inflight: 0, inflight_max, windowed: false }
    }

    /// Lets the consumer count messages.
    pub(crate) fn windowed(self) -> Self {
        Self { windowed: true, ..self }
    }
}

impl Client for Producer {
    fn received(&mut self, input: &[u8], _output: &mut Vec<u8>, state: &mut RunState) -> Result<usize> {
        let mut taken = 0;
        while let Some(frame) = input.get(taken..).and_then(frame_at) {
            taken += frame.len();
            self.inflight -= 1;
            let records = produced(frame.get(8..).unwrap_or_default())? as u64 * self.records;
            if !self.windowed {
                state.done += records;
            }
        }
        Ok(taken)
    }

    fn send(&mut self, output: &mut Vec<u8>, state: &mut RunState) {
        while state.sending && self.inflight < self.inflight_max {
            if self.windowed {
                if state.room() < self.records {
                    return;
                }
                state.sent += self.records;
            }
            let Some(request) = self.requests.get(self.next) else { return };
            output.extend_from_slice(request);
            self.next = (self.next + 1) % self.requests.len();
            self.inflight += 1;
        }
    }
}

/// Produces single records when they are due, linger 0. Records due while all requests are in flight share the next one, as
/// in the Java producer.
pub(crate) struct PacedProducer {
    topic: String,
    partition: i32,
    value_bytes: usize,
    pace: Pace,
    waiting: Vec<u64>,
    inflight: VecDeque<Vec<u64>>,
}

impl PacedProducer {
    pub(crate) fn new(topic: &str, partition: i32, value_bytes: usize, pace: Pace) -> Self {
        Self {
            topic: topic.into(),
            partition,
            value_bytes,
            pace,
            waiting: Vec::new(),
            inflight: VecDeque::new(),
        }
    }
}

impl Client for PacedProducer {
    fn received(&mut self, input: &[u8], _output: &mut Vec<u8>, state: &mut RunState) -> Result<usize> {
        let mut taken = 0;
        while let Some(frame) = input.get(taken..).and_then(frame_at) {
            taken += frame.len();
            produced(frame.get(8..).unwrap_or_default())?;
            for due_ns in self.inflight.pop_front().unwrap_or_default() {
                state.confirmed(due_ns);
            }
        }
        Ok(taken)
    }

    fn send(&mut self, output: &mut Vec<u8>, state: &mut RunState) {
        while state.sending {
            let Some(due_ns) = self.pace.due(state.now_ns) else { break };
            self.waiting.push(due_ns);
            state.sent += 1;
        }
        if self.waiting.is_empty() || self.inflight.len() >= INFLIGHT_MAX {
            return;
        }
        let values: Vec<Vec<u8>> = self
            .waiting
            .iter()
            .map(|due_ns| {
                let mut value = due_ns.to_be_bytes().to_vec();
                value.resize(self.value_bytes, b'x');
                value
            })
            .collect();
        let bytes = batch(values.iter().map(Vec::as_slice));
        output.extend_from_slice(&produce_request(&self.topic, &[self.partition], &bytes));
        self.inflight.push_back(std::mem::take(&mut self.waiting));
    }
}
