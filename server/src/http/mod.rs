//! HTTP: health, [`metrics`], and the administration API.
//!
//! Owns the routes, authentication and the JSON forms. It is served like a protocol, on a listener with an admission of its
//! own: health and metrics stay available when the client connections are at their limit. It is not in the list of
//! protocols, which carry the messages of clients.
//!
//! Invariants: every list is answered a page at a time, every parameter is bounded, and an answer to a change follows its
//! commit.

#[expect(unused_qualifications, reason = "`utoipa::path` generates them for every type in `params`")]
mod api;
mod auth;
mod emqx;
mod list;
mod metrics;
mod openapi;
mod problem;
mod rabbitmq;
mod request;
mod stall;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router, middleware};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use inver_broker::{Broker, Clock, Connection, ListenerInfo, ProtocolPlugin};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

pub(crate) use self::metrics::{Disk, Monitored};

use self::auth::Logins;
use self::metrics::CachedTotals;
use self::problem::Problem;
use self::stall::Stalling;
use crate::bridges::Bridges;
use crate::config::{Config, HTTP, PROMETHEUS, SharedKeys};
use crate::logging::LogFilter;
use crate::protocols::PROTOCOLS;
use crate::reload::ReloadHandle;
use crate::runtime::Workers;
use crate::telemetry::Metrics;

/// Time within which a client must send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time within which a client must take more of an answer.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of the largest body of a request that needs no login.
const OPEN_BODY_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the largest request head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Requests that work on blocking threads at a time.
const JOBS_MAX: usize = 2;

/// Serves HTTP.
pub(crate) struct Http {
    node: Arc<Node>,
    listening: Arc<RwLock<Vec<Listening>>>,
    bridges: Arc<OnceLock<Arc<Bridges>>>,
    /// Built for the first connection, which brings the broker.
    router: OnceLock<Routers>,
}

/// The routers of the listeners.
struct Routers {
    app: App,
    http: Router,
    rabbitmq_metrics: Router,
}

/// Serves the metrics by RabbitMQ's names at RabbitMQ's paths.
pub(crate) struct RabbitmqMetrics(pub(crate) Arc<Http>);

/// The process as HTTP shows it.
pub(crate) struct Node {
    /// The recorder.
    pub(crate) metrics: Metrics,
    /// Whether the broker accepts connections.
    pub(crate) ready: Arc<AtomicBool>,
    /// The workers, which know the number of connections.
    pub(crate) workers: Workers,
    /// Asks for a reload of the configuration.
    pub(crate) reload: ReloadHandle,
    /// Start of the process.
    pub(crate) started: Instant,
    /// What of the configuration is shown in metrics.
    pub(crate) monitored: Monitored,
    /// Settings that requests are answered with.
    pub(crate) settings: Settings,
    /// Which log lines are written.
    pub(crate) log_filter: LogFilter,
}

/// Settings of HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `http.metrics_login`.
    pub(crate) metrics_login: bool,
    /// `http.login_s`.
    pub(crate) login_life: Duration,
    /// `http.logins_max`.
    pub(crate) logins_max: usize,
    /// `http.tokens_max`.
    pub(crate) tokens_max: usize,
    /// `limits.message_bytes_max`.
    pub(crate) message_bytes_max: usize,
    /// Names of the protocols.
    pub(crate) protocols: Vec<&'static str>,
    /// `http.event_streams_max`.
    pub(crate) event_streams_max: usize,
    /// Folder of the log.
    pub(crate) data_dir: PathBuf,
    /// Limits that clients meet first.
    limits: api::Limits,
    /// The configuration as it holds.
    pub(crate) config: SharedKeys,
}

impl Settings {
    /// The settings that a configuration gives; `sources`: where its keys were set.
    pub(crate) fn of(config: &mut Config, sources: &BTreeMap<String, String>) -> Settings {
        let effective = config.effective(sources);
        let (http, limits) = (&config.http, &config.limits);
        Settings {
            metrics_login: http.metrics_login,
            login_life: Duration::from_secs(http.login_s),
            logins_max: http.logins_max,
            tokens_max: http.tokens_max,
            message_bytes_max: limits.message_bytes_max,
            protocols: PROTOCOLS.iter().map(|entry| entry.name).collect(),
            event_streams_max: http.event_streams_max,
            data_dir: config.general.data_dir.clone(),
            limits: api::Limits {
                connections_max: limits.connections_max,
                message_bytes_max: limits.message_bytes_max,
                topics_max: limits.topics_max,
                queues_max: limits.queues_max,
                sessions_max: limits.sessions_max,
            },
            config: Arc::new(Mutex::new(effective)),
        }
    }
}

/// What handlers see.
#[derive(Clone)]
struct App {
    node: Arc<Node>,
    /// Memory, processor time, threads and open files of this process.
    process: metrics_process::Collector,
    broker: Broker,
    /// The sums over all queues.
    totals: Arc<CachedTotals>,
    /// Requests at work on blocking threads.
    jobs: Arc<Semaphore>,
    /// Lists that are read on without a request.
    scans: Arc<list::Scans>,
    /// Logins of pages.
    logins: Arc<Logins>,
    /// Held while a token is made.
    tokens: Arc<Mutex<()>>,
    /// Held while a user is changed, which depends on the others.
    users: Arc<Mutex<()>>,
    /// Streams of live figures that may still be opened.
    event_streams: Arc<Semaphore>,
    /// Rates of what RabbitMQ's API counts.
    rates: Arc<rabbitmq::Rates>,
    /// Those of queues.
    queue_rates: Arc<rabbitmq::QueueRates>,
    /// The addresses that are listened on.
    listening: Arc<RwLock<Vec<Listening>>>,
    /// The bridges to other servers, once they run.
    bridges: Arc<OnceLock<Arc<Bridges>>>,
}

/// An address that is listened on.
#[derive(Debug, Clone)]
pub(crate) struct Listening {
    /// The protocol's name.
    pub(crate) protocol: String,
    /// The address.
    pub(crate) address: SocketAddr,
    /// Whether connections are under TLS.
    pub(crate) is_encrypted: bool,
    /// Whether they are over WebSocket.
    pub(crate) is_websocket: bool,
}

impl Listening {
    /// The protocol by RabbitMQ's name.
    fn rabbitmq_protocol(&self) -> String {
        let (web, tls) = (if self.is_websocket { "http/web-" } else { "" }, self.is_encrypted);
        match self.protocol.as_str() {
            HTTP if tls => "https".to_owned(),
            PROMETHEUS => "http/prometheus".to_owned(),
            protocol => format!("{web}{protocol}{}", if tls { "/ssl" } else { "" }),
        }
    }
}

/// The other end of a request's connection.
#[derive(Clone)]
struct Peer {
    address: IpAddr,
    listener: Arc<ListenerInfo>,
    /// Whether the bytes travel under TLS.
    encrypted: bool,
    /// Cancelled when the server shuts down.
    shutdown: CancellationToken,
}

impl Http {
    /// HTTP of this process.
    pub(crate) fn new(node: Node) -> Http {
        Http {
            node: Arc::new(node),
            listening: Arc::default(),
            bridges: Arc::default(),
            router: OnceLock::new(),
        }
    }

    /// Sets the addresses that are listened on.
    pub(crate) fn set_listening(&self, listening: Vec<Listening>) {
        *self.listening.write() = listening;
    }

    /// Sets the bridges, once.
    pub(crate) fn set_bridges(&self, bridges: Arc<Bridges>) {
        let _set_once = self.bridges.set(bridges);
    }

    /// Imports a document of definitions, or those of a folder in the order of their names, before clients come. What does not
    /// map is in the log. Blocks until what was imported is durable.
    pub(crate) fn load_definitions(&self, broker: Broker, path: &Path) -> anyhow::Result<()> {
        let app = &self.routers(broker).app;
        for file in definition_files(path)? {
            let bytes = std::fs::read(&file).with_context(|| format!("failed to read {}", file.display()))?;
            let document = serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is not a JSON object", file.display()))?;
            let left_out = rabbitmq::load_definitions(app, &document)
                .with_context(|| format!("failed to import {}", file.display()))?;
            info!(file = %file.display(), left_out = left_out.len(), "definitions loaded");
        }
        Ok(())
    }

    fn routers(&self, broker: Broker) -> &Routers {
        let build = || {
            let process = metrics_process::Collector::default();
            process.describe();
            let scans = Arc::new(list::Scans::new(broker.clock().clone()));
            let app = App {
                node: self.node.clone(),
                process,
                broker,
                totals: Arc::default(),
                jobs: Arc::new(Semaphore::new(JOBS_MAX)),
                scans,
                logins: Arc::default(),
                tokens: Arc::default(),
                users: Arc::default(),
                event_streams: Arc::new(Semaphore::new(self.node.settings.event_streams_max)),
                rates: Arc::default(),
                queue_rates: Arc::default(),
                listening: self.listening.clone(),
                bridges: self.bridges.clone(),
            };
            let rabbitmq_metrics = metrics::rabbitmq_routes().with_state(app.clone());
            Routers { app: app.clone(), http: routes(app), rabbitmq_metrics }
        };
        self.router.get_or_init(build)
    }
}

/// The file, or the files of a folder whose names end with `.json`.
fn definition_files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let cannot_read = || format!("failed to read the folder {}", path.display());
    let entries = std::fs::read_dir(path).with_context(cannot_read)?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.with_context(cannot_read)?.path();
        if file.extension().is_some_and(|extension| extension == "json") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn routes(app: App) -> Router {
    let open = api::open_routes().layer(DefaultBodyLimit::max(OPEN_BODY_BYTES_MAX));
    let api = api::routes()
        .route("/openapi.json", get(openapi::answer))
        .fallback(async || Problem::not_found("there is no such resource"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(middleware::from_fn_with_state(app.clone(), auth::authenticate))
        .merge(open);
    let rabbitmq = rabbitmq::routes(app.clone());
    let emqx = emqx::routes(app.clone());
    let metrics = metrics::routes();
    let metrics = metrics.layer(middleware::from_fn_with_state(app.clone(), auth::authenticate_metrics));
    Router::new()
        .route("/health/live", get(async || "live\n"))
        .route("/health/ready", get(ready))
        .route("/health/alarms", get(metrics::alarms::health))
        .merge(metrics)
        .nest("/api/v1", api)
        .nest("/api/v5", emqx)
        .nest("/api", rabbitmq)
        .fallback(async || {
            Problem::not_found(
                "available: /health/live, /health/ready, /health/alarms, /metrics, /api/v1, /api/v5, /api",
            )
        })
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .with_state(app)
}

async fn ready(State(app): State<App>) -> impl IntoResponse {
    let wait = app.broker.log().oldest_wait();
    if !app.node.ready.load(Ordering::Acquire) {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned())
    } else if wait > app.node.monitored.commit_wait_max {
        let text = format!("not ready: oldest uncommitted group is {} s old\n", wait.as_secs());
        (StatusCode::SERVICE_UNAVAILABLE, text)
    } else {
        (StatusCode::OK, "ready\n".to_owned())
    }
}

#[async_trait]
impl ProtocolPlugin for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    async fn serve(&self, connection: Connection, broker: Broker) {
        let clock = broker.clock().clone();
        let router = self.routers(broker).http.clone();
        let (address, listener) = (connection.peer.ip(), connection.listener.clone());
        let (encrypted, shutdown) = (connection.encrypted, connection.shutdown.clone());
        let peer = Peer { address, listener, encrypted, shutdown };
        serve(router.layer(Extension(peer)), clock, connection).await;
    }
}

#[async_trait]
impl ProtocolPlugin for RabbitmqMetrics {
    fn name(&self) -> &'static str {
        "http"
    }

    async fn serve(&self, connection: Connection, broker: Broker) {
        let clock = broker.clock().clone();
        serve(self.0.routers(broker).rabbitmq_metrics.clone(), clock, connection).await;
    }
}

async fn serve(router: Router, clock: Clock, connection: Connection) {
    let io = Stalling::new(connection.io, clock, STALL_TIMEOUT);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = connection.shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        debug!(%error, "HTTP connection failed");
    }
}

#[cfg(test)]
mod tests;
