//! Bans by client id, user name and address.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use inver_broker::{AuditKind, Ban, BanTarget, Completion};
use serde::Deserialize;
use serde_json::{Value, json};

use super::page::PageQuery;
use super::time;
use crate::http::App;
use crate::http::api::{blocking, deleted, durable};
use crate::http::auth::Caller;
use crate::http::problem::Problem;
use crate::http::request::{Body, Query};

/// What EMQX says of a ban without an end.
const FOR_EVER: &str = "infinity";

/// A ban; other fields of EMQX are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct New {
    #[serde(rename = "as")]
    kind: String,
    who: String,
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    reason: String,
    /// A time, seconds since 1970, or `infinity`.
    #[serde(default)]
    until: Value,
}

/// Which part of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Which {
    page: Option<u64>,
    limit: Option<u64>,
}

fn target(kind: &str, who: &str) -> Result<BanTarget, Problem> {
    match kind {
        "clientid" => Ok(BanTarget::ClientId(who.to_owned())),
        "username" => Ok(BanTarget::User(who.to_owned())),
        "peerhost" | "peerhost_net" => who
            .parse()
            .map(BanTarget::Network)
            .map_err(|()| Problem::bad_request("who is an address or a network such as 10.0.0.0/8")),
        _ => Err(Problem::bad_request("as is clientid, username, peerhost or peerhost_net")),
    }
}

fn shown(target: &BanTarget, ban: &Ban) -> Value {
    let (kind, who) = match target {
        BanTarget::ClientId(id) => ("clientid", id.clone()),
        BanTarget::User(name) => ("username", name.clone()),
        BanTarget::Network(network) => {
            let text = network.to_string();
            (if text.contains('/') { "peerhost_net" } else { "peerhost" }, text)
        }
    };
    json!({
        "as": kind,
        "who": who,
        "by": ban.by,
        "reason": ban.reason,
        "at": time::text(ban.since_ms),
        "until": ban.until_ms.map_or_else(|| FOR_EVER.to_owned(), time::text),
    })
}

/// Lists the bans.
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(which): Query<Which>,
) -> Result<Json<Value>, Problem> {
    caller.check_sees_all()?;
    let query = PageQuery::of(which.page, which.limit);
    let (skip, limit) = query.bounds()?;
    blocking(&app, move |app| {
        let bans = app.broker.bans().list(app.broker.clock().now_ms());
        let data = bans.iter().skip(skip).take(limit).map(|(target, ban)| shown(target, ban)).collect();
        Ok(Json(query.answer(data, bans.len() as u64)))
    })
    .await
}

/// Bans clients, and disconnects those that are there.
pub(super) async fn add(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<New>,
) -> Result<Json<Value>, Problem> {
    caller.check_administers()?;
    durable(&app, move |app| {
        let target = target(&new.kind, &new.who)?;
        let until = match &new.until {
            Value::Null => None,
            Value::String(text) if text == FOR_EVER => None,
            Value::String(text) => Some(text.clone()),
            Value::Number(seconds) => Some(seconds.to_string()),
            _ => Some(String::new()),
        };
        let until_ms = until.map(|text| time::read(&text).ok_or(text)).transpose().map_err(|_| {
            Problem::bad_request("until is a time (RFC 3339), seconds since 1970, or infinity")
        })?;
        let by = new.by.or_else(|| caller.name().map(str::to_owned)).unwrap_or_default();
        let now_ms = app.broker.clock().now_ms();
        if until_ms.is_some_and(|at| at <= now_ms) {
            return Err(Problem::bad_request("until is over"));
        }
        let ban = Ban { reason: new.reason, by, since_ms: now_ms, until_ms };
        let (_ended, completion) = app.broker.ban(&target, &ban)?;
        caller.did(AuditKind::Access, "create", "ban", &target.to_string());
        Ok((Json(shown(&target, &ban)), completion))
    })
    .await
}

/// Removes a ban.
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<StatusCode, Problem> {
    caller.check_administers()?;
    let Path((kind, who)) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    deleted(&app, move |app| {
        let target = target(&kind, &who)?;
        let removed = app.broker.bans().remove(&target)?;
        let completion = removed.ok_or_else(|| Problem::not_found(format!("there is no ban of {target}")))?;
        caller.did(AuditKind::Access, "delete", "ban", &target.to_string());
        Ok(completion)
    })
    .await
}

/// Removes all bans.
pub(super) async fn clear_all(State(app): State<App>, caller: Caller) -> Result<StatusCode, Problem> {
    caller.check_administers()?;
    deleted(&app, move |app| {
        let mut completion = Completion::Now;
        for (target, _) in app.broker.bans().list(app.broker.clock().now_ms()) {
            if let Some(removed) = app.broker.bans().remove(&target)? {
                completion = completion.and(removed);
                caller.did(AuditKind::Access, "delete", "ban", &target.to_string());
            }
        }
        Ok(completion)
    })
    .await
}
