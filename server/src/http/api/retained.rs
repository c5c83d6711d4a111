//! Retained messages: the last message of an address, for later subscribers.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use inver_access::{Operation, ResourceKind};
use inver_broker::message::HeaderView;
use inver_broker::{Completion, Filter, Headers, Message, Namespace, Publisher, PublisherId};
use inver_storage::batch::Record;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::values::Data;
use super::{answer, deleted, durable};
use crate::http::App;
use crate::http::auth::Scope;
use crate::http::problem::Problem;
use crate::http::request::{Name, Scoped};

/// Messages of one answer.
const COUNT_MAX: u64 = 500;
/// Bytes of a value shown in a list.
const VALUE_BYTES_LISTED: usize = 1024;
/// Bytes of a filter or address.
const ADDRESS_BYTES_MAX: usize = 4096;
/// Addresses read for one answer.
const VISITED_MAX: usize = 20_000;

/// Which retained messages are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Which {
    /// A filter of addresses with `+` and `#`; without it, all.
    #[serde(default = "all")]
    #[param(default = "#", max_length = 1024)]
    filter: String,
    /// Only addresses behind this one, in the order of their bytes.
    #[param(nullable = false, max_length = 1024)]
    after: Option<String>,
    #[serde(default = "hundred")]
    #[param(minimum = 1, maximum = 500, default = 100)]
    count: u64,
}

fn all() -> String {
    "#".into()
}

fn hundred() -> u64 {
    100
}

/// Retained messages.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct RetainedMessages {
    items: Vec<RetainedMessage>,
    /// The address to give as `after` for more; none at the end.
    next: Option<String>,
    /// Retained messages of the namespace.
    total: u64,
}

/// A retained message.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct RetainedMessage {
    address: String,
    timestamp_ms: i64,
    /// The protocol that it was published with.
    origin: Option<String>,
    /// In a list, the beginning of the value.
    value: Option<Data>,
    /// Bytes of the whole value.
    value_size: u64,
}

impl RetainedMessage {
    fn of(address: &[u8], record: &Record, value_bytes: usize) -> RetainedMessage {
        let value = record.value.as_deref();
        RetainedMessage {
            address: String::from_utf8_lossy(address).into_owned(),
            timestamp_ms: record.timestamp_ms,
            origin: HeaderView::of(record).origin().map(|name| String::from_utf8_lossy(name).into_owned()),
            value: value.map(|value| Data::of(value.get(..value_bytes).unwrap_or(value))),
            value_size: value.map_or(0, <[u8]>::len) as u64,
        }
    }
}

/// Lists the retained messages that a filter of addresses matches, in the order of their addresses.
#[utoipa::path(get, path = "/retained", tag = "retained", params(Scope, Which),
    responses((status = 200, body = RetainedMessages)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    Scoped(scope, which): Scoped<Which>,
) -> Result<Json<RetainedMessages>, Problem> {
    if !(1..=COUNT_MAX).contains(&which.count) {
        return Err(Problem::bad_request(format!("count is out of bounds: 1 to {COUNT_MAX}")));
    }
    if which.filter.len() > ADDRESS_BYTES_MAX {
        return Err(Problem::bad_request(format!("a filter has at most {ADDRESS_BYTES_MAX} bytes")));
    }
    answer(&app, move |_| {
        scope.check_filter(&which.filter)?;
        let retained = scope.namespace().retained();
        let filter = Filter::slashed(which.filter.as_bytes());
        let after = which.after.as_deref().map(str::as_bytes);
        let (found, next) = retained.list(&filter, after, which.count as usize, VISITED_MAX);
        let items = found
            .iter()
            .filter(|(address, _)| may_receive(&scope, address))
            .map(|(address, record)| RetainedMessage::of(address, record, VALUE_BYTES_LISTED))
            .collect();
        let next = next.map(|address| String::from_utf8_lossy(&address).into_owned());
        Ok(RetainedMessages { items, next, total: retained.len() as u64 })
    })
    .await
}

pub(in crate::http) fn may_receive(scope: &Scope, address: &[u8]) -> bool {
    scope.permissions().may(ResourceKind::Address, &String::from_utf8_lossy(address), Operation::Receive)
}

/// The retained message of an address.
pub(in crate::http) fn find(namespace: &Namespace, address: &str) -> Result<(Vec<u8>, Record), Problem> {
    let filter = Filter::slashed(address.as_bytes());
    let is_address = !address.split('/').any(|level| level == "+" || level == "#");
    let found = is_address.then(|| namespace.retained().list(&filter, None, 1, 1).0.pop()).flatten();
    found.ok_or_else(|| Problem::not_found(format!("there is no retained message at `{address}`")))
}

/// The retained message of an address.
#[utoipa::path(get, path = "/retained/{name}", tag = "retained",
    params(("name" = String, Path, description = "The address"), Scope),
    responses((status = 200, body = RetainedMessage)))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    Name(name): Name,
    scope: Scope,
) -> Result<Json<RetainedMessage>, Problem> {
    answer(&app, move |_| {
        scope.check(ResourceKind::Address, &name, Operation::Receive)?;
        let (address, record) = find(scope.namespace(), &name)?;
        Ok(RetainedMessage::of(&address, &record, usize::MAX))
    })
    .await
}

/// Messages cleared in one step, which is one entry of the log.
const CLEARED_IN_STEP: usize = 500;

/// Which retained messages are cleared.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Cleared {
    /// A filter of addresses with `+` and `#`.
    #[param(max_length = 1024)]
    filter: String,
    /// Only addresses behind this one, in the order of their bytes.
    #[param(nullable = false, max_length = 1024)]
    after: Option<String>,
}

/// Retained messages that were cleared.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ClearedMessages {
    messages: u64,
    /// There are more addresses behind this one: ask again with it as `after`.
    next: Option<String>,
}

/// Clears the retained messages that a filter of addresses matches, in the order of their addresses. One call visits 20,000
/// addresses.
#[utoipa::path(delete, path = "/retained", tag = "retained", params(Scope, Cleared),
    responses((status = 200, body = ClearedMessages)))]
pub(in crate::http) async fn clear_matching(
    State(app): State<App>,
    Scoped(scope, which): Scoped<Cleared>,
) -> Result<Json<ClearedMessages>, Problem> {
    if which.filter.is_empty() || which.filter.len() > ADDRESS_BYTES_MAX {
        return Err(Problem::bad_request(format!("a filter has 1 to {ADDRESS_BYTES_MAX} bytes")));
    }
    durable(&app, move |app| {
        let filter = Filter::slashed(which.filter.as_bytes());
        let after = which.after.as_deref().map(str::as_bytes);
        let (messages, next, completion) = clear_part(app, &scope, &filter, after)?;
        let next = next.map(|address| String::from_utf8_lossy(&address).into_owned());
        Ok((Json(ClearedMessages { messages, next }), completion))
    })
    .await
}

/// Clears those that the filter matches and the client may write, among the next [`VISITED_MAX`] addresses. How many, and
/// the address to go on behind.
pub(in crate::http) fn clear_part(
    app: &App,
    scope: &Scope,
    filter: &Filter,
    after: Option<&[u8]>,
) -> Result<(u64, Option<Vec<u8>>, Completion), Problem> {
    let may_clear = |address: &[u8]| {
        scope.permissions().may(ResourceKind::Address, &String::from_utf8_lossy(address), Operation::Write)
    };
    let namespace = scope.namespace();
    let mut publisher = clearing(namespace);
    let (found, next) = namespace.retained().list(filter, after, VISITED_MAX, VISITED_MAX);
    let (mut messages, mut completion) = (0, Completion::Now);
    for part in found.chunks(CLEARED_IN_STEP) {
        for (address, _) in part.iter().filter(|(address, _)| may_clear(address)) {
            clear_one(app, &mut publisher, address)?;
            messages += 1;
        }
        completion = completion.and(publisher.flush()?);
    }
    Ok((messages, next, completion))
}

/// A publisher that clears retained messages.
fn clearing(namespace: &Namespace) -> Publisher {
    Publisher::new(namespace.clone(), PublisherId { origin: "http", session: None })
}

/// Clears the retained message of an address, once the publisher is flushed.
fn clear_one(app: &App, publisher: &mut Publisher, address: &[u8]) -> Result<(), Problem> {
    let message = Message {
        timestamp_ms: app.broker.clock().now_ms(),
        key: None,
        value: None,
        headers: Headers::default(),
        guaranteed: true,
        lookup: None,
    };
    publisher.retain(address, &message).map_err(|limit| Problem::conflict(limit.to_string()))
}

/// Clears the retained message of an address.
#[utoipa::path(delete, path = "/retained/{name}", tag = "retained",
    params(("name" = String, Path, description = "The address"), Scope),
    responses((status = 204)))]
pub(in crate::http) async fn clear(
    State(app): State<App>,
    Name(name): Name,
    scope: Scope,
) -> Result<StatusCode, Problem> {
    deleted(&app, move |app| {
        scope.check(ResourceKind::Address, &name, Operation::Write)?;
        let namespace = scope.namespace();
        let (address, _) = find(namespace, &name)?;
        let mut publisher = clearing(namespace);
        clear_one(app, &mut publisher, &address)?;
        Ok(publisher.flush()?)
    })
    .await
}
