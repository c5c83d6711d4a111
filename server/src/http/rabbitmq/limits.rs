//! Limits of virtual hosts (`max-connections`, `max-queues`) and of users (`max-connections`, `max-channels`).

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use inver_broker::Namespace;
use serde_json::{Map, Value, json};

use super::error::Fault;
use super::list::ListQuery;
use super::request::{Names, Object, Params, durable, scope, work};
use super::users;
use super::vhosts::{check_administrator, seen};
use crate::http::App;
use crate::http::api::namespaces::{self, change_namespace};
use crate::http::api::users::{self as own_users, change_user};
use crate::http::auth::Caller;

/// The limits of a virtual host, by RabbitMQ's names.
pub(super) fn of_namespace(namespace: &Namespace) -> Map<String, Value> {
    let limits = namespace.spec().limits;
    let named = [("max-connections", limits.connections_max), ("max-queues", limits.queues_max)];
    named.into_iter().filter_map(|(name, max)| Some((name.to_owned(), json!(max?)))).collect()
}

fn is_limited(namespace: &Namespace) -> bool {
    !of_namespace(namespace).is_empty()
}

fn shown(namespace: &Namespace) -> Value {
    json!({"vhost": namespace.name().to_string(), "value": of_namespace(namespace)})
}

pub(super) async fn vhosts(
    State(app): State<App>,
    caller: Caller,
    params: Params,
) -> Result<Response, Fault> {
    let query = ListQuery::of(&params)?;
    work(&app, move |app| {
        let limited = seen(app, &caller).into_iter().filter(is_limited).collect();
        query.answer(limited, |it: &Namespace| it.name().to_string(), shown)
    })
    .await
}

pub(super) async fn vhost(
    State(app): State<App>,
    caller: Caller,
    Names(vhost): Names<String>,
    params: Params,
) -> Result<Response, Fault> {
    let query = ListQuery::of(&params)?;
    work(&app, move |app| {
        let namespace = scope(app, &caller, &vhost)?.namespace().clone();
        let limited = Some(namespace).into_iter().filter(is_limited).collect();
        query.answer(limited, |it: &Namespace| it.name().to_string(), shown)
    })
    .await
}

/// The value of a limit; 0, which stands for none, if it is negative, as in RabbitMQ.
pub(super) fn value(value: Option<i64>) -> Result<u32, String> {
    let value = value.ok_or("a limit is a number")?;
    match u32::try_from(value.max(0)) {
        // Zero connections or queues is a limit that the broker does not have.
        Ok(0) if value == 0 => Err("a limit of 0 is not supported".to_owned()),
        Ok(value) => Ok(value),
        Err(_) => Err(format!("a limit is at most {}", u32::MAX)),
    }
}

/// The change of a virtual host that sets a limit; 0: none.
pub(super) fn change_of_vhost(limit: &str, value: u32) -> Result<namespaces::Change, Fault> {
    let none = namespaces::Change::default();
    match limit {
        "max-connections" => Ok(namespaces::Change { connections_max: Some(value), ..none }),
        "max-queues" => Ok(namespaces::Change { queues_max: Some(value), ..none }),
        other => Err(unrecognised(other)),
    }
}

/// Sets a limit in a change of a user; 0: none.
pub(super) fn set_of_user(change: &mut own_users::Change, limit: &str, value: u32) -> Result<(), Fault> {
    match limit {
        "max-connections" => change.connections_max = Some(value),
        "max-channels" => change.channels_max = Some(value),
        other => return Err(unrecognised(other)),
    }
    Ok(())
}

fn unrecognised(limit: &str) -> Fault {
    Fault::bad_request(format!("Validation failed\n\nUnrecognised terms [{limit}] in limits\n"))
}

async fn change_vhost(
    app: App,
    caller: Caller,
    vhost: String,
    limit: String,
    value: u32,
) -> Result<StatusCode, Fault> {
    check_administrator(&caller)?;
    let change = change_of_vhost(&limit, value)?;
    durable(&app, move |app| {
        scope(app, &caller, &vhost)?;
        let (_, _, completion) = change_namespace(app, &caller, &vhost, change)?;
        Ok((StatusCode::NO_CONTENT, completion))
    })
    .await
}

pub(super) async fn set_vhost(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, limit)): Names<(String, String)>,
    body: Object,
) -> Result<StatusCode, Fault> {
    let value = value(body.number("value")?).map_err(Fault::bad_request)?;
    change_vhost(app, caller, vhost, limit, value).await
}

pub(super) async fn clear_vhost(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, limit)): Names<(String, String)>,
) -> Result<StatusCode, Fault> {
    change_vhost(app, caller, vhost, limit, 0).await
}

async fn listed_users(
    app: App,
    caller: Caller,
    params: Params,
    name: Option<String>,
) -> Result<Response, Fault> {
    check_administrator(&caller)?;
    let query = ListQuery::of(&params)?;
    work(&app, move |app| {
        let all = app.broker.access().users().into_iter();
        let wanted = all.filter(|(user, _)| name.as_ref().is_none_or(|name| user.name == *name));
        let limited = wanted
            .filter(|(user, _)| user.limits.connections_max.is_some() || user.limits.channels_max.is_some());
        let show = |user: &inver_access::User| json!({"user": user.name, "value": users::limits(user)});
        query.answer(limited.collect(), |(user, _)| user.name.clone(), |(user, _)| show(user))
    })
    .await
}

pub(super) async fn users(State(app): State<App>, caller: Caller, params: Params) -> Result<Response, Fault> {
    listed_users(app, caller, params, None).await
}

pub(super) async fn user(
    State(app): State<App>,
    caller: Caller,
    Names(name): Names<String>,
    params: Params,
) -> Result<Response, Fault> {
    listed_users(app, caller, params, Some(name)).await
}

async fn change_limit_of_user(
    app: App,
    caller: Caller,
    name: String,
    limit: String,
    value: u32,
) -> Result<StatusCode, Fault> {
    check_administrator(&caller)?;
    let mut change = own_users::Change::default();
    set_of_user(&mut change, &limit, value)?;
    durable(&app, move |app| {
        app.broker.access().user(&name).ok_or_else(Fault::not_found)?;
        let (_, _, completion) = change_user(app, &caller, &name, &change)?;
        Ok((StatusCode::NO_CONTENT, completion))
    })
    .await
}

pub(super) async fn set_user(
    State(app): State<App>,
    caller: Caller,
    Names((name, limit)): Names<(String, String)>,
    body: Object,
) -> Result<StatusCode, Fault> {
    let value = value(body.number("value")?).map_err(Fault::bad_request)?;
    change_limit_of_user(app, caller, name, limit, value).await
}

pub(super) async fn clear_user(
    State(app): State<App>,
    caller: Caller,
    Names((name, limit)): Names<(String, String)>,
) -> Result<StatusCode, Fault> {
    change_limit_of_user(app, caller, name, limit, 0).await
}
