//! Definitions: what a broker is set up with, as one JSON document.
//!
//! Exported is what this broker has. An import takes the documents of RabbitMQ 3.8 and later. Queues and exchanges that are
//! there already stay as they are; users, permissions, virtual hosts and limits become what the document says. What does not
//! map is listed in the answer and in the log.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use inver_access::Tag;
use inver_access::dialect::rabbitmq::{Permission, TopicPermission};
use inver_broker::{BindDestination, Completion, Namespace};
use serde_json::{Map, Value, json};
use tracing::{info, warn};

use super::error::Fault;
use super::request::{Names, Object, durable, operator, scope, texts, work};
use super::vhosts::check_administrator;
use super::{bindings, exchanges, limits, node_name, permissions, queues, users, vhosts};
use crate::http::App;
use crate::http::api::expressions;
use crate::http::api::namespaces::{self, change_namespace};
use crate::http::api::users::change_user;
use crate::http::auth::{Caller, Scope};
use crate::protocols::RABBITMQ_VERSION;

/// Sections that are imported, in this order: each refers to those before. With the first user, a client without a login may
/// do nothing any more.
const SECTIONS: [&str; 7] =
    ["vhosts", "exchanges", "queues", "bindings", "users", "permissions", "topic_permissions"];
/// Fields that say what a document is.
const ABOUT: [&str; 11] = [
    "rabbit_version",
    "rabbitmq_version",
    "product_name",
    "product_version",
    "rabbitmq_definition_format",
    "original_cluster_name",
    "original_vhost_name",
    "explanation",
    "description",
    "metadata",
    "default_queue_type",
];
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
    into.insert("queues".into(), all.map(|queue| only(queues::shown(&queue, false), &names)).collect());
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
        document.insert("permissions".into(), all.iter().map(permissions::shown).collect());
        let all = expressions::all_of_topics(&app.broker);
        document.insert("topic_permissions".into(), all.iter().map(permissions::shown_topic).collect());
        let limited = seen.iter().filter(|it| !limits::of_namespace(it).is_empty());
        let parameter = |namespace: &Namespace| {
            json!({
                "vhost": namespace.name().to_string(),
                "component": "vhost-limits",
                "name": "limits",
                "value": limits::of_namespace(namespace),
            })
        };
        document.insert("parameters".into(), limited.map(parameter).collect());
        document.insert("global_parameters".into(), json!([]));
        document.insert("policies".into(), json!([]));
        put_topology(&mut document, &seen)?;
        Ok(Json(Value::Object(document)).into_response())
    })
    .await
}

/// Queues, exchanges and bindings of one virtual host.
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
        document.insert("parameters".into(), json!([]));
        document.insert("policies".into(), json!([]));
        put_topology(&mut document, std::slice::from_ref(scope.namespace()))?;
        for section in ["queues", "exchanges", "bindings"] {
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

/// Imports the queues, exchanges and bindings of a document into a virtual host.
pub(super) async fn import_vhost(
    State(app): State<App>,
    caller: Caller,
    Names(vhost): Names<String>,
    body: Object,
) -> Result<Response, Fault> {
    imported(app, caller, Some(vhost), body).await
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
        let mut import =
            Import { app, caller: &caller, vhost, completion: Completion::Now, left_out: Vec::new() };
        let outcome = import.document(&document);
        let Import { completion, left_out, .. } = import;
        left_out.iter().for_each(|what| warn!("not imported: {what}"));
        outcome?;
        info!(left_out = left_out.len(), "definitions imported");
        Ok((left_out, completion))
    })
    .await?;
    if left_out.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let (count, listed) = (left_out.len(), left_out.into_iter().take(LISTED_MAX).collect::<Vec<_>>());
    Ok(Json(json!({"not_imported": listed, "not_imported_count": count})).into_response())
}

/// An import under way.
struct Import<'a> {
    app: &'a App,
    caller: &'a Caller,
    /// The virtual host that everything goes into; none: that of each object.
    vhost: Option<String>,
    completion: Completion,
    /// What was not imported, and why.
    left_out: Vec<String>,
}

impl Import<'_> {
    fn document(&mut self, document: &Map<String, Value>) -> Result<(), Fault> {
        let lists = |section: &str| match document.get(section) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list.iter().collect::<Vec<_>>()),
            Some(_) => Err(Fault::bad_request(format!("{section} is a list"))),
        };
        // Before anything is changed.
        SECTIONS.iter().chain(&["parameters"]).try_for_each(|section| lists(section).map(drop))?;
        for section in SECTIONS {
            let of_vhost = ["queues", "exchanges", "bindings"].contains(&section);
            let mut objects = lists(section)?;
            if section == "users" {
                // The first user must be an administrator.
                objects.sort_by_key(|user| !is_administrator(user));
            }
            for object in objects {
                if self.vhost.is_some() && !of_vhost {
                    self.left_out.push(format!("{section}: not part of a virtual host: {}", name_of(object)));
                    continue;
                }
                let outcome = self.object(section, object);
                self.note(section, object, outcome)?;
            }
        }
        for parameter in lists("parameters")? {
            let outcome = self.parameter(parameter);
            self.note("parameters", parameter, outcome)?;
        }
        let known = |name: &str| SECTIONS.contains(&name) || ABOUT.contains(&name) || name == "parameters";
        for (section, value) in document.iter().filter(|(name, _)| !known(name)) {
            match value {
                Value::Array(list) => {
                    // What every export has and means nothing here.
                    let own = ["cluster_name", "internal_cluster_id", "cluster_tags"];
                    let told = list.iter().filter(|it| !own.contains(&name_of(it).as_str()));
                    let lines = told.map(|it| format!("{section}: {}: not supported", name_of(it)));
                    self.left_out.extend(lines);
                }
                _ => self.left_out.push(format!("{section}: not known")),
            }
        }
        Ok(())
    }

    /// Notes that an object was not imported; the error is one that ends the import.
    fn note(&mut self, section: &str, object: &Value, outcome: Result<(), Fault>) -> Result<(), Fault> {
        match outcome {
            Ok(()) => {}
            Err(fault) if fault.is_of_server() => return Err(fault),
            Err(fault) => {
                self.left_out.push(format!("{section}: {}: {}", name_of(object), fault.into_reason()));
            }
        }
        Ok(())
    }

    fn object(&mut self, section: &str, object: &Value) -> Result<(), Fault> {
        let Value::Object(fields) = object else { return Err(Fault::bad_request("not an object")) };
        let fields = Object(fields.clone());
        match section {
            "vhosts" => self.vhost(&fields),
            "users" => self.user(&fields),
            "permissions" => self.permission(&fields),
            "topic_permissions" => self.topic_permission(&fields),
            "queues" => self.queue(&fields),
            "exchanges" => self.exchange(&fields),
            _ => self.binding(&fields),
        }
    }

    fn done(&mut self, completion: Completion) {
        self.completion = self.completion.and(completion);
    }

    fn vhost(&mut self, fields: &Object) -> Result<(), Fault> {
        let name = needed(fields, "name")?;
        let metadata = match fields.0.get("metadata") {
            Some(Value::Object(metadata)) => Object(metadata.clone()),
            _ => Object(Map::new()),
        };
        let text = |name: &str| {
            let own = fields.text(name)?.or(metadata.text(name)?);
            Ok::<_, Fault>(own.map(str::to_owned).filter(|text| text != "undefined"))
        };
        let change = namespaces::Change {
            description: text("description")?,
            tags: fields.texts("tags")?.or(metadata.texts("tags")?),
            // A type that is the default everywhere need not be said.
            default_queue_type: text("default_queue_type")?.filter(|kind| kind != "classic"),
            ..namespaces::Change::default()
        };
        let (_, _, completion) = change_namespace(self.app, self.caller, name, change)?;
        self.done(completion);
        Ok(())
    }

    fn user(&mut self, fields: &Object) -> Result<(), Fault> {
        let name = needed(fields, "name")?;
        let mut change = users::change(fields)?;
        let has_none = change.password_hashes.as_ref().is_some_and(Vec::is_empty);
        if has_none && self.app.broker.access().user(name).is_some() {
            // A document that does not know the password takes none away.
            change.password_hashes = None;
        }
        if let Some(Value::Object(limits)) = fields.0.get("limits") {
            for (limit, value) in limits {
                let value = limits::value(value.as_i64()).map_err(Fault::bad_request)?;
                limits::set_of_user(&mut change, limit, value)?;
            }
        }
        let (_, _, completion) = change_user(self.app, self.caller, name, &change)?;
        self.done(completion);
        Ok(())
    }

    fn permission(&mut self, fields: &Object) -> Result<(), Fault> {
        let text = |name: &str| needed(fields, name).map(str::to_owned);
        let permission = Permission {
            user: text("user")?,
            vhost: text("vhost")?,
            configure: text("configure")?,
            write: text("write")?,
            read: text("read")?,
        };
        let completion = expressions::set(self.app, self.caller, &permission)?;
        self.done(completion);
        Ok(())
    }

    fn topic_permission(&mut self, fields: &Object) -> Result<(), Fault> {
        let text = |name: &str| needed(fields, name).map(str::to_owned);
        let permission = TopicPermission {
            user: text("user")?,
            vhost: text("vhost")?,
            exchange: text("exchange")?,
            write: text("write")?,
            read: text("read")?,
        };
        let completion = expressions::set_topic(self.app, self.caller, &permission)?;
        self.done(completion);
        Ok(())
    }

    /// The scope of an object.
    fn scope(&self, fields: &Object) -> Result<Scope, Fault> {
        let vhost = self.vhost.as_deref().map_or_else(|| needed(fields, "vhost"), Ok)?;
        scope(self.app, self.caller, vhost)
            .map_err(|_| Fault::bad_request(format!("there is no virtual host {vhost}")))
    }

    fn queue(&mut self, fields: &Object) -> Result<(), Fault> {
        let (name, scope) = (needed(fields, "name")?, self.scope(fields)?);
        if scope.namespace().queue(name).is_some() {
            return Ok(());
        }
        let flag = |name: &str| Ok::<_, Fault>(fields.flag(name)?.unwrap_or(false));
        let mut arguments = fields.arguments()?;
        if let Some(kind) = fields.text("type")?.filter(|kind| *kind != "classic") {
            let kind = inver_broker::Value::Text(kind.as_bytes().to_vec());
            arguments.entry("x-queue-type".to_owned()).or_insert(kind);
        }
        let (durable, auto_delete) = (flag("durable")?, flag("auto_delete")?);
        let declared = operator(&scope).declare_queue(name, durable, auto_delete, arguments)?;
        self.done(declared.completion);
        Ok(())
    }

    fn exchange(&mut self, fields: &Object) -> Result<(), Fault> {
        let (name, scope) = (needed(fields, "name")?, self.scope(fields)?);
        if scope.namespace().exchange(name).is_some() {
            return Ok(());
        }
        let flag = |name: &str| Ok::<_, Fault>(fields.flag(name)?.unwrap_or(false));
        let (durable, auto_delete, internal) = (flag("durable")?, flag("auto_delete")?, flag("internal")?);
        let (kind, arguments) = (needed(fields, "type")?, fields.arguments()?);
        let declared =
            operator(&scope).declare_exchange(name, kind, durable, auto_delete, internal, arguments)?;
        self.done(declared.completion);
        Ok(())
    }

    fn binding(&mut self, fields: &Object) -> Result<(), Fault> {
        let scope = self.scope(fields)?;
        let (source, name) = (needed(fields, "source")?, needed(fields, "destination")?);
        if source.is_empty() {
            // Every queue has it.
            return Ok(());
        }
        let to = match needed(fields, "destination_type")? {
            "exchange" => BindDestination::Exchange(name),
            _ => BindDestination::Queue(name),
        };
        let key = fields.text("routing_key")?.unwrap_or_default();
        let completion = operator(&scope).bind(source, to, key, &fields.arguments()?)?;
        self.done(completion);
        Ok(())
    }

    /// Limits of virtual hosts are parameters; others do not map.
    fn parameter(&mut self, parameter: &Value) -> Result<(), Fault> {
        let text = |name: &str| parameter.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("component") != "vhost-limits" {
            return Err(Fault::bad_request(format!("{} not supported", text("component"))));
        }
        let vhost = self.vhost.clone().unwrap_or_else(|| text("vhost").to_owned());
        let Some(Value::Object(values)) = parameter.get("value") else {
            return Err(Fault::bad_request("value is an object"));
        };
        for (limit, value) in values {
            let value = limits::value(value.as_i64()).map_err(Fault::bad_request)?;
            let change = limits::change_of_vhost(limit, value)?;
            if self.app.broker.namespace(&vhost).is_none() {
                return Err(Fault::bad_request(format!("there is no virtual host {vhost}")));
            }
            let (_, _, completion) = change_namespace(self.app, self.caller, &vhost, change)?;
            self.done(completion);
        }
        Ok(())
    }
}

fn is_administrator(user: &Value) -> bool {
    let tags = user.get("tags").and_then(texts).unwrap_or_default();
    tags.iter().any(|tag| tag == Tag::Administrator.name())
}

/// A text that an object must have.
fn needed<'a>(fields: &'a Object, name: &str) -> Result<&'a str, Fault> {
    fields.text(name)?.ok_or_else(|| Fault::bad_request(format!("{{key_missing,{name}}}")))
}

/// What an object is called in messages.
fn name_of(object: &Value) -> String {
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    match (text("name"), text("user"), text("source"), text("destination")) {
        (Some(name), ..) => name.to_owned(),
        (_, Some(user), ..) => user.to_owned(),
        (_, _, Some(source), Some(destination)) => format!("{source} -> {destination}"),
        _ => "an object without a name".to_owned(),
    }
}
