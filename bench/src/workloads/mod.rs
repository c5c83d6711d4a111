//! Workloads: what a broker is measured with, and the targets for its figures.

mod amqp;
mod cross;
mod kafka;
mod kind;
mod mqtt;
mod scale;
mod table;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::broker::Broker;
use crate::broker_kind::BrokerKind;
use crate::load::event_loop::{Outcome, Plan, run};
use crate::load::{Client, Link, RunState};
use crate::results::Figures;
use BrokerKind::{InverAlways as Always, InverOs as Os};

pub(crate) use kind::{Kind, Object};
pub(crate) use table::WORKLOADS;

/// The protocol of a workload, or another group of workloads, which determines the brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    Kafka,
    Amqp,
    Mqtt,
    /// Across protocols, compared with a bridge.
    Cross,
    /// Across protocols, without a peer.
    Own,
    /// Very large numbers of topics, queues or sessions.
    Scale,
    /// Inver's two runtimes against each other.
    Runtime,
}

impl Protocol {
    pub(crate) const ALL: [Self; 7] =
        [Self::Kafka, Self::Amqp, Self::Mqtt, Self::Cross, Self::Own, Self::Scale, Self::Runtime];

    /// The brokers that run these workloads; the peer is the last.
    pub(crate) fn brokers(self) -> &'static [BrokerKind] {
        match self {
            Self::Kafka => &[Os, Always, BrokerKind::Kafka],
            Self::Amqp => &[Os, Always, BrokerKind::Rabbitmq],
            Self::Mqtt => &[Os, Always, BrokerKind::Mosquitto],
            Self::Cross => &[Always, BrokerKind::Bridged],
            Self::Own => &[Os, Always],
            Self::Scale => &[Always],
            Self::Runtime => &[BrokerKind::InverPerCore, BrokerKind::InverMultiThread],
        }
    }
}

/// A target for a figure of Inver.
pub(crate) struct Target {
    pub(crate) figure: &'static str,
    pub(crate) of: BrokerKind,
    pub(crate) bound: Bound,
}

pub(crate) enum Bound {
    /// At least this many times better than the peer in the same run.
    Times(f64),
    /// At most this value.
    AtMost(f64),
    /// At most this many times Inver's own figure in another workload.
    TimesOf(f64, &'static str),
}

pub(crate) struct Workload {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) protocol: Protocol,
    /// The unit that is counted.
    pub(crate) unit: &'static str,
    pub(crate) targets: &'static [Target],
    pub(crate) kind: Kind,
}

/// Durations of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths {
    pub(crate) warmup: Duration,
    pub(crate) window: Duration,
}

type Connections = Vec<(Link, Box<dyn Client>)>;

/// A unique name.
fn fresh(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn run_clients(
    broker: &Broker,
    lengths: Lengths,
    kind: Kind,
    connections: Connections,
    mut state: RunState,
) -> Result<Figures> {
    let plan = Plan {
        warmup: lengths.warmup,
        messages_before: kind.messages_before(),
        window: lengths.window,
        spin: kind.is_latency(),
        pids: broker.pids(),
        record: broker.record.clone(),
    };
    let outcome = run(connections, &mut state, &plan)?;
    ensure!(outcome.messages > 0, "no message arrived in {:.1} s", outcome.seconds);
    Ok(figures(&outcome, &state))
}

fn figures(outcome: &Outcome, state: &RunState) -> Figures {
    let mut figures = Figures::new();
    let mut set = |name: &str, value: f64| {
        figures.insert(name.to_owned(), value);
    };
    let messages = outcome.messages as f64;
    set("per_s", messages / outcome.seconds);
    if messages > 0.0 {
        set("cpu_s_per_million", outcome.used.cpu_s() * 1e6 / messages);
        set("cpu_user_s_per_million", outcome.used.cpu_user_s * 1e6 / messages);
        set("cpu_system_s_per_million", outcome.used.cpu_system_s * 1e6 / messages);
        set("switches_per_message", outcome.used.switches as f64 / messages);
        set("disk_bytes_per_message", outcome.used.disk_bytes as f64 / messages);
    }
    set("broker_core_share", outcome.used.cpu_s() / outcome.seconds);
    set("load_core_share", outcome.load.cpu_s() / outcome.seconds);
    set("load_kernel_share", outcome.load.cpu_system_s / outcome.load.cpu_s().max(f64::MIN_POSITIVE));
    set("rss_mb", outcome.rss_bytes as f64 / 1e6);
    set("lost", state.lost as f64);
    for (name, latency) in [("", &state.latency), ("confirm_", &state.confirm)] {
        if !latency.is_empty() {
            set(&format!("{name}p50_us"), latency.percentile_us(0.5));
            set(&format!("{name}p90_us"), latency.percentile_us(0.9));
            set(&format!("{name}p99_us"), latency.percentile_us(0.99));
            set(&format!("{name}p999_us"), latency.percentile_us(0.999));
            set(&format!("{name}max_us"), latency.max_us());
        }
    }
    figures
}

impl Workload {
    pub(crate) fn named(id: &str) -> Option<&'static Self> {
        WORKLOADS.iter().find(|workload| workload.id.eq_ignore_ascii_case(id))
    }

    /// Runs once on a running broker.
    pub(crate) fn run(&self, broker: &mut Broker, lengths: Lengths) -> Result<Figures> {
        use Kind::*;
        let kind = self.kind;
        match kind {
            KafkaProduce { .. }
            | KafkaConsume { .. }
            | KafkaBacklog { .. }
            | KafkaLatency { .. }
            | KafkaPartitions { .. } => kafka::run(broker, lengths, kind),
            AmqpStream { .. } | AmqpFanOut { .. } | AmqpTopic { .. } | AmqpLatency { .. } => {
                amqp::run(broker, lengths, kind)
            }
            MqttStream { .. } | MqttLatency { .. } | MqttSubscriptions { .. } | MqttIdle { .. } => {
                mqtt::run(broker, lengths, kind)
            }
            MqttToKafka { .. } | AmqpToMqtt | KafkaToAmqp { .. } => cross::run(broker, lengths, kind),
            Scale { .. } => scale::run(broker, kind),
            Start => Ok(Figures::from([
                ("start_ms".to_owned(), broker.started_in.as_secs_f64() * 1e3),
                ("rss_mb".to_owned(), crate::usage::of(&broker.pids()).rss_bytes as f64 / 1e6),
            ])),
        }
    }
}
