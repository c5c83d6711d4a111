//! `inver serve`: opens the log, listens, and ends in order.
//!
//! The order of starting: configuration, log (its lock refuses a second start on the folder), model,
//! listeners, connections. The order of ending: no new connections, the word to those that are there and
//! time for them to end, then the log is flushed. A second signal cuts the time short.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use inver_broker::{Authenticator, Broker, BrokerConfig, CaptureRule, Filter, LoopbackOnly, Shutdown};
use inver_storage::{Log, Lsn};
use metrics_exporter_prometheus::PrometheusBuilder;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::ConfigArgument;
use crate::config::{self, Config, Loaded};
use crate::http::Http;
use crate::listeners::{self, Admission, Hall};
use crate::protocols::{self, PROTOCOLS};
use crate::runtime::{Runtimes, Workers};
use crate::users::Users;

/// How often it is looked whether all connections have ended.
const ENDING_POLL: Duration = Duration::from_millis(5);
/// File descriptors kept for the log and for listening, out of reach of connections.
const FILES_RESERVED: u64 = 512;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let started = Instant::now();
        let Loaded { mut config, warnings } = self.config.load()?;
        tracing_subscriber::registry()
            .with(config.logging.filter.0.clone())
            .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false))
            .init();
        for warning in warnings {
            warn!("{}: {}", warning.place, warning.what);
        }
        fit_connections_to_files(&mut config);
        let metrics = PrometheusBuilder::new().install_recorder().context("metrics")?;
        let runtimes = Runtimes::start(config.runtime.kind, config.runtime.threads)?;
        let workers = runtimes.workers();
        let ready = Arc::new(AtomicBool::new(false));
        let http = Arc::new(Http::new(metrics, ready.clone()));
        runtimes.run(serve(config, workers, http, ready, started))
    }
}

async fn serve(
    config: Config,
    workers: Workers,
    http: Arc<Http>,
    ready: Arc<AtomicBool>,
    started: Instant,
) -> anyhow::Result<()> {
    // Heard from here on, so that a signal during recovery is not the death of the process.
    let mut signals = Signals::listen()?;
    let broker = open(&config)?;
    let (trigger, shutdown) = Shutdown::channel();
    let listening = match listeners::bind(&config, http) {
        Ok(listening) => listening,
        Err(error) => {
            broker.log().shutdown()?;
            return Err(error);
        }
    };
    let limits = &config.limits;
    let admission =
        Admission::new(users(&config).is_empty(), limits.connections_max, limits.connections_per_address_max);
    let hall = Hall {
        workers: workers.clone(),
        admission,
        broker: broker.clone(),
        shutdown,
        handshake_timeout: limits.handshake_timeout,
    };
    let house = tokio::spawn(broker.clone().housekeep(hall.shutdown.clone()));
    let accepting: Vec<_> = listening.into_iter().map(|listener| listener.accept(hall.clone())).collect();
    drop(hall);
    ready.store(true, Ordering::Release);
    info!(milliseconds = started.elapsed().as_millis() as u64, "ready");

    let mut poisoned = false;
    tokio::select! {
        () = signals.next() => info!("asked to end"),
        // Never committed, so this ends only when the log takes no more.
        Err(error) = broker.log().wait_committed(Lsn(u64::MAX)) => {
            error!(%error, "the log failed");
            poisoned = true;
        }
    }
    ready.store(false, Ordering::Release);
    trigger.request();
    for task in accepting.into_iter().chain([house]) {
        let _ = task.await;
    }
    tokio::select! {
        () = all_ended(&workers) => {}
        () = tokio::time::sleep(limits.shutdown_grace) => {
            warn!(connections = workers.connections(), "these did not end within limits.shutdown_grace_ms");
        }
        () = signals.next() => warn!(connections = workers.connections(), "asked again: not waiting for these"),
    }
    let flushed = broker.log().shutdown().context("the log could not be flushed");
    if poisoned {
        anyhow::bail!("the log failed: nothing more was acknowledged; see the messages above");
    }
    flushed?;
    info!("ended");
    Ok(())
}

fn open(config: &Config) -> anyhow::Result<Broker> {
    let folder = &config.general.data_dir;
    let log = Log::open(folder, config.log.options())
        .with_context(|| format!("cannot open the data folder {}", folder.display()))?;
    let limits = &config.limits;
    let users = users(config);
    let authenticator: Arc<dyn Authenticator> =
        if users.is_empty() { Arc::new(LoopbackOnly) } else { Arc::new(Users::new(users)?) };
    let broker_config = BrokerConfig {
        captures: config.capture.rules.0.iter().map(capture).collect(),
        topics: capture_topics(config),
        address_header: protocols::ADDRESS_HEADER.into(),
        origins: PROTOCOLS.iter().map(|entry| entry.name).collect(),
        authenticator,
        limits: limits.namespace(),
        inbox_messages_max: limits.inbox_messages_max,
        queue_memory_bytes_max: limits.queue_memory_bytes_max,
        subscription_idle_ms: limits.subscription_idle_s.map(|seconds| seconds.saturating_mul(1000)),
        ..BrokerConfig::default()
    };
    Ok(Broker::open(log, broker_config)?)
}

fn users(config: &Config) -> &BTreeMap<String, String> {
    &config.general.users.0
}

fn capture(rule: &config::CaptureRule) -> CaptureRule {
    CaptureRule {
        origin: rule.protocol.clone(),
        filter: Filter::slashed(rule.filter.as_bytes()),
        topic: rule.topic.clone(),
        key: rule.key.clone(),
    }
}

/// The topics that captures write to, where the rule names one and not a template; there from the start, so
/// that a consumer can wait on them before anything is published.
fn capture_topics(config: &Config) -> Vec<(String, u32)> {
    let partitions = config.default_partitions();
    let names: BTreeSet<&String> =
        config.capture.rules.0.iter().map(|rule| &rule.topic).filter(|topic| !topic.contains('{')).collect();
    names.into_iter().map(|topic| (topic.clone(), partitions)).collect()
}

async fn all_ended(workers: &Workers) {
    while workers.connections() > 0 {
        tokio::time::sleep(ENDING_POLL).await;
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Raises the limit of open files as far as the system lets, and takes no more connections than that allows.
fn fit_connections_to_files(config: &mut Config) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let Some(files) = files else { return };
    let room = usize::try_from(files.saturating_sub(FILES_RESERVED).max(1)).unwrap_or(usize::MAX);
    if config.limits.connections_max > room {
        info!(
            files,
            connections_max = room,
            "fewer connections than limits.connections_max, for want of open files"
        );
        config.limits.connections_max = room;
    }
}
