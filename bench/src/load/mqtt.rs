//! MQTT 3.1.1 publishers and subscribers.

use std::collections::VecDeque;
use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};

use super::{Client, Fields, Link, Pace, RunState};

/// Length of the packet at the start, if it is known yet.
fn packet_length(bytes: &[u8]) -> Option<usize> {
    if let Some([_, length @ ..0x80]) = bytes.first_chunk::<2>() {
        return Some(2 + usize::from(*length));
    }
    let mut length = 0;
    for index in 0..4 {
        let byte = *bytes.get(1 + index)?;
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some(2 + index + length);
        }
    }
    None
}

/// The complete packet at the start.
pub(crate) fn packet_at(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..packet_length(bytes)?)
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut rest = body.len();
    loop {
        let low = (rest & 0x7f) as u8;
        rest >>= 7;
        bytes.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn string(into: &mut Vec<u8>, text: &str) {
    into.extend_from_slice(&(text.len() as u16).to_be_bytes());
    into.extend_from_slice(text.as_bytes());
}

/// Connects and waits for the CONNACK. `clean`: Clean Session.
pub(crate) fn connect(to: SocketAddr, client: &str, clean: bool) -> Result<Link> {
    let mut link = Link::connect(to)?;
    let mut body = Vec::new();
    string(&mut body, "MQTT");
    body.extend_from_slice(&[4, if clean { 2 } else { 0 }, 0, 0]);
    string(&mut body, client);
    link.write(&packet(0x10, &body))?;
    let answer = link.frame(packet_length)?;
    ensure!(answer.first() == Some(&0x20) && answer.get(3) == Some(&0), "CONNACK {answer:02x?}");
    Ok(link)
}

/// Subscribes and waits for the SUBACK.
pub(crate) fn subscribe(link: &mut Link, filter: &str, qos: u8) -> Result<()> {
    subscribe_all(link, &[filter.to_owned()], qos)
}

/// Subscribes to all filters with one packet.
pub(crate) fn subscribe_all(link: &mut Link, filters: &[String], qos: u8) -> Result<()> {
    let mut body = vec![0, 1];
    for filter in filters {
        string(&mut body, filter);
        body.push(qos);
    }
    link.write(&packet(0x82, &body))?;
    let answer = link.frame(packet_length)?;
    let codes = answer.len().checked_sub(filters.len()).and_then(|head| answer.get(head..));
    ensure!(
        answer.first() == Some(&0x90) && codes.is_some_and(|codes| codes.iter().all(|code| *code < 0x80)),
        "SUBACK {answer:02x?}"
    );
    Ok(())
}

/// Sends DISCONNECT.
pub(crate) fn disconnect(mut link: Link) -> Result<()> {
    link.write(&[0xe0, 0])
}

/// Publishes to one topic: at a pace, or as fast as the run's window and its own inflight window allow.
pub(crate) struct Publisher {
    qos: u8,
    frame: Vec<u8>,
    /// Many frames in one block, for QoS 0.
    block: Vec<u8>,
    id_at: usize,
    stamp_at: usize,
    id: u16,
    inflight: usize,
    inflight_max: usize,
    pace: Option<Pace>,
    due: VecDeque<u64>,
}

/// Frames in a block.
const BLOCK: u64 = 128;

impl Publisher {
    /// A payload of less than 8 bytes has no time, so its latency is not measured.
    pub(crate) fn new(
        topic: &str,
        qos: u8,
        payload_bytes: usize,
        inflight_max: usize,
        pace: Option<Pace>,
    ) -> Self {
        let mut body = Vec::new();
        string(&mut body, topic);
        let id_in_body = body.len();
        if qos > 0 {
            body.extend_from_slice(&[0, 1]);
        }
        let payload_in_body = body.len();
        body.resize(body.len() + payload_bytes, 0);
        let frame = packet(0x30 | qos << 1, &body);
        let head = frame.len() - body.len();
        Self {
            qos,
            block: frame.repeat(BLOCK as usize),
            id_at: head + id_in_body,
            stamp_at: head + payload_in_body,
            frame,
            id: 0,
            inflight: 0,
            inflight_max,
            pace,
            due: VecDeque::new(),
        }
    }

    fn push(&mut self, due_ns: u64, output: &mut Vec<u8>) {
        let at = output.len();
        output.extend_from_slice(&self.frame);
        if self.qos > 0 {
            self.id = self.id.checked_add(1).unwrap_or(1);
            self.inflight += 1;
            if let Some(place) = output.get_mut(at + self.id_at..at + self.id_at + 2) {
                place.copy_from_slice(&self.id.to_be_bytes());
            }
        }
        if due_ns > 0 {
            if self.qos > 0 {
                self.due.push_back(due_ns);
            }
            if let Some(place) = output.get_mut(at + self.stamp_at..at + self.stamp_at + 8) {
                place.copy_from_slice(&due_ns.to_be_bytes());
            }
        }
    }
}

impl Client for Publisher {
    fn received(&mut self, input: &[u8], output: &mut Vec<u8>, state: &mut RunState) -> Result<usize> {
        let mut taken = 0;
        while let Some([kind, 2, high, low]) = input.get(taken..taken + 4) {
            taken += 4;
            match kind {
                0x50 => output.extend_from_slice(&[0x62, 2, *high, *low]),
                0x40 | 0x70 => {
                    self.inflight = self.inflight.saturating_sub(1);
                    if let Some(due_ns) = self.due.pop_front() {
                        state.confirmed(due_ns);
                    }
                }
                other => bail!("a publisher got packet {other:02x}"),
            }
        }
        ensure!(input.len() - taken < 4, "a publisher got {:02x?}", input.get(taken..taken + 4));
        Ok(taken)
    }

    fn send(&mut self, output: &mut Vec<u8>, state: &mut RunState) {
        if let Some(pace) = &mut self.pace {
            let mut due = Vec::new();
            while state.sending && due.len() < 4096 {
                let Some(due_ns) = pace.due(state.now_ns) else { break };
                due.push(due_ns);
            }
            for due_ns in due {
                self.push(due_ns, output);
                state.sent += 1;
            }
        } else if self.qos == 0 {
            let count = state.room().min(BLOCK * 4);
            for _ in 0..count / BLOCK {
                output.extend_from_slice(&self.block);
            }
            let rest = (count % BLOCK) as usize * self.frame.len();
            output.extend_from_slice(self.block.get(..rest).unwrap_or_default());
            state.sent += count;
        } else {
            let count = state.room().min((self.inflight_max - self.inflight) as u64);
            for _ in 0..count {
                self.push(0, output);
            }
            state.sent += count;
        }
    }
}

/// Counts messages and acknowledges them.
pub(crate) struct Subscriber;

impl Client for Subscriber {
    fn received(&mut self, input: &[u8], output: &mut Vec<u8>, state: &mut RunState) -> Result<usize> {
        let mut taken = 0;
        while let Some(packet) = input.get(taken..).and_then(packet_at) {
            taken += packet.len();
            let first = packet.first().copied().unwrap_or(0);
            match first & 0xf0 {
                // No field is needed.
                0x30 if first & 6 == 0 && !state.recording => state.done += 1,
                0x30 => {
                    let head = if packet.len() < 130 { 2 } else { 3 };
                    let mut fields = Fields(packet.get(head..).unwrap_or_default());
                    fields.string();
                    match first & 6 {
                        0 => {}
                        2 => output.extend_from_slice(&[0x40, 2, fields.u8(), fields.u8()]),
                        _ => output.extend_from_slice(&[0x50, 2, fields.u8(), fields.u8()]),
                    }
                    if state.recording {
                        state.arrived(fields.u64());
                    }
                    state.done += 1;
                }
                0x60 => output.extend_from_slice(&[
                    0x70,
                    2,
                    packet.get(2).copied().unwrap_or(0),
                    packet.get(3).copied().unwrap_or(0),
                ]),
                other => bail!("a subscriber got packet {other:02x}"),
            }
        }
        Ok(taken)
    }

    fn send(&mut self, _output: &mut Vec<u8>, _stage: &mut RunState) {}
}
