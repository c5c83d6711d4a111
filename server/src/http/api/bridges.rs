//! Bridges to other MQTT servers.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use inver_broker::AuditKind;
use serde::Serialize;
use serde_json::{Map, Value as JsonValue};
use utoipa::ToSchema;

use super::{blocking, committed, put_status};
use crate::bridges::Bridges;
use crate::http::App;
use crate::http::auth::Caller;
use crate::http::list::{ListQuery, Page, Whole};
use crate::http::problem::Problem;
use crate::http::request::{Body, Name};
use crate::protocols::{Bridge, BridgeSpec};

/// A bridge.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Bridge)]
pub(in crate::http) struct Shown {
    name: String,
    /// It is one of the configuration.
    configured: bool,
    /// `connecting`, `connected`, `waiting` or `stopped`.
    state: String,
    /// Since when, milliseconds since 1970.
    since_ms: i64,
    /// The address that it is connected to, or was last.
    connected_to: String,
    /// Why the last connection ended or was not made, or what a server refused last.
    last_error: Option<String>,
    /// How many subscriptions a server refused, which one, and why.
    refused_subscriptions: Option<String>,
    /// Messages that wait for the other server, with those under way.
    queued: u64,
    /// Messages to the other server: `passed`, `dropped`, `refused`.
    #[schema(value_type = Object)]
    out: JsonValue,
    /// Messages from the other server.
    #[serde(rename = "in")]
    #[schema(value_type = Object)]
    incoming: JsonValue,
    /// What it was told; the password is masked.
    #[schema(value_type = Object)]
    settings: JsonValue,
}

impl Shown {
    fn of(app: &App, bridge: &Bridge, configured: bool) -> Shown {
        let (spec, status) = (bridge.spec(), bridge.status());
        let sessions = app.broker.sessions(&spec.namespace);
        let session = sessions.and_then(|sessions| sessions.info(&spec.local_client_id));
        let json = |value: Result<JsonValue, serde_json::Error>| value.unwrap_or_default();
        Shown {
            name: spec.name.clone(),
            configured,
            state: status.state.name().to_owned(),
            since_ms: status.since_ms,
            connected_to: status.connected_to,
            last_error: status.last_error,
            refused_subscriptions: status.refused_subscriptions,
            queued: session.map_or(0, |session| session.queued + session.unacked),
            out: json(serde_json::to_value(status.out)),
            incoming: json(serde_json::to_value(status.incoming)),
            settings: json(serde_json::to_value(spec.masked())),
        }
    }
}

fn bridges(app: &App) -> Result<Arc<Bridges>, Problem> {
    app.bridges.get().cloned().ok_or_else(|| Problem::unavailable("the broker is starting"))
}

fn unknown(name: &str) -> Problem {
    Problem::not_found(format!("there is no bridge `{name}`"))
}

/// Lists the bridges.
#[utoipa::path(get, path = "/bridges", tag = "bridges", params(ListQuery),
    responses((status = 200, body = Page<Shown>)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: ListQuery,
) -> Result<Page<Shown>, Problem> {
    caller.check_sees_all()?;
    blocking(&app, move |app| {
        let all = bridges(app)?.all();
        let shown = all.iter().map(|(bridge, configured)| Shown::of(app, bridge, *configured)).collect();
        query.page(app, Whole::new(shown, |bridge: &Shown| &bridge.name, &[]), Clone::clone)
    })
    .await
}

/// Shows a bridge.
#[utoipa::path(get, path = "/bridges/{name}", tag = "bridges", params(("name" = String, Path)),
    responses((status = 200, body = Shown)))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    caller: Caller,
    Name(name): Name,
) -> Result<Json<Shown>, Problem> {
    caller.check_sees_all()?;
    blocking(&app, move |app| {
        let (bridge, configured) = bridges(app)?.get(&name).ok_or_else(|| unknown(&name))?;
        Ok(Json(Shown::of(app, &bridge, configured)))
    })
    .await
}

/// Adds a bridge, or puts it in the place of the one of its name; it starts at once. The body has the settings of an entry of
/// `mqtt.bridges`; the masked password of a bridge as it is shown keeps its password. Its session on this broker stays, unless
/// it gets another `local_client_id` or `namespace`.
#[utoipa::path(put, path = "/bridges/{name}", tag = "bridges", params(("name" = String, Path)), request_body = Object,
    responses((status = 201, body = Shown), (status = 200, body = Shown)))]
pub(in crate::http) async fn put(
    State(app): State<App>,
    caller: Caller,
    Name(name): Name,
    Body(mut body): Body<Map<String, JsonValue>>,
) -> Result<(StatusCode, Json<Shown>), Problem> {
    caller.check_administers()?;
    body.insert("name".to_owned(), name.clone().into());
    let spec = serde_json::from_value(JsonValue::Object(body));
    let spec: BridgeSpec = spec.map_err(|error| Problem::bad_request(error.to_string()))?;
    let bridges = bridges(&app)?;
    let (created, completion) = bridges.clone().put(spec).await?;
    committed(&app, completion).await?;
    caller.did(AuditKind::Topology, if created { "create" } else { "alter" }, "bridge", &name);
    let (bridge, configured) = bridges.get(&name).ok_or_else(|| unknown(&name))?;
    Ok((put_status(created), Json(Shown::of(&app, &bridge, configured))))
}

/// Stops a bridge and deletes its session on this broker, with what waits there.
#[utoipa::path(delete, path = "/bridges/{name}", tag = "bridges", params(("name" = String, Path)),
    responses((status = 204)))]
pub(in crate::http) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Name(name): Name,
) -> Result<StatusCode, Problem> {
    caller.check_administers()?;
    let completion = bridges(&app)?.remove(name.clone()).await?.ok_or_else(|| unknown(&name))?;
    committed(&app, completion).await?;
    caller.did(AuditKind::Topology, "delete", "bridge", &name);
    Ok(StatusCode::NO_CONTENT)
}
