//! The load generators: one thread, one epoll loop, frames encoded beforehand.
//!
//! An [`Actor`] plays one connection; the [`Stage`] is what all actors of a run share. Each protocol's
//! bytes are written out here anew, not by the product's codecs, so that a defect of those cannot hide.

pub(crate) mod amqp;
pub(crate) mod drive;
pub(crate) mod kafka;
pub(crate) mod mqtt;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::histogram::Histogram;

/// Room that a connection's input starts with; it doubles while one frame does not fit.
const INPUT_BYTES: usize = 64 * 1024;
/// A publisher in a closed loop sends no fewer messages at once than this share of what may be under way, or this many.
const AT_ONCE_SHARE: u64 = 8;
const AT_ONCE_MAX: u64 = 64;
/// Time a broker has to answer during set-up.
const SETUP_TIMEOUT: Duration = Duration::from_secs(60);

/// One connection's part in the play.
pub(crate) trait Actor {
    /// Takes whole frames off the front of `input`, answers into `output`; returns the bytes taken.
    fn received(&mut self, input: &[u8], output: &mut Vec<u8>, stage: &mut Stage) -> Result<usize>;
    /// Adds what may be sent now. Called while little waits to be written.
    fn send(&mut self, output: &mut Vec<u8>, stage: &mut Stage);
}

/// What the actors of a run share.
pub(crate) struct Stage {
    base: Instant,
    /// Messages handed to the socket by publishers.
    pub(crate) sent: u64,
    /// Messages that are counted: acknowledged, or received, as the work says.
    pub(crate) done: u64,
    /// Messages that never came within the time a stall is given.
    pub(crate) lost: u64,
    /// How many `done` one `sent` leads to.
    pub(crate) fan: u64,
    /// Messages that may be under way: sent × fan − done.
    pub(crate) window: u64,
    /// Publishers go on as long as this holds.
    pub(crate) sending: bool,
    /// Latencies are recorded while this holds, of what was due since `record_from_ns`.
    pub(crate) recording: bool,
    record_from_ns: u64,
    pub(crate) latency: Histogram,
    /// A second latency, of the acknowledgement to the publisher.
    pub(crate) confirm: Histogram,
    pub(crate) now_ns: u64,
}

impl Stage {
    pub(crate) fn new(window: u64, fan: u64) -> Self {
        Self {
            base: Instant::now(),
            sent: 0,
            done: 0,
            lost: 0,
            fan,
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

    /// Latencies of what falls due from now on count.
    pub(crate) fn record_from_now(&mut self) {
        self.record_from_ns = self.clock();
        self.recording = true;
    }

    /// How many more messages may be sent; none while they are few. A loop that is closed message by message would
    /// else keep to single messages, a write each, or to many, by the chance of how it began.
    pub(crate) fn room(&self) -> u64 {
        if !self.sending {
            return 0;
        }
        let room = (self.window + self.done + self.lost).saturating_sub(self.sent * self.fan) / self.fan;
        let few = (self.window / self.fan / AT_ONCE_SHARE).min(AT_ONCE_MAX);
        if room < few { 0 } else { room }
    }

    /// A message came that should have been sent at `due_ns`; payloads of a closed loop hold no time.
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

/// An open loop: message n is due at start + n × interval, whatever became of those before. Latency is
/// counted from when it was due, so that a stall is seen by every message it held up.
pub(crate) struct Pace {
    interval_ns: u64,
    next_ns: u64,
}

impl Pace {
    pub(crate) fn new(per_s: u64) -> Self {
        Self { interval_ns: 1_000_000_000 / per_s, next_ns: 0 }
    }

    /// When the next message was due, if it is.
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

/// A socket with what has come and what is to go.
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
    start: usize,
    end: usize,
    pub(crate) output: Vec<u8>,
    written: usize,
    /// The last read took all that there was.
    drained: bool,
}

impl Link {
    /// Connects, in blocking mode, for set-up.
    pub(crate) fn connect(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to).with_context(|| format!("connecting to {to}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SETUP_TIMEOUT))?;
        let (input, output) = (vec![0; INPUT_BYTES], Vec::new());
        Ok(Self { stream, input, start: 0, end: 0, output, written: 0, drained: false })
    }

    /// Set-up: sends all of it.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Set-up: waits for the next frame, as `length` measures it (None: not yet known), and returns it.
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

    /// Blocking: waits for bytes, and shows all that was not taken.
    pub(crate) fn come(&mut self) -> Result<&[u8]> {
        self.stream.set_read_timeout(None)?;
        anyhow::ensure!(self.fill()? != Some(0), "the broker closed the connection");
        Ok(self.input.get(self.start..self.end).unwrap_or_default())
    }

    /// So many of them were taken.
    pub(crate) fn taken(&mut self, count: usize) {
        self.start += count;
    }

    /// One read. None: nothing there now. Zero: the end.
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

    /// Writes once; true when nothing is left.
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

/// Big-endian fields off the front of a slice; zero where it ends.
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
    /// A string with a length of two bytes; a negative one is none.
    pub(crate) fn string(&mut self) -> &'a [u8] {
        let length = self.i16();
        self.take(length.max(0) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_loop_goes_on_with_many_messages_at_once() {
        // A fan-out to 100, 200 messages under way.
        let mut stage = Stage::new(20_000, 100);
        assert_eq!(stage.room(), 200);
        stage.sent = 200;
        stage.done = 2_499;
        assert_eq!(stage.room(), 0);
        stage.done = 2_500;
        assert_eq!(stage.room(), 25);
        // Whatever the window, one message is let through in the end.
        assert_eq!(Stage::new(1, 1).room(), 1);
    }

    #[test]
    fn fields_end_with_zeros() {
        let mut fields = Fields(&[0, 1, 0xff, 0xff, 7]);
        assert_eq!((fields.u16(), fields.i16()), (1, -1));
        assert_eq!((fields.i32(), fields.u8(), fields.0.len()), (0, 0, 0));
    }
}
