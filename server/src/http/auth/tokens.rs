//! Tokens of machines: secrets that stand for the user that made them.
//!
//! Only hashes are stored, in the log. A token's user is looked up with every request: without it, or while it is disabled,
//! the token is refused.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use inver_broker::{AuditKind, Completion, Identity};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use utoipa::ToSchema;

use super::logins::{hash, secret};
use super::{Caller, is_current};
use crate::http::App;
use crate::http::api::{blocking, deleted, durable};
use crate::http::list::{ListQuery, Page, Whole};
use crate::http::problem::Problem;
use crate::http::request::{Body, Name};

/// Table of the rows.
const TABLE: &str = "http-tokens";
/// What a token begins with, so that it is recognized where it should not be.
const PREFIX: &str = "inver_";
/// Bytes of a token's name.
const NAME_BYTES_MAX: usize = 255;

/// A token, as stored.
#[derive(Serialize, Deserialize)]
struct Row {
    /// The user; none where there were no users.
    user: Option<String>,
    /// SHA-256 of the secret.
    hash: Vec<u8>,
    created_ms: i64,
    expires_ms: Option<i64>,
}

/// A token, without its secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct Token {
    name: String,
    /// The user that it stands for; none where there were no users.
    user: Option<String>,
    /// Milliseconds since 1970.
    created_ms: i64,
    /// Milliseconds since 1970; none: never.
    expires_ms: Option<i64>,
}

/// A token to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewToken {
    #[schema(min_length = 1, max_length = 255)]
    name: String,
    /// The time after which it is refused; without it, never.
    #[schema(minimum = 1, maximum = 3_153_600_000_i64, nullable = false)]
    expires_after_s: Option<u64>,
}

/// A token with its secret, which is shown once.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct MadeToken {
    name: String,
    /// For the header `Authorization: Bearer …`.
    token: String,
    /// Milliseconds since 1970; none: never.
    expires_ms: Option<i64>,
}

/// Whether a token is one that the broker made.
pub(super) fn is_own(token: &str) -> bool {
    token.starts_with(PREFIX)
}

/// The identity that a token stands for. A token is its prefix, the hex form of its name, a dot and the secret.
pub(super) fn identity(app: &App, token: &str, address: IpAddr) -> Result<Identity, Problem> {
    let refused = || Problem::unauthorized("the token is not valid");
    let (name, secret) =
        token.strip_prefix(PREFIX).and_then(|rest| rest.split_once('.')).ok_or_else(refused)?;
    let row = row_of(app, name).ok_or_else(refused)?;
    let is_right = bool::from(hash(secret)[..].ct_eq(&row.hash));
    let id = format!("{name}.{}", HEXLOWER.encode(&row.hash));
    let identity = row.user.map_or_else(Identity::anonymous, |user| Identity::user(&user)).with_token(&id);
    let identity = row.expires_ms.map_or(identity.clone(), |at_ms| identity.expiring_at(at_ms));
    let is_let_in = app.broker.access().has_users() || address.to_canonical().is_loopback();
    if !is_right || !is_let_in || !is_current(app, &identity) {
        return Err(refused());
    }
    Ok(identity)
}

/// Whether the token that an identity came from is still there.
pub(super) fn is_there(app: &App, id: &str) -> bool {
    let (name, hash) = id.split_once('.').unwrap_or_default();
    row_of(app, name).is_some_and(|row| HEXLOWER.encode(&row.hash) == hash)
}

/// The token whose name has this hex form.
fn row_of(app: &App, name: &str) -> Option<Row> {
    let row = app.broker.state(TABLE, &HEXLOWER.decode(name.as_bytes()).ok()?)?;
    serde_json::from_slice(&row).ok()
}

/// Deletes the tokens of a user that is deleted: a later user of that name is another one.
pub(in crate::http) fn delete_of_user(app: &App, user: &str) -> Result<Completion, Problem> {
    let _one_at_a_time = app.tokens.lock();
    let mut completion = Completion::Now;
    for (name, row) in app.broker.states(TABLE) {
        if shown(&name, &row).is_some_and(|token| token.user.as_deref() == Some(user)) {
            completion = completion.and(app.broker.delete_state(TABLE, &name)?.into());
        }
    }
    Ok(completion)
}

/// Lists the tokens: an administrator sees all, others their own.
#[utoipa::path(get, path = "/tokens", tag = "login", params(ListQuery),
    responses((status = 200, body = Page<Token>)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: ListQuery,
) -> Result<Page<Token>, Problem> {
    blocking(&app, move |app| {
        let mut tokens: Vec<Token> =
            app.broker.states(TABLE).iter().filter_map(|(name, row)| shown(name, row)).collect();
        if !caller.administers() {
            tokens.retain(|token| caller.is_user(token.user.as_deref()));
        }
        query.page(app, Whole::new(tokens, |token| &token.name, &[]), Clone::clone)
    })
    .await
}

fn shown(name: &Bytes, row: &Bytes) -> Option<Token> {
    let Row { user, created_ms, expires_ms, .. } = serde_json::from_slice(row).ok()?;
    Some(Token { name: String::from_utf8(name.to_vec()).ok()?, user, created_ms, expires_ms })
}

/// Makes a token that stands for the user who asks. Its secret is in this answer only.
#[utoipa::path(post, path = "/tokens", tag = "login", request_body = NewToken,
    responses((status = 201, body = MadeToken)))]
pub(in crate::http) async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewToken>,
) -> Result<(StatusCode, Json<MadeToken>), Problem> {
    caller.identity.check_makes_tokens().map_err(|error| caller.refused("create", &error.to_string()))?;
    let made = durable(&app, move |app| {
        let NewToken { name, expires_after_s } = new;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(Problem::bad_request(format!("a token's name has 1 to {NAME_BYTES_MAX} bytes")));
        }
        let _one_at_a_time = app.tokens.lock();
        if app.broker.state(TABLE, name.as_bytes()).is_some() {
            return Err(Problem::conflict(format!("there is a token `{name}`")));
        }
        let max = app.node.settings.tokens_max;
        if app.broker.states(TABLE).len() >= max {
            return Err(Problem::conflict(format!("limit of tokens reached: {max} (http.tokens_max)")));
        }
        let (secret, created_ms) = (secret()?, app.broker.clock().now_ms());
        let after = expires_after_s.map(|seconds| seconds.saturating_mul(1000));
        let expires_ms = after.map(|after| created_ms.saturating_add_unsigned(after));
        let user = caller.identity.name().map(str::to_owned);
        let row = Row { user, hash: hash(&secret).to_vec(), created_ms, expires_ms };
        let row = serde_json::to_vec(&row).map_err(|error| Problem::internal(error.to_string()))?;
        let lsn = app.broker.put_state(TABLE, name.as_bytes(), row.into())?;
        caller.did(AuditKind::Access, "create", "token", &name);
        let token = format!("{PREFIX}{}.{secret}", HEXLOWER.encode(name.as_bytes()));
        Ok((MadeToken { name, token, expires_ms }, lsn))
    })
    .await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// Deletes a token: an administrator any, others their own.
#[utoipa::path(delete, path = "/tokens/{name}", tag = "login",
    params(("name" = String, Path, description = "The token's name")),
    responses((status = 204)))]
pub(in crate::http) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Name(name): Name,
) -> Result<StatusCode, Problem> {
    deleted(&app, move |app| {
        let unknown = || Problem::not_found(format!("there is no token `{name}`"));
        let row = app.broker.state(TABLE, name.as_bytes()).ok_or_else(unknown)?;
        let token = shown(&Bytes::copy_from_slice(name.as_bytes()), &row).ok_or_else(unknown)?;
        if !caller.administers() && !caller.is_user(token.user.as_deref()) {
            return Err(unknown());
        }
        let completion = app.broker.delete_state(TABLE, name.as_bytes())?;
        caller.did(AuditKind::Access, "delete", "token", &name);
        Ok(completion)
    })
    .await
}
