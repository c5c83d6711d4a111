//! `inver-bench`: measures Inver beside Apache Kafka, RabbitMQ and Mosquitto, on the same workloads in the same run.
//!
//! Modules, each using only later ones. Commands: [`compare`] (brokers in turns), [`profile`] (where their CPU time goes),
//! [`tools`] (the peers' own load tools), [`sink`] (limits of the load generators), [`mod@report`] (pages and charts).
//! Measurement: [`setup`] (brokers started and warm), [`workloads`], [`broker`] (a running broker), [`bridge`] (between
//! Mosquitto and Kafka), [`mod@load`] (the load generators). Results: [`results`] (the stored file), [`perf`] (profiles),
//! [`usage`] (CPU, memory and disk of processes), [`mod@paths`]. Basics: [`broker_kind`] (the brokers measured), [`machine`],
//! [`histogram`] (latencies), [`mod@progress`].

#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

mod bridge;
mod broker;
mod broker_kind;
mod compare;
mod histogram;
mod load;
mod machine;
mod paths;
mod perf;
mod profile;
mod progress;
mod report;
mod results;
mod setup;
mod sink;
mod tools;
mod usage;
mod workloads;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use rustix::thread::{CpuSet, sched_setaffinity};

use broker_kind::BrokerKind;
use machine::{Machine, gaps};
use paths::Paths;
use progress::Progress;
use results::Results;
use setup::Settings;
use workloads::{Lengths, Protocol, WORKLOADS, Workload};

/// Measures Inver and its peers side by side.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compares Inver and its peer, in turns, on the same workloads.
    Compare {
        /// The protocol, or another group of workloads.
        protocol: Protocol,
        /// Only these workloads, by id.
        #[arg(long, alias = "work", value_delimiter = ',')]
        workload: Vec<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Runs everything, with all three peers.
    All {
        /// Only these protocols, and without the sink: the rest of an interrupted run.
        #[arg(long, alias = "field", value_delimiter = ',')]
        protocol: Vec<Protocol>,
        #[command(flatten)]
        options: Options,
    },
    /// Runs the load generators against a sink that only answers, to find their limits.
    Sink {
        /// Only these workloads, by id.
        #[arg(long, alias = "work", value_delimiter = ',')]
        workload: Vec<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Runs the peers' own load tools against Inver and the peer.
    Tools {
        /// The protocol.
        protocol: Protocol,
        #[command(flatten)]
        options: Options,
    },
    /// Profiles the brokers with `perf` in the window of a workload.
    Profile {
        /// The protocol, or another group of workloads.
        protocol: Protocol,
        /// Only these workloads, by id.
        #[arg(long, alias = "work", value_delimiter = ',')]
        workload: Vec<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Writes the pages and charts again from the stored results.
    Report,
    /// Lists the workloads.
    #[command(alias = "works")]
    Workloads,
    /// Forwards MQTT publishes to a Kafka topic: the bridge between Mosquitto and Kafka.
    #[command(hide = true)]
    Bridge {
        /// Address of the MQTT broker.
        mqtt: std::net::SocketAddr,
        /// Address of the Kafka broker.
        kafka: std::net::SocketAddr,
    },
    /// Serves the sink that `sink` measures against.
    #[command(hide = true)]
    SinkServe {
        /// The first of three ports.
        port: u16,
    },
}

#[derive(Args)]
struct Options {
    /// Rounds; figures are medians of them.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Length of a run's window, in seconds.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Length of the warm-up before the window, in seconds.
    #[arg(long, default_value_t = 1.5)]
    warmup: f64,
    /// Only these brokers.
    #[arg(long, value_delimiter = ',')]
    only: Vec<BrokerKind>,
    /// The binary to measure; default: target/release/inver.
    #[arg(long)]
    inver: Option<PathBuf>,
    /// Core of the broker.
    #[arg(long, default_value_t = 0)]
    broker_core: usize,
    /// Core of the load generators.
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Scheduling priority of brokers and load generators on a busy machine: −20 is the highest, and needs root.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    nice: i32,
    /// Save nothing, only print.
    #[arg(long)]
    dry: bool,
}

/// The project's root at build time.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or_else(|| here.clone(), PathBuf::from)
}

fn paths(options: &Options) -> Paths {
    let root = root();
    Paths {
        inver: options.inver.clone().unwrap_or_else(|| root.join("target/release/inver")),
        peers: std::env::var_os("INVER_BENCH_PEERS")
            .map_or_else(|| root.join("target/bench-peers"), PathBuf::from),
        cores: options.broker_core.to_string(),
        tune_for_latency: false,
        root,
    }
}

/// Pins this process to the core of the load generators and raises the limit of open files for thousands of connections.
fn prepare(options: &Options) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(options.load_core);
    sched_setaffinity(None, &cores).context("pinning the load generators")?;
    if options.nice != 0 {
        // Child processes inherit the priority.
        rustix::process::setpriority_process(None, options.nice).context("priority")?;
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let open = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, open).context("files")?;
    Ok(())
}

fn settings(options: &Options) -> Settings {
    Settings {
        rounds: options.rounds,
        lengths: Lengths {
            warmup: Duration::from_secs_f64(options.warmup),
            window: Duration::from_secs_f64(options.seconds),
        },
        only: options.only.clone(),
        with_all: false,
    }
}

/// The workloads of a protocol, or the named ones.
fn chosen(protocol: Protocol, names: &[String]) -> Result<Vec<&'static Workload>> {
    if names.is_empty() {
        return Ok(WORKLOADS.iter().filter(|workload| workload.protocol == protocol).collect());
    }
    let named = |name: &String| {
        let workload = Workload::named(name).with_context(|| format!("unknown workload {name}"))?;
        ensure!(workload.protocol == protocol, "{name} is not a workload of {protocol:?}");
        Ok(workload)
    };
    names.iter().map(named).collect()
}

/// Prepares this process and runs `command` with the stored results. Fails if problems were reported.
fn with_results(
    options: &Options,
    command: impl FnOnce(&Settings, &Paths, &mut Results) -> Result<()>,
) -> Result<()> {
    prepare(options)?;
    let paths = paths(options);
    paths::clear_interrupted(&paths);
    // A dry run starts from empty results and saves nothing.
    let mut results = if options.dry { Results::default() } else { Results::load(&paths.root)? };
    results.dry = options.dry;
    let cores = BTreeSet::from([options.broker_core, options.load_core]);
    results.machine = Machine { gaps: gaps::measure(&cores)?, ..Machine::here() };
    results.steal_since = Some(gaps::Ticks::now());
    for core in &results.machine.gaps {
        println!("{core}");
    }
    command(&settings(options), &paths, &mut results)?;
    for problem in &results.problems {
        eprintln!("problem: {problem}");
    }
    ensure!(results.problems.is_empty(), "{} problems; everything else was measured", results.problems.len());
    Ok(())
}

/// Runs everything, or all of some protocols. Failures are reported and the rest continues.
fn all(protocols: &[Protocol], settings: &Settings, paths: &Paths, results: &mut Results) -> Result<()> {
    let settings = &Settings { with_all: true, only: settings.only.clone(), ..*settings };
    let with_sink = protocols.is_empty();
    let protocols = if with_sink { &Protocol::ALL } else { protocols };
    let workloads = WORKLOADS.iter().filter(|workload| protocols.contains(&workload.protocol));
    let mut planned: Duration = workloads.map(|workload| compare::planned(workload, settings)).sum();
    planned += protocols.iter().map(|protocol| tools::planned(*protocol, settings)).sum::<Duration>();
    if with_sink {
        planned += sink::planned(settings, &[]);
    }
    let mut progress = Progress::new(planned);
    for &protocol in protocols {
        let workloads = chosen(protocol, &[])?;
        let measured = compare::compare(protocol, &workloads, settings, paths, &mut progress, results);
        measured.unwrap_or_else(|error| results.problem(format!("{protocol:?}: {error:#}")));
    }
    if with_sink {
        let sink = sink::measure(&[], settings, paths, &mut progress, results);
        sink.unwrap_or_else(|error| results.problem(format!("sink: {error:#}")));
    }
    progress.begin("done");
    Ok(())
}

/// The workloads that are profiled by default, or the named ones.
fn profiled(protocol: Protocol, names: &[String], results: &Results) -> Result<Vec<&'static Workload>> {
    let mut workloads = chosen(protocol, names)?;
    workloads.retain(|workload| !names.is_empty() || profile::is_selected(workload, results));
    Ok(workloads)
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Compare { protocol, workload, options } => {
            let workloads = chosen(protocol, &workload)?;
            with_results(&options, |settings, paths, results| {
                let planned = workloads.iter().map(|workload| compare::planned(workload, settings)).sum();
                compare::compare(protocol, &workloads, settings, paths, &mut Progress::new(planned), results)
            })
        }
        Command::All { protocol, options } => {
            with_results(&options, |settings, paths, results| all(&protocol, settings, paths, results))
        }
        Command::Sink { workload, options } => with_results(&options, |settings, paths, results| {
            let planned = sink::planned(settings, &workload);
            sink::measure(&workload, settings, paths, &mut Progress::new(planned), results)
        }),
        Command::Tools { protocol, options } => {
            with_results(&options, |settings, paths, results| tools::run(protocol, settings, paths, results))
        }
        Command::Profile { protocol, workload, options } => {
            with_results(&options, |settings, paths, results| {
                let workloads = profiled(protocol, &workload, results)?;
                profile::measure(protocol, &workloads, settings, paths, results)
            })
        }
        Command::Report => report::save(&mut Results::load(&root())?, &root()),
        Command::Workloads => {
            for workload in WORKLOADS {
                println!("{:<10} {} (per {})", workload.id, workload.title, workload.unit);
            }
            Ok(())
        }
        Command::Bridge { mqtt, kafka } => bridge::run(mqtt, kafka),
        Command::SinkServe { port } => sink::serve(port),
    }
}
