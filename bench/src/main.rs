//! `inver-bench`: measures Inver beside Apache Kafka, RabbitMQ and Mosquitto, on the same work in the same run.
//!
//! The rooms: [`works`] (what is asked), [`mod@load`] (who asks it), [`broker`] (who is asked), [`compare`]
//! (whose turn it is), [`usage`] (what it cost), [`report`] (what is told), [`sink`] (what the load generators
//! themselves can do), [`bridge`] (what stands between Mosquitto and Kafka), [`tools`] (the peers' own load tools).

mod bridge;
mod broker;
mod compare;
mod histogram;
mod load;
mod report;
mod sink;
mod tools;
mod usage;
mod works;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use rustix::thread::{CpuSet, sched_setaffinity};

use broker::{Contestant, Places};
use report::results::Results;
use works::{Field, Lengths, WORKS, Work};

/// Measures Inver and its peers side by side.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Inver and one peer, in turn, on the same works.
    Compare {
        /// Whose protocol.
        field: Field,
        /// Only these works, by their ids.
        #[arg(long, value_delimiter = ',')]
        work: Vec<String>,
        #[command(flatten)]
        how: How,
    },
    /// Everything, with all three peers.
    All {
        #[command(flatten)]
        how: How,
    },
    /// The load generators against something that only answers: their own ceiling.
    Sink {
        /// Only these works, by their ids.
        #[arg(long, value_delimiter = ',')]
        work: Vec<String>,
        #[command(flatten)]
        how: How,
    },
    /// The peers' own load tools against Inver and the peer.
    Tools {
        /// Whose protocol.
        field: Field,
        #[command(flatten)]
        how: How,
    },
    /// Writes the page and the charts again from the results kept.
    Report,
    /// Lists the works.
    Works,
    /// Carries MQTT publishes to a Kafka topic: what is between Mosquitto and Kafka.
    #[command(hide = true)]
    Bridge {
        /// The MQTT broker.
        mqtt: std::net::SocketAddr,
        /// The Kafka broker.
        kafka: std::net::SocketAddr,
    },
    /// What `sink` starts.
    #[command(hide = true)]
    SinkServe {
        /// First of three ports.
        port: u16,
    },
}

#[derive(Args)]
struct How {
    /// Rounds; the median of them counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Length of a run's window.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Length of the time before the window.
    #[arg(long, default_value_t = 1.5)]
    warmup: f64,
    /// Only these contestants.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Contestant>,
    /// The binary to measure; default: target/release/inver.
    #[arg(long)]
    inver: Option<PathBuf>,
    /// Core of the broker.
    #[arg(long, default_value_t = 0)]
    broker_core: usize,
    /// Core of the load generators.
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Priority of brokers and load alike, where the machine has other work: −20 is the highest, and needs root.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    nice: i32,
    /// Keep nothing: only show.
    #[arg(long)]
    dry: bool,
}

/// The project's root: where this was built.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or_else(|| here.clone(), PathBuf::from)
}

fn places(how: &How) -> Places {
    let root = root();
    Places {
        inver: how.inver.clone().unwrap_or_else(|| root.join("target/release/inver")),
        peers: std::env::var_os("INVER_BENCH_PEERS")
            .map_or_else(|| root.join("target/bench-peers"), PathBuf::from),
        broker_core: how.broker_core,
        root,
    }
}

/// Load goes to its own core; and thousands of connections want as many files.
fn prepare(how: &How) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(how.load_core);
    sched_setaffinity(None, &cores).context("pinning the load generators")?;
    if how.nice != 0 {
        // What is started inherits it.
        rustix::process::setpriority_process(None, how.nice).context("priority")?;
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let open = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, open).context("files")?;
    Ok(())
}

fn settings(how: &How) -> compare::Settings {
    compare::Settings {
        rounds: how.rounds,
        lengths: Lengths {
            warmup: Duration::from_secs_f64(how.warmup),
            window: Duration::from_secs_f64(how.seconds),
        },
        only: how.only.clone(),
    }
}

/// Works of one field, or those named.
fn chosen(field: Field, names: &[String]) -> Result<Vec<&'static Work>> {
    if names.is_empty() {
        return Ok(WORKS.iter().filter(|work| work.field == field).collect());
    }
    names.iter().map(|name| Work::named(name).with_context(|| format!("there is no work {name}"))).collect()
}

fn load(how: &How, places: &Places) -> Result<Results> {
    let results = Results::load(&places.root);
    // A dry run shows its own figures beside nobody else's and is saved nowhere.
    if how.dry { Ok(results.unwrap_or_default()) } else { results }
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Compare { field, work, how } => {
            prepare(&how)?;
            let places = places(&how);
            let works = chosen(field, &work)?;
            let mut results = load(&how, &places)?;
            results.dry = how.dry;
            compare::compare(field, &works, &settings(&how), &places, &mut results)
        }
        Command::All { how } => {
            prepare(&how)?;
            let places = places(&how);
            let mut results = load(&how, &places)?;
            results.dry = how.dry;
            for field in Field::ALL {
                compare::compare(field, &chosen(field, &[])?, &settings(&how), &places, &mut results)?;
                tools::run(field, &settings(&how), &places, &mut results)?;
            }
            Ok(())
        }
        Command::Sink { work, how } => {
            prepare(&how)?;
            sink::measure(&work, &settings(&how), &places(&how))
        }
        Command::Tools { field, how } => {
            prepare(&how)?;
            let places = places(&how);
            let mut results = load(&how, &places)?;
            results.dry = how.dry;
            tools::run(field, &settings(&how), &places, &mut results)
        }
        Command::Report => report::save(&Results::load(&root())?, &root()),
        Command::Works => {
            for work in WORKS {
                println!("{:<7} {} (a {})", work.id, work.title, work.unit);
            }
            Ok(())
        }
        Command::Bridge { mqtt, kafka } => bridge::run(mqtt, kafka),
        Command::SinkServe { port } => sink::serve(port),
    }
}
