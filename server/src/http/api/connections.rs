//! Live connections of every protocol.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use inver_broker::{AuditKind, CloseReason, ConnectionRegistry, LiveConnection, Order};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{answer, blocking};
use crate::http::App;
use crate::http::auth::Caller;
use crate::http::list::{Column, ListQuery, Listed, Page, Snapshot, Source};
use crate::http::problem::Problem;
use crate::http::request::Query;

/// Bytes of the reason that a client is told.
const REASON_BYTES_MAX: usize = 200;

/// A connection.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Connection)]
pub(in crate::http) struct Shown {
    id: u64,
    /// The client id, or the name that the client gave the connection.
    name: String,
    protocol: String,
    user: Option<String>,
    namespace: String,
    /// The client's address.
    peer: String,
    /// The broker's address.
    local: String,
    /// The bytes travel under TLS.
    encrypted: bool,
    listener: String,
    /// When it was admitted, milliseconds since 1970.
    since_ms: i64,
    /// `flow` while a quota holds it back, else `running`.
    state: String,
}

impl Shown {
    fn of(connection: &LiveConnection) -> Shown {
        Shown {
            id: connection.id(),
            name: connection.name().to_string(),
            protocol: connection.protocol().to_owned(),
            user: connection.user().map(str::to_owned),
            namespace: connection.namespace().to_owned(),
            peer: connection.peer().to_string(),
            local: connection.local().to_string(),
            encrypted: connection.is_encrypted(),
            listener: connection.listener().name.clone(),
            since_ms: connection.since_ms(),
            state: if connection.is_throttled() { "flow" } else { "running" }.to_owned(),
        }
    }
}

/// Which connections are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct ConnectionFilter {
    /// Only connections to this namespace.
    #[param(nullable = false, max_length = 255)]
    namespace: Option<String>,
    /// Only connections of this protocol.
    #[param(nullable = false, max_length = 32)]
    protocol: Option<String>,
    /// Only connections of this user.
    #[param(nullable = false, max_length = 255)]
    user: Option<String>,
}

impl ConnectionFilter {
    fn lists(&self, connection: &LiveConnection) -> bool {
        let is = |wanted: &Option<String>, value: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| value == Some(wanted))
        };
        is(&self.namespace, Some(connection.namespace()))
            && is(&self.protocol, Some(connection.protocol()))
            && is(&self.user, connection.user())
    }
}

/// Whether a client sees a connection: who does not see the whole broker sees its user's own.
pub(in crate::http) fn sees(caller: &Caller, connection: &LiveConnection) -> bool {
    caller.sees_all() || (connection.user().is_some() && caller.is_user_of(connection))
}

/// A connection with its name, which may change meanwhile.
type Named = (Arc<str>, Arc<LiveConnection>);

/// The connections that a client sees.
struct Connections {
    all: ConnectionRegistry,
    caller: Caller,
    filter: ConnectionFilter,
}

impl Source for Connections {
    type Object = Named;
    type Place = Snapshot<Arc<LiveConnection>>;

    fn read(
        &self,
        _order: Order,
        place: &mut Snapshot<Arc<LiveConnection>>,
        max: usize,
        found: &mut Vec<Named>,
    ) -> bool {
        place.read(|| self.all.list_unordered(), max, |it| found.push((it.name(), it)))
    }

    fn page(&self, _order: Order, _skip: usize, _max: usize) -> Option<(Vec<Named>, u64)> {
        None
    }

    fn name<'a>(&self, (name, _): &'a Named) -> &'a str {
        name
    }

    fn columns(&self) -> &'static [Column<Named>] {
        &[
            ("name", |it| (&*it.0, it.1.id()).into()),
            ("id", |it| it.1.id().into()),
            ("since_ms", |it| it.1.since_ms().unsigned_abs().into()),
            ("protocol", |it| it.1.protocol().into()),
            ("user", |it| it.1.user().unwrap_or_default().into()),
        ]
    }

    fn lists(&self, (_, connection): &Named) -> bool {
        self.filter.lists(connection) && sees(&self.caller, connection)
    }

    fn id(&self) -> Option<String> {
        Some(format!("connections {} {:?}", self.caller.view(), self.filter))
    }
}

/// Lists the live connections of clients, ordered by name: all, for administrators and monitoring, else the user's own.
/// `filter` is about the name.
#[utoipa::path(get, path = "/connections", tag = "connections", params(ListQuery, ConnectionFilter),
    responses((status = 200, body = Page<Shown>)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    caller: Caller,
    Listed(query, filter): Listed<ConnectionFilter>,
) -> Result<Page<Shown>, Problem> {
    blocking(&app, move |app| {
        let connections = Connections { all: app.broker.connections().clone(), caller, filter };
        query.page(app, connections, |it| Shown::of(&it.1))
    })
    .await
}

fn find(
    app: &App,
    caller: &Caller,
    path: Result<Path<u64>, PathRejection>,
) -> Result<Arc<LiveConnection>, Problem> {
    let Path(id) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    let found = app.broker.connections().get(id).filter(|it| sees(caller, it));
    found.ok_or_else(|| Problem::not_found(format!("there is no connection {id}")))
}

/// A live connection.
#[utoipa::path(get, path = "/connections/{id}", tag = "connections",
    params(("id" = u64, Path, description = "The connection's id")),
    responses((status = 200, body = Shown)))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    caller: Caller,
    path: Result<Path<u64>, PathRejection>,
) -> Result<Json<Shown>, Problem> {
    answer(&app, move |app| Ok(Shown::of(&*find(app, &caller, path)?))).await
}

/// Why a connection is closed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Why {
    /// What the client is told, where its protocol has words for it.
    #[param(nullable = false, max_length = 200)]
    reason: Option<String>,
}

/// Closes a connection: an administrator any, others their user's own. Its client is told in the way of its protocol.
#[utoipa::path(delete, path = "/connections/{id}", tag = "connections",
    params(("id" = u64, Path, description = "The connection's id"), Why),
    responses((status = 204)))]
pub(in crate::http) async fn close(
    State(app): State<App>,
    caller: Caller,
    path: Result<Path<u64>, PathRejection>,
    Query(why): Query<Why>,
) -> Result<StatusCode, Problem> {
    let connection = find(&app, &caller, path)?;
    close_connection(&caller, &connection, why.reason)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Asks a connection to end: an administrator any, others their user's own.
pub(in crate::http) fn close_connection(
    caller: &Caller,
    connection: &LiveConnection,
    reason: Option<String>,
) -> Result<(), Problem> {
    if !caller.is_user_of(connection) {
        caller.check_administers()?;
    }
    let reason = reason.unwrap_or_else(|| "closed by an administrator".to_owned());
    if reason.len() > REASON_BYTES_MAX {
        return Err(Problem::bad_request(format!("reason has at most {REASON_BYTES_MAX} bytes")));
    }
    connection.close(CloseReason::Asked(reason.into()));
    caller.did(AuditKind::Access, "close", "connection", &connection.name());
    Ok(())
}
