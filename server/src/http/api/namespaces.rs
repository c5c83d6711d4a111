//! Namespaces.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use inver_broker::{
    AuditKind, Completion, Facts, Namespace, NamespaceLimits, NamespaceSpec, Value as Argument,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::overview::NamespaceCounts;
use super::{answer, blocking, committed, durable, put_status};
use crate::http::App;
use crate::http::auth::Caller;
use crate::http::auth::Scope;
use crate::http::list::{Column, ListQuery, Page, Whole};
use crate::http::problem::Problem;
use crate::http::request::{Body, Name};

/// A namespace: what it is created as, and what is in it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Namespace)]
pub(in crate::http) struct Shown {
    #[serde(flatten)]
    counts: NamespaceCounts,
    description: String,
    tags: Vec<String>,
    /// The type of queues that are declared without one.
    default_queue_type: Option<String>,
    /// Whether it cannot be deleted.
    protected: bool,
    /// Whether messages are copied to the exchange `amq.rabbitmq.trace`; not kept over a restart.
    tracing: bool,
    connections_max: Option<u32>,
    queues_max: Option<u32>,
    topics_max: Option<u32>,
    sessions_max: Option<u32>,
    bytes_max: Option<u64>,
}

impl Shown {
    fn of(app: &App, namespace: &Namespace) -> Shown {
        let NamespaceSpec { description, tags, default_queue_type, limits, is_protected } = namespace.spec();
        let NamespaceLimits { connections_max, queues_max, topics_max, sessions_max, bytes_max } = limits;
        Shown {
            counts: NamespaceCounts::of(app, namespace),
            description,
            tags,
            default_queue_type,
            protected: is_protected,
            tracing: namespace.is_traced(),
            connections_max,
            queues_max,
            topics_max,
            sessions_max,
            bytes_max,
        }
    }
}

/// What to set of a namespace; what is left out stays as it is. Limits: 0 for none but those that hold everywhere.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Change {
    #[schema(nullable = false)]
    pub(in crate::http) description: Option<String>,
    #[schema(nullable = false)]
    pub(in crate::http) tags: Option<Vec<String>>,
    /// The type of queues that are declared without one; empty: none.
    #[schema(nullable = false)]
    pub(in crate::http) default_queue_type: Option<String>,
    /// Whether it cannot be deleted.
    #[schema(nullable = false)]
    pub(in crate::http) protected: Option<bool>,
    /// Whether messages are copied to the exchange `amq.rabbitmq.trace`, until the broker ends.
    #[schema(nullable = false)]
    pub(in crate::http) tracing: Option<bool>,
    #[schema(nullable = false)]
    pub(in crate::http) connections_max: Option<u32>,
    #[schema(nullable = false)]
    pub(in crate::http) queues_max: Option<u32>,
    #[schema(nullable = false)]
    pub(in crate::http) topics_max: Option<u32>,
    #[schema(nullable = false)]
    pub(in crate::http) sessions_max: Option<u32>,
    #[schema(nullable = false)]
    pub(in crate::http) bytes_max: Option<u64>,
}

impl Change {
    fn apply(self, spec: &mut NamespaceSpec) {
        fn limit<T: Default + PartialOrd>(wanted: Option<T>, now: &mut Option<T>) {
            if let Some(max) = wanted {
                *now = Some(max).filter(|max| *max > T::default());
            }
        }
        if let Some(description) = self.description {
            spec.description = description;
        }
        if let Some(tags) = self.tags {
            spec.tags = tags;
        }
        if let Some(kind) = self.default_queue_type {
            spec.default_queue_type = Some(kind).filter(|kind| !kind.is_empty());
        }
        spec.is_protected = self.protected.unwrap_or(spec.is_protected);
        limit(self.connections_max, &mut spec.limits.connections_max);
        limit(self.queues_max, &mut spec.limits.queues_max);
        limit(self.topics_max, &mut spec.limits.topics_max);
        limit(self.sessions_max, &mut spec.limits.sessions_max);
        limit(self.bytes_max, &mut spec.limits.bytes_max);
    }
}

/// Lists the namespaces.
#[utoipa::path(get, path = "/namespaces", tag = "namespaces", params(ListQuery),
    responses((status = 200, body = Page<Shown>)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: ListQuery,
) -> Result<Page<Shown>, Problem> {
    blocking(&app, move |app| {
        let all = app.broker.namespaces();
        let all = all.iter().filter(|namespace| caller.sees(&app.broker, namespace.name()));
        let all = all.map(|namespace| Shown::of(app, namespace)).collect();
        let columns: &[Column<Shown>] = &[
            ("topics", |shown| shown.counts.topics.into()),
            ("queues", |shown| shown.counts.queues.into()),
            ("sessions", |shown| shown.counts.sessions.into()),
        ];
        query.page(app, Whole::new(all, |shown: &Shown| &shown.counts.name, columns), Clone::clone)
    })
    .await
}

/// A namespace.
#[utoipa::path(get, path = "/namespaces/{name}", tag = "namespaces",
    params(("name" = String, Path, description = "The namespace's name")),
    responses((status = 200, body = Shown)))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    caller: Caller,
    Name(name): Name,
) -> Result<Json<Shown>, Problem> {
    answer(&app, move |app| {
        let scope = Scope::of(&app.broker, &caller, Some(&name))?;
        Ok(Shown::of(app, scope.namespace()))
    })
    .await
}

/// Creates a namespace, or changes what the body has of one.
#[utoipa::path(put, path = "/namespaces/{name}", tag = "namespaces", request_body = Change,
    params(("name" = String, Path, description = "The namespace's name")),
    responses((status = 200, body = Shown, description = "Changed"),
        (status = 201, body = Shown, description = "Created")))]
pub(in crate::http) async fn put(
    State(app): State<App>,
    caller: Caller,
    Name(name): Name,
    Body(change): Body<Change>,
) -> Result<(StatusCode, Json<Shown>), Problem> {
    caller.check_administers()?;
    durable(&app, move |app| {
        let (created, namespace, completion) = change_namespace(app, &caller, &name, change)?;
        Ok(((put_status(created), Json(Shown::of(app, &namespace))), completion))
    })
    .await
}

/// Creates a namespace, or changes one: whether it is new, the namespace, and when that is durable.
pub(in crate::http) fn change_namespace(
    app: &App,
    caller: &Caller,
    name: &str,
    change: Change,
) -> Result<(bool, Namespace, Completion), Problem> {
    let known = app.broker.namespace(name);
    let created = known.is_none();
    let tracing = change.tracing;
    let (namespace, completion) = match known {
        Some(namespace) => {
            let completion = app.broker.alter_namespace(name, |spec| change.apply(spec))?;
            (namespace, completion)
        }
        None => {
            let mut spec = NamespaceSpec::default();
            change.apply(&mut spec);
            app.broker.create_namespace(name, spec)?
        }
    };
    if let Some(tracing) = tracing {
        namespace.set_traced(tracing);
    }
    caller.did(AuditKind::Topology, if created { "create" } else { "alter" }, "namespace", name);
    caller.tell(if created { "vhost.created" } else { "vhost.updated" }, || {
        let spec = namespace.spec();
        let tags = spec.tags.into_iter().map(Argument::from).collect();
        let kind = spec.default_queue_type.unwrap_or_else(|| "classic".to_owned());
        Facts::new([
            ("name", name.into()),
            ("description", spec.description.into()),
            ("tags", Argument::List(tags)),
            ("default_queue_type", kind.into()),
            ("tracing", namespace.is_traced().into()),
        ])
    });
    Ok((created, namespace, completion))
}

/// Deletes a namespace with everything in it. Its connections are closed.
#[utoipa::path(delete, path = "/namespaces/{name}", tag = "namespaces",
    params(("name" = String, Path, description = "The namespace's name")),
    responses((status = 204)))]
pub(in crate::http) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Name(name): Name,
) -> Result<StatusCode, Problem> {
    caller.check_administers()?;
    delete_namespace(&app, &caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a namespace with everything in it, durably.
pub(in crate::http) async fn delete_namespace(app: &App, caller: &Caller, name: &str) -> Result<(), Problem> {
    let completion: Completion = app.broker.delete_namespace(name).await?;
    caller.did(AuditKind::Deleted, "delete", "namespace", name);
    caller.tell("vhost.deleted", || Facts::new([("name", name.into())]));
    committed(app, completion).await
}
