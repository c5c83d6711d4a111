//! Bans of clients, by client id, user or address.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use inver_broker::{AuditKind, Ban, BanTarget};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{blocking, deleted, durable};
use crate::http::App;
use crate::http::auth::Caller;
use crate::http::list::{ListQuery, Page, Whole};
use crate::http::problem::Problem;
use crate::http::request::{Body, Query};

/// A ban.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Ban)]
pub(in crate::http) struct Shown {
    /// Who is banned, in words.
    name: String,
    client_id: Option<String>,
    user: Option<String>,
    /// An address, or a network such as `10.0.0.0/8`.
    address: Option<String>,
    /// Why; clients are not told.
    reason: String,
    /// Who banned.
    by: String,
    /// Milliseconds since 1970.
    since_ms: i64,
    /// Milliseconds since 1970; none: until it is removed.
    until_ms: Option<i64>,
}

impl Shown {
    fn of(target: &BanTarget, ban: &Ban) -> Shown {
        let (mut client_id, mut user, mut address) = (None, None, None);
        match target {
            BanTarget::ClientId(id) => client_id = Some(id.clone()),
            BanTarget::User(name) => user = Some(name.clone()),
            BanTarget::Network(network) => address = Some(network.to_string()),
        }
        let Ban { reason, by, since_ms, until_ms } = ban.clone();
        Shown { name: target.to_string(), client_id, user, address, reason, by, since_ms, until_ms }
    }
}

/// Who is banned: one of a client id, a user, and an address or network.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Target {
    #[param(nullable = false, max_length = 1024)]
    client_id: Option<String>,
    #[param(nullable = false, max_length = 1024)]
    user: Option<String>,
    #[param(nullable = false, max_length = 64)]
    address: Option<String>,
}

impl Target {
    fn target(self) -> Result<BanTarget, Problem> {
        match self {
            Target { client_id: Some(id), user: None, address: None } => Ok(BanTarget::ClientId(id)),
            Target { client_id: None, user: Some(user), address: None } => Ok(BanTarget::User(user)),
            Target { client_id: None, user: None, address: Some(text) } => {
                let network = text.parse().map_err(|()| {
                    Problem::bad_request("address is an address or a network such as 10.0.0.0/8")
                })?;
                Ok(BanTarget::Network(network))
            }
            _ => Err(Problem::bad_request("one of client_id, user and address is given")),
        }
    }
}

/// Why and for how long.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = NewBan)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewBan {
    #[serde(default)]
    #[schema(max_length = 1024)]
    reason: String,
    /// Seconds from now; without it, until the ban is removed.
    #[schema(nullable = false)]
    expires_in_s: Option<u32>,
}

/// Lists the bans.
#[utoipa::path(get, path = "/bans", tag = "access", params(ListQuery),
    responses((status = 200, body = Page<Shown>)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: ListQuery,
) -> Result<Page<Shown>, Problem> {
    caller.check_sees_all()?;
    blocking(&app, move |app| {
        let bans = app.broker.bans().list(app.broker.clock().now_ms());
        let shown = bans.iter().map(|(target, ban)| Shown::of(target, ban)).collect();
        query.page(app, Whole::new(shown, |ban: &Shown| &ban.name, &[]), Clone::clone)
    })
    .await
}

/// Bans clients of every protocol, and ends the connections of those that are there.
#[utoipa::path(put, path = "/bans", tag = "access", request_body = NewBan, params(Target),
    responses((status = 200, body = Shown)))]
pub(in crate::http) async fn put(
    State(app): State<App>,
    caller: Caller,
    Query(target): Query<Target>,
    Body(new): Body<NewBan>,
) -> Result<Json<Shown>, Problem> {
    caller.check_administers()?;
    durable(&app, move |app| {
        let target = target.target()?;
        let now_ms = app.broker.clock().now_ms();
        let until_ms = new.expires_in_s.map(|seconds| now_ms + i64::from(seconds) * 1000);
        let by = caller.name().unwrap_or_default().to_owned();
        let ban = Ban { reason: new.reason, by, since_ms: now_ms, until_ms };
        let (_ended, completion) = app.broker.ban(&target, &ban)?;
        caller.did(AuditKind::Access, "create", "ban", &target.to_string());
        Ok((Json(Shown::of(&target, &ban)), completion))
    })
    .await
}

/// Removes a ban.
#[utoipa::path(delete, path = "/bans", tag = "access", params(Target), responses((status = 204)))]
pub(in crate::http) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Query(target): Query<Target>,
) -> Result<StatusCode, Problem> {
    caller.check_administers()?;
    deleted(&app, move |app| {
        let target = target.target()?;
        let removed = app.broker.bans().remove(&target)?;
        let completion = removed.ok_or_else(|| Problem::not_found(format!("there is no ban of {target}")))?;
        caller.did(AuditKind::Access, "delete", "ban", &target.to_string());
        Ok(completion)
    })
    .await
}
