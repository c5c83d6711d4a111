//! Bridge from MQTT to Kafka, as cheap as a connector can be: all messages of one read are one batch, acknowledged to
//! the MQTT broker when Kafka has acknowledged it.

use std::net::SocketAddr;

use anyhow::Result;

use crate::load::{Fields, Link, kafka, mqtt};

/// The Kafka topic of MQTT publishes, and its partitions.
pub(crate) const CAPTURE_TOPIC: &str = "mqtt";
pub(crate) const CAPTURE_PARTITIONS: i32 = 4;

/// Runs until a connection ends.
pub(crate) fn run(from: SocketAddr, to: SocketAddr) -> Result<()> {
    let mut subscriber = mqtt::connect(from, "bridge", true)?;
    mqtt::subscribe(&mut subscriber, "#", 1)?;
    let mut producer = Link::connect(to)?;
    let mut acks = Vec::new();
    loop {
        let input = subscriber.read_more()?;
        let mut messages = Vec::new();
        acks.clear();
        let mut taken = 0;
        while let Some(packet) = mqtt::packet_at(input.get(taken..).unwrap_or_default()) {
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
        subscriber.consume(taken);
        subscriber.write(&acks)?;
    }
}
