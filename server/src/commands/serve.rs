//! `inver serve`: start, run, orderly shutdown.
//!
//! The order of the start: configuration, log (its lock refuses a second start on the folder), model, listeners,
//! connections. The order of the shutdown: listeners are closed, connections are notified and have
//! `limits.shutdown_grace_ms` to end, then the log is flushed. A second signal ends the wait for connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use inver_broker::{Broker, BrokerConfig, Clock, Traces};
use inver_driver::limit_login_memory;
use inver_storage::{Log, Lsn};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::ConfigArgument;
use crate::bridges::{Bridges, TcpDial};
use crate::config::{Config, Loaded};
use crate::http::{self, Http, Monitored, Node};
use crate::jwt::{self, Tokens};
use crate::listeners::{self, ListenerSet, Shared};
use crate::logins::Logins;
use crate::otlp;
use crate::protocols::{self, BRIDGED, BridgeHost, PROTOCOLS};
use crate::reload::{self, ReloadRequests, Reloader};
use crate::runtime::{Runtimes, Workers};
use crate::systemd::ServiceManager;
use crate::telemetry::Metrics;
use crate::{allocator, files, logging, memory};

/// File descriptors reserved for the log and for listeners.
const FILES_RESERVED: u64 = 512;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
}

/// What runs beside the broker.
struct Process {
    workers: Workers,
    http: Arc<Http>,
    ready: Arc<AtomicBool>,
    reloader: Reloader,
    tokens: Tokens,
    requests: ReloadRequests,
    clock: Clock,
    started: Instant,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        allocator::fix_size_for_system();
        let clock = Clock::system();
        let started = clock.now();
        let Loaded { mut config, warnings, sources } = self.config.load()?;
        let log_filter = logging::install(&config);
        let warnings = warnings.into_iter().chain(listeners::check(&config)?);
        for warning in warnings.chain(jwt::check(&config)?) {
            warn!("{}: {}", warning.place, warning.what);
        }
        otlp::check(&config.tracing)?;
        logging::log_start(&config, self.config.file());
        let load = Arc::new(move || self.config.load());
        let connections_max = connections_max_by_files();
        let tokens = Tokens::new(config.logins.tokens(), clock.clone());
        let mut reloader =
            Reloader::new(load, log_filter.clone(), connections_max, &mut config, tokens.clone());
        if let Some(max) = connections_max.filter(|max| config.limits.connections_max > *max) {
            info!(connections_max = max, "limits.connections_max lowered to fit the limit of open files");
            config.limits.connections_max = max;
        }
        limit_login_memory(config.limits.unauthenticated_bytes_max);
        let metrics = Metrics::install()?;
        let runtimes = Runtimes::start(config.runtime.kind, config.runtime.threads)?;
        let workers = runtimes.workers();
        let ready = Arc::new(AtomicBool::new(false));
        let settings = http::Settings::of(&mut config, &sources);
        reloader.update(settings.config.clone());
        let (reload, requests) = reload::requests();
        let node = Node {
            metrics,
            ready: ready.clone(),
            workers: workers.clone(),
            reload,
            started,
            monitored: monitored(&config),
            settings,
            log_filter,
        };
        let http = Arc::new(Http::new(node));
        runtimes
            .run(serve(config, Process { workers, http, ready, reloader, tokens, requests, clock, started }))
    }
}

async fn serve(config: Config, process: Process) -> anyhow::Result<()> {
    let Process { workers, http, ready, mut reloader, tokens, mut requests, clock, started } = process;
    // Installed before recovery, during which a signal would otherwise kill the process.
    let mut signals = Signals::listen()?;
    let (traces, exporter) = otlp::start(&config.tracing)?;
    let broker = open(&config, clock.clone(), &tokens, traces)?;
    if let Some(path) = config.general.load_definitions.clone() {
        let (http, broker) = (http.clone(), broker.clone());
        let loaded = tokio::task::spawn_blocking({
            let broker = broker.clone();
            move || http.load_definitions(broker, &path)
        });
        if let Err(error) = loaded.await.context("definitions were not loaded")? {
            broker.log().shutdown()?;
            return Err(error);
        }
    }
    let shutdown = CancellationToken::new();
    let shared = Shared { workers: workers.clone(), broker: broker.clone(), shutdown: shutdown.clone() };
    let mut listeners = ListenerSet::new(&config, http.clone(), shared);
    match listeners.prepare(&config) {
        Ok(prepared) => listeners.apply(prepared),
        Err(error) => {
            broker.log().shutdown()?;
            return Err(error);
        }
    }
    start_bridges(&config, &listeners, &http, &broker, &workers, &shutdown);
    let tasks = TaskTracker::new();
    tasks.spawn(broker.clone().housekeep(shutdown.clone()));
    let audit_written = CancellationToken::new();
    let audit = tokio::spawn(broker.clone().write_audit_topic(audit_written.clone()));
    // The last spans are those of connections that end.
    let traces_ended = CancellationToken::new();
    let exporting = exporter.map(|exporter| {
        tokio::spawn(exporter.run(broker.log().clone(), clock.clone(), traces_ended.clone()))
    });
    tasks.spawn(tokens.refresh(shutdown.clone()));
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(protocols::publish_events(broker.clone())));
    ready.store(true, Ordering::Release);
    let access = logging::shown_access(broker.access());
    info!(milliseconds = (clock.now() - started).as_millis() as u64, access, "ready");
    let manager = ServiceManager::from_environment();
    manager.ready();
    let watchdog = manager.watchdog();
    // Since then, so that neither of the two intervals begins again with whatever happens within it.
    let (mut alive, mut polled) = (clock.now(), clock.now());

    let poisoned = loop {
        let poll_interval = listeners.poll_interval();
        tokio::select! {
            signal = signals.next_or_reload() => match signal {
                Requested::Stop => {
                    info!("shutdown requested");
                    manager.stopping();
                    break false;
                }
                Requested::Reload => {
                    info!("reload requested by SIGHUP");
                    manager.reloading();
                    // The outcome is in the log.
                    let _ = reloader.reload(&mut listeners, &broker).await;
                    manager.ready();
                }
            },
            // This position is never committed, so the wait ends only when the log fails.
            Err(error) = broker.log().wait_committed(Lsn(u64::MAX)) => {
                error!(%error, "log failed");
                break true;
            }
            reply = requests.next() => {
                info!("reload requested over HTTP");
                let _gone = reply.send(reloader.reload(&mut listeners, &broker).await);
            }
            () = clock.sleep_until(alive + watchdog.unwrap_or_default()), if watchdog.is_some() => {
                alive = clock.now();
                manager.alive();
            }
            () = clock.sleep_until(polled + poll_interval), if !poll_interval.is_zero() => {
                polled = clock.now();
                listeners.load_changed_files();
            }
        }
    };
    // Who asks for a reload now is told that there is none.
    drop(requests);
    let limits = &config.limits;
    ready.store(false, Ordering::Release);
    shutdown.cancel();
    listeners.stopped().await;
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
    // The ends of connections are events too.
    audit_written.cancel();
    if let Err(error) = audit.await {
        error!(%error, "failed to finish the audit topic");
    }
    traces_ended.cancel();
    if let Some(exporting) = exporting {
        let _ended = exporting.await;
    }
    let flushed = broker.log().shutdown().context("failed to flush the log");
    if poisoned {
        anyhow::bail!("log failed, nothing was acknowledged after that; see the log lines above");
    }
    flushed?;
    info!("shutdown complete");
    Ok(())
}

/// Starts the bridges of the protocol that has some.
fn start_bridges(
    config: &Config,
    listeners: &ListenerSet,
    http: &Http,
    broker: &Broker,
    workers: &Workers,
    shutdown: &CancellationToken,
) {
    let settings = config.protocols.iter().find_map(|protocol| protocol.settings.bridges());
    let (Some(settings), Some(protocol)) = (settings, listeners.protocol(BRIDGED)) else { return };
    let host = BridgeHost {
        protocol,
        broker: broker.clone(),
        dial: Arc::new(TcpDial),
        login_timeout: config.limits.timeouts().login,
        packet_bytes_max: config.limits.message_bytes_max,
        amqp_names: settings.amqp_names,
    };
    http.set_bridges(Bridges::start(host, settings.configured, workers.clone(), shutdown.clone()));
}

fn open(config: &Config, clock: Clock, tokens: &Tokens, traces: Traces) -> anyhow::Result<Broker> {
    let folder = &config.general.data_dir;
    files::make_private(folder);
    let memory = memory::limit_bytes(config.memory.limit);
    let log = Log::open(folder, memory::fit_log(&config.log.options(), memory))
        .with_context(|| format!("failed to open the data folder {}", folder.display()))?;
    let limits = &config.limits;
    let broker_config = BrokerConfig {
        captures: config.capture.captures(),
        topics: config.capture_topics(),
        namespaces: config.general.namespaces.0.clone(),
        namespaces_max: limits.namespaces_max,
        hub_default: config.hub.default.0,
        address_header: protocols::ADDRESS_HEADER.into(),
        stored_headers: protocols::STORED_HEADERS,
        origins: PROTOCOLS.iter().map(|entry| entry.name).collect(),
        authenticator: Arc::new(Logins::new(config.logins.settings(), clock.clone(), tokens.clone())?),
        access_limits: limits.access(),
        delegation: limits.delegation(&config.logins, files::token_secret(folder)?),
        clock,
        limits: limits.namespace(),
        inbox: inver_broker::InboxBounds {
            messages_max: limits.inbox_messages_max,
            bytes_max: limits.inbox_bytes_max,
            best_effort: limits.inbox_qos_0,
        },
        on_damage: config.log.on_damage.0,
        queue_memory_bytes_max: limits.queue_memory_bytes_max.min(memory as u64 / 16),
        subscription_idle_ms: limits.subscription_idle_s.map(|seconds| seconds.saturating_mul(1000)),
        client_log: config.logging.client_lines(),
        audit: config.audit(),
        traces,
        ..BrokerConfig::default()
    };
    let broker = Broker::open(log, broker_config)?;
    let (users, rules) = config.access()?;
    broker.access().set_configured(users, rules)?;
    broker.quotas().set_configured(config.general.quotas.quotas())?;
    tokens.set(&config.general.jwt);
    broker.access().set_external_authority(tokens.has_issuers());
    reload::audit_start(&broker, config);
    broker.publish_recovered_wills();
    Ok(broker)
}

/// SIGTERM and SIGINT, which stop the broker, and SIGHUP, which reloads its configuration.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

/// What a signal asks for.
enum Requested {
    Stop,
    Reload,
}

impl Signals {
    fn listen() -> anyhow::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal of any kind.
    async fn next_or_reload(&mut self) -> Requested {
        tokio::select! {
            _ = self.terminate.recv() => Requested::Stop,
            _ = self.interrupt.recv() => Requested::Stop,
            _ = self.reload.recv() => Requested::Reload,
        }
    }

    /// The next signal that asks for a stop.
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
        commit_wait_max: config.log.commit_wait_max,
        series_max: config.http.detailed_series_max,
    }
}

/// Raises the limit of open files to its hard limit. Returns how many connections that allows.
fn connections_max_by_files() -> Option<usize> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    Some(usize::try_from(files?.saturating_sub(FILES_RESERVED).max(1)).unwrap_or(usize::MAX))
}
