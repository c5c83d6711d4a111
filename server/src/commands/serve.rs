//! `inver serve`: start, run, orderly shutdown.
//!
//! The order of the start: configuration, log (its lock refuses a second start on the folder), model, listeners,
//! connections. The order of the shutdown: listeners are closed, connections are notified and have
//! `limits.shutdown_grace_ms` to end, then the log is flushed. A second signal ends the wait for connections.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use inver_broker::{Broker, BrokerConfig, CaptureRule, Clock, Filter};
use inver_storage::{Log, Lsn};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::ConfigArgument;
use crate::config::{self, Config, Loaded};
use crate::http::{Http, Monitored, Node};
use crate::listeners::{self, Admission, Shared};
use crate::logging;
use crate::logins::Logins;
use crate::protocols::{self, PROTOCOLS};
use crate::runtime::{Runtimes, Workers};
use crate::telemetry::Metrics;

/// File descriptors reserved for the log and for listeners.
const FILES_RESERVED: u64 = 512;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let clock = Clock::system();
        let started = clock.now();
        let Loaded { mut config, warnings } = self.config.load()?;
        logging::install(&config);
        for warning in warnings {
            warn!("{}: {}", warning.place, warning.what);
        }
        logging::log_start(&config, self.config.file());
        fit_connections_to_files(&mut config);
        let metrics = Metrics::install()?;
        let runtimes = Runtimes::start(config.runtime.kind, config.runtime.threads)?;
        let workers = runtimes.workers();
        let ready = Arc::new(AtomicBool::new(false));
        let settings = config.http.settings(config.limits.message_bytes_max);
        let node = Node {
            metrics,
            ready: ready.clone(),
            workers: workers.clone(),
            started,
            monitored: monitored(&config),
            settings,
        };
        let http = Arc::new(Http::new(node));
        runtimes.run(serve(config, workers, http, ready, clock, started))
    }
}

async fn serve(
    config: Config,
    workers: Workers,
    http: Arc<Http>,
    ready: Arc<AtomicBool>,
    clock: Clock,
    started: Instant,
) -> anyhow::Result<()> {
    // Installed before recovery, during which a signal would otherwise kill the process.
    let mut signals = Signals::listen()?;
    let broker = open(&config, clock.clone())?;
    let shutdown = CancellationToken::new();
    let limits = &config.limits;
    let admission = Admission::new(
        "limits.connections_max",
        listeners::loopback_only(broker.access()),
        limits.connections_max,
        limits.connections_per_address_max,
    );
    let listening = match listeners::bind(&config, &admission, http, broker.access()) {
        Ok(listening) => listening,
        Err(error) => {
            broker.log().shutdown()?;
            return Err(error);
        }
    };
    let shared = Shared {
        workers: workers.clone(),
        broker: broker.clone(),
        shutdown: shutdown.clone(),
        handshake_timeout: limits.handshake_timeout,
    };
    let tasks = TaskTracker::new();
    tasks.spawn(broker.clone().housekeep(shutdown.clone()));
    listening.into_iter().for_each(|listener| listener.accept(shared.clone(), &tasks));
    drop(shared);
    ready.store(true, Ordering::Release);
    let access = logging::shown_access(broker.access());
    info!(milliseconds = (clock.now() - started).as_millis() as u64, access, "ready");

    let mut poisoned = false;
    tokio::select! {
        () = signals.next() => info!("shutdown requested"),
        // This position is never committed, so the wait ends only when the log fails.
        Err(error) = broker.log().wait_committed(Lsn(u64::MAX)) => {
            error!(%error, "log failed");
            poisoned = true;
        }
    }
    ready.store(false, Ordering::Release);
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    tokio::select! {
        () = workers.all_closed() => {}
        () = clock.sleep(limits.shutdown_grace) => {
            warn!(
                connections = workers.connections(),
                "connections still open after {} s (limits.shutdown_grace_ms)",
                limits.shutdown_grace.as_secs_f32()
            );
        }
        () = signals.next() => warn!(connections = workers.connections(), "second signal, exiting now"),
    }
    let flushed = broker.log().shutdown().context("failed to flush the log");
    if poisoned {
        anyhow::bail!("log failed, nothing was acknowledged after that; see the log lines above");
    }
    flushed?;
    info!("shutdown complete");
    Ok(())
}

fn open(config: &Config, clock: Clock) -> anyhow::Result<Broker> {
    let folder = &config.general.data_dir;
    let log = Log::open(folder, config.log.options())
        .with_context(|| format!("failed to open the data folder {}", folder.display()))?;
    let limits = &config.limits;
    let broker_config = BrokerConfig {
        captures: config.capture.rules.0.iter().map(capture).collect(),
        topics: capture_topics(config),
        namespaces: config.general.namespaces.0.clone(),
        namespaces_max: limits.namespaces_max,
        hub_default: config.hub.default.0,
        address_header: protocols::ADDRESS_HEADER.into(),
        origins: PROTOCOLS.iter().map(|entry| entry.name).collect(),
        authenticator: Arc::new(Logins::new(config.logins.settings(), clock.clone())?),
        access_limits: limits.access(),
        clock,
        limits: limits.namespace(),
        inbox_messages_max: limits.inbox_messages_max,
        queue_memory_bytes_max: limits.queue_memory_bytes_max,
        subscription_idle_ms: limits.subscription_idle_s.map(|seconds| seconds.saturating_mul(1000)),
        client_log: config.logging.client_lines(),
        ..BrokerConfig::default()
    };
    let broker = Broker::open(log, broker_config)?;
    let (users, mut rules) = (&config.general.users, config.general.permissions.rules());
    rules.extend(users.rules());
    broker.access().set_configured(users.users()?, rules)?;
    Ok(broker)
}

fn capture(rule: &config::CaptureRule) -> CaptureRule {
    CaptureRule {
        origin: rule.protocol.clone(),
        filter: Filter::slashed(rule.filter.as_bytes()),
        topic: rule.topic.clone(),
        key: rule.key.clone(),
    }
}

/// The topics of capture rules that name a topic and not a template. They are created at the start, so that a consumer
/// can subscribe before anything is published.
fn capture_topics(config: &Config) -> Vec<(String, u32)> {
    let partitions = config.default_partitions();
    let names: BTreeSet<&String> =
        config.capture.rules.0.iter().map(|rule| &rule.topic).filter(|topic| !topic.contains('{')).collect();
    names.into_iter().map(|topic| (topic.clone(), partitions)).collect()
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

/// What of the configuration is shown in metrics.
fn monitored(config: &Config) -> Monitored {
    Monitored {
        data_dir: config.general.data_dir.clone(),
        connections_max: config.limits.connections_max,
        disk_free_min: config.log.segment_bytes_max.saturating_mul(2),
        series_max: config.http.detailed_series_max,
    }
}

/// Raises the limit of open files to its hard limit and lowers `limits.connections_max` to what that allows.
fn fit_connections_to_files(config: &mut Config) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let Some(files) = files else { return };
    let max = usize::try_from(files.saturating_sub(FILES_RESERVED).max(1)).unwrap_or(usize::MAX);
    if config.limits.connections_max > max {
        info!(files, connections_max = max, "limits.connections_max lowered to fit the limit of open files");
        config.limits.connections_max = max;
    }
}
