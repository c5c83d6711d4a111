//! What the broker has nothing of: its lists are empty, and creating it is refused, so that tools say so.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde_json::{Value, json};

use super::error::Fault;
use super::request::{Names, scope};
use crate::http::App;
use crate::http::auth::Caller;

/// An empty list.
pub(super) async fn none() -> Json<Value> {
    Json(json!([]))
}

/// An empty list of a virtual host.
pub(super) async fn none_of_vhost(
    State(app): State<App>,
    caller: Caller,
    Names(vhost): Names<String>,
) -> Result<Json<Value>, Fault> {
    scope(&app, &caller, &vhost)?;
    Ok(none().await)
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
