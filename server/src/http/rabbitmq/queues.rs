//! Queues.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use inver_broker::{Namespace, Order, Queue, Value as Argument};
use serde_json::{Map, Value, json};

use super::error::Fault;
use super::list::{LISTED_MAX, ListQuery};
use super::request::{Names, Object, Params, durable, operator, put_status, scope, work};
use super::vhosts::seen;
use super::{consumers, node_name};
use crate::http::App;
use crate::http::api::values::arguments_to_json;
use crate::http::auth::Caller;
use crate::protocols::REPLY_QUEUES;

/// A queue with the name of its virtual host.
pub(super) type Listed = (Arc<str>, Arc<Queue>);

/// The type of a queue.
fn kind(queue: &Queue) -> &str {
    queue.spec().arguments.get("x-queue-type").and_then(Argument::as_str).unwrap_or("classic")
}

/// What a list shows of a queue, with its messages and consumers.
fn shown_whole(app: &App, listed @ (_, queue): &Listed) -> Value {
    let mut whole = shown(listed);
    if let Value::Object(fields) = &mut whole {
        put_counts(app, queue, fields);
    }
    whole
}

/// What a queue is declared as.
pub(super) fn shown((vhost, queue): &Listed) -> Value {
    let spec = queue.spec();
    let mut shown = json!({
        "name": queue.name().to_string(),
        "vhost": &**vhost,
        "type": kind(queue),
        "durable": spec.durable,
        "auto_delete": spec.auto_delete,
        "exclusive": spec.owner.is_some(),
        "arguments": arguments_to_json(&spec.arguments),
        "node": node_name(),
        "state": "running",
    });
    let Value::Object(fields) = &mut shown else { return shown };
    if spec.is_quorum() {
        let limit = queue.limits().deliveries_max.map_or_else(|| json!("unlimited"), |max| json!(max));
        let node = node_name();
        let quorum = json!({"delivery_limit": limit, "leader": node, "members": [node], "online": [node]});
        if let Value::Object(quorum) = quorum {
            fields.extend(quorum);
        }
    }
    shown
}

fn put_counts(app: &App, queue: &Queue, fields: &mut Map<String, Value>) {
    let spec = queue.spec();
    let (depth, memory) = (queue.depth(), queue.subscription().memory());
    let stored = queue.topic().and_then(|topic| Some(topic.partition(0)?.stream().bytes()));
    let bytes = stored.unwrap_or(memory.waiting_bytes + memory.unacked_bytes);
    let applied = queue.applied();
    let counts = json!({
        "messages": depth.ready + depth.unacked,
        "messages_ready": depth.ready,
        "messages_unacknowledged": depth.unacked,
        "messages_persistent": if spec.durable { depth.ready + depth.unacked } else { 0 },
        "message_bytes": bytes,
        "message_bytes_persistent": stored.unwrap_or_default(),
        "memory": memory.waiting_bytes + memory.unacked_bytes,
        "consumers": depth.consumers,
        "consumer_capacity": if depth.consumers > 0 { 1.0 } else { 0.0 },
        "consumer_utilisation": if depth.consumers > 0 { 1.0 } else { 0.0 },
        "policy": applied.policy.as_ref().map(|policy| policy.name().to_owned()),
        "operator_policy": applied.operator.as_ref().map(|policy| policy.name().to_owned()),
        "effective_policy_definition": arguments_to_json(&applied.definition()),
        "exclusive_consumer_tag": null,
        "single_active_consumer_tag": null,
        "head_message_timestamp": null,
    });
    if let Value::Object(counts) = counts {
        fields.extend(counts);
    }
    fields.extend(app.queue_rates.of(app.broker.clock().now(), queue, depth));
}

/// The queues of namespaces, ordered by name; without those of replies.
pub(super) fn listed(namespaces: &[Namespace]) -> Result<Vec<Listed>, Fault> {
    let mut listed: Vec<Listed> = Vec::new();
    for namespace in namespaces {
        let vhost: Arc<str> = namespace.name().to_string().into();
        let left = LISTED_MAX - listed.len();
        let queues = namespace.queues_following(Order::Ascending, None, 0, left + 1);
        if queues.len() > left {
            return Err(Fault::bad_request(format!("there are more than {LISTED_MAX} queues")));
        }
        let queues = queues.into_iter().filter(|queue| !queue.name().starts_with(REPLY_QUEUES));
        listed.extend(queues.map(|queue| (vhost.clone(), queue)));
    }
    Ok(listed)
}

fn answer(
    app: &App,
    namespaces: &[Namespace],
    params: &Params,
    query: &ListQuery,
) -> Result<Response, Fault> {
    let with_counts = !params.is_set("disable_stats") || params.is_set("enable_queue_totals");
    let name = |(_, queue): &Listed| queue.name().to_string();
    query.answer(
        listed(namespaces)?,
        name,
        |queue| if with_counts { shown_whole(app, queue) } else { shown(queue) },
    )
}

/// The queues of every virtual host that the client sees.
pub(super) async fn all(State(app): State<App>, caller: Caller, params: Params) -> Result<Response, Fault> {
    let query = ListQuery::of(&params)?;
    work(&app, move |app| answer(app, &seen(app, &caller), &params, &query)).await
}

pub(super) async fn of_vhost(
    State(app): State<App>,
    caller: Caller,
    Names(vhost): Names<String>,
    params: Params,
) -> Result<Response, Fault> {
    let query = ListQuery::of(&params)?;
    work(&app, move |app| {
        let scope = scope(app, &caller, &vhost)?;
        answer(app, std::slice::from_ref(scope.namespace()), &params, &query)
    })
    .await
}

/// The queue of this name.
pub(super) fn find(namespace: &Namespace, name: &str) -> Result<Arc<Queue>, Fault> {
    namespace.queue(name).ok_or_else(Fault::not_found)
}

/// A queue with its consumers.
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, name)): Names<(String, String)>,
    params: Params,
) -> Result<Json<Value>, Fault> {
    let query = super::list::Columns::of(&params);
    work(&app, move |app| {
        let scope = scope(app, &caller, &vhost)?;
        let queue = (Arc::from(vhost.as_str()), find(scope.namespace(), &name)?);
        let mut shown = shown_whole(app, &queue);
        if let Value::Object(fields) = &mut shown {
            fields.insert("consumer_details".into(), consumers::of_queue(app, &queue).into());
            fields.insert("incoming".into(), json!([]));
            fields.insert("deliveries".into(), json!([]));
        }
        Ok(Json(query.of_value(shown)))
    })
    .await
}

/// Declares a queue: 201 if it is new, 204 if it is there as declared, 400 if it is there otherwise.
pub(super) async fn put(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, name)): Names<(String, String)>,
    body: Object,
) -> Result<StatusCode, Fault> {
    durable(&app, move |app| {
        let scope = scope(app, &caller, &vhost)?;
        let flag = |name: &str| Ok::<_, Fault>(body.flag(name)?.unwrap_or(false));
        if let Some(node) = body.text("node")?.filter(|node| !node.is_empty() && *node != node_name()) {
            return Err(Fault::bad_request(format!("Node {node} could not be contacted")));
        }
        let (durable, auto_delete) = (flag("durable")?, flag("auto_delete")?);
        let declared = operator(&scope).declare_queue(&name, durable, auto_delete, body.arguments()?)?;
        Ok((put_status(declared.created), declared.completion))
    })
    .await
}

/// Deletes a queue; with `if-unused`, only without consumers, with `if-empty`, only without messages.
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, name)): Names<(String, String)>,
    params: Params,
) -> Result<StatusCode, Fault> {
    durable(&app, move |app| {
        let scope = scope(app, &caller, &vhost)?;
        find(scope.namespace(), &name)?;
        let (if_unused, if_empty) = (params.is_set("if-unused"), params.is_set("if-empty"));
        let (_, done) = operator(&scope).delete_queue(&name, if_unused, if_empty)?;
        Ok((StatusCode::NO_CONTENT, done))
    })
    .await
}

/// Removes the ready messages of a queue.
pub(super) async fn purge(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, name)): Names<(String, String)>,
) -> Result<StatusCode, Fault> {
    durable(&app, move |app| {
        let scope = scope(app, &caller, &vhost)?;
        find(scope.namespace(), &name)?;
        let (_, done) = operator(&scope).purge_queue(&name)?;
        Ok((StatusCode::NO_CONTENT, done))
    })
    .await
}
