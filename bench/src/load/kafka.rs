//! Kafka producers and consumers: Produce 7, Fetch 11, Metadata 4, CreateTopics 2, DeleteTopics 1.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::{Actor, Fields, Link, Pace, Stage};

/// Requests under way on a connection: what the Java producer allows itself.
pub(crate) const INFLIGHT_MAX: usize = 5;
/// Requests under way where data is only made for those who read.
const PRELOAD_INFLIGHT: usize = 64;
/// Bytes of a partition that a fetch asks for at most: the Java consumer's default.
pub(crate) const FETCH_PARTITION_BYTES: i32 = 1024 * 1024;
/// Bytes of a batch header up to its records.
const BATCH_HEADER_BYTES: usize = 61;
const CREATE_TIMEOUT: Duration = Duration::from_secs(120);

fn frame_length(bytes: &[u8]) -> Option<usize> {
    bytes.get(..4).map(|size| Fields(size).i32() as usize + 4)
}

/// A request, put together field by field.
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

/// Makes topics of one partition, `names` of them a request.
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

/// Makes a topic and waits until each partition has a leader, and the leader knows it.
pub(crate) fn create_topic(to: SocketAddr, name: &str, partitions: i32) -> Result<()> {
    let mut link = Link::connect(to)?;
    let request =
        Request::new(19, 2).i32(1).string(name).i32(partitions).i16(1).i32(0).i32(0).i32(60_000).i8(0);
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
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Partitions whose leader answers for them: Kafka tells of a leader before it is one.
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

/// Partitions with a leader in a Metadata answer of one topic.
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
    call(&mut link, Request::new(20, 1).i32(1).string(name).i32(60_000))?;
    Ok(())
}

fn varint(into: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        into.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    into.push(rest as u8);
}

fn varint_at(fields: &mut Fields<'_>) -> i64 {
    let (mut number, mut shift) = (0_u64, 0);
    loop {
        let byte = fields.u8();
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 || shift > 63 {
            return (number >> 1) as i64 ^ -((number & 1) as i64);
        }
    }
}

/// A batch of `values`, without keys, headers or a producer's id.
fn batch<'a>(values: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<u8> {
    keyed_batch(values.map(|value| (None, value)))
}

/// A batch of keys and values.
fn keyed_batch<'a>(values: impl ExactSizeIterator<Item = (Option<&'a [u8]>, &'a [u8])>) -> Vec<u8> {
    let count = values.len() as i32;
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |age| age.as_millis()) as i64;
    let mut records = Vec::new();
    let mut record = Vec::new();
    for (index, (key, value)) in values.enumerate() {
        record.clear();
        record.push(0);
        varint(&mut record, 0);
        varint(&mut record, index as i64);
        varint(&mut record, key.map_or(-1, |key| key.len() as i64));
        record.extend_from_slice(key.unwrap_or_default());
        varint(&mut record, value.len() as i64);
        record.extend_from_slice(value);
        varint(&mut record, 0);
        varint(&mut records, record.len() as i64);
        records.extend_from_slice(&record);
    }
    let covered = Request(Vec::new())
        .i16(0)
        .i32(count - 1)
        .i64(now_ms)
        .i64(now_ms)
        .i64(-1)
        .i16(-1)
        .i32(-1)
        .i32(count)
        .raw(&records);
    let crc = crc32c::crc32c(&covered.0);
    Request(Vec::new()).i64(0).i32(covered.0.len() as i32 + 9).i32(-1).i8(2).i32(crc as i32).raw(&covered.0).0
}

/// How many records of `value_bytes` a batch of `batch_bytes` takes.
pub(crate) fn records_in(batch_bytes: usize, value_bytes: usize) -> usize {
    let value = vec![0_u8; value_bytes];
    (1..)
        .take_while(|count| batch((0..*count).map(|_| value.as_slice())).len() <= batch_bytes)
        .last()
        .unwrap_or(1)
}

fn produce_request(topic: &str, partitions: &[i32], batch: &[u8]) -> Vec<u8> {
    let mut request =
        Request::new(0, 7).i16(-1).i16(-1).i32(30_000).i32(1).string(topic).i32(partitions.len() as i32);
    for partition in partitions {
        request = request.i32(*partition).i32(batch.len() as i32).raw(batch);
    }
    request.done()
}

/// Checks a Produce answer and returns its number of partitions.
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

/// Writes `records` records to each of `partitions` in turn, and waits: data for those who read.
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

/// Writes keys and values to partition 0 and waits until they are there.
pub(crate) fn write(link: &mut Link, topic: &str, messages: &[(&[u8], &[u8])]) -> Result<()> {
    let bytes = keyed_batch(messages.iter().map(|(key, value)| (Some(*key), *value)));
    link.write(&produce_request(topic, &[0], &bytes))?;
    produced(link.frame(frame_length)?.get(8..).unwrap_or_default())?;
    Ok(())
}

/// Produces prepared requests, acks=all, some in flight.
pub(crate) struct Producer {
    requests: Vec<Vec<u8>>,
    next: usize,
    records: u64,
    inflight: usize,
    inflight_max: usize,
    /// Who reads counts, and how far ahead this may be is the stage's window.
    windowed: bool,
}

impl Producer {
    /// `groups`: the partitions that each request writes to, in turn; `per_batch` records to each.
    pub(crate) fn new(
        topic: &str,
        groups: &[Vec<i32>],
        value_bytes: usize,
        per_batch: usize,
        inflight_max: usize,
    ) -> Self {
        let value = vec![b'x'; value_bytes];
        let bytes = batch((0..per_batch).map(|_| value.as_slice()));
        let requests = groups.iter().map(|partitions| produce_request(topic, partitions, &bytes)).collect();
        Self { requests, next: 0, records: per_batch as u64, inflight: 0, inflight_max, windowed: false }
    }

    /// Leaves the counting to those who read.
    pub(crate) fn windowed(self) -> Self {
        Self { windowed: true, ..self }
    }
}

impl Actor for Producer {
    fn received(&mut self, input: &[u8], _output: &mut Vec<u8>, stage: &mut Stage) -> Result<usize> {
        let mut taken = 0;
        while let Some(frame) =
            input.get(taken..).and_then(|rest| frame_length(rest).and_then(|length| rest.get(..length)))
        {
            taken += frame.len();
            self.inflight -= 1;
            let records = produced(frame.get(8..).unwrap_or_default())? as u64 * self.records;
            if !self.windowed {
                stage.done += records;
            }
        }
        Ok(taken)
    }

    fn send(&mut self, output: &mut Vec<u8>, stage: &mut Stage) {
        while stage.sending && self.inflight < self.inflight_max {
            if self.windowed {
                if stage.room() < self.records {
                    return;
                }
                stage.sent += self.records;
            }
            let Some(request) = self.requests.get(self.next) else { return };
            output.extend_from_slice(request);
            self.next = (self.next + 1) % self.requests.len();
            self.inflight += 1;
        }
    }
}

/// Produces single records as they fall due, linger 0: what is due while all requests are under way
/// goes together, as in the Java producer.
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

impl Actor for PacedProducer {
    fn received(&mut self, input: &[u8], _output: &mut Vec<u8>, stage: &mut Stage) -> Result<usize> {
        let mut taken = 0;
        while let Some(frame) =
            input.get(taken..).and_then(|rest| frame_length(rest).and_then(|length| rest.get(..length)))
        {
            taken += frame.len();
            produced(frame.get(8..).unwrap_or_default())?;
            for due_ns in self.inflight.pop_front().unwrap_or_default() {
                stage.confirmed(due_ns);
            }
        }
        Ok(taken)
    }

    fn send(&mut self, output: &mut Vec<u8>, stage: &mut Stage) {
        while stage.sending {
            let Some(due_ns) = self.pace.due(stage.now_ns) else { break };
            self.waiting.push(due_ns);
            stage.sent += 1;
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

/// Fetches one partition, one request under way; counts records.
pub(crate) struct Consumer {
    topic: String,
    partition: i32,
    offset: i64,
    /// Begin anew once this offset is reached; None: wait for more.
    again_at: Option<i64>,
    /// Each record begins with the time it was due.
    timed: bool,
    /// Bytes of a record's key and headers don't matter; its value is where the time stands.
    asked: bool,
}

impl Consumer {
    pub(crate) fn new(topic: &str, partition: i32, again_at: Option<i64>, timed: bool) -> Self {
        Self { topic: topic.into(), partition, offset: 0, again_at, timed, asked: false }
    }

    /// Begins where the partition ends now.
    pub(crate) fn skip_to_end(&mut self, to: SocketAddr) -> Result<()> {
        let mut link = Link::connect(to)?;
        let request =
            Request::new(2, 1).i32(-1).i32(1).string(&self.topic).i32(1).i32(self.partition).i64(-1);
        let answer = call(&mut link, request)?;
        let mut fields = Fields(&answer);
        fields.i32();
        fields.string();
        let (_partitions, _index, code, _time) = (fields.i32(), fields.i32(), fields.i16(), fields.u64());
        ensure!(code == 0, "ListOffsets: error {code}");
        self.offset = fields.u64() as i64;
        Ok(())
    }

    /// Walks the batches; returns the number of records that were wanted.
    fn walk(&mut self, mut records: &[u8], stage: &mut Stage) -> u64 {
        let mut count = 0;
        while let Some(header) = records.get(..BATCH_HEADER_BYTES) {
            let mut fields = Fields(header);
            let (base, length) = (fields.u64() as i64, fields.i32() as usize);
            let Some(whole) = records.get(..12 + length) else { break };
            let mut rest = Fields(whole.get(23..).unwrap_or_default());
            let last = base + i64::from(rest.i32());
            if last >= self.offset {
                let mut rest = Fields(whole.get(57..).unwrap_or_default());
                let in_batch = rest.i32();
                count += in_batch as u64;
                if self.timed && stage.recording {
                    for _ in 0..in_batch {
                        let length = varint_at(&mut rest) as usize;
                        let mut record = Fields(rest.take(length));
                        record.u8();
                        varint_at(&mut record);
                        varint_at(&mut record);
                        let key = varint_at(&mut record).max(0) as usize;
                        record.take(key);
                        varint_at(&mut record);
                        stage.arrived(record.u64());
                    }
                }
                self.offset = last + 1;
            }
            records = records.get(12 + length..).unwrap_or_default();
        }
        count
    }
}

impl Actor for Consumer {
    fn received(&mut self, input: &[u8], _output: &mut Vec<u8>, stage: &mut Stage) -> Result<usize> {
        let mut taken = 0;
        while let Some(frame) =
            input.get(taken..).and_then(|rest| frame_length(rest).and_then(|length| rest.get(..length)))
        {
            taken += frame.len();
            self.asked = false;
            let mut fields = Fields(frame.get(8..).unwrap_or_default());
            let (_throttle, code, _session, topics) =
                (fields.i32(), fields.i16(), fields.i32(), fields.i32());
            ensure!(code == 0, "Fetch: error {code}");
            if topics == 0 {
                continue;
            }
            fields.string();
            let (_partitions, _index, code) = (fields.i32(), fields.i32(), fields.i16());
            if code != 0 {
                bail!("Fetch: error {code} of partition {}", self.partition);
            }
            fields.take(24);
            let aborted = fields.i32().max(0) as usize;
            fields.take(aborted * 16 + 4);
            let length = fields.i32().max(0) as usize;
            let count = self.walk(fields.take(length), stage);
            stage.done += count;
            if self.again_at.is_some_and(|end| self.offset >= end) {
                self.offset = 0;
            }
        }
        Ok(taken)
    }

    fn send(&mut self, output: &mut Vec<u8>, _stage: &mut Stage) {
        if self.asked {
            return;
        }
        self.asked = true;
        let wait_ms = if self.again_at.is_some() { 0 } else { 500 };
        let request = Request::new(1, 11)
            .i32(-1)
            .i32(wait_ms)
            .i32(1)
            .i32(50 * 1024 * 1024)
            .i8(0)
            .i32(0)
            .i32(-1)
            .i32(1)
            .string(&self.topic)
            .i32(1)
            .i32(self.partition)
            .i32(-1)
            .i64(self.offset)
            .i64(-1)
            .i32(FETCH_PARTITION_BYTES)
            .i32(0)
            .string("");
        output.extend_from_slice(&request.done());
    }
}
