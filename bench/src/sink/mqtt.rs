//! MQTT sink: forwards each publish unchanged to the subscribers of its topic.

use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use anyhow::Result;

use super::kafka::Logs;
use super::{Named, Shared, lock, pump, send};
use crate::bridge::CAPTURE_TOPIC;
use crate::load::Fields;
use crate::load::mqtt::packet_at;

/// Subscribers of each topic.
pub(super) type Topics = Named<Vec<Shared>>;

pub(super) fn serve(stream: TcpStream, topics: &Topics, captured: &Logs) -> Result<()> {
    let own: Shared = Arc::new(Mutex::new(stream.try_clone()?));
    let capturing = captured.is_asked_for(CAPTURE_TOPIC.as_bytes());
    let mut to: Option<Vec<Shared>> = None;
    pump(stream, &own, |input, output| {
        let mut taken = 0;
        let mut publishes = (usize::MAX, 0, 0);
        while let Some(packet) = input.get(taken..).and_then(packet_at) {
            let head = if packet.len() < 130 { 2 } else { 3 };
            let mut fields = Fields(packet.get(head..).unwrap_or_default());
            let first = packet.first().copied().unwrap_or(0);
            match first >> 4 {
                1 => output.extend_from_slice(&[0x20, 2, 0, 0]),
                8 => {
                    let id = fields.u16().to_be_bytes();
                    let topic = fields.string().to_vec();
                    lock(topics).entry(topic).or_default().push(Arc::clone(&own));
                    output.extend_from_slice(&[0x90, 3, id[0], id[1], 0]);
                }
                3 => {
                    publishes = (publishes.0.min(taken), taken + packet.len(), publishes.2 + 1);
                    let topic = fields.string();
                    if to.is_none() {
                        to = Some(lock(topics).get(topic).cloned().unwrap_or_default());
                    }
                    // PUBACK, PUBREC.
                    match first & 6 {
                        0 => {}
                        2 => output.extend_from_slice(&[0x40, 2, fields.u8(), fields.u8()]),
                        _ => output.extend_from_slice(&[0x50, 2, fields.u8(), fields.u8()]),
                    }
                }
                // PUBREC of a subscriber, PUBREL of a publisher.
                5 => output.extend_from_slice(&[0x62, 2, fields.u8(), fields.u8()]),
                6 => output.extend_from_slice(&[0x70, 2, fields.u8(), fields.u8()]),
                _ => {}
            }
            taken += packet.len();
        }
        send(to.as_deref().unwrap_or_default(), input.get(publishes.0..publishes.1).unwrap_or_default())?;
        if capturing && publishes.2 > 0 {
            captured.capture(CAPTURE_TOPIC.as_bytes(), publishes.2);
        }
        Ok(taken)
    })
}
