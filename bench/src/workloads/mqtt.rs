//! Workloads of MQTT publishers and subscribers.

use std::time::Duration;

use anyhow::Result;

use super::{Connections, Figures, Kind, Lengths, fresh, run_clients};
use crate::broker::Broker;
use crate::load::{Link, Pace, RunState, mqtt};

/// Payload size.
pub(super) const PAYLOAD_BYTES: usize = 64;
/// Connections that hold the other subscriptions, and topic filters in each of their SUBSCRIBEs.
const HOLDERS: usize = 1000;
const FILTERS_A_PACKET: usize = 250;

pub(super) fn run(broker: &Broker, lengths: Lengths, kind: Kind) -> Result<Figures> {
    let name = fresh("m");
    match kind {
        Kind::MqttStream { qos, topics, publishers, subscribers, window, inflight } => {
            let mut connections: Connections = Vec::new();
            for at in 0..topics {
                let topic = format!("bench/{name}/{at}");
                for index in 0..subscribers {
                    // QoS 1 and 2 subscribers have sessions that outlive their connection.
                    let mut link = mqtt::connect(broker.mqtt, &format!("{name}-s{at}-{index}"), qos == 0)?;
                    mqtt::subscribe(&mut link, &topic, qos)?;
                    connections.push((link, Box::new(mqtt::Subscriber)));
                }
                for index in 0..publishers {
                    let publisher = mqtt::Publisher::new(&topic, qos, PAYLOAD_BYTES, inflight, None);
                    let link = mqtt::connect(broker.mqtt, &format!("{name}-p{at}-{index}"), true)?;
                    connections.push((link, Box::new(publisher)));
                }
            }
            let figures =
                run_clients(broker, lengths, kind, connections, RunState::new(window, subscribers as u64));
            for at in (0..topics).filter(|_| qos > 0) {
                for index in 0..subscribers {
                    mqtt::connect(broker.mqtt, &format!("{name}-s{at}-{index}"), true)?;
                }
            }
            figures
        }
        Kind::MqttLatency { qos, per_s } => {
            let topic = format!("bench/{name}");
            let mut subscriber = mqtt::connect(broker.mqtt, &format!("{name}-s"), qos == 0)?;
            mqtt::subscribe(&mut subscriber, &topic, qos)?;
            let pace = Some(Pace::new(per_s));
            let publisher = mqtt::Publisher::new(&topic, qos, PAYLOAD_BYTES, usize::MAX, pace);
            let connections: Connections = vec![
                (subscriber, Box::new(mqtt::Subscriber)),
                (mqtt::connect(broker.mqtt, &format!("{name}-p"), true)?, Box::new(publisher)),
            ];
            let figures = run_clients(broker, lengths, kind, connections, RunState::new(u64::MAX, 1));
            mqtt::connect(broker.mqtt, &format!("{name}-s"), true)?;
            figures
        }
        Kind::MqttSubscriptions { subscriptions } => {
            let before = crate::usage::of(&broker.pids()).rss_bytes;
            let holders = subscribe_many(broker, &name, subscriptions)?;
            let each =
                (crate::usage::of(&broker.pids()).rss_bytes as f64 - before as f64) / subscriptions as f64;
            let mut subscriber = mqtt::connect(broker.mqtt, &format!("{name}-s"), true)?;
            mqtt::subscribe(&mut subscriber, &format!("{name}/+/1/state"), 0)?;
            let topic = format!("{name}/none/1/state");
            let publisher = mqtt::Publisher::new(&topic, 0, PAYLOAD_BYTES, 0, None);
            let connections: Connections = vec![
                (subscriber, Box::new(mqtt::Subscriber)),
                (mqtt::connect(broker.mqtt, &format!("{name}-p"), true)?, Box::new(publisher)),
            ];
            let mut figures = run_clients(broker, lengths, kind, connections, RunState::new(10_000, 1))?;
            figures.insert("rss_bytes_each".to_owned(), each);
            drop(holders);
            Ok(figures)
        }
        Kind::MqttIdle { connections } => idle(broker, connections),
        _ => anyhow::bail!("not a workload of MQTT"),
    }
}

/// Creates subscriptions beside the one that is published to; half of them have a wildcard.
fn subscribe_many(broker: &Broker, name: &str, subscriptions: usize) -> Result<Vec<Link>> {
    let mut holders = Vec::with_capacity(HOLDERS);
    for holder in 0..HOLDERS {
        let mut link = mqtt::connect(broker.mqtt, &format!("{name}-h{holder}"), true)?;
        let filters: Vec<String> = (0..subscriptions / HOLDERS)
            .map(|index| {
                let level = if index % 2 == 0 { "+" } else { "state" };
                format!("{name}/site{holder}/{index}/{level}")
            })
            .collect();
        for packet in filters.chunks(FILTERS_A_PACKET) {
            mqtt::subscribe_all(&mut link, packet, 0)?;
        }
        holders.push(link);
    }
    Ok(holders)
}

fn idle(broker: &Broker, connections: usize) -> Result<Figures> {
    let before = crate::usage::of(&broker.pids());
    let mut links = Vec::with_capacity(connections);
    let name = fresh("i");
    for index in 0..connections {
        links.push(mqtt::connect(broker.mqtt, &format!("{name}-{index}"), true)?.stream);
    }
    std::thread::sleep(Duration::from_secs(1));
    let after = crate::usage::of(&broker.pids());
    let used = after - before;
    let each = |value: f64| value / connections as f64;
    Ok(Figures::from([
        ("rss_bytes_each".to_owned(), each(after.rss_bytes as f64 - before.rss_bytes as f64)),
        ("cpu_s_per_million".to_owned(), each(used.cpu_s()) * 1e6),
        ("rss_mb".to_owned(), after.rss_bytes as f64 / 1e6),
    ]))
}
