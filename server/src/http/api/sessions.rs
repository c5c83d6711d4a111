//! Sessions: clients with their subscriptions and the messages that wait for them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use inver_access::{Operation, ResourceKind};
use inver_broker::{AuditKind, Completion, Expiry, LiveConnection, Order, SessionInfo, Sessions};
use serde::Serialize;
use utoipa::ToSchema;

use super::queues::Count;
use super::{answer, blocking, committed, durable};
use crate::http::App;
use crate::http::auth::Scope;
use crate::http::list::{ByName, Column, Indexed, ListQuery, Listing, Page};
use crate::http::problem::Problem;
use crate::http::request::Name;

/// Subscriptions shown of one session.
const FILTERS_SHOWN_MAX: usize = 10_000;

/// A session.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct SessionSummary {
    /// The client's id.
    name: String,
    connected: bool,
    /// The id of the connection that holds it.
    connection: Option<u64>,
    /// Of a connected client.
    protocol: Option<String>,
    /// Of a connected client.
    address: Option<String>,
    /// Of a connected client.
    user: Option<String>,
    /// Since when no connection holds it, milliseconds since 1970.
    away_since_ms: Option<i64>,
    /// It can outlive its connection.
    durable: bool,
    /// Seconds that it outlives its connection; none: for ever.
    expires_after_s: Option<u32>,
    /// The number of its subscriptions.
    subscriptions: usize,
    /// Guaranteed messages that wait.
    queued: u64,
    /// Guaranteed messages delivered and not acknowledged.
    unacked: u64,
    has_will: bool,
}

impl SessionSummary {
    fn of(app: &App, info: &SessionInfo) -> SessionSummary {
        let connection = info.connection.and_then(|id| app.broker.connections().get(id));
        let connection = connection.as_deref();
        SessionSummary {
            name: info.client_id.to_string(),
            connected: info.connected,
            connection: connection.map(LiveConnection::id),
            protocol: connection.map(|connection| connection.protocol().to_owned()),
            address: connection.map(|connection| connection.peer().to_string()),
            user: connection.and_then(|connection| connection.user().map(str::to_owned)),
            away_since_ms: info.away_since_ms,
            durable: info.durable,
            expires_after_s: match info.expiry {
                Expiry::AtDetach => Some(0),
                Expiry::After(seconds) => Some(seconds),
                Expiry::Never => None,
            },
            subscriptions: info.filters,
            queued: info.queued,
            unacked: info.unacked,
            has_will: info.has_will,
        }
    }
}

/// A session with its subscriptions.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct SessionDetail {
    #[serde(flatten)]
    summary: SessionSummary,
    filters: Vec<FilterOf>,
}

/// A subscription of a session.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionFilter)]
pub(in crate::http) struct FilterOf {
    /// The filter; a shared one with its group.
    filter: String,
    /// Guaranteed messages are delivered guaranteed.
    guaranteed: bool,
    /// The session's own publishes are not delivered to it.
    no_local: bool,
}

/// The sessions of a namespace.
struct All(Sessions);

impl Indexed for All {
    type Object = Arc<SessionInfo>;

    fn count(&self) -> u64 {
        self.0.len() as u64
    }

    fn following(&self, order: Order, after: Option<&str>, skip: usize, max: usize) -> Vec<Arc<SessionInfo>> {
        self.0.following(order, after, skip, max).into_iter().map(Arc::new).collect()
    }

    fn name<'a>(&self, session: &'a Arc<SessionInfo>) -> &'a str {
        &session.client_id
    }

    fn columns(&self) -> &'static [Column<Arc<SessionInfo>>] {
        &[
            ("queued", |session| session.queued.into()),
            ("unacked", |session| session.unacked.into()),
            ("subscriptions", |session| session.filters.into()),
            ("connected", |session| u64::from(session.connected).into()),
        ]
    }

    fn id(&self) -> String {
        format!("sessions {}", self.0.namespace().name())
    }
}

/// Lists the sessions, connected or not.
#[utoipa::path(get, path = "/sessions", tag = "sessions", params(Scope, ListQuery),
    responses((status = 200, body = Page<SessionSummary>)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    Listing(scope, query, _): Listing,
) -> Result<Page<SessionSummary>, Problem> {
    blocking(&app, move |app| {
        query.page(app, ByName(All(scope.sessions().clone())), |info| SessionSummary::of(app, info))
    })
    .await
}

fn unknown(client_id: &str) -> Problem {
    Problem::not_found(format!("there is no session `{client_id}`"))
}

/// A session with its subscriptions.
#[utoipa::path(get, path = "/sessions/{name}", tag = "sessions",
    params(("name" = String, Path, description = "The client's id"), Scope),
    responses((status = 200, body = SessionDetail)))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    Name(name): Name,
    scope: Scope,
) -> Result<Json<SessionDetail>, Problem> {
    answer(&app, move |app| {
        let info = scope.sessions().info(&name).ok_or_else(|| unknown(&name))?;
        let filters = scope.sessions().filters(&name, FILTERS_SHOWN_MAX).unwrap_or_default().into_iter();
        let filters = filters.map(|filter| FilterOf {
            filter: String::from_utf8_lossy(&filter.filter).into_owned(),
            guaranteed: filter.guaranteed,
            no_local: filter.no_local,
        });
        Ok(SessionDetail { summary: SessionSummary::of(app, &info), filters: filters.collect() })
    })
    .await
}

/// Drops the messages that wait for a client, and those that it has not acknowledged. The session, its subscriptions and its
/// connection stay.
#[utoipa::path(post, path = "/sessions/{name}/purge", tag = "sessions",
    params(("name" = String, Path, description = "The client's id"), Scope),
    responses((status = 200, body = Count)))]
pub(in crate::http) async fn purge(
    State(app): State<App>,
    Name(name): Name,
    scope: Scope,
) -> Result<Json<Count>, Problem> {
    remove(&app, scope, name, "purge", Sessions::purge).await
}

/// Steps over messages that wait for a client and cannot be read since the log is damaged. Those that can be read stay.
#[utoipa::path(post, path = "/sessions/{name}/skip-damaged", tag = "sessions",
    params(("name" = String, Path, description = "The client's id"), Scope),
    responses((status = 200, body = Count)))]
pub(in crate::http) async fn skip_damaged(
    State(app): State<App>,
    Name(name): Name,
    scope: Scope,
) -> Result<Json<Count>, Problem> {
    remove(&app, scope, name, "skip-damaged", Sessions::skip_damaged).await
}

/// Removes messages that wait for a client, and counts them.
async fn remove<E: Into<Problem> + 'static>(
    app: &App,
    scope: Scope,
    name: String,
    operation: &'static str,
    messages: impl FnOnce(&Sessions, &str) -> Result<Option<(u64, Completion)>, E> + Send + 'static,
) -> Result<Json<Count>, Problem> {
    scope.check(ResourceKind::Session, &name, Operation::Delete)?;
    durable(app, move |_| {
        let removed = messages(scope.sessions(), &name).map_err(Into::into)?;
        let (messages, completion) = removed.ok_or_else(|| unknown(&name))?;
        scope.namespace().audit(AuditKind::Deleted, operation, "session", &name);
        Ok((Json(Count { messages }), completion))
    })
    .await
}

/// Ends a session with its subscriptions and messages; its will is published. A connected client is disconnected.
#[utoipa::path(delete, path = "/sessions/{name}", tag = "sessions",
    params(("name" = String, Path, description = "The client's id"), Scope),
    responses((status = 204)))]
pub(in crate::http) async fn delete(
    State(app): State<App>,
    Name(name): Name,
    scope: Scope,
) -> Result<StatusCode, Problem> {
    scope.check(ResourceKind::Session, &name, Operation::Delete)?;
    let ended = scope.sessions().end(&name).await?;
    committed(&app, ended.ok_or_else(|| unknown(&name))?).await?;
    Ok(StatusCode::NO_CONTENT)
}
