//! The most used resources of EMQX's REST API, below `/api/v5`: clients, subscriptions, publish, retained messages, bans.
//!
//! It maps the same objects as `/api/v1`, whose modules do the work. Owns the paths, the JSON fields and the errors of
//! EMQX. [docs/emqx-api.md](../../../../docs/emqx-api.md) lists what there is and what is missing.

mod banned;
mod clients;
mod page;
mod publish;
mod retainer;
mod subscriptions;
mod time;

use axum::body::to_bytes;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::problem::Problem;
use super::{App, api, auth};

pub(super) use super::rabbitmq::node_name;

/// Bytes of the longest description of a problem.
const PROBLEM_BYTES_MAX: usize = 64 * 1024;

/// The paths, below `/api/v5`.
pub(super) fn routes(app: App) -> Router<App> {
    Router::new()
        .route("/clients", get(clients::list))
        .route("/clients/{clientid}", get(clients::get).delete(clients::kick))
        .route("/clients/{clientid}/subscriptions", get(subscriptions::of_client))
        .route("/subscriptions", get(subscriptions::list))
        .route("/publish", post(publish::publish))
        .route("/publish/bulk", post(publish::publish_bulk))
        .route("/mqtt/retainer/messages", get(retainer::list).delete(retainer::clear_all))
        .route("/mqtt/retainer/message/{topic}", get(retainer::get).delete(api::retained::clear))
        .route("/banned", get(banned::list).post(banned::add).delete(banned::clear_all))
        .route("/banned/{as}/{who}", delete(banned::remove))
        .fallback(async || Problem::not_found("there is no such resource"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(middleware::from_fn_with_state(app, auth::authenticate))
        .layer(middleware::from_fn(with_codes))
}

/// Gives errors EMQX's form: `{"code": …, "message": …}`.
async fn with_codes(request: axum::extract::Request, next: Next) -> Response {
    let response = next.run(request).await;
    let is_problem =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == Problem::MEDIA_TYPE);
    if !is_problem {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, PROBLEM_BYTES_MAX).await.unwrap_or_default();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = problem.get("detail").and_then(Value::as_str).unwrap_or_default();
    let code = match parts.status {
        StatusCode::UNAUTHORIZED => "BAD_API_KEY_OR_SECRET",
        StatusCode::FORBIDDEN => "UNAUTHORIZED_ROLE",
        StatusCode::NOT_FOUND if message == clients::UNKNOWN => "CLIENTID_NOT_FOUND",
        StatusCode::NOT_FOUND => "NOT_FOUND",
        StatusCode::CONFLICT => "CONFLICT",
        StatusCode::SERVICE_UNAVAILABLE => "SERVICE_UNAVAILABLE",
        status if status.is_server_error() => "INTERNAL_ERROR",
        _ => "BAD_REQUEST",
    };
    // What else the answer has, such as how to log in, stays.
    parts.headers.remove(header::CONTENT_TYPE);
    parts.headers.remove(header::CONTENT_LENGTH);
    (parts, Json(json!({ "code": code, "message": message }))).into_response()
}
