//! Definitions: what a broker is set up with, as one JSON document.
//!
//! Exported is what this broker has. An import takes the documents of RabbitMQ 3.8 and later. What does not map is listed in
//! the answer and in the log.

mod import;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use inver_broker::Namespace;
use serde_json::{Map, Value, json};

use self::import::By;
use super::error::Fault;
use super::request::{Names, Object, durable, scope, work};
use super::vhosts::check_administrator;
use super::{bindings, exchanges, limits, node_name, permissions, policies, queues, users, vhosts};
use crate::http::App;
use crate::http::api::expressions;
use crate::http::auth::Caller;
use crate::protocols::RABBITMQ_VERSION;

/// Lines of the answer about what was not imported.
const LISTED_MAX: usize = 1000;

fn about() -> Map<String, Value> {
    Map::from_iter([
        ("rabbit_version".to_owned(), json!(RABBITMQ_VERSION)),
        ("rabbitmq_version".to_owned(), json!(RABBITMQ_VERSION)),
        ("product_name".to_owned(), json!("Inver")),
        ("product_version".to_owned(), json!(env!("CARGO_PKG_VERSION"))),
    ])
}

/// Queues, exchanges and bindings of namespaces, as far as they are not a connection's own and not predeclared.
fn put_topology(into: &mut Map<String, Value>, namespaces: &[Namespace]) -> Result<(), Fault> {
    let exported = |(_, queue): &queues::Listed| queue.spec().owner.is_none() && !queue.spec().hidden;
    let only = |value: Value, names: &[&str]| match value {
        Value::Object(mut fields) => {
            fields.retain(|name, _| names.contains(&name.as_str()));
            Value::Object(fields)
        }
        other => other,
    };
    let names = ["name", "vhost", "type", "durable", "auto_delete", "arguments"];
    let all = queues::listed(namespaces)?.into_iter().filter(exported);
    into.insert("queues".into(), all.map(|queue| only(queues::shown(&queue), &names)).collect());
    let names = ["name", "vhost", "type", "durable", "auto_delete", "internal", "arguments"];
    let all = exchanges::listed(namespaces).into_iter().filter(|exchange| {
        let name = exchanges::name(exchange);
        !name.is_empty() && !name.starts_with("amq.")
    });
    into.insert("exchanges".into(), all.map(|exchange| only(exchanges::shown(&exchange), &names)).collect());
    let names = ["source", "vhost", "destination", "destination_type", "routing_key", "arguments"];
    let mut listed = Vec::new();
    for namespace in namespaces {
        listed.extend(bindings::exported(namespace)?.into_iter().map(|binding| only(binding, &names)));
    }
    into.insert("bindings".into(), listed.into());
    Ok(())
}

/// Everything.
pub(super) async fn export(State(app): State<App>, caller: Caller) -> Result<Response, Fault> {
    check_administrator(&caller)?;
    work(&app, move |app| {
        let mut document = about();
        document.insert("rabbitmq_definition_format".into(), json!("cluster"));
        document.insert("original_cluster_name".into(), json!(node_name()));
        document.insert("users".into(), users::all(app).iter().map(users::shown).collect());
        let seen = vhosts::seen(app, &caller);
        let vhost = |namespace: &Namespace| {
            let spec = namespace.spec();
            let kind = spec.default_queue_type.as_deref().unwrap_or("classic");
            json!({
                "name": namespace.name().to_string(),
                "description": spec.description,
                "tags": spec.tags,
                "default_queue_type": kind,
                "metadata": {"description": spec.description, "tags": spec.tags, "default_queue_type": kind},
            })
        };
        document.insert("vhosts".into(), seen.iter().map(vhost).collect());
        let all = expressions::all(&app.broker);
        document.insert("permissions".into(), all.iter().map(permissions::Listed::shown).collect());
        let all = expressions::all_of_topics(&app.broker);
        document.insert("topic_permissions".into(), all.iter().map(permissions::Listed::shown).collect());
        let limited = seen.iter().filter(|it| !limits::of_namespace(it).is_empty());
        let parameter = |namespace: &Namespace| {
            json!({
                "vhost": namespace.name().to_string(),
                "component": "vhost-limits",
                "name": "limits",
                "value": limits::of_namespace(namespace),
            })
        };
        let parameters = limited.map(parameter).chain(policies::exported_parameters(&seen));
        document.insert("parameters".into(), parameters.collect());
        document.insert("global_parameters".into(), json!([]));
        document.insert("policies".into(), policies::exported(&seen).into());
        put_topology(&mut document, &seen)?;
        Ok(Json(Value::Object(document)).into_response())
    })
    .await
}

/// Queues, exchanges, bindings, policies and operator policies of one virtual host.
pub(super) async fn export_vhost(
    State(app): State<App>,
    caller: Caller,
    Names(vhost): Names<String>,
) -> Result<Response, Fault> {
    check_administrator(&caller)?;
    work(&app, move |app| {
        let scope = scope(app, &caller, &vhost)?;
        let mut document = about();
        document.insert("rabbitmq_definition_format".into(), json!("single_virtual_host"));
        document.insert("original_vhost_name".into(), json!(vhost));
        let spec = scope.namespace().spec();
        document.insert("description".into(), json!(spec.description));
        document.insert("default_queue_type".into(), json!(spec.default_queue_type));
        let namespace = std::slice::from_ref(scope.namespace());
        document.insert("parameters".into(), policies::exported_parameters(namespace).into());
        document.insert("policies".into(), policies::exported(namespace).into());
        put_topology(&mut document, namespace)?;
        for section in ["queues", "exchanges", "bindings", "policies", "parameters"] {
            let objects = document.get_mut(section).and_then(Value::as_array_mut).into_iter().flatten();
            objects.filter_map(Value::as_object_mut).for_each(|fields| drop(fields.remove("vhost")));
        }
        Ok(Json(Value::Object(document)).into_response())
    })
    .await
}

/// Imports a document: 204, or 200 with a list of what was not imported.
pub(super) async fn import(State(app): State<App>, caller: Caller, body: Object) -> Result<Response, Fault> {
    imported(app, caller, None, body).await
}

/// Imports the queues, exchanges, bindings, policies and operator policies of a document into a virtual host.
pub(super) async fn import_vhost(
    State(app): State<App>,
    caller: Caller,
    Names(vhost): Names<String>,
    body: Object,
) -> Result<Response, Fault> {
    imported(app, caller, Some(vhost), body).await
}

/// Imports the definitions of a document at the start of the broker. Returns what was not imported, and why.
pub(in crate::http) fn load(app: &App, document: &Map<String, Value>) -> anyhow::Result<Vec<String>> {
    let caller = Caller::of_broker(app);
    let imported = import::import(app, By::Broker(&caller), None, document);
    let (left_out, completion) = imported.map_err(|fault| anyhow::anyhow!(fault.into_reason()))?;
    if let Some(lsn) = completion.lsn() {
        app.broker.log().wait_committed_blocking(lsn)?;
    }
    Ok(left_out)
}

async fn imported(
    app: App,
    caller: Caller,
    vhost: Option<String>,
    Object(document): Object,
) -> Result<Response, Fault> {
    check_administrator(&caller)?;
    let left_out = durable(&app, move |app| {
        if let Some(vhost) = &vhost {
            scope(app, &caller, vhost)?;
        }
        let (left_out, completion) = import::import(app, By::Client(&caller), vhost, &document)?;
        Ok((left_out, completion))
    })
    .await?;
    if left_out.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let (count, listed) = (left_out.len(), left_out.into_iter().take(LISTED_MAX).collect::<Vec<_>>());
    Ok(Json(json!({"not_imported": listed, "not_imported_count": count})).into_response())
}
