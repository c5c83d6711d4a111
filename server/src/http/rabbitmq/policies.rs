//! Policies and operator policies.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use inver_broker::{AppliesTo, Completion, Namespace, Policy, PolicyError, PolicyKind, PolicySpec};
use serde_json::{Map, Value, json};

use super::error::Fault;
use super::list::ListQuery;
use super::request::{Names, Object, Params, durable, found, put_status, scope, work};
use super::vhosts::seen;
use crate::http::App;
use crate::http::api::values::{arguments, arguments_to_json};
use crate::http::auth::Caller;
use crate::http::problem::Problem;

/// The component of parameters under which definitions have operator policies.
pub(super) const OPERATOR_COMPONENT: &str = "operator_policy";

/// What both lists and definitions show of a policy.
fn content(policy: &Policy) -> Map<String, Value> {
    let spec = policy.spec();
    Map::from_iter([
        ("pattern".to_owned(), json!(spec.pattern)),
        ("apply-to".to_owned(), json!(spec.applies_to.as_str())),
        ("definition".to_owned(), Value::Object(arguments_to_json(&spec.definition))),
        ("priority".to_owned(), json!(spec.priority)),
    ])
}

fn shown(vhost: &str, policy: &Policy) -> Value {
    let mut fields = content(policy);
    fields.insert("vhost".into(), json!(vhost));
    fields.insert("name".into(), json!(policy.name()));
    Value::Object(fields)
}

fn invalid(what: impl std::fmt::Display) -> Fault {
    Fault::bad_request(format!("Validation failed\n\n{what}\n"))
}

impl From<PolicyError> for Fault {
    fn from(error: PolicyError) -> Fault {
        match error {
            PolicyError::Invalid(text) => invalid(text),
            PolicyError::Unknown { .. } => Fault::not_found(),
            PolicyError::NotAllowed(_) => Fault::not_authorised("Access refused."),
            other => Problem::from(other).into(),
        }
    }
}

/// The policy that a body describes.
fn spec_of(body: &Object) -> Result<PolicySpec, Fault> {
    body.needs(&["pattern", "definition"])?;
    let pattern = match body.0.get("pattern") {
        Some(Value::String(pattern)) => pattern.clone(),
        Some(other) => return Err(invalid(format_args!("pattern should be a binary but was {other}"))),
        None => String::new(),
    };
    let definition = match body.0.get("definition") {
        Some(Value::Object(definition)) => arguments(definition.clone())?,
        _ => return Err(invalid("definition should be an object")),
    };
    let priority = match body.0.get("priority") {
        None | Some(Value::Null) => 0,
        Some(value) => value.as_i64().ok_or_else(|| {
            let shown = value.as_str().map_or_else(|| value.to_string(), |text| format!("<<\"{text}\">>"));
            invalid(format_args!("priority should be a number, actually was {shown}"))
        })?,
    };
    let applies_to = match body.text("apply-to")? {
        None => AppliesTo::All,
        Some(text) => text.parse().map_err(|()| {
            invalid(format_args!(
                "apply-to '{text}' unrecognised; should be one of: 'queues', 'classic_queues',  'quorum_queues', \
                 'streams', 'exchanges', or 'all'"
            ))
        })?,
    };
    Ok(PolicySpec { pattern, applies_to, priority, definition })
}

/// Sets a policy from the fields of a body, or of a definition.
pub(super) fn set(
    caller: &Caller,
    namespace: &Namespace,
    kind: PolicyKind,
    name: &str,
    body: &Object,
) -> Result<(bool, Completion), Fault> {
    check(caller, kind)?;
    Ok(namespace.set_policy(kind, name, spec_of(body)?)?)
}

/// The policies of namespaces as definitions have them.
pub(super) fn exported(namespaces: &[Namespace]) -> Vec<Value> {
    let of = |namespace: &Namespace| {
        let all = namespace.policies(PolicyKind::Ordinary);
        all.iter().map(|policy| shown(namespace.name(), policy)).collect::<Vec<_>>()
    };
    namespaces.iter().flat_map(of).collect()
}

/// The operator policies of namespaces as definitions have them: as parameters.
pub(super) fn exported_parameters(namespaces: &[Namespace]) -> Vec<Value> {
    let of = |namespace: &Namespace| {
        let shown = |policy: &Policy| {
            json!({
                "vhost": namespace.name().to_string(),
                "component": OPERATOR_COMPONENT,
                "name": policy.name(),
                "value": content(policy),
            })
        };
        let all = namespace.policies(PolicyKind::Operator);
        all.iter().map(|policy| shown(policy)).collect::<Vec<_>>()
    };
    namespaces.iter().flat_map(of).collect()
}

fn check(caller: &Caller, kind: PolicyKind) -> Result<(), Fault> {
    let refused = match kind {
        PolicyKind::Ordinary => "Not policymaker user",
        PolicyKind::Operator => "Not administrator user",
    };
    caller.check_sets_policies(kind).map_err(|_| Fault::not_authorised(refused))
}

async fn listed(
    app: App,
    caller: Caller,
    vhost: Option<String>,
    kind: PolicyKind,
    params: Params,
) -> Result<Response, Fault> {
    check(&caller, kind)?;
    let query = ListQuery::of(&params)?;
    work(&app, move |app| {
        let namespaces = match &vhost {
            Some(vhost) => vec![scope(app, &caller, vhost)?.namespace().clone()],
            None => seen(app, &caller),
        };
        let of = |namespace: Namespace| {
            let mut all = namespace.policies(kind);
            all.sort_by(|a, b| a.name().cmp(b.name()));
            all.into_iter().map(move |policy| (namespace.clone(), policy))
        };
        let all = namespaces.into_iter().flat_map(of).collect();
        query.answer(
            all,
            |(_, policy)| policy.name().to_owned(),
            |(namespace, policy)| shown(namespace.name(), policy),
        )
    })
    .await
}

async fn single(
    app: App,
    caller: Caller,
    (vhost, name): (String, String),
    kind: PolicyKind,
) -> Result<Json<Value>, Fault> {
    check(&caller, kind)?;
    work(&app, move |app| {
        let scope = scope(app, &caller, &vhost)?;
        found(scope.namespace().policy(kind, &name).map(|policy| shown(&vhost, &policy)))
    })
    .await
}

async fn put(
    app: App,
    caller: Caller,
    (vhost, name): (String, String),
    kind: PolicyKind,
    body: Object,
) -> Result<StatusCode, Fault> {
    durable(&app, move |app| {
        let scope = scope(app, &caller, &vhost)?;
        let (created, completion) = set(&caller, scope.namespace(), kind, &name, &body)?;
        Ok((put_status(created), completion))
    })
    .await
}

async fn delete(
    app: App,
    caller: Caller,
    (vhost, name): (String, String),
    kind: PolicyKind,
) -> Result<StatusCode, Fault> {
    check(&caller, kind)?;
    durable(&app, move |app| {
        let scope = scope(app, &caller, &vhost)?;
        Ok((StatusCode::NO_CONTENT, scope.namespace().delete_policy(kind, &name)?))
    })
    .await
}

/// The handlers of one kind.
macro_rules! handlers {
    ($module:ident, $kind:expr) => {
        pub(super) mod $module {
            use super::*;

            pub(in super::super) async fn all(
                State(app): State<App>,
                caller: Caller,
                params: Params,
            ) -> Result<Response, Fault> {
                super::listed(app, caller, None, $kind, params).await
            }

            pub(in super::super) async fn of_vhost(
                State(app): State<App>,
                caller: Caller,
                Names(vhost): Names<String>,
                params: Params,
            ) -> Result<Response, Fault> {
                super::listed(app, caller, Some(vhost), $kind, params).await
            }

            pub(in super::super) async fn get(
                State(app): State<App>,
                caller: Caller,
                Names(named): Names<(String, String)>,
            ) -> Result<Json<Value>, Fault> {
                super::single(app, caller, named, $kind).await
            }

            pub(in super::super) async fn put(
                State(app): State<App>,
                caller: Caller,
                Names(named): Names<(String, String)>,
                body: Object,
            ) -> Result<StatusCode, Fault> {
                super::put(app, caller, named, $kind, body).await
            }

            pub(in super::super) async fn delete(
                State(app): State<App>,
                caller: Caller,
                Names(named): Names<(String, String)>,
            ) -> Result<StatusCode, Fault> {
                super::delete(app, caller, named, $kind).await
            }
        }
    };
}

handlers!(ordinary, PolicyKind::Ordinary);
handlers!(operator, PolicyKind::Operator);
