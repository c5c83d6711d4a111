//! Connections of every protocol, and the channels of AMQP connections.
//!
//! The broker does not list channels: an AMQP connection is shown with one, which stands for all that it has.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use inver_broker::LiveConnection;
use serde_json::{Value, json};

use super::error::Fault;
use super::list::ListQuery;
use super::request::{Names, Params, found, scope, work};
use super::vhosts::seen;
use super::{consumers, node_name};
use crate::http::App;
use crate::http::api::connections::{close_connection, sees};
use crate::http::auth::Caller;
use crate::protocols::{PROTOCOLS, has_channels};

/// The header with the reason that a client is told.
const REASON: &str = "x-reason";

/// The name of a connection: both addresses.
pub(super) fn connection_name(connection: &LiveConnection) -> String {
    format!("{} -> {}", connection.peer(), connection.local())
}

fn shown(connection: &Arc<LiveConnection>) -> Value {
    let (peer, local) = (connection.peer(), connection.local());
    let own_name = connection.name();
    let entry = PROTOCOLS.iter().find(|entry| entry.name == connection.protocol());
    json!({
        "name": connection_name(connection),
        "user_provided_name": &*own_name,
        "client_properties": {"connection_name": &*own_name},
        "node": node_name(),
        "vhost": connection.namespace(),
        "user": connection.user().unwrap_or_default(),
        "user_who_performed_action": connection.user().unwrap_or_default(),
        "protocol": entry.map_or(connection.protocol(), |entry| entry.title),
        "type": "network",
        "state": if connection.is_throttled() { "flow" } else { "running" },
        "connected_at": connection.since_ms(),
        "peer_host": peer.ip().to_string(),
        "peer_port": peer.port(),
        "host": local.ip().to_string(),
        "port": local.port(),
        "ssl": connection.is_encrypted(),
    })
}

/// The connections that a client sees, ordered by name.
fn visible(app: &App, caller: &Caller) -> Vec<Arc<LiveConnection>> {
    let all = app.broker.connections().list().into_iter();
    let mut all: Vec<_> = all.filter(|it| sees(caller, it)).collect();
    all.sort_by_cached_key(|it| connection_name(it));
    all
}

async fn listed(
    app: App,
    caller: Caller,
    params: Params,
    lists: impl Fn(&LiveConnection) -> bool + Send + 'static,
) -> Result<Response, Fault> {
    let query = ListQuery::of(&params)?;
    work(&app, move |app| {
        let mut all = visible(app, &caller);
        all.retain(|it| lists(it));
        query.answer(all, |it| connection_name(it), shown)
    })
    .await
}

pub(super) async fn list(State(app): State<App>, caller: Caller, params: Params) -> Result<Response, Fault> {
    listed(app, caller, params, |_| true).await
}

pub(super) async fn of_vhost(
    State(app): State<App>,
    caller: Caller,
    Names(vhost): Names<String>,
    params: Params,
) -> Result<Response, Fault> {
    scope(&app, &caller, &vhost)?;
    listed(app, caller, params, move |it| it.namespace() == vhost).await
}

pub(super) async fn of_user(
    State(app): State<App>,
    caller: Caller,
    Names(user): Names<String>,
    params: Params,
) -> Result<Response, Fault> {
    listed(app, caller, params, move |it| it.user() == Some(&user)).await
}

fn find(app: &App, caller: &Caller, name: &str) -> Option<Arc<LiveConnection>> {
    visible(app, caller).into_iter().find(|it| connection_name(it) == name)
}

pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    Names(name): Names<String>,
) -> Result<Json<Value>, Fault> {
    work(&app, move |app| found(find(app, &caller, &name).as_ref().map(shown))).await
}

fn reason(headers: &HeaderMap) -> Option<String> {
    headers.get(REASON).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Closes a connection; the header `X-Reason` is what its client is told.
pub(super) async fn close(
    State(app): State<App>,
    caller: Caller,
    Names(name): Names<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Fault> {
    work(&app, move |app| {
        let connection = find(app, &caller, &name).ok_or_else(Fault::not_found)?;
        close_connection(&caller, &connection, reason(&headers))?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// Closes all connections of a user.
pub(super) async fn close_of_user(
    State(app): State<App>,
    caller: Caller,
    Names(user): Names<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Fault> {
    work(&app, move |app| {
        for connection in visible(app, &caller).iter().filter(|it| it.user() == Some(&user)) {
            close_connection(&caller, connection, reason(&headers))?;
        }
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// The channels of these connections; the consumers are those of all virtual hosts that the client sees.
fn channels_of(
    app: &App,
    caller: &Caller,
    lists: impl Fn(&LiveConnection) -> bool,
) -> Result<Vec<(String, Value)>, Fault> {
    let mut held: HashMap<u64, (u64, u64)> = HashMap::new();
    for consumer in consumers::listed(app, &seen(app, caller))? {
        if let Some(connection) = &consumer.connection {
            let (count, unacked) = held.entry(connection.id()).or_default();
            *count += 1;
            *unacked += consumer.unacked();
        }
    }
    let channel = |connection: &Arc<LiveConnection>| {
        let (consumers, unacked) = held.get(&connection.id()).copied().unwrap_or_default();
        let (name, peer) = (connection_name(connection), connection.peer());
        let shown = json!({
            "name": format!("{name} (1)"),
            "number": 1,
            "node": node_name(),
            "vhost": connection.namespace(),
            "user": connection.user().unwrap_or_default(),
            "user_who_performed_action": connection.user().unwrap_or_default(),
            "connection_details": {
                "name": name,
                "peer_host": peer.ip().to_string(),
                "peer_port": peer.port(),
            },
            "state": if connection.is_throttled() { "flow" } else { "running" },
            "consumer_count": consumers,
            "messages_unacknowledged": unacked,
            "messages_unconfirmed": 0,
            "messages_uncommitted": 0,
            "acks_uncommitted": 0,
            "prefetch_count": 0,
            "confirm": false,
            "transactional": false,
        });
        (format!("{name} (1)"), shown)
    };
    let of_amqp = visible(app, caller).into_iter().filter(|it| has_channels(it.protocol()) && lists(it));
    Ok(of_amqp.map(|it| channel(&it)).collect())
}

async fn listed_channels(
    app: App,
    caller: Caller,
    params: Params,
    lists: impl Fn(&LiveConnection) -> bool + Send + 'static,
) -> Result<Response, Fault> {
    let query = ListQuery::of(&params)?;
    work(&app, move |app| {
        query.answer(channels_of(app, &caller, lists)?, |(name, _)| name.clone(), |(_, it)| it.clone())
    })
    .await
}

pub(super) async fn channels(
    State(app): State<App>,
    caller: Caller,
    params: Params,
) -> Result<Response, Fault> {
    listed_channels(app, caller, params, |_| true).await
}

pub(super) async fn channels_of_vhost(
    State(app): State<App>,
    caller: Caller,
    Names(vhost): Names<String>,
    params: Params,
) -> Result<Response, Fault> {
    scope(&app, &caller, &vhost)?;
    listed_channels(app, caller, params, move |it| it.namespace() == vhost).await
}

pub(super) async fn channels_of_connection(
    State(app): State<App>,
    caller: Caller,
    Names(name): Names<String>,
    params: Params,
) -> Result<Response, Fault> {
    if find(&app, &caller, &name).is_none() {
        return Err(Fault::not_found());
    }
    listed_channels(app, caller, params, move |it| connection_name(it) == name).await
}

pub(super) async fn channel(
    State(app): State<App>,
    caller: Caller,
    Names(name): Names<String>,
) -> Result<Json<Value>, Fault> {
    work(&app, move |app| {
        let all = channels_of(app, &caller, |_| true)?;
        found(all.into_iter().find(|(of, _)| *of == name).map(|(_, shown)| shown))
    })
    .await
}
