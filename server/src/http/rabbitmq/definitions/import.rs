//! The import of definitions. Queues and exchanges that are there already stay as they are; users, permissions, policies,
//! virtual hosts and limits become what the document says. What does not map is noted.

use inver_access::Tag;
use inver_access::dialect::rabbitmq::{Permission, TopicPermission};
use inver_broker::{BindDestination, Completion, PolicyKind};
use serde_json::{Map, Value};
use tracing::{info, warn};

use super::super::error::Fault;
use super::super::request::{Object, scope, texts};
use super::super::{limits, policies, users};
use crate::http::App;
use crate::http::api::expressions;
use crate::http::api::namespaces::{self, change_namespace};
use crate::http::api::users::change_user;
use crate::http::auth::{Caller, Scope};
use crate::protocols::Operator;

/// Sections that are imported, in this order: each refers to those before. With the first user, a client without a login may
/// do nothing any more.
const SECTIONS: [&str; 8] =
    ["vhosts", "policies", "exchanges", "queues", "bindings", "users", "permissions", "topic_permissions"];
/// Those of them that a virtual host has.
const OF_VHOST: [&str; 4] = ["policies", "exchanges", "queues", "bindings"];
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

/// On whose behalf definitions are imported.
#[derive(Clone, Copy)]
pub(super) enum By<'a> {
    /// A client.
    Client(&'a Caller),
    /// The broker, at its start.
    Broker(&'a Caller),
}

/// Imports a document into a virtual host, or, for none, into those that its objects name. Returns what was not imported, and why,
/// and when the rest is durable.
pub(super) fn import(
    app: &App,
    by: By<'_>,
    vhost: Option<String>,
    document: &Map<String, Value>,
) -> Result<(Vec<String>, Completion), Fault> {
    let (caller, is_broker) = match by {
        By::Client(caller) => (caller, false),
        By::Broker(caller) => (caller, true),
    };
    let mut import =
        Import { app, caller, is_broker, vhost, completion: Completion::Now, left_out: Vec::new() };
    let outcome = import.document(document);
    let Import { completion, left_out, .. } = import;
    left_out.iter().for_each(|what| warn!("not imported: {what}"));
    outcome?;
    info!(left_out = left_out.len(), "definitions imported");
    Ok((left_out, completion))
}

/// An import under way.
struct Import<'a> {
    app: &'a App,
    caller: &'a Caller,
    /// The broker imports: what it binds is nobody's.
    is_broker: bool,
    /// The virtual host that everything goes into; none: that of each object.
    vhost: Option<String>,
    completion: Completion,
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
            let of_vhost = OF_VHOST.contains(&section);
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
            "policies" => self.policy(PolicyKind::Ordinary, &fields, &fields),
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

    fn operator(&self, scope: &Scope) -> Operator {
        let (namespace, permissions) = (scope.namespace().clone(), scope.permissions().clone());
        if self.is_broker {
            Operator::of_broker(namespace, permissions)
        } else {
            Operator::new(namespace, permissions)
        }
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
        let declared = self.operator(&scope).declare_queue(name, durable, auto_delete, arguments)?;
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
            self.operator(&scope).declare_exchange(name, kind, durable, auto_delete, internal, arguments)?;
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
        let completion = self.operator(&scope).bind(source, to, key, &fields.arguments()?)?;
        self.done(completion);
        Ok(())
    }

    /// Sets a policy with what is in `content`.
    fn policy(&mut self, kind: PolicyKind, fields: &Object, content: &Object) -> Result<(), Fault> {
        let (name, scope) = (needed(fields, "name")?, self.scope(fields)?);
        let (_, completion) = policies::set(self.caller, scope.namespace(), kind, name, content)?;
        self.done(completion);
        Ok(())
    }

    /// Limits of virtual hosts and operator policies are parameters; others do not map.
    fn parameter(&mut self, parameter: &Value) -> Result<(), Fault> {
        let text = |name: &str| parameter.get(name).and_then(Value::as_str).unwrap_or_default();
        if let (policies::OPERATOR_COMPONENT, Value::Object(fields), Some(Value::Object(content))) =
            (text("component"), parameter, parameter.get("value"))
        {
            let (fields, content) = (Object(fields.clone()), Object(content.clone()));
            return self.policy(PolicyKind::Operator, &fields, &content);
        }
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
