//! Those who read.

use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};

use super::batch::varint_at;
use super::{Request, call, frame_at};
use crate::load::{Actor, Fields, Link, Stage};

/// Bytes of a partition that a fetch asks for at most: the Java consumer's default.
const FETCH_PARTITION_BYTES: i32 = 1024 * 1024;
/// Bytes of a batch header up to its records.
const BATCH_HEADER_BYTES: usize = 61;

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
        while let Some(frame) = input.get(taken..).and_then(frame_at) {
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
