//! Permissions in RabbitMQ's form: three expressions for each user and namespace, and those for the keys of an exchange.
//!
//! They are stored as rules of the dialect `rabbitmq`, and replaced as a whole.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use inver_access::Rule;
use inver_access::dialect::ExpressionError;
use inver_access::dialect::rabbitmq::{self, Permission, TopicPermission};
use inver_broker::{AuditKind, Broker, Completion, Facts, Value as Argument};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::permissions::Only;
use super::{blocking, deleted, durable};
use crate::http::App;
use crate::http::auth::Caller;
use crate::http::list::{ListQuery, Listed, Page, Whole};
use crate::http::problem::Problem;
use crate::http::request::{Body, Query};

/// What a user may do in a namespace, in RabbitMQ's form: regular expressions over names of queues and exchanges, not
/// anchored. An empty one allows nothing.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Expressions)]
pub(in crate::http) struct Shown {
    user: String,
    namespace: String,
    configure: String,
    write: String,
    read: String,
}

impl From<Permission> for Shown {
    fn from(of: Permission) -> Shown {
        let Permission { user, vhost: namespace, configure, write, read } = of;
        Shown { user, namespace, configure, write, read }
    }
}

/// Which routing keys of a topic exchange a user may use, in RabbitMQ's form.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = TopicExpressions)]
pub(in crate::http) struct ShownTopic {
    user: String,
    namespace: String,
    exchange: String,
    write: String,
    read: String,
}

impl From<TopicPermission> for ShownTopic {
    fn from(of: TopicPermission) -> ShownTopic {
        let TopicPermission { user, vhost: namespace, exchange, write, read } = of;
        ShownTopic { user, namespace, exchange, write, read }
    }
}

/// The expressions to set.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewExpressions)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct New {
    /// Names of queues and exchanges that the user may declare and delete.
    configure: String,
    /// Names of exchanges to publish to, and of queues and exchanges to bind.
    write: String,
    /// Names of queues to consume from and purge, and of exchanges to bind to.
    read: String,
}

/// The expressions over routing keys to set.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewTopicExpressions)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewTopic {
    /// Keys to publish with.
    write: String,
    /// Keys to bind with.
    read: String,
}

/// Whose permission, and where.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Whose {
    #[param(max_length = 255)]
    user: String,
    /// The namespace; without it, `/`.
    #[param(nullable = false, max_length = 255)]
    namespace: Option<String>,
}

/// Whose topic permission, where, and of which exchange.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Topic {
    #[param(max_length = 255)]
    user: String,
    /// The namespace; without it, `/`.
    #[param(nullable = false, max_length = 255)]
    namespace: Option<String>,
    /// The exchange.
    #[param(max_length = 255)]
    exchange: String,
}

/// Whose topic permissions are cleared.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Topics {
    #[param(max_length = 255)]
    user: String,
    /// The namespace; without it, `/`.
    #[param(nullable = false, max_length = 255)]
    namespace: Option<String>,
    /// The exchange; without it, all.
    #[param(nullable = false, max_length = 255)]
    exchange: Option<String>,
}

fn namespace_or_default(named: Option<String>) -> String {
    named.unwrap_or_else(|| "/".to_owned())
}

/// Lists the permissions in RabbitMQ's form.
#[utoipa::path(get, path = "/permissions/expressions", tag = "access", params(ListQuery, Only),
    responses((status = 200, body = Page<Shown>)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    caller: Caller,
    Listed(query, only): Listed<Only>,
) -> Result<Page<Shown>, Problem> {
    caller.check_sees_all()?;
    blocking(&app, move |app| {
        let all = all(&app.broker).into_iter();
        let listed = all.filter(|one| only.has(&one.user, &one.vhost)).map(Shown::from).collect();
        query.page(app, Whole::new(listed, |one: &Shown| &one.user, &[]), Clone::clone)
    })
    .await
}

/// Sets what a user may do in a namespace, in place of what was set so before.
#[utoipa::path(put, path = "/permissions/expressions", tag = "access", request_body = New, params(Whose),
    responses((status = 200, body = Shown)))]
pub(in crate::http) async fn put(
    State(app): State<App>,
    caller: Caller,
    Query(Whose { user, namespace }): Query<Whose>,
    Body(New { configure, write, read }): Body<New>,
) -> Result<Json<Shown>, Problem> {
    caller.check_administers()?;
    let permission = Permission { user, vhost: namespace_or_default(namespace), configure, write, read };
    durable(&app, move |app| {
        let completion = set(app, &caller, &permission)?;
        Ok((Json(Shown::from(permission)), completion))
    })
    .await
}

/// Clears what a user may do in a namespace, as far as it was set in this form.
#[utoipa::path(delete, path = "/permissions/expressions", tag = "access", params(Whose),
    responses((status = 204)))]
pub(in crate::http) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Query(Whose { user, namespace }): Query<Whose>,
) -> Result<StatusCode, Problem> {
    caller.check_administers()?;
    let vhost = namespace_or_default(namespace);
    deleted(&app, move |app| clear(app, &caller, &user, &vhost)).await
}

/// All permissions in RabbitMQ's form.
pub(in crate::http) fn all(broker: &Broker) -> Vec<Permission> {
    let rules = broker.access().rules();
    rabbitmq::permissions(rules.iter().map(|(rule, _)| rule.as_ref()))
}

/// All topic permissions in RabbitMQ's form.
pub(in crate::http) fn all_of_topics(broker: &Broker) -> Vec<TopicPermission> {
    let rules = broker.access().rules();
    rabbitmq::topic_permissions(rules.iter().map(|(rule, _)| rule.as_ref()))
}

/// What programs are told of a permission.
fn facts_of(user: &str, vhost: &str) -> Facts {
    Facts::new([("user", user.into()), ("vhost", vhost.into())])
}

fn named((name, value): (&str, &String)) -> (String, Argument) {
    (name.to_owned(), value.as_str().into())
}

/// Sets what a user may do in a namespace.
pub(in crate::http) fn set(
    app: &App,
    caller: &Caller,
    permission: &Permission,
) -> Result<Completion, Problem> {
    let Permission { user, vhost, .. } = permission;
    check_exists(app, user, vhost)?;
    let completion =
        change(app, user, vhost, |present| rabbitmq::set_permission(present, user, vhost, Some(permission)))?;
    caller.did(AuditKind::Access, "alter", "permission", &format!("{user} in {vhost}"));
    caller.tell("permission.created", || {
        let Permission { configure, write, read, .. } = permission;
        let mut facts = facts_of(user, vhost);
        facts.more.extend([("configure", configure), ("write", write), ("read", read)].map(named));
        facts
    });
    Ok(completion)
}

/// Clears what a user may do in a namespace.
pub(in crate::http) fn clear(
    app: &App,
    caller: &Caller,
    user: &str,
    vhost: &str,
) -> Result<Completion, Problem> {
    if !all(&app.broker).iter().any(|one| one.user == user && one.vhost == vhost) {
        let what = format!("the user `{user}` has no permission of this form in the namespace `{vhost}`");
        return Err(Problem::not_found(what));
    }
    let completion =
        change(app, user, vhost, |present| rabbitmq::set_permission(present, user, vhost, None))?;
    caller.did(AuditKind::Access, "delete", "permission", &format!("{user} in {vhost}"));
    caller.tell("permission.deleted", || facts_of(user, vhost));
    Ok(completion)
}

/// Sets which routing keys of an exchange a user may use.
pub(in crate::http) fn set_topic(
    app: &App,
    caller: &Caller,
    permission: &TopicPermission,
) -> Result<Completion, Problem> {
    let TopicPermission { user, vhost, exchange, .. } = permission;
    check_exists(app, user, vhost)?;
    let completion = change(app, user, vhost, |present| {
        let permission = Some(permission.clone());
        rabbitmq::set_topic_permission(present, user, vhost, Some(exchange.as_str()), permission)
    })?;
    let name = name_of_topic(user, vhost, Some(exchange.as_str()));
    caller.did(AuditKind::Access, "alter", "permission", &name);
    caller.tell("topic.permission.created", || {
        let TopicPermission { write, read, .. } = permission;
        let mut facts = facts_of(user, vhost);
        facts.more.extend([("exchange", exchange), ("write", write), ("read", read)].map(named));
        facts
    });
    Ok(completion)
}

/// Clears which routing keys of an exchange, or of all exchanges, a user may use.
pub(in crate::http) fn clear_topics(
    app: &App,
    caller: &Caller,
    user: &str,
    vhost: &str,
    exchange: Option<&str>,
) -> Result<Completion, Problem> {
    let all = all_of_topics(&app.broker);
    let is_of = |one: &TopicPermission| exchange.is_none_or(|wanted| *wanted == one.exchange);
    if !all.iter().any(|one| one.user == user && one.vhost == vhost && is_of(one)) {
        let what = format!("the user `{user}` has no such topic permission in the namespace `{vhost}`");
        return Err(Problem::not_found(what));
    }
    let completion = change(app, user, vhost, |present| {
        rabbitmq::set_topic_permission(present, user, vhost, exchange, None)
    })?;
    caller.did(AuditKind::Access, "delete", "permission", &name_of_topic(user, vhost, exchange));
    caller.tell("topic.permission.deleted", || facts_of(user, vhost));
    Ok(completion)
}

/// Lists the permissions for the routing keys of topic exchanges in RabbitMQ's form.
#[utoipa::path(get, path = "/permissions/topic-expressions", tag = "access", params(ListQuery, Only),
    responses((status = 200, body = Page<ShownTopic>)))]
pub(in crate::http) async fn list_topics(
    State(app): State<App>,
    caller: Caller,
    Listed(query, only): Listed<Only>,
) -> Result<Page<ShownTopic>, Problem> {
    caller.check_sees_all()?;
    blocking(&app, move |app| {
        let all = all_of_topics(&app.broker).into_iter();
        let listed = all.filter(|one| only.has(&one.user, &one.vhost)).map(ShownTopic::from).collect();
        query.page(app, Whole::new(listed, |one: &ShownTopic| &one.user, &[]), Clone::clone)
    })
    .await
}

/// Sets which routing keys of an exchange a user may use, in place of what was set so before.
#[utoipa::path(put, path = "/permissions/topic-expressions", tag = "access", request_body = NewTopic,
    params(Topic), responses((status = 200, body = ShownTopic)))]
pub(in crate::http) async fn put_topic(
    State(app): State<App>,
    caller: Caller,
    Query(Topic { user, namespace, exchange }): Query<Topic>,
    Body(NewTopic { write, read }): Body<NewTopic>,
) -> Result<Json<ShownTopic>, Problem> {
    caller.check_administers()?;
    let vhost = namespace_or_default(namespace);
    let permission = TopicPermission { user, vhost, exchange, write, read };
    durable(&app, move |app| {
        let completion = set_topic(app, &caller, &permission)?;
        Ok((Json(ShownTopic::from(permission)), completion))
    })
    .await
}

/// Clears which routing keys of an exchange, or of all exchanges, a user may use: then every key is allowed.
#[utoipa::path(delete, path = "/permissions/topic-expressions", tag = "access", params(Topics),
    responses((status = 204)))]
pub(in crate::http) async fn delete_topics(
    State(app): State<App>,
    caller: Caller,
    Query(Topics { user, namespace, exchange }): Query<Topics>,
) -> Result<StatusCode, Problem> {
    caller.check_administers()?;
    let vhost = namespace_or_default(namespace);
    deleted(&app, move |app| clear_topics(app, &caller, &user, &vhost, exchange.as_deref())).await
}

fn name_of_topic(user: &str, vhost: &str, exchange: Option<&str>) -> String {
    format!("{user} in {vhost}, keys of {}", exchange.unwrap_or("every exchange"))
}

fn check_exists(app: &App, user: &str, namespace: &str) -> Result<(), Problem> {
    if app.broker.namespace(namespace).is_none() {
        return Err(Problem::not_found(format!("there is no namespace `{namespace}`")));
    }
    if app.broker.access().user(user).is_none() {
        return Err(Problem::not_found(format!("there is no user `{user}`")));
    }
    Ok(())
}

/// Replaces the rules of this form of a user in a namespace by what `change` makes of them.
fn change(
    app: &App,
    user: &str,
    vhost: &str,
    change: impl FnOnce(&[Arc<Rule>]) -> Result<Vec<Rule>, ExpressionError>,
) -> Result<Completion, Problem> {
    let is_of = |rule: &Rule| rabbitmq::is_of(rule, user, vhost);
    let changed = app.broker.access().change_rules(is_of, |present| {
        change(present).map_err(|error| Problem::bad_request(error.to_string()))
    })?;
    Ok(changed.completion)
}
