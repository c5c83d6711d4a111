//! Workloads of scale: creating very many objects, keeping them idle, and restarting with them.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Figures, Kind, Object, fresh};
use crate::broker::Broker;
use crate::load::{Link, amqp, kafka, mqtt};

/// Topics in a CreateTopics request, and queues declared before waiting for an answer.
const A_REQUEST: usize = 1000;
/// Duration of the idle measurement.
const IDLE: Duration = Duration::from_secs(5);
/// Clients that create sessions concurrently.
const CLIENTS: usize = 32;

pub(super) fn run(broker: &mut Broker, kind: Kind) -> Result<Figures> {
    let Kind::Scale { object, count } = kind else { anyhow::bail!("not a workload of scale") };
    let name = fresh("s");
    let before = crate::usage::of(&broker.pids());
    let began = Instant::now();
    match object {
        Object::Topics => {
            let mut link = Link::connect(broker.kafka)?;
            each_request(&name, count, |names| kafka::create_topics(&mut link, names))?;
        }
        Object::Queues => {
            let mut channel = amqp::Channel::open(broker.amqp)?;
            each_request(&name, count, |names| channel.declare_queues(names))?;
        }
        Object::Sessions => sessions(broker, &name, count)?,
    }
    let made_s = began.elapsed().as_secs_f64();
    let after = crate::usage::of(&broker.pids());
    std::thread::sleep(IDLE);
    let idle = (crate::usage::of(&broker.pids()) - after).cpu_s() / IDLE.as_secs_f64();
    let restarted = broker.restart()?;
    let again = crate::usage::of(&broker.pids());
    Ok(Figures::from([
        ("made_s".to_owned(), made_s),
        ("made_cpu_s".to_owned(), (after - before).cpu_s()),
        ("rss_mb".to_owned(), after.rss_bytes as f64 / 1e6),
        ("rss_bytes_each".to_owned(), (after.rss_bytes as f64 - before.rss_bytes as f64) / count as f64),
        ("idle_ms_per_s".to_owned(), idle * 1e3),
        ("restart_ms".to_owned(), restarted.as_secs_f64() * 1e3),
        ("restarted_rss_mb".to_owned(), again.rss_bytes as f64 / 1e6),
    ]))
}

fn each_request(name: &str, count: usize, mut make: impl FnMut(&[String]) -> Result<()>) -> Result<()> {
    for from in (0..count).step_by(A_REQUEST) {
        let to = count.min(from + A_REQUEST);
        make(&(from..to).map(|index| format!("{name}-{index}")).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn sessions(broker: &Broker, name: &str, count: usize) -> Result<()> {
    let make = |client: usize| -> Result<()> {
        for index in (client..count).step_by(CLIENTS) {
            let mut link = mqtt::connect(broker.mqtt, &format!("{name}-{index}"), false)?;
            mqtt::subscribe(&mut link, &format!("{name}/{index}"), 1)?;
            mqtt::disconnect(link)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || make(client))).collect();
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(())
    })
}
