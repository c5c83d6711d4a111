//! AMQP 0-9-1 publishers and consumers.

use std::collections::VecDeque;
use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};

use super::{Client, Fields, Link, Pace, RunState};

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const END: u8 = 0xce;
/// The no-wait bit of queue.declare.
const NO_WAIT: u8 = 16;
/// Bytes of a frame beside its payload.
const AROUND: usize = 8;

fn frame_length(bytes: &[u8]) -> Option<usize> {
    let size = bytes.get(3..7)?;
    Some(Fields(size).i32() as usize + AROUND)
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&channel.to_be_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes.push(END);
    bytes
}

/// A method frame's payload under construction.
struct Method(Vec<u8>);

impl Method {
    fn new(class: u16, method: u16) -> Self {
        Self([class.to_be_bytes(), method.to_be_bytes()].concat())
    }
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn short(mut self, text: &str) -> Self {
        self.0.push(text.len() as u8);
        self.0.extend_from_slice(text.as_bytes());
        self
    }
    fn long(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }
}

/// A connection with channel 1 open.
pub(crate) struct Channel {
    pub(crate) link: Link,
}

impl Channel {
    pub(crate) fn open(to: SocketAddr) -> Result<Self> {
        let mut link = Link::connect(to)?;
        link.write(b"AMQP\x00\x00\x09\x01")?;
        let mut channel = Self { link };
        channel.wait(10, 10)?;
        let start_ok = Method::new(10, 11).long(&[]).short("PLAIN").long(b"\0guest\0guest").short("en_US");
        channel.link.write(&frame(METHOD, 0, &start_ok.0))?;
        channel.wait(10, 30)?;
        // No heartbeats: a run is shorter.
        let tune_ok = Method::new(10, 31).raw(&[0x07, 0xff, 0, 2, 0, 0, 0, 0]);
        channel.link.write(&frame(METHOD, 0, &tune_ok.0))?;
        channel.link.write(&frame(METHOD, 0, &Method::new(10, 40).short("/").short("").raw(&[0]).0))?;
        channel.wait(10, 41)?;
        channel.link.write(&frame(METHOD, 1, &Method::new(20, 10).short("").0))?;
        channel.wait(20, 11)?;
        Ok(channel)
    }

    fn wait(&mut self, class: u16, method: u16) -> Result<Vec<u8>> {
        loop {
            let frame = self.link.frame(frame_length)?;
            let mut fields = Fields(frame.get(7..).unwrap_or_default());
            match (fields.u16(), fields.u16()) {
                found if found == (class, method) => return Ok(fields.0.to_vec()),
                (20, 40) | (10, 50) => bail!("the broker closed: {}", String::from_utf8_lossy(fields.0)),
                _ => {}
            }
        }
    }

    fn call(&mut self, method: &Method, class: u16, answer: u16) -> Result<Vec<u8>> {
        self.link.write(&frame(METHOD, 1, &method.0))?;
        self.wait(class, answer)
    }

    pub(crate) fn declare_queue(&mut self, name: &str, durable: bool) -> Result<()> {
        // A queue that is not durable is auto-delete.
        let flags = if durable { 2 } else { 8 };
        self.call(&Method::new(50, 10).raw(&[0, 0]).short(name).raw(&[flags]).long(&[]), 50, 11)?;
        Ok(())
    }

    /// Declares durable queues without waiting for each.
    pub(crate) fn declare_queues(&mut self, names: &[String]) -> Result<()> {
        let declare = |name: &String| {
            let method = Method::new(50, 10).raw(&[0, 0]).short(name).raw(&[2 | NO_WAIT]).long(&[]);
            frame(METHOD, 1, &method.0)
        };
        self.link.write(&names.iter().flat_map(declare).collect::<Vec<u8>>())?;
        // The answer to this declaration follows all before it.
        names.last().map_or(Ok(()), |last| self.declare_queue(last, true))
    }

    pub(crate) fn delete_queue(&mut self, name: &str) -> Result<()> {
        self.call(&Method::new(50, 40).raw(&[0, 0]).short(name).raw(&[0]), 50, 41)?;
        Ok(())
    }

    pub(crate) fn declare_exchange(&mut self, name: &str, kind: &str) -> Result<()> {
        self.call(&Method::new(40, 10).raw(&[0, 0]).short(name).short(kind).raw(&[0]).long(&[]), 40, 11)?;
        Ok(())
    }

    pub(crate) fn delete_exchange(&mut self, name: &str) -> Result<()> {
        self.call(&Method::new(40, 20).raw(&[0, 0]).short(name).raw(&[0]), 40, 21)?;
        Ok(())
    }

    pub(crate) fn bind(&mut self, queue: &str, exchange: &str, key: &str) -> Result<()> {
        self.call(
            &Method::new(50, 20).raw(&[0, 0]).short(queue).short(exchange).short(key).raw(&[0]).long(&[]),
            50,
            21,
        )?;
        Ok(())
    }

    pub(crate) fn confirms(&mut self) -> Result<()> {
        self.call(&Method::new(85, 10).raw(&[0]), 85, 11)?;
        Ok(())
    }

    pub(crate) fn consume(&mut self, queue: &str, auto_ack: bool, prefetch: u16) -> Result<()> {
        self.consume_with(queue, auto_ack, prefetch, &[])
    }

    /// Joins the named subscription of a topic.
    pub(crate) fn consume_shared(&mut self, topic: &str, subscription: &str, prefetch: u16) -> Result<()> {
        let name = "x-subscription";
        let mut table = vec![name.len() as u8];
        table.extend_from_slice(name.as_bytes());
        table.push(b'S');
        table.extend_from_slice(&(subscription.len() as u32).to_be_bytes());
        table.extend_from_slice(subscription.as_bytes());
        self.consume_with(topic, false, prefetch, &table)
    }

    fn consume_with(&mut self, queue: &str, auto_ack: bool, prefetch: u16, table: &[u8]) -> Result<()> {
        if prefetch > 0 {
            let [high, low] = prefetch.to_be_bytes();
            self.call(&Method::new(60, 10).raw(&[0, 0, 0, 0, high, low, 0]), 60, 11)?;
        }
        let flags = if auto_ack { 2 } else { 0 };
        self.call(
            &Method::new(60, 20).raw(&[0, 0]).short(queue).short("").raw(&[flags]).long(table),
            60,
            21,
        )?;
        Ok(())
    }
}

/// Publishes to one exchange, with one routing key or several in turn.
pub(crate) struct Publisher {
    /// The frames of a publish for each routing key: method, header, body.
    messages: Vec<Vec<u8>>,
    next: usize,
    body_bytes: usize,
    confirms: bool,
    published: u64,
    confirmed: u64,
    unconfirmed_max: u64,
    pace: Option<Pace>,
    due: VecDeque<u64>,
}

impl Publisher {
    pub(crate) fn new(
        exchange: &str,
        keys: &[String],
        body_bytes: usize,
        persistent: bool,
        unconfirmed_max: Option<u64>,
        pace: Option<Pace>,
    ) -> Self {
        let messages = keys.iter().map(|key| {
            let publish = Method::new(60, 40).raw(&[0, 0]).short(exchange).short(key).raw(&[0]);
            let mut header = Method::new(60, 0).raw(&(body_bytes as u64).to_be_bytes());
            // The only property is the delivery mode.
            header = if persistent { header.raw(&[0x10, 0, 2]) } else { header.raw(&[0, 0]) };
            [frame(METHOD, 1, &publish.0), frame(HEADER, 1, &header.0), frame(BODY, 1, &vec![0; body_bytes])]
                .concat()
        });
        Self {
            messages: messages.collect(),
            next: 0,
            body_bytes,
            confirms: unconfirmed_max.is_some(),
            published: 0,
            confirmed: 0,
            unconfirmed_max: unconfirmed_max.unwrap_or(u64::MAX),
            pace,
            due: VecDeque::new(),
        }
    }

    fn push(&mut self, due_ns: u64, output: &mut Vec<u8>) {
        let Some(message) = self.messages.get(self.next) else { return };
        self.next = (self.next + 1) % self.messages.len();
        output.extend_from_slice(message);
        self.published += 1;
        if due_ns > 0 {
            if self.confirms {
                self.due.push_back(due_ns);
            }
            let at = output.len() - 1 - self.body_bytes;
            if let Some(place) = output.get_mut(at..at + 8) {
                place.copy_from_slice(&due_ns.to_be_bytes());
            }
        }
    }
}

impl Client for Publisher {
    fn received(&mut self, input: &[u8], _output: &mut Vec<u8>, state: &mut RunState) -> Result<usize> {
        let mut taken = 0;
        while let Some(rest) = input.get(taken..) {
            let Some(frame) = frame_length(rest).and_then(|length| rest.get(..length)) else { break };
            taken += frame.len();
            let mut fields = Fields(frame.get(7..).unwrap_or_default());
            match (frame.first(), fields.u16(), fields.u16()) {
                (Some(&METHOD), 60, 80) => {
                    let tag = fields.u64();
                    let before = self.confirmed;
                    self.confirmed = if fields.u8() & 1 == 1 { tag } else { self.confirmed + 1 };
                    for _ in before..self.confirmed {
                        let Some(due_ns) = self.due.pop_front() else { break };
                        state.confirmed(due_ns);
                    }
                }
                (Some(&8), ..) => {}
                (Some(&METHOD), 10, 60 | 61) => bail!("the broker blocked the publisher"),
                (kind, class, method) => {
                    bail!("a publisher got {kind:?} {class}.{method} {}", String::from_utf8_lossy(fields.0))
                }
            }
        }
        Ok(taken)
    }

    fn send(&mut self, output: &mut Vec<u8>, state: &mut RunState) {
        if self.pace.is_some() {
            while state.sending && output.len() < 1 << 20 {
                let Some(due_ns) = self.pace.as_mut().and_then(|pace| pace.due(state.now_ns)) else { break };
                self.push(due_ns, output);
                state.sent += 1;
            }
            return;
        }
        let unconfirmed = if self.confirms { self.published - self.confirmed.min(self.published) } else { 0 };
        let count = state.room().min(self.unconfirmed_max.saturating_sub(unconfirmed)).min(512);
        for _ in 0..count {
            self.push(0, output);
        }
        state.sent += count;
    }
}

/// Counts deliveries and acknowledges them if asked to.
pub(crate) struct Consumer {
    ack: bool,
    tag: u64,
    /// The acknowledgement frame, complete but for the delivery tag.
    frame: Vec<u8>,
}

impl Consumer {
    pub(crate) fn new(ack: bool) -> Self {
        Self { ack, tag: 0, frame: frame(METHOD, 1, &Method::new(60, 80).raw(&[0; 9]).0) }
    }
}

impl Client for Consumer {
    fn received(&mut self, input: &[u8], output: &mut Vec<u8>, state: &mut RunState) -> Result<usize> {
        let mut taken = 0;
        while let Some(rest) = input.get(taken..) {
            let Some(frame) = frame_length(rest).and_then(|length| rest.get(..length)) else { break };
            taken += frame.len();
            ensure!(frame.last() == Some(&END), "a frame without its end octet");
            let mut fields = Fields(frame.get(7..).unwrap_or_default());
            match frame.first() {
                Some(&METHOD) => {
                    let method = (fields.u16(), fields.u16());
                    ensure!(
                        method == (60, 60),
                        "a consumer got {method:?} {}",
                        String::from_utf8_lossy(fields.0)
                    );
                    let length = fields.u8();
                    fields.take(usize::from(length));
                    self.tag = fields.u64();
                }
                Some(&BODY) => {
                    if self.ack {
                        if let Some(place) = self.frame.get_mut(11..19) {
                            place.copy_from_slice(&self.tag.to_be_bytes());
                        }
                        output.extend_from_slice(&self.frame);
                    }
                    if state.recording {
                        state.arrived(fields.u64());
                    }
                    state.done += 1;
                }
                _ => {}
            }
        }
        Ok(taken)
    }

    fn send(&mut self, _output: &mut Vec<u8>, _stage: &mut RunState) {}
}
