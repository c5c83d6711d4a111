//! Kafka consumer.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use super::batch::varint_at;
use super::{Request, call, frame_length};
use crate::load::{Client, Fields, Link, RunState};

/// Partition bytes in a fetch request: the Java consumer's default.
const FETCH_PARTITION_BYTES: i32 = 1024 * 1024;
/// Size of a batch header.
const BATCH_HEADER_BYTES: usize = 61;
/// Bound of a fetch response before its records: one topic, no transactions.
const HEAD_BYTES_MAX: usize = 512;

/// Fetches one partition, one request in flight. It counts records by the batch headers while they arrive, so that the
/// bytes in use stay in the processor's cache.
pub(crate) struct Consumer {
    topic: String,
    partition: i32,
    offset: i64,
    /// Start again at this offset; `None`: wait for more.
    again_at: Option<i64>,
    /// Each value begins with the time it was due.
    timed: bool,
    asked: bool,
    /// Record bytes left in the current response.
    records_left: usize,
    /// Bytes to skip.
    skip: usize,
}

impl Consumer {
    pub(crate) fn new(topic: &str, partition: i32, again_at: Option<i64>, timed: bool) -> Self {
        Self {
            topic: topic.into(),
            partition,
            offset: 0,
            again_at,
            timed,
            asked: false,
            records_left: 0,
            skip: 0,
        }
    }

    /// Starts at the current end of the partition.
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

    /// Reads a response up to its records; returns the length of that part once it is complete.
    fn head(&mut self, answer: &[u8]) -> Result<Option<usize>> {
        let Some(whole) = frame_length(answer) else { return Ok(None) };
        let Some(head) = answer.get(8..whole.min(HEAD_BYTES_MAX)) else { return Ok(None) };
        let mut fields = Fields(head);
        let (_throttle, code, _session, topics) = (fields.i32(), fields.i16(), fields.i32(), fields.i32());
        ensure!(code == 0, "Fetch: error {code}");
        if topics == 0 {
            return Ok(Some(whole));
        }
        fields.string();
        let (_partitions, _index, code) = (fields.i32(), fields.i32(), fields.i16());
        ensure!(code == 0, "Fetch: error {code} of partition {}", self.partition);
        fields.take(24);
        let aborted = fields.i32().max(0) as usize;
        fields.take(aborted * 16 + 4);
        self.records_left = fields.i32().max(0) as usize;
        let length = 8 + head.len() - fields.0.len();
        ensure!(length + self.records_left == whole, "an answer to a Fetch of {whole} B that ends elsewhere");
        Ok(Some(length))
    }

    /// Processes the batch at the start: all of it where record times are needed, otherwise its header, and skips the rest.
    /// `None`: incomplete.
    fn batch(&mut self, input: &[u8], state: &mut RunState) -> Option<usize> {
        if self.records_left < BATCH_HEADER_BYTES {
            self.skip = self.records_left;
            self.records_left = 0;
            return Some(0);
        }
        let mut fields = Fields(input.get(..BATCH_HEADER_BYTES)?);
        let (base, length) = (fields.u64() as i64, fields.i32() as usize + 12);
        fields.take(11);
        let last = base + i64::from(fields.i32());
        fields.take(30);
        let in_batch = fields.i32();
        // A response may end within a batch, which is fetched again.
        let is_whole = length <= self.records_left;
        let is_new = is_whole && last >= self.offset;
        let mut taken = BATCH_HEADER_BYTES;
        if is_new {
            if self.timed && state.recording {
                arrived(Fields(input.get(BATCH_HEADER_BYTES..length)?), in_batch, state);
                taken = length;
            }
            state.done += in_batch as u64;
            self.offset = last + 1;
        }
        let length = length.min(self.records_left);
        self.records_left -= length;
        self.skip = length - taken;
        Some(taken)
    }
}

/// Records the latency of each record.
fn arrived(mut records: Fields<'_>, count: i32, state: &mut RunState) {
    for _ in 0..count {
        let length = varint_at(&mut records) as usize;
        let mut record = Fields(records.take(length));
        record.u8();
        varint_at(&mut record);
        varint_at(&mut record);
        let key = varint_at(&mut record).max(0) as usize;
        record.take(key);
        varint_at(&mut record);
        state.arrived(record.u64());
    }
}

impl Client for Consumer {
    fn received(&mut self, input: &[u8], _output: &mut Vec<u8>, state: &mut RunState) -> Result<usize> {
        let mut taken = 0;
        while let Some(rest) = input.get(taken..) {
            if self.skip > 0 {
                let skipped = self.skip.min(rest.len());
                self.skip -= skipped;
                taken += skipped;
                if self.skip > 0 {
                    break;
                }
            } else if self.records_left > 0 {
                let Some(count) = self.batch(rest, state) else { break };
                taken += count;
            } else {
                let Some(count) = self.head(rest)? else { break };
                taken += count;
            }
            let is_over = self.records_left == 0 && self.skip == 0;
            // The end of a response.
            if !is_over {
                continue;
            }
            self.asked = false;
            if self.again_at.is_some_and(|end| self.offset >= end) {
                self.offset = 0;
            }
        }
        Ok(taken)
    }

    fn send(&mut self, output: &mut Vec<u8>, _stage: &mut RunState) {
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
