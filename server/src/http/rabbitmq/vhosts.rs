//! Virtual hosts: the namespaces.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use inver_broker::Namespace;
use serde_json::{Map, Value, json};

use super::error::Fault;
use super::list::ListQuery;
use super::node_name;
use super::request::{Names, Object, Params, durable, put_status, scope, work};
use crate::http::App;
use crate::http::api::namespaces::{Change, change_namespace, delete_namespace};
use crate::http::auth::Caller;

/// Refuses a client that is no administrator.
pub(super) fn check_administrator(caller: &Caller) -> Result<(), Fault> {
    caller.check_administers().map_err(|_| Fault::not_authorised("Not administrator user"))
}

fn shown(namespace: &Namespace) -> Value {
    let spec = namespace.spec();
    let (depth, _) = namespace.queue_totals();
    let kind = spec.default_queue_type.as_deref().unwrap_or("classic");
    json!({
        "name": namespace.name().to_string(),
        "description": spec.description,
        "tags": spec.tags,
        "default_queue_type": kind,
        "metadata": {"description": spec.description, "tags": spec.tags, "default_queue_type": kind},
        "protected_from_deletion": spec.is_protected,
        "tracing": namespace.is_traced(),
        "cluster_state": Map::from_iter([(node_name(), json!("running"))]),
        "messages": depth.ready + depth.unacked,
        "messages_ready": depth.ready,
        "messages_unacknowledged": depth.unacked,
    })
}

/// The virtual hosts that the client sees, ordered by name.
pub(super) fn seen(app: &App, caller: &Caller) -> Vec<Namespace> {
    let all = app.broker.namespaces();
    let mut all: Vec<_> = all.into_iter().filter(|it| caller.sees(&app.broker, it.name())).collect();
    all.sort_by(|a, b| a.name().cmp(b.name()));
    all
}

pub(super) async fn list(State(app): State<App>, caller: Caller, params: Params) -> Result<Response, Fault> {
    let query = ListQuery::of(&params)?;
    work(&app, move |app| query.answer(seen(app, &caller), |it| it.name().to_string(), shown)).await
}

pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    Names(vhost): Names<String>,
) -> Result<Json<Value>, Fault> {
    work(&app, move |app| Ok(Json(shown(scope(app, &caller, &vhost)?.namespace())))).await
}

/// Creates a virtual host, or changes what the body has of one.
pub(super) async fn put(
    State(app): State<App>,
    caller: Caller,
    Names(vhost): Names<String>,
    body: Object,
) -> Result<StatusCode, Fault> {
    check_administrator(&caller)?;
    let change = Change {
        description: body.text("description")?.map(str::to_owned),
        tags: body.texts("tags")?,
        default_queue_type: body.text("default_queue_type")?.map(str::to_owned),
        protected: body.flag("protected_from_deletion")?,
        tracing: body.flag("tracing")?,
        ..Change::default()
    };
    durable(&app, move |app| {
        let (created, _, completion) = change_namespace(app, &caller, &vhost, change)?;
        Ok((put_status(created), completion))
    })
    .await
}

pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Names(vhost): Names<String>,
) -> Result<StatusCode, Fault> {
    check_administrator(&caller)?;
    delete_namespace(&app, &caller, &vhost).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Protects a virtual host from deletion.
pub(super) async fn protect(
    State(app): State<App>,
    caller: Caller,
    Names(vhost): Names<String>,
) -> Result<StatusCode, Fault> {
    set_protected(app, caller, vhost, true).await
}

/// Lets a virtual host be deleted again.
pub(super) async fn unprotect(
    State(app): State<App>,
    caller: Caller,
    Names(vhost): Names<String>,
) -> Result<StatusCode, Fault> {
    set_protected(app, caller, vhost, false).await
}

async fn set_protected(
    app: App,
    caller: Caller,
    vhost: String,
    is_protected: bool,
) -> Result<StatusCode, Fault> {
    check_administrator(&caller)?;
    durable(&app, move |app| {
        scope(app, &caller, &vhost)?;
        let change = Change { protected: Some(is_protected), ..Change::default() };
        let (_, _, completion) = change_namespace(app, &caller, &vhost, change)?;
        Ok((StatusCode::NO_CONTENT, completion))
    })
    .await
}
