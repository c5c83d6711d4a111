//! Load generators: one thread, one epoll loop, frames encoded beforehand.
//!
//! A [`Client`] is the protocol of one connection; all clients of a run share the [`RunState`]. Each protocol is encoded
//! here and not by the product's codecs, so that a defect of those cannot hide.

pub(crate) mod amqp;
pub(crate) mod event_loop;
pub(crate) mod kafka;
pub(crate) mod mqtt;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::histogram::Histogram;

/// Initial size of a connection's input buffer; it doubles while one frame does not fit.
const INPUT_BYTES: usize = 64 * 1024;
/// A publisher in a closed loop sends at least this share of the window at once, or [`AT_ONCE_MAX`] messages.
const AT_ONCE_SHARE: u64 = 8;
const AT_ONCE_MAX: u64 = 64;
/// Time limit of an answer during set-up.
const SETUP_TIMEOUT: Duration = Duration::from_secs(60);

/// The protocol of one connection.
pub(crate) trait Client {
    /// Processes complete frames at the start of `input` and appends answers to `output`; returns the bytes consumed.
    fn received(&mut self, input: &[u8], output: &mut Vec<u8>, state: &mut RunState) -> Result<usize>;
    /// Appends what may be sent now. Called while little output is pending.
    fn send(&mut self, output: &mut Vec<u8>, state: &mut RunState);
}

/// State that all clients of a run share.
pub(crate) struct RunState {
    base: Instant,
    /// Messages sent by publishers.
    pub(crate) sent: u64,
    /// Messages that count: acknowledged or received, depending on the workload.
    pub(crate) done: u64,
    /// Messages that did not arrive in time.
    pub(crate) lost: u64,
    /// Number of `done` messages that one `sent` message leads to.
    pub(crate) fan_out: u64,
    /// Bound of the messages in flight: sent × fan-out − done.
    pub(crate) window: u64,
    /// Publishers may send.
    pub(crate) sending: bool,
    /// Latencies are recorded, of messages due since `record_from_ns`.
    pub(crate) recording: bool,
    record_from_ns: u64,
    pub(crate) latency: Histogram,
    /// Latency of the acknowledgement to the publisher.
    pub(crate) confirm: Histogram,
    pub(crate) now_ns: u64,
}

impl RunState {
    pub(crate) fn new(window: u64, fan_out: u64) -> Self {
        Self {
            base: Instant::now(),
            sent: 0,
            done: 0,
            lost: 0,
            fan_out,
            window,
            sending: true,
            recording: false,
            record_from_ns: 0,
            latency: Histogram::new(),
            confirm: Histogram::new(),
            now_ns: 0,
        }
    }

    /// Nanoseconds since the run began.
    pub(crate) fn clock(&mut self) -> u64 {
        self.now_ns = self.base.elapsed().as_nanos() as u64;
        self.now_ns
    }

    /// Starts recording the latencies of messages that fall due from now on.
    pub(crate) fn record_from_now(&mut self) {
        self.record_from_ns = self.clock();
        self.recording = true;
    }

    /// Messages that may be sent now; none while there is room for few only. Message by message, a closed loop would
    /// settle by chance into single-message writes or into large ones.
    pub(crate) fn room(&self) -> u64 {
        if !self.sending {
            return 0;
        }
        let room =
            (self.window + self.done + self.lost).saturating_sub(self.sent * self.fan_out) / self.fan_out;
        let few = (self.window / self.fan_out / AT_ONCE_SHARE).min(AT_ONCE_MAX);
        if room < few { 0 } else { room }
    }

    /// Records a message that was due at `due_ns`; 0: a closed loop, without a time in the payload.
    pub(crate) fn arrived(&mut self, due_ns: u64) {
        if let Some(latency_ns) = self.since(due_ns) {
            self.latency.record(latency_ns);
        }
    }

    pub(crate) fn confirmed(&mut self, due_ns: u64) {
        if let Some(latency_ns) = self.since(due_ns) {
            self.confirm.record(latency_ns);
        }
    }

    fn since(&mut self, due_ns: u64) -> Option<u64> {
        if !self.recording || due_ns == 0 || due_ns < self.record_from_ns {
            return None;
        }
        self.clock().checked_sub(due_ns)
    }
}

/// Pace of an open loop: message n is due at start + n × interval. Latency counts from then, so that a stall is charged to
/// every message that it delayed.
pub(crate) struct Pace {
    interval_ns: u64,
    next_ns: u64,
}

impl Pace {
    pub(crate) fn new(per_s: u64) -> Self {
        Self { interval_ns: 1_000_000_000 / per_s, next_ns: 0 }
    }

    /// When the next message was due, if it is due.
    pub(crate) fn due(&mut self, now_ns: u64) -> Option<u64> {
        if self.next_ns == 0 {
            self.next_ns = now_ns.max(1);
        }
        (self.next_ns <= now_ns).then(|| {
            let due = self.next_ns;
            self.next_ns += self.interval_ns;
            due
        })
    }
}

/// A socket with its input and output buffers.
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
    start: usize,
    end: usize,
    pub(crate) output: Vec<u8>,
    written: usize,
    /// The last read emptied the socket.
    drained: bool,
}

impl Link {
    /// Connects in blocking mode, for set-up.
    pub(crate) fn connect(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to).with_context(|| format!("connecting to {to}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SETUP_TIMEOUT))?;
        let (input, output) = (vec![0; INPUT_BYTES], Vec::new());
        Ok(Self { stream, input, start: 0, end: 0, output, written: 0, drained: false })
    }

    /// Writes all bytes, during set-up.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Waits for the next frame during set-up; `length` measures it (`None`: incomplete).
    pub(crate) fn frame(&mut self, length: impl Fn(&[u8]) -> Option<usize>) -> Result<Vec<u8>> {
        loop {
            let have = self.input.get(self.start..self.end).unwrap_or_default();
            if let Some(frame) = length(have).and_then(|length| have.get(..length)) {
                let frame = frame.to_vec();
                self.start += frame.len();
                return Ok(frame);
            }
            anyhow::ensure!(self.fill()? != Some(0), "the broker closed the connection");
        }
    }

    /// Waits for more input and returns all that is not consumed.
    pub(crate) fn read_more(&mut self) -> Result<&[u8]> {
        self.stream.set_read_timeout(None)?;
        anyhow::ensure!(self.fill()? != Some(0), "the broker closed the connection");
        Ok(self.input.get(self.start..self.end).unwrap_or_default())
    }

    /// Consumes input.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// Reads once. `None`: nothing available; zero: end of the stream.
    fn fill(&mut self) -> Result<Option<usize>> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.input.len() {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end * 2 > self.input.len() {
                self.input.resize(self.input.len() * 2, 0);
            }
        }
        let Some(room) = self.input.get_mut(self.end..) else { return Ok(None) };
        match self.stream.read(room) {
            Ok(count) => {
                self.drained = count < room.len();
                self.end += count;
                Ok(Some(count))
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes pending output; true when nothing is left.
    fn flush(&mut self) -> Result<bool> {
        while self.written < self.output.len() {
            match self.stream.write(self.output.get(self.written..).unwrap_or_default()) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(true)
    }
}

/// Reader of big-endian fields; reads zeros past the end.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(count.min(self.0.len()));
        self.0 = tail;
        head
    }
    fn array<const COUNT: usize>(&mut self) -> [u8; COUNT] {
        let (head, tail) =
            self.0.split_first_chunk().map_or(([0; COUNT], [].as_slice()), |(head, tail)| (*head, tail));
        self.0 = tail;
        head
    }
    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }
    pub(crate) fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.array())
    }
    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }
    pub(crate) fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.array())
    }
    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }
    /// A string with a length of two bytes; a negative length means null.
    pub(crate) fn string(&mut self) -> &'a [u8] {
        let length = self.i16();
        self.take(length.max(0) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_loop_continues_with_many_messages_at_once() {
        // A fan-out to 100, 200 messages in flight.
        let mut state = RunState::new(20_000, 100);
        assert_eq!(state.room(), 200);
        state.sent = 200;
        state.done = 2_499;
        assert_eq!(state.room(), 0);
        state.done = 2_500;
        assert_eq!(state.room(), 25);
        // Whatever the window, one message may be sent in the end.
        assert_eq!(RunState::new(1, 1).room(), 1);
    }

    #[test]
    fn fields_past_the_end_are_zero() {
        let mut fields = Fields(&[0, 1, 0xff, 0xff, 7]);
        assert_eq!((fields.u16(), fields.i16()), (1, -1));
        assert_eq!((fields.i32(), fields.u8(), fields.0.len()), (0, 0, 0));
    }
}
