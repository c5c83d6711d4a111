//! Delayed messages: those that wait until they are due.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use inver_broker::message::HeaderView;
use inver_broker::{DelayedId, DelayedMessage, Publisher, WithdrawError};
use inver_storage::ReadError;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::values::Data;
use super::{answer, deleted};
use crate::http::App;
use crate::http::auth::Scope;
use crate::http::problem::Problem;
use crate::http::request::{Name, Scoped};

/// Messages of one answer.
const COUNT_MAX: u64 = 500;
/// Bytes read for one answer.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a value shown.
const VALUE_BYTES_SHOWN: usize = 1024;

/// Which delayed messages are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Which {
    /// Only messages behind the one of this id.
    #[param(nullable = false, max_length = 64)]
    after: Option<String>,
    #[serde(default = "hundred")]
    #[param(minimum = 1, maximum = 500, default = 100)]
    count: u64,
}

fn hundred() -> u64 {
    100
}

/// Delayed messages, those of shorter delays first, then as they were published.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DelayedMessages {
    items: Vec<Delayed>,
    /// The id to give as `after` for more; none at the end.
    next: Option<String>,
    /// Delayed messages of the namespace.
    total: u64,
}

/// A delayed message.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Delayed {
    id: String,
    /// When it is published, milliseconds since 1970.
    due_ms: i64,
    /// When it was given to the broker, milliseconds since 1970.
    timestamp_ms: i64,
    /// The exchange that it goes to.
    exchange: Option<String>,
    routing_key: Option<String>,
    /// Or the address that it goes to.
    address: Option<String>,
    /// The protocol that it was published with.
    origin: Option<String>,
    /// The beginning of the value.
    value: Option<Data>,
    /// Bytes of the whole value.
    value_size: u64,
}

impl From<&DelayedMessage> for Delayed {
    fn from(of: &DelayedMessage) -> Delayed {
        let value = of.record.value.as_deref();
        let key = String::from_utf8_lossy(&of.key).into_owned();
        let (routing_key, address) =
            if of.exchange.is_some() { (Some(key), None) } else { (None, Some(key)) };
        let origin = HeaderView::of(&of.record).origin();
        Delayed {
            id: of.id.to_string(),
            due_ms: of.due_ms,
            timestamp_ms: of.record.timestamp_ms,
            exchange: of.exchange.clone(),
            routing_key,
            address,
            origin: origin.map(|name| String::from_utf8_lossy(name).into_owned()),
            value: value.map(|value| Data::of(value.get(..VALUE_BYTES_SHOWN).unwrap_or(value))),
            value_size: value.map_or(0, <[u8]>::len) as u64,
        }
    }
}

/// Lists the delayed messages that the caller could have published.
#[utoipa::path(get, path = "/delayed", tag = "delayed", params(Scope, Which),
    responses((status = 200, body = DelayedMessages)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    Scoped(scope, which): Scoped<Which>,
) -> Result<Json<DelayedMessages>, Problem> {
    if !(1..=COUNT_MAX).contains(&which.count) {
        return Err(Problem::bad_request(format!("count is out of bounds: 1 to {COUNT_MAX}")));
    }
    let after = which.after.as_deref().map(id_of).transpose()?;
    answer(&app, move |_| {
        let namespace = scope.namespace();
        let (found, next) =
            namespace.delayed(after, which.count as usize, BYTES_MAX).map_err(|error| read_failed(&error))?;
        let may_see = |message: &&DelayedMessage| {
            Publisher::check_delayed(namespace, scope.permissions(), message).is_ok()
        };
        Ok(DelayedMessages {
            items: found.iter().filter(may_see).map(Delayed::from).collect(),
            next: next.map(|id| id.to_string()),
            total: namespace.delayed_count(),
        })
    })
    .await
}

fn read_failed(error: &ReadError) -> Problem {
    Problem::internal(error.to_string())
}

fn id_of(text: &str) -> Result<DelayedId, Problem> {
    text.parse().map_err(|()| Problem::bad_request(format!("`{text}` is no id of a delayed message")))
}

/// Withdraws a delayed message: it is never published.
#[utoipa::path(delete, path = "/delayed/{name}", tag = "delayed",
    params(("name" = String, Path, description = "The id of the message"), Scope),
    responses((status = 204)))]
pub(in crate::http) async fn withdraw(
    State(app): State<App>,
    Name(name): Name,
    scope: Scope,
) -> Result<StatusCode, Problem> {
    let id = id_of(&name)?;
    deleted(&app, move |_| {
        let namespace = scope.namespace();
        let unknown = || Problem::not_found(format!("there is no delayed message `{name}`"));
        let message =
            namespace.delayed_message(id).map_err(|error| read_failed(&error))?.ok_or_else(unknown)?;
        Publisher::check_delayed(namespace, scope.permissions(), &message)?;
        namespace.withdraw_delayed(&message).map_err(|error| match error {
            WithdrawError::Unknown => unknown(),
            WithdrawError::Busy => Problem::conflict(error.to_string()),
            WithdrawError::Log(error) => error.into(),
        })
    })
    .await
}
