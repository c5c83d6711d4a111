//! Retained messages.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use data_encoding::BASE64;
use inver_access::{Operation, ResourceKind};
use inver_broker::message::{HeaderView, Property};
use inver_broker::{Completion, Filter};
use inver_storage::batch::Record;
use serde::Deserialize;
use serde_json::{Value, json};

use super::page::PageQuery;
use super::time;
use crate::http::App;
use crate::http::api::retained::{clear_one, clearing, find};
use crate::http::api::{blocking, committed};
use crate::http::auth::Scope;
use crate::http::problem::Problem;
use crate::http::request::{Name, Scoped};

/// Addresses that are looked through for one answer, and messages cleared by one request.
const VISITED_MAX: usize = 100_000;
/// Messages cleared in one entry of the log.
const CLEARED_IN_STEP: usize = 500;

/// Which messages.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
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

fn may_receive(scope: &Scope, topic: &[u8]) -> bool {
    scope.permissions().may(ResourceKind::Address, &String::from_utf8_lossy(topic), Operation::Receive)
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
        let wanted = skip.saturating_add(limit).min(VISITED_MAX);
        let (found, next) = retained.list(&Filter::slashed(filter.as_bytes()), None, wanted, VISITED_MAX);
        let seen = found.iter().filter(|(topic, _)| may_receive(&scope, topic));
        let data = seen.skip(skip).map(|(topic, record)| shown(topic, record)).collect();
        let count = match next {
            None => found.len(),
            Some(_) => retained.len(),
        };
        Ok(Json(query.answer(data, count as u64)))
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

/// Clears the retained message of a topic.
pub(super) async fn clear(
    State(app): State<App>,
    Name(name): Name,
    scope: Scope,
) -> Result<StatusCode, Problem> {
    let completion = blocking(&app, move |app| {
        scope.check(ResourceKind::Address, &name, Operation::Write)?;
        let (topic, _) = find(scope.namespace(), &name)?;
        let mut publisher = clearing(scope.namespace());
        clear_one(app, &mut publisher, &topic)?;
        Ok(publisher.flush()?)
    })
    .await?;
    committed(&app, completion).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Clears all retained messages that the client may write.
pub(super) async fn clear_all(State(app): State<App>, scope: Scope) -> Result<StatusCode, Problem> {
    let completion = blocking(&app, move |app| {
        let retained = scope.namespace().retained();
        let (found, _) = retained.list(&Filter::slashed(b"#"), None, VISITED_MAX, VISITED_MAX);
        let mut publisher = clearing(scope.namespace());
        let mut completion = Completion::Now;
        for part in found.chunks(CLEARED_IN_STEP) {
            for (topic, _) in part {
                let name = String::from_utf8_lossy(topic);
                if scope.permissions().may(ResourceKind::Address, &name, Operation::Write) {
                    clear_one(app, &mut publisher, topic)?;
                }
            }
            completion = completion.and(publisher.flush()?);
        }
        Ok(completion)
    })
    .await?;
    committed(&app, completion).await?;
    Ok(StatusCode::NO_CONTENT)
}
