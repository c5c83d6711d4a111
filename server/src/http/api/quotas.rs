//! Quotas of users, client ids, namespaces and addresses.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use inver_access::{QuotaEntity, QuotaLimits, QuotaText};
use inver_broker::{AuditKind, Source};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::permissions::source;
use super::{blocking, deleted, durable};
use crate::http::App;
use crate::http::auth::Caller;
use crate::http::list::{ListQuery, Page, Whole};
use crate::http::problem::Problem;
use crate::http::request::{Body, Query};

/// A quota. A name `*` stands for everyone of the kind without a quota of his own, each with a share of his own.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Quota)]
pub(in crate::http) struct Shown {
    /// What it is for, in words.
    name: String,
    user: Option<String>,
    client_id: Option<String>,
    namespace: Option<String>,
    ip: Option<String>,
    bytes_in_per_second: Option<u64>,
    bytes_out_per_second: Option<u64>,
    messages_in_per_second: Option<u64>,
    messages_out_per_second: Option<u64>,
    /// Time of the broker's threads, percent of one thread.
    request_time_percent: Option<f64>,
    connections_per_second: Option<u64>,
    /// Partitions created and deleted over Kafka.
    mutations_per_second: Option<f64>,
    /// `stored`, or `configuration`: read-only.
    source: String,
}

impl Shown {
    fn of(entity: &QuotaEntity, limits: &QuotaLimits, of: Source) -> Shown {
        let text = QuotaText::of(entity, limits);
        Shown {
            name: entity.to_string(),
            user: text.user,
            client_id: text.client_id,
            namespace: text.namespace,
            ip: text.ip,
            bytes_in_per_second: text.bytes_in_per_second,
            bytes_out_per_second: text.bytes_out_per_second,
            messages_in_per_second: text.messages_in_per_second,
            messages_out_per_second: text.messages_out_per_second,
            request_time_percent: text.request_time_percent,
            connections_per_second: text.connections_per_second,
            mutations_per_second: text.mutations_per_second,
            source: source(of).to_owned(),
        }
    }
}

/// What a quota is for: a user, a client id, or both; or a namespace; or an address. `*` is the default for all others.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Entity {
    #[param(nullable = false, max_length = 1024)]
    user: Option<String>,
    #[param(nullable = false, max_length = 1024)]
    client_id: Option<String>,
    #[param(nullable = false, max_length = 1024)]
    namespace: Option<String>,
    #[param(nullable = false, max_length = 64)]
    ip: Option<String>,
}

impl Entity {
    fn entity(self) -> Result<QuotaEntity, Problem> {
        let Entity { user, client_id, namespace, ip } = self;
        let text = QuotaText { user, client_id, namespace, ip, ..QuotaText::default() };
        text.entity().map_err(|error| Problem::bad_request(error.to_string()))
    }
}

/// What to set of a quota; what is left out stays as it is, and 0 takes a limit away.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = QuotaChange)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Change {
    #[schema(nullable = false)]
    bytes_in_per_second: Option<u64>,
    #[schema(nullable = false)]
    bytes_out_per_second: Option<u64>,
    #[schema(nullable = false)]
    messages_in_per_second: Option<u64>,
    #[schema(nullable = false)]
    messages_out_per_second: Option<u64>,
    /// Time of the broker's threads, percent of one thread.
    #[schema(nullable = false)]
    request_time_percent: Option<f64>,
    #[schema(nullable = false)]
    connections_per_second: Option<u64>,
    /// Partitions created and deleted over Kafka.
    #[schema(nullable = false)]
    mutations_per_second: Option<f64>,
}

impl Change {
    fn apply(&self, limits: &mut QuotaLimits) {
        let whole =
            |wanted: Option<u64>, now| wanted.map_or(now, |limit| Some(limit).filter(|limit| *limit > 0));
        limits.bytes_in = whole(self.bytes_in_per_second, limits.bytes_in);
        limits.bytes_out = whole(self.bytes_out_per_second, limits.bytes_out);
        limits.messages_in = whole(self.messages_in_per_second, limits.messages_in);
        limits.messages_out = whole(self.messages_out_per_second, limits.messages_out);
        limits.connections = whole(self.connections_per_second, limits.connections);
        let fraction =
            |wanted: Option<f64>, now| wanted.map_or(now, |limit| Some(limit).filter(|limit| *limit != 0.0));
        limits.request_time_percent = fraction(self.request_time_percent, limits.request_time_percent);
        limits.mutations = fraction(self.mutations_per_second, limits.mutations);
    }
}

/// Lists the quotas.
#[utoipa::path(get, path = "/quotas", tag = "access", params(ListQuery),
    responses((status = 200, body = Page<Shown>)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: ListQuery,
) -> Result<Page<Shown>, Problem> {
    caller.check_sees_all()?;
    blocking(&app, move |app| {
        let quotas = app.broker.quotas().list();
        let shown =
            quotas.iter().map(|(entity, limits, source)| Shown::of(entity, limits, *source)).collect();
        query.page(app, Whole::new(shown, |quota: &Shown| &quota.name, &[]), Clone::clone)
    })
    .await
}

/// Sets limits of a stored quota, which is created if there is none. One without limits is deleted.
#[utoipa::path(put, path = "/quotas", tag = "access", request_body = Change, params(Entity),
    responses((status = 200, body = Shown)))]
pub(in crate::http) async fn put(
    State(app): State<App>,
    caller: Caller,
    Query(entity): Query<Entity>,
    Body(change): Body<Change>,
) -> Result<Json<Shown>, Problem> {
    caller.check_administers()?;
    durable(&app, move |app| {
        let entity = entity.entity()?;
        let mut after = QuotaLimits::default();
        let (_, completion) = app.broker.quotas().update(&entity, |limits| {
            change.apply(limits);
            after = *limits;
        })?;
        caller.did(AuditKind::Access, "alter", "quota", &entity.to_string());
        Ok((Json(Shown::of(&entity, &after, Source::Stored)), completion))
    })
    .await
}

/// Deletes a stored quota.
#[utoipa::path(delete, path = "/quotas", tag = "access", params(Entity), responses((status = 204)))]
pub(in crate::http) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Query(entity): Query<Entity>,
) -> Result<StatusCode, Problem> {
    caller.check_administers()?;
    deleted(&app, move |app| {
        let entity = entity.entity()?;
        let none = QuotaLimits::default();
        let (before, completion) = app.broker.quotas().update(&entity, |limits| *limits = none)?;
        if before.is_empty() {
            return Err(Problem::not_found(format!("there is no quota of {entity}")));
        }
        caller.did(AuditKind::Access, "delete", "quota", &entity.to_string());
        Ok(completion)
    })
    .await
}
