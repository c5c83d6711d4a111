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
    let mut all = app.broker.connections().list().into_iter();
    all.find(|it| connection_name(it) == name && sees(caller, it))
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

/// What the consumers of a connection hold.
#[derive(Clone, Copy, Default)]
struct Held {
    consumers: u64,
    unacked: u64,
}

/// What the consumers of each connection hold, by its number: those of all virtual hosts that the client sees.
fn held(app: &App, caller: &Caller) -> Result<HashMap<u64, Held>, Fault> {
    let mut held: HashMap<u64, Held> = HashMap::new();
    for consumer in consumers::listed(app, &seen(app, caller))? {
        if let Some(connection) = &consumer.connection {
            let held = held.entry(connection.id()).or_default();
            held.consumers += 1;
            held.unacked += consumer.unacked();
        }
    }
    Ok(held)
}

fn channel_name(connection: &LiveConnection) -> String {
    format!("{} (1)", connection_name(connection))
}

fn shown_channel(connection: &LiveConnection, held: &HashMap<u64, Held>) -> Value {
    let held = held.get(&connection.id()).copied().unwrap_or_default();
    let peer = connection.peer();
    json!({
        "name": channel_name(connection),
        "number": 1,
        "node": node_name(),
        "vhost": connection.namespace(),
        "user": connection.user().unwrap_or_default(),
        "user_who_performed_action": connection.user().unwrap_or_default(),
        "connection_details": {
            "name": connection_name(connection),
            "peer_host": peer.ip().to_string(),
            "peer_port": peer.port(),
        },
        "state": if connection.is_throttled() { "flow" } else { "running" },
        "consumer_count": held.consumers,
        "messages_unacknowledged": held.unacked,
        "messages_unconfirmed": 0,
        "messages_uncommitted": 0,
        "acks_uncommitted": 0,
        "prefetch_count": 0,
        "confirm": false,
        "transactional": false,
    })
}

async fn listed_channels(
    app: App,
    caller: Caller,
    params: Params,
    lists: impl Fn(&LiveConnection) -> bool + Send + 'static,
) -> Result<Response, Fault> {
    let query = ListQuery::of(&params)?;
    work(&app, move |app| {
        let mut all = visible(app, &caller);
        all.retain(|it| has_channels(it.protocol()) && lists(it));
        let held = held(app, &caller)?;
        query.answer(all, |it| channel_name(it), |it| shown_channel(it, &held))
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
    let query = ListQuery::of(&params)?;
    work(&app, move |app| {
        let of = find(app, &caller, &name).ok_or_else(Fault::not_found)?;
        let all: Vec<_> = Some(of).into_iter().filter(|it| has_channels(it.protocol())).collect();
        let held = held(app, &caller)?;
        query.answer(all, |it| channel_name(it), |it| shown_channel(it, &held))
    })
    .await
}

pub(super) async fn channel(
    State(app): State<App>,
    caller: Caller,
    Names(name): Names<String>,
) -> Result<Json<Value>, Fault> {
    work(&app, move |app| {
        let of = name.strip_suffix(" (1)").and_then(|connection| find(app, &caller, connection));
        let held = held(app, &caller)?;
        found(of.filter(|it| has_channels(it.protocol())).map(|it| shown_channel(&it, &held)))
    })
    .await
}
