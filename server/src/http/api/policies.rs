//! Policies and operator policies.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use inver_broker::{AppliesTo, Policy, PolicyKind, PolicySpec};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue};
use utoipa::{IntoParams, ToSchema};

use super::values::{arguments, arguments_to_json};
use super::{answer, blocking, deleted, durable, put_status};
use crate::http::App;
use crate::http::auth::{Caller, Scope};
use crate::http::list::{ListQuery, Listing, Page, Whole};
use crate::http::problem::Problem;
use crate::http::request::{Body, Name, Scoped};

/// A policy.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Policy)]
pub(in crate::http) struct Shown {
    name: String,
    /// A regular expression over names, not anchored.
    pattern: String,
    applies_to: Objects,
    /// Of several that match an object, the one with the highest applies.
    priority: i64,
    #[schema(value_type = Object)]
    definition: Map<String, JsonValue>,
    /// Settings of the definition that are accepted and change nothing.
    without_effect: Vec<String>,
}

/// The objects that a policy can apply to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PolicyAppliesTo)]
pub(in crate::http) enum Objects {
    /// Queues and exchanges.
    #[default]
    All,
    Exchanges,
    Queues,
    ClassicQueues,
    QuorumQueues,
    Streams,
}

impl From<AppliesTo> for Objects {
    fn from(to: AppliesTo) -> Objects {
        match to {
            AppliesTo::All => Objects::All,
            AppliesTo::Exchanges => Objects::Exchanges,
            AppliesTo::Queues => Objects::Queues,
            AppliesTo::ClassicQueues => Objects::ClassicQueues,
            AppliesTo::QuorumQueues => Objects::QuorumQueues,
            AppliesTo::Streams => Objects::Streams,
        }
    }
}

impl From<Objects> for AppliesTo {
    fn from(to: Objects) -> AppliesTo {
        match to {
            Objects::All => AppliesTo::All,
            Objects::Exchanges => AppliesTo::Exchanges,
            Objects::Queues => AppliesTo::Queues,
            Objects::ClassicQueues => AppliesTo::ClassicQueues,
            Objects::QuorumQueues => AppliesTo::QuorumQueues,
            Objects::Streams => AppliesTo::Streams,
        }
    }
}

impl Shown {
    fn of(policy: &Policy) -> Shown {
        let spec = policy.spec();
        Shown {
            name: policy.name().to_owned(),
            pattern: spec.pattern.clone(),
            applies_to: spec.applies_to.into(),
            priority: spec.priority,
            definition: arguments_to_json(&spec.definition),
            without_effect: policy.without_effect().into_iter().map(str::to_owned).collect(),
        }
    }
}

/// Which kind of policies.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Kind {
    /// Operator policies, which bound what arguments and policies ask for.
    operator: bool,
}

impl Kind {
    fn of(&self) -> PolicyKind {
        if self.operator { PolicyKind::Operator } else { PolicyKind::Ordinary }
    }
}

/// A policy to set.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewPolicy)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct New {
    /// A regular expression over names, not anchored.
    pattern: String,
    #[serde(default)]
    applies_to: Objects,
    /// Of several that match an object, the one with the highest applies.
    #[serde(default)]
    priority: i64,
    /// Settings, such as `max-length`.
    #[schema(value_type = Object)]
    definition: Map<String, JsonValue>,
}

/// Lists the policies.
#[utoipa::path(get, path = "/policies", tag = "policies", params(Scope, ListQuery, Kind),
    responses((status = 200, body = Page<Shown>)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    Listing(scope, query, kind): Listing<Kind>,
) -> Result<Page<Shown>, Problem> {
    blocking(&app, move |app| {
        let policies = scope.namespace().policies(kind.of());
        let policies = Whole::new(policies, |policy: &Arc<Policy>| policy.name(), &[]);
        query.page(app, policies, |policy| Shown::of(policy))
    })
    .await
}

fn unknown(kind: PolicyKind, name: &str) -> Problem {
    Problem::not_found(format!("there is no {} `{name}`", kind.noun()))
}

/// A policy.
#[utoipa::path(get, path = "/policies/{name}", tag = "policies",
    params(("name" = String, Path, description = "The policy's name"), Scope, Kind),
    responses((status = 200, body = Shown)))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    Name(name): Name,
    Scoped(scope, kind): Scoped<Kind>,
) -> Result<Json<Shown>, Problem> {
    answer(&app, move |_| {
        let policy = scope.namespace().policy(kind.of(), &name);
        policy.map(|policy| Shown::of(&policy)).ok_or_else(|| unknown(kind.of(), &name))
    })
    .await
}

/// Sets a policy, or replaces the one of this name. It holds at once for what exists: 201 if it is new, else 200.
#[utoipa::path(put, path = "/policies/{name}", tag = "policies", request_body = New,
    params(("name" = String, Path, description = "The policy's name"), Scope, Kind),
    responses((status = 200, body = Shown), (status = 201, body = Shown)))]
pub(in crate::http) async fn put(
    State(app): State<App>,
    caller: Caller,
    Name(name): Name,
    Scoped(scope, kind): Scoped<Kind>,
    Body(new): Body<New>,
) -> Result<(StatusCode, Json<Shown>), Problem> {
    caller.check_sets_policies(kind.of())?;
    durable(&app, move |_| {
        let spec = PolicySpec {
            pattern: new.pattern,
            applies_to: new.applies_to.into(),
            priority: new.priority,
            definition: arguments(new.definition)?,
        };
        let (created, completion) = scope.namespace().set_policy(kind.of(), &name, spec)?;
        let policy = scope.namespace().policy(kind.of(), &name);
        let shown = policy.map(|policy| Shown::of(&policy)).ok_or_else(|| unknown(kind.of(), &name))?;
        Ok(((put_status(created), Json(shown)), completion))
    })
    .await
}

/// Deletes a policy. What it set no longer holds.
#[utoipa::path(delete, path = "/policies/{name}", tag = "policies",
    params(("name" = String, Path, description = "The policy's name"), Scope, Kind),
    responses((status = 204)))]
pub(in crate::http) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Name(name): Name,
    Scoped(scope, kind): Scoped<Kind>,
) -> Result<StatusCode, Problem> {
    caller.check_sets_policies(kind.of())?;
    deleted(&app, move |_| Ok(scope.namespace().delete_policy(kind.of(), &name)?)).await
}
