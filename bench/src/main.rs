//! `inver-bench`: measures Inver beside Apache Kafka, RabbitMQ and Mosquitto, on the same work in the same run.
//!
//! The rooms, each built on those after it only. The commands: [`compare`] (whose turn it is), [`profile`] (where a
//! broker's time goes), [`tools`] (the peers' own load tools), [`sink`] (what the load generators themselves can do)
//! and [`mod@report`] (what is told). What they measure with: [`contest`] (everybody is up and warm),
//! [`works`] (what is asked), [`broker`] (who is asked), [`bridge`] (what stands between Mosquitto and Kafka) and
//! [`mod@load`] (who asks). What is found: [`results`] (what is kept), [`perf`] (what a broker's time was for),
//! [`usage`] (what it cost) and [`mod@places`] (where it all lies). Below: [`contestant`] (who is measured), [`machine`]
//! (what is under all of them, and takes its share), [`histogram`] (latencies) and [`mod@progress`] (how far it is).

mod bridge;
mod broker;
mod compare;
mod contest;
mod contestant;
mod histogram;
mod load;
mod machine;
mod perf;
mod places;
mod profile;
mod progress;
mod report;
mod results;
mod sink;
mod tools;
mod usage;
mod works;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use rustix::thread::{CpuSet, sched_setaffinity};

use contest::Settings;
use contestant::Contestant;
use machine::{Machine, gaps};
use places::Places;
use progress::Progress;
use results::Results;
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
        /// Only these fields, and without the sink: what an interrupted run has left.
        #[arg(long, value_delimiter = ',')]
        field: Vec<Field>,
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
    /// Where the brokers' time goes: `perf` looks at them in the window of a work.
    Profile {
        /// Whose protocol.
        field: Field,
        /// Only these works, by their ids.
        #[arg(long, value_delimiter = ',')]
        work: Vec<String>,
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
        cores: how.broker_core.to_string(),
        for_latency: false,
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

fn settings(how: &How) -> Settings {
    Settings {
        rounds: how.rounds,
        lengths: Lengths {
            warmup: Duration::from_secs_f64(how.warmup),
            window: Duration::from_secs_f64(how.seconds),
        },
        only: how.only.clone(),
        with_all: false,
    }
}

/// Works of one field, or those named.
fn chosen(field: Field, names: &[String]) -> Result<Vec<&'static Work>> {
    if names.is_empty() {
        return Ok(WORKS.iter().filter(|work| work.field == field).collect());
    }
    let named = |name: &String| {
        let work = Work::named(name).with_context(|| format!("there is no work {name}"))?;
        ensure!(work.field == field, "{name} is no work of {field:?}");
        Ok(work)
    };
    names.iter().map(named).collect()
}

/// Prepares this process, does `what` with the results kept so far, and ends badly if anything did.
fn with_results(how: &How, what: impl FnOnce(&Settings, &Places, &mut Results) -> Result<()>) -> Result<()> {
    prepare(how)?;
    let places = places(how);
    places::clear_interrupted(&places);
    // A dry run shows its own figures beside nobody else's and is saved nowhere.
    let mut results = if how.dry { Results::default() } else { Results::load(&places.root)? };
    results.dry = how.dry;
    let cores = BTreeSet::from([how.broker_core, how.load_core]);
    results.machine = Machine { gaps: gaps::look(&cores)?, ..Machine::here() };
    results.steal_since = Some(gaps::Ticks::now());
    for core in &results.machine.gaps {
        println!("{core}");
    }
    what(&settings(how), &places, &mut results)?;
    for trouble in &results.troubles {
        eprintln!("trouble: {trouble}");
    }
    ensure!(
        results.troubles.is_empty(),
        "{} things went wrong; all else was measured",
        results.troubles.len()
    );
    Ok(())
}

/// All that there is, or all of some fields. What fails is told of, and the rest goes on.
fn all(fields: &[Field], settings: &Settings, places: &Places, results: &mut Results) -> Result<()> {
    let settings = &Settings { with_all: true, only: settings.only.clone(), ..*settings };
    let with_sink = fields.is_empty();
    let fields = if with_sink { &Field::ALL } else { fields };
    let works = WORKS.iter().filter(|work| fields.contains(&work.field));
    let mut planned: Duration = works.map(|work| compare::planned(work, settings)).sum();
    planned += fields.iter().map(|field| tools::planned(*field, settings)).sum::<Duration>();
    if with_sink {
        planned += sink::planned(settings, &[]);
    }
    let mut progress = Progress::new(planned);
    for &field in fields {
        let works = chosen(field, &[])?;
        let measured = compare::compare(field, &works, settings, places, &mut progress, results);
        measured.unwrap_or_else(|error| results.trouble(format!("{field:?}: {error:#}")));
    }
    if with_sink {
        let sink = sink::measure(&[], settings, places, &mut progress, results);
        sink.unwrap_or_else(|error| results.trouble(format!("sink: {error:#}")));
    }
    progress.begin("over");
    Ok(())
}

/// The works whose time is looked into, or those named.
fn profiled(field: Field, names: &[String], results: &Results) -> Result<Vec<&'static Work>> {
    let mut works = chosen(field, names)?;
    works.retain(|work| !names.is_empty() || profile::is_wanted(work, results));
    Ok(works)
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Compare { field, work, how } => {
            let works = chosen(field, &work)?;
            with_results(&how, |settings, places, results| {
                let planned = works.iter().map(|work| compare::planned(work, settings)).sum();
                compare::compare(field, &works, settings, places, &mut Progress::new(planned), results)
            })
        }
        Command::All { field, how } => {
            with_results(&how, |settings, places, results| all(&field, settings, places, results))
        }
        Command::Sink { work, how } => with_results(&how, |settings, places, results| {
            let planned = sink::planned(settings, &work);
            sink::measure(&work, settings, places, &mut Progress::new(planned), results)
        }),
        Command::Tools { field, how } => {
            with_results(&how, |settings, places, results| tools::run(field, settings, places, results))
        }
        Command::Profile { field, work, how } => with_results(&how, |settings, places, results| {
            let works = profiled(field, &work, results)?;
            profile::measure(field, &works, settings, places, results)
        }),
        Command::Report => report::save(&mut Results::load(&root())?, &root()),
        Command::Works => {
            for work in WORKS {
                println!("{:<10} {} (a {})", work.id, work.title, work.unit);
            }
            Ok(())
        }
        Command::Bridge { mqtt, kafka } => bridge::run(mqtt, kafka),
        Command::SinkServe { port } => sink::serve(port),
    }
}
