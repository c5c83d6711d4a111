//! What the broker has nothing of: its lists are empty, and creating it is refused, so that tools say so.

use axum::Json;
use axum::http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::error::Fault;
use super::vhosts::check_administrator;
use crate::http::auth::Caller;

/// An empty list.
pub(super) async fn none() -> Json<Value> {
    Json(json!([]))
}

/// There is none.
pub(super) async fn absent() -> Fault {
    Fault::not_found()
}

/// It cannot be created.
pub(super) async fn refuse(uri: Uri) -> Fault {
    let kind = uri.path().trim_start_matches('/').split('/').find(|part| *part != "api").unwrap_or_default();
    Fault::bad_request(format!("{kind} are not supported by this broker"))
}

/// On one node all queues are where they belong.
pub(super) async fn rebalance(caller: Caller) -> Result<StatusCode, Fault> {
    check_administrator(&caller)?;
    Ok(StatusCode::NO_CONTENT)
}

/// A queue has no actions.
pub(super) async fn queue_action() -> Fault {
    Fault::bad_request("this broker has no actions on queues: there is one node")
}

/// There are no plugins.
pub(super) async fn extensions() -> Json<Value> {
    Json(json!([]))
}

/// OAuth 2 is not used by pages.
pub(super) async fn auth() -> Json<Value> {
    Json(json!({"oauth_enabled": false}))
}
