//! Exchanges.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use inver_broker::{Exchange, Namespace};
use serde_json::{Value, json};

use super::error::Fault;
use super::list::ListQuery;
use super::request::{Names, Object, Params, durable, operator, put_status, scope, work};
use super::vhosts::seen;
use crate::http::App;
use crate::http::api::values::arguments_to_json;
use crate::http::auth::Caller;

/// The name of the default exchange in paths.
pub(super) const DEFAULT: &str = "amq.default";

/// An exchange of a namespace; none: the default exchange.
pub(super) type Listed = (Arc<str>, Option<Arc<Exchange>>);

pub(super) fn shown((vhost, exchange): &Listed) -> Value {
    match exchange {
        None => json!({
            "name": "",
            "vhost": &**vhost,
            "type": "direct",
            "durable": true,
            "auto_delete": false,
            "internal": false,
            "arguments": {},
        }),
        Some(exchange) => {
            let spec = exchange.spec();
            let mut shown = json!({
                "name": exchange.name(),
                "vhost": &**vhost,
                "type": spec.type_name(),
                "durable": spec.durable,
                "auto_delete": spec.auto_delete,
                "internal": spec.internal,
                "arguments": arguments_to_json(&spec.arguments),
            });
            if let (Some(policy), Value::Object(fields)) = (exchange.applied().policy, &mut shown) {
                fields.insert("policy".into(), json!(policy.name()));
            }
            shown
        }
    }
}

/// The exchanges of namespaces, ordered by name, the default ones included.
pub(super) fn listed(namespaces: &[Namespace]) -> Vec<Listed> {
    let of = |namespace: &Namespace| {
        let vhost: Arc<str> = namespace.name().to_string().into();
        let named = namespace.exchanges().into_iter().map(Some);
        std::iter::once(None).chain(named).map(|it| (vhost.clone(), it)).collect::<Vec<_>>()
    };
    namespaces.iter().flat_map(of).collect()
}

pub(super) fn name((_, exchange): &Listed) -> String {
    exchange.as_ref().map_or_else(String::new, |exchange| exchange.name().to_owned())
}

/// The exchanges of every virtual host that the client sees.
pub(super) async fn all(State(app): State<App>, caller: Caller, params: Params) -> Result<Response, Fault> {
    let query = ListQuery::of(&params)?;
    work(&app, move |app| query.answer(listed(&seen(app, &caller)), name, shown)).await
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
        query.answer(listed(std::slice::from_ref(scope.namespace())), name, shown)
    })
    .await
}

/// The exchange of this name; none for the default one.
pub(super) fn find(namespace: &Namespace, name: &str) -> Result<Option<Arc<Exchange>>, Fault> {
    if name.is_empty() || name == DEFAULT {
        return Ok(None);
    }
    namespace.exchange(name).map(Some).ok_or_else(Fault::not_found)
}

pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, name)): Names<(String, String)>,
) -> Result<Json<Value>, Fault> {
    work(&app, move |app| {
        let scope = scope(app, &caller, &vhost)?;
        let exchange = find(scope.namespace(), &name)?;
        let mut shown = shown(&(vhost.into(), exchange));
        if let Value::Object(fields) = &mut shown {
            fields.insert("incoming".into(), json!([]));
            fields.insert("outgoing".into(), json!([]));
        }
        Ok(Json(shown))
    })
    .await
}

/// Declares an exchange: 201 if it is new, 204 if it is there as declared, 400 if it is there otherwise.
pub(super) async fn put(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, name)): Names<(String, String)>,
    body: Object,
) -> Result<StatusCode, Fault> {
    durable(&app, move |app| {
        let scope = scope(app, &caller, &vhost)?;
        let kind = body.text("type")?.unwrap_or("direct");
        let flag = |name: &str| Ok::<_, Fault>(body.flag(name)?.unwrap_or(false));
        let (durable, auto_delete, internal) = (flag("durable")?, flag("auto_delete")?, flag("internal")?);
        let declared = operator(&scope).declare_exchange(
            &name,
            kind,
            durable,
            auto_delete,
            internal,
            body.arguments()?,
        )?;
        Ok((put_status(declared.created), declared.completion))
    })
    .await
}

/// Deletes an exchange with its bindings; with `if-unused`, only without any.
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, name)): Names<(String, String)>,
    params: Params,
) -> Result<StatusCode, Fault> {
    durable(&app, move |app| {
        let scope = scope(app, &caller, &vhost)?;
        find(scope.namespace(), &name)?;
        let done = operator(&scope).delete_exchange(&name, params.is_set("if-unused"))?;
        Ok((StatusCode::NO_CONTENT, done))
    })
    .await
}
