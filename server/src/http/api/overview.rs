//! The overview: counts and sizes of the whole broker.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer;
use crate::http::App;
use crate::http::auth::Caller;
use crate::http::problem::Problem;

/// The broker in numbers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct Overview {
    version: &'static str,
    uptime_s: u64,
    /// Open connections of clients, those of HTTP included.
    connections: usize,
    namespaces: Vec<NamespaceCounts>,
    log: LogSizes,
}

/// What a namespace has.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct NamespaceCounts {
    pub(super) name: String,
    /// Log topics and durable queues.
    pub(super) topics: usize,
    pub(super) queues: usize,
    pub(super) exchanges: usize,
    /// Named subscriptions of log topics.
    pub(super) subscriptions: usize,
    pub(super) sessions: usize,
    /// Retained messages.
    pub(super) retained: usize,
}

/// Sizes of the log.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct LogSizes {
    segments: u64,
    disk_bytes: u64,
    streams: u64,
    /// Entries submitted and not committed yet.
    queued_entries: u64,
    /// Their bytes.
    queued_bytes: u64,
    checkpoint_age_s: u64,
    /// Entries committed since the start.
    entries: u64,
    /// Their bytes.
    bytes: u64,
}

/// Counts and sizes of the whole broker.
#[utoipa::path(get, path = "/overview", tag = "node", responses((status = 200, body = Overview)))]
pub(in crate::http) async fn overview(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Overview>, Problem> {
    answer(&app, move |app| Ok(Overview::of(app, &caller))).await
}

impl Overview {
    /// The overview of now, with the namespaces that the client sees.
    pub(in crate::http) fn of(app: &App, caller: &Caller) -> Overview {
        let log = app.broker.log().stats();
        let namespaces = app.broker.namespaces();
        let namespaces = namespaces.iter().filter(|namespace| caller.sees(&app.broker, namespace.name()));
        Overview {
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: (app.broker.clock().now() - app.node.started).as_secs(),
            connections: app.node.workers.connections(),
            namespaces: namespaces.map(|namespace| NamespaceCounts::of(app, namespace)).collect(),
            log: LogSizes {
                segments: log.segments,
                disk_bytes: log.disk_bytes,
                streams: log.streams,
                queued_entries: log.queued_entries,
                queued_bytes: log.queued_bytes,
                checkpoint_age_s: log.checkpoint_age.as_secs(),
                entries: log.entries,
                bytes: log.bytes,
            },
        }
    }
}

impl NamespaceCounts {
    /// The counts of a namespace, which cost nothing per object.
    pub(super) fn of(app: &App, namespace: &inver_broker::Namespace) -> NamespaceCounts {
        NamespaceCounts {
            name: namespace.name().to_string(),
            topics: namespace.topic_count(),
            queues: namespace.queue_count(),
            exchanges: namespace.exchange_count(),
            subscriptions: namespace.subscription_count(),
            sessions: app.broker.sessions(namespace.name()).map_or(0, |sessions| sessions.len()),
            retained: namespace.retained().len(),
        }
    }
}
