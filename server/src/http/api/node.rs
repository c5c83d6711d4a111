//! The node: what runs, its limits, its configuration, its log level, alarms, and live figures.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, Sse};
use axum::{Extension, Json};
use futures_util::Stream;
use futures_util::stream::unfold;
use rustix::fs::statvfs;
use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;

use super::overview::Overview;
use super::{answer, blocking};
use crate::config::{EffectiveKey, LogFilter};
use crate::http::auth::Caller;
use crate::http::list::{ListQuery, Page, Whole};
use crate::http::problem::Problem;
use crate::http::request::Body;
use crate::http::{App, Peer, metrics};

/// Time between two events.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);

/// The node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Node)]
pub(in crate::http) struct Shown {
    pub(in crate::http) version: &'static str,
    pub(in crate::http) process_id: u32,
    pub(in crate::http) uptime_s: u64,
    /// When it started, milliseconds since 1970.
    pub(in crate::http) started_ms: i64,
    pub(in crate::http) data_dir: String,
    /// It accepts connections.
    pub(in crate::http) ready: bool,
    /// Open connections of clients, those of HTTP included.
    pub(in crate::http) connections: usize,
    pub(in crate::http) limits: Limits,
    pub(in crate::http) memory: Memory,
    pub(in crate::http) disk: Disk,
    pub(in crate::http) files: Files,
}

/// Limits that clients meet first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct Limits {
    pub(in crate::http) connections_max: usize,
    pub(in crate::http) message_bytes_max: usize,
    pub(in crate::http) topics_max: usize,
    pub(in crate::http) queues_max: usize,
    pub(in crate::http) sessions_max: usize,
}

/// Memory of the process; none where the system does not tell.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Memory {
    pub(in crate::http) resident_bytes: Option<u64>,
}

/// The file system of the data folder; none where the system does not tell.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Disk {
    /// Bytes of segment files, reserved space included.
    pub(in crate::http) log_bytes: u64,
    pub(in crate::http) free_bytes: Option<u64>,
    pub(in crate::http) total_bytes: Option<u64>,
}

/// Open files of the process; none where the system does not tell.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Files {
    pub(in crate::http) open: Option<u64>,
    pub(in crate::http) max: Option<u64>,
}

/// What the node is, how long it runs, and what it uses.
#[utoipa::path(get, path = "/node", tag = "node", responses((status = 200, body = Shown)))]
pub(in crate::http) async fn node(State(app): State<App>, caller: Caller) -> Result<Json<Shown>, Problem> {
    caller.check_sees_all()?;
    answer(&app, |app| Ok(Shown::of(app))).await
}

impl Shown {
    pub(in crate::http) fn of(app: &App) -> Shown {
        let (clock, settings) = (app.broker.clock(), &app.node.settings);
        let uptime = clock.now() - app.node.started;
        let disk = statvfs(&settings.data_dir).ok();
        let block = |blocks: u64| disk.as_ref().map(|disk| blocks.saturating_mul(disk.f_frsize));
        Shown {
            version: env!("CARGO_PKG_VERSION"),
            process_id: std::process::id(),
            uptime_s: uptime.as_secs(),
            started_ms: clock.now_ms().saturating_sub(i64::try_from(uptime.as_millis()).unwrap_or(i64::MAX)),
            data_dir: settings.data_dir.display().to_string(),
            ready: app.node.ready.load(std::sync::atomic::Ordering::Acquire),
            connections: app.node.workers.connections(),
            limits: settings.limits.clone(),
            memory: Memory { resident_bytes: resident_bytes() },
            disk: Disk {
                log_bytes: app.broker.log().stats().disk_bytes,
                free_bytes: block(disk.as_ref().map_or(0, |disk| disk.f_bavail)),
                total_bytes: block(disk.as_ref().map_or(0, |disk| disk.f_blocks)),
            },
            files: Files { open: open_files(), max: getrlimit(Resource::Nofile).current },
        }
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn open_files() -> Option<u64> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as u64)
}

/// A key of the configuration, as it holds.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct ConfigKey {
    name: String,
    /// The value; secrets are masked.
    value: String,
    default: String,
    /// Where the value comes from: `default`, the file's name and line, or the environment variable.
    source: String,
}

impl From<&EffectiveKey> for ConfigKey {
    fn from(key: &EffectiveKey) -> ConfigKey {
        ConfigKey {
            name: key.name.clone(),
            value: key.value.clone(),
            default: key.default.clone(),
            source: key.source.clone().unwrap_or_else(|| "default".to_owned()),
        }
    }
}

/// Lists the keys of the configuration with the values that hold, and where these come from.
#[utoipa::path(get, path = "/config", tag = "node", params(ListQuery),
    responses((status = 200, body = Page<ConfigKey>)))]
pub(in crate::http) async fn config(
    State(app): State<App>,
    caller: Caller,
    query: ListQuery,
) -> Result<Page<ConfigKey>, Problem> {
    caller.check_sees_all()?;
    blocking(&app, move |app| {
        let keys = app.node.settings.config.lock().iter().map(ConfigKey::from).collect();
        query.page(
            app,
            Whole::new(keys, |key: &ConfigKey| &key.name, &[("source", |key| key.source.as_str().into())]),
            Clone::clone,
        )
    })
    .await
}

/// Which log lines are written.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct LogLevel {
    /// A level, or `target=level` pairs, as `logging.filter`.
    #[schema(max_length = 1024)]
    filter: String,
}

/// Bytes of a log filter.
const FILTER_BYTES_MAX: usize = 1024;

/// Tells which log lines are written.
#[utoipa::path(get, path = "/log-level", tag = "node", responses((status = 200, body = LogLevel)))]
pub(in crate::http) async fn log_level(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<LogLevel>, Problem> {
    caller.check_sees_all()?;
    Ok(Json(LogLevel { filter: app.node.log_filter.get() }))
}

/// Changes which log lines are written, until the next start or reload.
#[utoipa::path(put, path = "/log-level", tag = "node", request_body = LogLevel,
    responses((status = 200, body = LogLevel)))]
pub(in crate::http) async fn set_log_level(
    State(app): State<App>,
    caller: Caller,
    Body(LogLevel { filter }): Body<LogLevel>,
) -> Result<Json<LogLevel>, Problem> {
    caller.check_administers()?;
    if filter.trim().is_empty() || filter.len() > FILTER_BYTES_MAX {
        return Err(Problem::bad_request(format!("filter has 1 to {FILTER_BYTES_MAX} bytes")));
    }
    let parsed = LogFilter::parse(&filter);
    let parsed = parsed.map_err(|error| Problem::bad_request(format!("filter: {error}")))?;
    app.node.log_filter.set(&parsed.0);
    tracing::info!(filter, user = caller.identity.name(), "log filter changed");
    Ok(Json(LogLevel { filter: app.node.log_filter.get() }))
}

/// Something that an operator must know.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct Alarm {
    name: &'static str,
    detail: String,
}

/// The alarms that are on.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Alarms {
    alarms: Vec<Alarm>,
}

fn alarms_of(app: &App) -> Vec<Alarm> {
    let active = metrics::active_alarms(app).into_iter();
    active.map(|(name, detail)| Alarm { name, detail }).collect()
}

/// Lists the alarms that are on.
#[utoipa::path(get, path = "/alarms", tag = "node", responses((status = 200, body = Alarms)))]
pub(in crate::http) async fn alarms(State(app): State<App>, caller: Caller) -> Result<Json<Alarms>, Problem> {
    caller.check_sees_all()?;
    answer(&app, |app| Ok(Alarms { alarms: alarms_of(app) })).await
}

/// Figures of one second.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Figures {
    /// Milliseconds since 1970.
    time_ms: i64,
    overview: Overview,
    alarms: Vec<Alarm>,
}

/// Sends the overview once a second, as server-sent events with JSON; and the alarms, to those who see the whole broker.
#[utoipa::path(get, path = "/events", tag = "node",
    responses((status = 200, body = String, content_type = "text/event-stream")))]
pub(in crate::http) async fn events(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    caller: Caller,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let streams = app.event_streams.clone().try_acquire_owned();
    let held = streams.map_err(|_| {
        let max = app.node.settings.event_streams_max;
        Problem::too_many(format!("limit of event streams reached: {max} (http.event_streams_max)"))
    })?;
    struct Live {
        app: App,
        peer: Peer,
        caller: Caller,
        is_first: bool,
        _held: OwnedSemaphorePermit,
    }
    let state = Live { app, peer, caller, is_first: true, _held: held };
    // The next event is made when the last one was taken, so that a stalled client costs one.
    let events = unfold(state, async |mut state| {
        if !std::mem::take(&mut state.is_first) {
            tokio::select! {
                () = state.app.broker.clock().sleep(EVENT_INTERVAL) => {}
                () = state.peer.shutdown.cancelled() => return None,
            }
        }
        // The client may have lost its login or its tags since.
        state.caller = state.caller.renewed(&state.app)?;
        let caller = state.caller.clone();
        let figures = blocking(&state.app, move |app| {
            let overview = Overview::of(app, &caller);
            let alarms = if caller.sees_all() { alarms_of(app) } else { Vec::new() };
            Ok(Figures { time_ms: app.broker.clock().now_ms(), overview, alarms })
        });
        let text = serde_json::to_string(&figures.await.ok()?).ok()?;
        Some((Ok(Event::default().event("figures").data(text)), state))
    });
    Ok(Sse::new(events))
}
