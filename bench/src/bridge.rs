//! Carries MQTT publishes to Kafka, as a connector would, at the least cost: what has come goes as one batch,
//! and is acknowledged once Kafka has it.

use std::net::SocketAddr;

use anyhow::Result;

use crate::load::{Fields, Link, kafka, mqtt};

/// The topic that MQTT publishes are kept in, and its partitions.
pub(crate) const CAPTURE_TOPIC: &str = "mqtt";
pub(crate) const CAPTURE_PARTITIONS: i32 = 4;

/// Serves until a connection ends.
pub(crate) fn run(from: SocketAddr, to: SocketAddr) -> Result<()> {
    let mut subscriber = mqtt::connect(from, "bridge", true)?;
    mqtt::subscribe(&mut subscriber, "#", 1)?;
    let mut producer = Link::connect(to)?;
    let mut acks = Vec::new();
    loop {
        let come = subscriber.come()?;
        let mut messages = Vec::new();
        acks.clear();
        let mut taken = 0;
        while let Some(packet) = mqtt::packet_at(come.get(taken..).unwrap_or_default()) {
            taken += packet.len();
            let Some(first) = packet.first().filter(|first| **first >> 4 == 3) else { continue };
            let head = if packet.len() < 130 { 2 } else { 3 };
            let mut fields = Fields(packet.get(head..).unwrap_or_default());
            let topic = fields.string();
            if first & 6 != 0 {
                acks.extend_from_slice(&[0x40, 2, fields.u8(), fields.u8()]);
            }
            messages.push((topic, fields.0));
        }
        if !messages.is_empty() {
            kafka::write(&mut producer, CAPTURE_TOPIC, &messages)?;
        }
        drop(messages);
        subscriber.taken(taken);
        subscriber.write(&acks)?;
    }
}
