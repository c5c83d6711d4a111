//! Kafka producers and consumers: Produce 7, Fetch 11, Metadata 4, CreateTopics 2, DeleteTopics 1.

mod batch;
mod consumer;
mod producer;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Fields, Link};

pub(crate) use batch::{keyed_batch, records_in};
pub(crate) use consumer::Consumer;
pub(crate) use producer::{PacedProducer, Producer, preload, write};

/// Requests in flight on a connection, as in the Java producer.
pub(crate) const INFLIGHT_MAX: usize = 5;
const CREATE_TIMEOUT: Duration = Duration::from_secs(120);

fn frame_length(bytes: &[u8]) -> Option<usize> {
    bytes.get(..4).map(|size| Fields(size).i32() as usize + 4)
}

/// The complete frame at the start.
fn frame_at(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..frame_length(bytes)?)
}

/// A request under construction.
struct Request(Vec<u8>);

impl Request {
    fn new(key: i16, version: i16) -> Self {
        Self(vec![0; 4]).i16(key).i16(version).i32(0).string("inver-bench")
    }
    fn i8(mut self, number: i8) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }
    fn i16(mut self, number: i16) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }
    fn i32(mut self, number: i32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }
    fn i64(mut self, number: i64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }
    fn string(self, text: &str) -> Self {
        self.i16(text.len() as i16).raw(text.as_bytes())
    }
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn done(mut self) -> Vec<u8> {
        let length = (self.0.len() - 4) as u32;
        if let Some(place) = self.0.get_mut(..4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        self.0
    }
}

fn call(link: &mut Link, request: Request) -> Result<Vec<u8>> {
    link.write(&request.done())?;
    Ok(link.frame(frame_length)?.split_off(8))
}

/// Creates topics of one partition with one request.
pub(crate) fn create_topics(link: &mut Link, names: &[String]) -> Result<()> {
    let mut request = Request::new(19, 2).i32(names.len() as i32);
    for name in names {
        request = request.string(name).i32(1).i16(1).i32(0).i32(0);
    }
    let answer = call(link, request.i32(60_000).i8(0))?;
    let mut fields = Fields(&answer);
    fields.i32();
    for _ in 0..fields.i32() {
        let name = fields.string();
        let code = fields.i16();
        ensure!(code == 0, "CreateTopics of {}: error {code}", String::from_utf8_lossy(name));
        fields.string();
    }
    Ok(())
}

/// Creates a topic and waits until each partition has a leader that serves it.
pub(crate) fn create_topic(to: SocketAddr, name: &str, partitions: i32) -> Result<()> {
    create_topic_with(to, name, partitions, &[])
}

/// Creates a topic with its own settings.
pub(crate) fn create_topic_with(
    to: SocketAddr,
    name: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) -> Result<()> {
    let mut link = Link::connect(to)?;
    link.stream.set_read_timeout(Some(CREATE_TIMEOUT))?;
    let mut request = Request::new(19, 2).i32(1).string(name).i32(partitions).i16(1).i32(0);
    request = request.i32(settings.len() as i32);
    for (key, value) in settings {
        request = request.string(key).string(value);
    }
    let request = request.i32(CREATE_TIMEOUT.as_millis() as i32).i8(0);
    let answer = call(&mut link, request)?;
    let mut fields = Fields(&answer);
    fields.take(8);
    fields.string();
    let code = fields.i16();
    ensure!(code == 0, "CreateTopics: error {code} {}", String::from_utf8_lossy(fields.string()));
    let end = Instant::now() + CREATE_TIMEOUT;
    loop {
        let answer = call(&mut link, Request::new(3, 4).i32(1).string(name).i8(0))?;
        let mut there = leaders(&answer);
        if there == partitions {
            there = open_partitions(&mut link, name, partitions)?;
        }
        if there == partitions {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{name}: only {there} of {partitions} partitions are there");
        // Metadata requests are expensive for a broker with many partitions.
        std::thread::sleep(Duration::from_millis(20 + partitions as u64));
    }
}

/// Number of partitions whose leader answers: Kafka reports a leader before it serves the partition.
fn open_partitions(link: &mut Link, name: &str, partitions: i32) -> Result<i32> {
    let mut request = Request::new(2, 1).i32(-1).i32(1).string(name).i32(partitions);
    for partition in 0..partitions {
        request = request.i32(partition).i64(-1);
    }
    let answer = call(link, request)?;
    let mut fields = Fields(&answer);
    let mut ready = 0;
    for _ in 0..fields.i32() {
        fields.string();
        for _ in 0..fields.i32() {
            fields.i32();
            ready += i32::from(fields.i16() == 0);
            fields.take(16);
        }
    }
    Ok(ready)
}

/// Number of partitions with a leader in a Metadata response of one topic.
fn leaders(answer: &[u8]) -> i32 {
    let mut fields = Fields(answer);
    fields.i32();
    for _ in 0..fields.i32() {
        fields.i32();
        fields.string();
        fields.i32();
        fields.string();
    }
    fields.string();
    fields.take(10);
    fields.string();
    fields.u8();
    let mut ready = 0;
    for _ in 0..fields.i32() {
        let code = fields.i16();
        fields.i32();
        ready += i32::from(code == 0 && fields.i32() >= 0);
        for _ in 0..2 {
            for _ in 0..fields.i32() {
                fields.i32();
            }
        }
    }
    ready
}

pub(crate) fn delete_topic(to: SocketAddr, name: &str) -> Result<()> {
    let mut link = Link::connect(to)?;
    link.stream.set_read_timeout(Some(CREATE_TIMEOUT))?;
    call(&mut link, Request::new(20, 1).i32(1).string(name).i32(60_000))?;
    Ok(())
}
