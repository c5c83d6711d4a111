//! Retained messages.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use data_encoding::BASE64;
use inver_access::{Operation, ResourceKind};
use inver_broker::Filter;
use inver_broker::message::{HeaderView, Property};
use inver_storage::batch::Record;
use serde::Deserialize;
use serde_json::{Value, json};

use super::page::PageQuery;
use super::time;
use crate::http::App;
use crate::http::api::retained::{clear_part, find, may_receive};
use crate::http::api::{blocking, durable};
use crate::http::auth::Scope;
use crate::http::problem::Problem;
use crate::http::request::{Name, Scoped};

/// Addresses that are looked through for one answer.
const VISITED_MAX: usize = 100_000;

/// Which messages.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Which {
    page: Option<u64>,
    limit: Option<u64>,
    /// A filter.
    topic: Option<String>,
}

fn shown(topic: &[u8], record: &Record) -> Value {
    let qos = HeaderView::of(record).typed_properties().find_map(|property| match property {
        Property::Qos(qos) => Some(qos),
        _ => None,
    });
    let qos = qos.unwrap_or_default();
    json!({
        "topic": String::from_utf8_lossy(topic),
        "publish_at": time::text(record.timestamp_ms),
        "qos": qos,
    })
}

/// Lists retained messages, without their payloads.
pub(super) async fn list(
    State(app): State<App>,
    Scoped(scope, which): Scoped<Which>,
) -> Result<Json<Value>, Problem> {
    let query = PageQuery::of(which.page, which.limit);
    let (skip, limit) = query.bounds()?;
    blocking(&app, move |_| {
        let filter = which.topic.as_deref().unwrap_or("#");
        scope.check_filter(filter)?;
        let retained = scope.namespace().retained();
        let filter = Filter::slashed(filter.as_bytes());
        let (mut found, _) = retained.list(&filter, None, VISITED_MAX, VISITED_MAX);
        found.retain(|(topic, _)| may_receive(&scope, topic));
        let page = found.iter().skip(skip).take(limit);
        let data = page.map(|(topic, record)| shown(topic, record)).collect();
        Ok(Json(query.answer(data, found.len() as u64)))
    })
    .await
}

/// The retained message of a topic; the payload in base64.
pub(super) async fn get(
    State(app): State<App>,
    Name(name): Name,
    scope: Scope,
) -> Result<Json<Value>, Problem> {
    blocking(&app, move |_| {
        scope.check(ResourceKind::Address, &name, Operation::Receive)?;
        let (topic, record) = find(scope.namespace(), &name)?;
        let mut message = shown(&topic, &record);
        message["payload"] = json!(BASE64.encode(record.value.as_deref().unwrap_or_default()));
        Ok(Json(message))
    })
    .await
}

/// Clears all retained messages that the client may write.
pub(super) async fn clear_all(State(app): State<App>, scope: Scope) -> Result<StatusCode, Problem> {
    let everything = Filter::slashed(b"#");
    let mut after: Option<Vec<u8>> = None;
    loop {
        let (filter, scope) = (everything.clone(), scope.clone());
        let next = durable(&app, move |app| {
            let (_, next, completion) = clear_part(app, &scope, &filter, after.as_deref())?;
            Ok((next, completion))
        })
        .await?;
        match next {
            Some(address) => after = Some(address),
            None => return Ok(StatusCode::NO_CONTENT),
        }
    }
}
