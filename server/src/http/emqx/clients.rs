//! Clients: sessions, connected or not.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use inver_access::{Operation, ResourceKind};
use inver_broker::{Expiry, LiveConnection, Order, SessionInfo, Sessions};
use serde::Deserialize;
use serde_json::{Value, json};

use super::page::PageQuery;
use super::{node_name, time};
use crate::http::App;
use crate::http::api::connections::close_connection;
use crate::http::api::{blocking, committed};
use crate::http::auth::{Caller, Scope};
use crate::http::problem::Problem;
use crate::http::request::{Name, Scoped};

/// Sessions that are read at a time.
const CHUNK: usize = 500;
/// Sessions that are looked through for one answer.
pub(super) const VISITED_MAX: usize = 100_000;

/// What is said of a client that is not known.
pub(super) const UNKNOWN: &str = "Client ID not found";

/// Which clients.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Which {
    page: Option<u64>,
    limit: Option<u64>,
    clientid: Option<String>,
    /// A part of the client id.
    like_clientid: Option<String>,
    username: Option<String>,
    /// A part of the user name.
    like_username: Option<String>,
    ip_address: Option<String>,
    conn_state: Option<ConnState>,
}

/// Whether a client is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ConnState {
    Connected,
    Disconnected,
}

impl Which {
    fn is_everything(&self) -> bool {
        let texts =
            [&self.clientid, &self.like_clientid, &self.username, &self.like_username, &self.ip_address];
        self.conn_state.is_none() && texts.iter().all(|text| text.is_none())
    }

    fn lists(&self, info: &SessionInfo, connection: Option<&LiveConnection>) -> bool {
        let is = |wanted: &Option<String>, text: &str| wanted.as_deref().is_none_or(|wanted| text == wanted);
        let has = |part: &Option<String>, text: &str| part.as_deref().is_none_or(|part| text.contains(part));
        let user = connection.and_then(LiveConnection::user).unwrap_or_default();
        let is_from = |address: &String| connection.is_some_and(|it| it.peer().ip().to_string() == *address);
        self.conn_state.is_none_or(|state| info.connected == (state == ConnState::Connected))
            && is(&self.clientid, &info.client_id)
            && has(&self.like_clientid, &info.client_id)
            && is(&self.username, user)
            && has(&self.like_username, user)
            && self.ip_address.as_ref().is_none_or(is_from)
    }
}

/// Calls `each` for sessions in the order of their client ids, until it returns false or [`VISITED_MAX`] were visited.
pub(super) fn visit(sessions: &Sessions, mut each: impl FnMut(&SessionInfo) -> bool) {
    let (mut after, mut visited): (Option<String>, usize) = (None, 0);
    while visited < VISITED_MAX {
        let found = sessions.following(Order::Ascending, after.as_deref(), 0, CHUNK);
        for info in &found {
            if !each(info) {
                return;
            }
        }
        visited += found.len();
        match found.last() {
            Some(last) if found.len() == CHUNK => after = Some(last.client_id.to_string()),
            _ => return,
        }
    }
}

fn connection_of(app: &App, info: &SessionInfo) -> Option<Arc<LiveConnection>> {
    info.connection.and_then(|id| app.broker.connections().get(id))
}

/// A client as EMQX shows it.
fn shown(info: &SessionInfo, connection: Option<&LiveConnection>, node: &str) -> Value {
    let expiry_interval = match info.expiry {
        Expiry::AtDetach => 0,
        Expiry::After(seconds) => seconds,
        Expiry::Never => u32::MAX,
    };
    let mut client = json!({
        "clientid": &*info.client_id,
        "node": node,
        "connected": info.connected,
        "is_persistent": info.durable,
        "is_bridge": false,
        "proto_name": "MQTT",
        "expiry_interval": expiry_interval,
        "subscriptions_cnt": info.filters,
        "mqueue_len": info.queued,
        "inflight_cnt": info.unacked,
        "username": Value::Null,
    });
    if let Some(connection) = connection {
        let since = time::text(connection.since_ms());
        client["username"] = json!(connection.user());
        client["ip_address"] = json!(connection.peer().ip().to_string());
        client["port"] = json!(connection.peer().port());
        client["listener"] = json!(connection.listener().name);
        client["connected_at"] = json!(since);
        client["created_at"] = json!(since);
    }
    if let Some(since_ms) = info.away_since_ms {
        client["disconnected_at"] = json!(time::text(since_ms));
    }
    client
}

/// Lists clients.
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Scoped(scope, which): Scoped<Which>,
) -> Result<Json<Value>, Problem> {
    caller.check_sees_all()?;
    let query = PageQuery::of(which.page, which.limit);
    let (skip, limit) = query.bounds()?;
    blocking(&app, move |app| {
        let (sessions, node) = (scope.sessions(), node_name());
        let show = |info: &SessionInfo| shown(info, connection_of(app, info).as_deref(), &node);
        if which.is_everything() {
            let found = sessions.following(Order::Ascending, None, skip, limit);
            let data = found.iter().map(show).collect();
            return Ok(Json(query.answer(data, sessions.len() as u64)));
        }
        let (mut data, mut count) = (Vec::new(), 0);
        let mut add = |info: &SessionInfo| {
            let connection = connection_of(app, info);
            if which.lists(info, connection.as_deref()) {
                if count >= skip && data.len() < limit {
                    data.push(shown(info, connection.as_deref(), &node));
                }
                count += 1;
            }
            true
        };
        match &which.clientid {
            Some(client_id) => {
                if let Some(info) = sessions.info(client_id) {
                    add(&info);
                }
            }
            None => visit(sessions, add),
        }
        Ok(Json(query.answer(data, count as u64)))
    })
    .await
}

pub(super) fn unknown() -> Problem {
    Problem::not_found(UNKNOWN)
}

/// Shows a client.
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    Name(name): Name,
    scope: Scope,
) -> Result<Json<Value>, Problem> {
    caller.check_sees_all()?;
    blocking(&app, move |app| {
        let info = scope.sessions().info(&name).ok_or_else(unknown)?;
        Ok(Json(shown(&info, connection_of(app, &info).as_deref(), &node_name())))
    })
    .await
}

/// Disconnects a client; its lasting session stays. That of a client that is not connected ends.
pub(super) async fn kick(
    State(app): State<App>,
    caller: Caller,
    Name(name): Name,
    scope: Scope,
) -> Result<StatusCode, Problem> {
    let info = scope.sessions().info(&name).ok_or_else(unknown)?;
    if let Some(connection) = connection_of(&app, &info) {
        close_connection(&caller, &connection, None)?;
        return Ok(StatusCode::NO_CONTENT);
    }
    if info.connected {
        // Its connection is ending.
        caller.check_administers()?;
        return Ok(StatusCode::NO_CONTENT);
    }
    scope.check(ResourceKind::Session, &name, Operation::Delete)?;
    let ended = scope.sessions().end(&name).await?;
    committed(&app, ended.ok_or_else(unknown)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
