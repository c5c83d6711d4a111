//! AMQP sink: delivers each publish to the consumer of every bound queue, with its content frames unchanged.

use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use anyhow::Result;

use super::{Named, Shared, lock, pump, send};
use crate::load::Fields;

/// The consumer of each queue, and the queues bound to each exchange.
#[derive(Default)]
pub(super) struct Queues {
    consumers: Named<Shared>,
    bindings: Named<Vec<Vec<u8>>>,
}

impl Queues {
    /// The consumers of a publish; without an exchange the routing key names the queue.
    fn consumers(&self, exchange: &[u8], key: &[u8]) -> Vec<Shared> {
        let queues = if exchange.is_empty() {
            vec![key.to_vec()]
        } else {
            lock(&self.bindings).get(exchange).cloned().unwrap_or_default()
        };
        let consumers = lock(&self.consumers);
        queues.iter().filter_map(|queue| consumers.get(queue).cloned()).collect()
    }

    fn bind(&self, queue: &[u8], exchange: &[u8]) {
        let mut bindings = lock(&self.bindings);
        let queues = bindings.entry(exchange.to_vec()).or_default();
        if queues.last().is_none_or(|last| last != queue) {
            queues.push(queue.to_vec());
        }
    }
}

fn method(class: u16, method: u16, arguments: &[u8], channel: u8) -> Vec<u8> {
    let mut frame = vec![1, 0, channel, 0, 0, 0, 4 + arguments.len() as u8];
    frame.extend_from_slice(&class.to_be_bytes());
    frame.extend_from_slice(&method.to_be_bytes());
    frame.extend_from_slice(arguments);
    frame.push(0xce);
    frame
}

fn short<'a>(fields: &mut Fields<'a>) -> &'a [u8] {
    let length = fields.u8();
    fields.take(usize::from(length))
}

pub(super) fn serve(stream: TcpStream, queues: &Queues) -> Result<()> {
    let own: Shared = Arc::new(Mutex::new(stream.try_clone()?));
    let (mut delivered, mut confirming) = (0_u64, false);
    let mut to: Option<Vec<Shared>> = None;
    pump(stream, &own, |input, output| {
        let mut taken = 0;
        let mut deliveries = Vec::new();
        if input.starts_with(b"AMQP") {
            taken = 8;
            output.extend(method(10, 10, &[0; 10], 0));
        }
        let before = delivered;
        while let Some(rest) = input.get(taken..) {
            let Some(size) = rest.get(3..7) else { break };
            let Some(frame) = rest.get(..Fields(size).i32() as usize + 8) else { break };
            taken += frame.len();
            let mut fields = Fields(frame.get(7..).unwrap_or_default());
            if frame.first() != Some(&1) {
                deliveries.extend_from_slice(frame);
                continue;
            }
            let (class, number) = (fields.u16(), fields.u16());
            if matches!((class, number), (50 | 60, _)) {
                // A reserved field, in all methods but acknowledgements, which are not read.
                fields.u16();
            }
            match (class, number) {
                (10, 11) => output.extend(method(10, 30, &[0; 8], 0)),
                (10, 40) => output.extend(method(10, 41, &[0], 0)),
                (20, 10) => output.extend(method(20, 11, &[0; 4], 1)),
                (40, 10 | 20) => output.extend(method(40, number + 1, &[], 1)),
                (50, 10) => output.extend(method(50, 11, &[0; 9], 1)),
                (50, 20) => {
                    let (queue, exchange) = (short(&mut fields), short(&mut fields));
                    queues.bind(queue, exchange);
                    output.extend(method(50, 21, &[], 1));
                }
                (50, 40) => output.extend(method(50, 41, &[0; 4], 1)),
                (85, 10) => {
                    confirming = true;
                    output.extend(method(85, 11, &[], 1));
                }
                (60, 10) => output.extend(method(60, 11, &[], 1)),
                (60, 20) => {
                    lock(&queues.consumers).insert(short(&mut fields).to_vec(), Arc::clone(&own));
                    output.extend(method(60, 21, &[1, b'c'], 1));
                }
                (60, 40) => {
                    let (exchange, key) = (short(&mut fields), short(&mut fields));
                    if to.is_none() {
                        to = Some(queues.consumers(exchange, key));
                    }
                    delivered += 1;
                    let mut arguments = vec![1, b'c'];
                    arguments.extend_from_slice(&delivered.to_be_bytes());
                    arguments.extend_from_slice(&[0, 0, 1, b'q']);
                    deliveries.extend(method(60, 60, &arguments, 1));
                }
                _ => {}
            }
        }
        if confirming && delivered > before {
            let mut arguments = delivered.to_be_bytes().to_vec();
            arguments.push(1);
            output.extend(method(60, 80, &arguments, 1));
        }
        send(to.as_deref().unwrap_or_default(), &deliveries)?;
        Ok(taken)
    })
}
