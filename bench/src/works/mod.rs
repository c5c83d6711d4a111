//! The works: what is asked of a broker, each with the figure that is wanted of it.

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
use crate::contestant::Contestant;
use crate::load::drive::{Outcome, Plan, drive};
use crate::load::{Actor, Link, Stage};
use crate::results::Figures;
use Contestant::{InverAlways as Always, InverOs as Os};

pub(crate) use kind::{Kind, Noun};
pub(crate) use table::WORKS;

/// Which peers a work is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Field {
    Kafka,
    Amqp,
    Mqtt,
    /// From one protocol to another, where there is another way.
    Cross,
    /// From one protocol to another, where there is none.
    Own,
    /// Very many of something.
    Scale,
    /// Inver's two ways to use the cores, against each other.
    Runtime,
}

impl Field {
    pub(crate) const ALL: [Self; 7] =
        [Self::Kafka, Self::Amqp, Self::Mqtt, Self::Cross, Self::Own, Self::Scale, Self::Runtime];

    /// The peer comes last.
    pub(crate) fn contestants(self) -> &'static [Contestant] {
        match self {
            Self::Kafka => &[Os, Always, Contestant::Kafka],
            Self::Amqp => &[Os, Always, Contestant::Rabbitmq],
            Self::Mqtt => &[Os, Always, Contestant::Mosquitto],
            Self::Cross => &[Always, Contestant::Bridged],
            Self::Own => &[Os, Always],
            Self::Scale => &[Always],
            Self::Runtime => &[Contestant::InverPerCore, Contestant::InverMultiThread],
        }
    }
}

/// What is wanted of Inver.
pub(crate) struct Wanted {
    pub(crate) figure: &'static str,
    pub(crate) of: Contestant,
    pub(crate) bound: Bound,
}

pub(crate) enum Bound {
    /// So many times better than the peer in the same run.
    Times(f64),
    /// No more than this.
    AtMost(f64),
    /// No more than so many times what Inver itself has in another work.
    TimesOf(f64, &'static str),
}

pub(crate) struct Work {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) field: Field,
    /// What a message is in its counts.
    pub(crate) unit: &'static str,
    pub(crate) wanted: &'static [Wanted],
    pub(crate) kind: Kind,
}

/// Lengths of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths {
    pub(crate) warmup: Duration,
    pub(crate) window: Duration,
}

type Seats = Vec<(Link, Box<dyn Actor>)>;

/// A name that no run before it had.
fn fresh(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn play(broker: &Broker, lengths: Lengths, kind: Kind, seats: Seats, mut stage: Stage) -> Result<Figures> {
    let plan = Plan {
        warmup: lengths.warmup,
        done_before: kind.done_before(),
        window: lengths.window,
        spin: kind.is_latency(),
        pids: broker.pids(),
        record: broker.record.clone(),
    };
    let outcome = drive(seats, &mut stage, &plan)?;
    ensure!(outcome.messages > 0, "nothing came in {:.1} s", outcome.seconds);
    Ok(figures(&outcome, &stage))
}

fn figures(outcome: &Outcome, stage: &Stage) -> Figures {
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
    set("lost", stage.lost as f64);
    for (name, latency) in [("", &stage.latency), ("confirm_", &stage.confirm)] {
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

impl Work {
    pub(crate) fn named(id: &str) -> Option<&'static Self> {
        WORKS.iter().find(|work| work.id.eq_ignore_ascii_case(id))
    }

    /// One run against a broker that is up.
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
