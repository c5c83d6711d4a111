//! Workloads of AMQP publishers and consumers.

use anyhow::Result;

use super::{Connections, Figures, Kind, Lengths, fresh, run_clients};
use crate::broker::Broker;
use crate::load::{Pace, RunState, amqp};

pub(super) fn run(broker: &Broker, lengths: Lengths, kind: Kind) -> Result<Figures> {
    let name = fresh("q");
    let queue = |index: usize| format!("{name}-{index}");
    let mut connections: Connections = Vec::new();
    let mut durable = Vec::new();
    let mut control = amqp::Channel::open(broker.amqp)?;
    let mut exchange = String::new();
    let state = match kind {
        Kind::AmqpStream { body, persistent, queues, window, unconfirmed, prefetch } => {
            for index in 0..queues {
                let mut consumer = amqp::Channel::open(broker.amqp)?;
                consumer.declare_queue(&queue(index), persistent)?;
                consumer.consume(&queue(index), prefetch == 0, prefetch)?;
                connections.push((consumer.link, Box::new(amqp::Consumer::new(prefetch > 0))));
                let mut publisher = amqp::Channel::open(broker.amqp)?;
                if unconfirmed > 0 {
                    publisher.confirms()?;
                }
                let confirms = (unconfirmed > 0).then_some(unconfirmed);
                let client = amqp::Publisher::new("", &[queue(index)], body, persistent, confirms, None);
                connections.push((publisher.link, Box::new(client)));
                if persistent {
                    durable.push(queue(index));
                }
            }
            RunState::new(window, 1)
        }
        Kind::AmqpFanOut { queues } => {
            exchange.clone_from(&name);
            control.declare_exchange(&exchange, "fanout")?;
            for index in 0..queues {
                let mut consumer = amqp::Channel::open(broker.amqp)?;
                consumer.declare_queue(&queue(index), false)?;
                consumer.bind(&queue(index), &exchange, "")?;
                consumer.consume(&queue(index), true, 0)?;
                connections.push((consumer.link, Box::new(amqp::Consumer::new(false))));
            }
            let client = amqp::Publisher::new(&exchange, &["key".into()], 16, false, None, None);
            connections.push((amqp::Channel::open(broker.amqp)?.link, Box::new(client)));
            RunState::new(20_000, queues as u64)
        }
        Kind::AmqpTopic { bindings } => {
            exchange.clone_from(&name);
            control.declare_exchange(&exchange, "topic")?;
            let mut consumer = amqp::Channel::open(broker.amqp)?;
            consumer.declare_queue(&queue(0), false)?;
            for index in 0..bindings {
                consumer.bind(&queue(0), &exchange, &format!("site{index}.*.temp"))?;
            }
            consumer.consume(&queue(0), true, 0)?;
            connections.push((consumer.link, Box::new(amqp::Consumer::new(false))));
            let keys: Vec<String> = (0..bindings).map(|index| format!("site{index}.room7.temp")).collect();
            let client = amqp::Publisher::new(&exchange, &keys, 16, false, None, None);
            connections.push((amqp::Channel::open(broker.amqp)?.link, Box::new(client)));
            RunState::new(10_000, 1)
        }
        Kind::AmqpLatency { persistent, per_s } => {
            let mut consumer = amqp::Channel::open(broker.amqp)?;
            consumer.declare_queue(&queue(0), persistent)?;
            consumer.consume(&queue(0), !persistent, if persistent { 1000 } else { 0 })?;
            connections.push((consumer.link, Box::new(amqp::Consumer::new(persistent))));
            let mut publisher = amqp::Channel::open(broker.amqp)?;
            if persistent {
                publisher.confirms()?;
                durable.push(queue(0));
            }
            let confirms = persistent.then_some(u64::MAX);
            let client =
                amqp::Publisher::new("", &[queue(0)], 100, persistent, confirms, Some(Pace::new(per_s)));
            connections.push((publisher.link, Box::new(client)));
            RunState::new(u64::MAX, 1)
        }
        _ => anyhow::bail!("not a workload of AMQP"),
    };
    let figures = run_clients(broker, lengths, kind, connections, state);
    for queue in durable {
        control.delete_queue(&queue)?;
    }
    if !exchange.is_empty() {
        control.delete_exchange(&exchange)?;
    }
    figures
}
