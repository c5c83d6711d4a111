//! Exchanges.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use inver_access::{Operation, ResourceKind};
use inver_broker::{DELAYED_TYPE, Exchange, ExchangeKind, ExchangeSpec, Namespace, Order};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue};
use utoipa::{IntoParams, ToSchema};

use super::values::{arguments, arguments_to_json};
use super::{answer, blocking, deleted, durable, put_status};
use crate::http::App;
use crate::http::auth::Scope;
use crate::http::list::{Column, ListQuery, Listing, Page, Snapshot, Source};
use crate::http::problem::Problem;
use crate::http::request::{Body, Name, Scoped};

/// An exchange.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ExchangeSummary {
    name: String,
    kind: Kind,
    durable: bool,
    /// It is deleted with its last binding.
    auto_delete: bool,
    /// It refuses publishes of clients.
    internal: bool,
    /// Bindings from it, subscriptions of sessions included.
    bindings: usize,
    #[schema(value_type = Object)]
    arguments: Map<String, JsonValue>,
}

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ExchangeKind)]
pub(in crate::http) enum Kind {
    /// To bindings whose key equals the routing key.
    Direct,
    /// To every binding.
    Fanout,
    /// To bindings whose key is a filter that matches the routing key.
    Topic,
    /// To bindings whose arguments match the message's headers.
    Headers,
    /// To one binding by a hash; a binding's key is its weight.
    #[serde(rename = "x-consistent-hash")]
    ConsistentHash,
    /// To one binding by a hash of the routing key modulo their number.
    #[serde(rename = "x-modulus-hash")]
    ModulusHash,
    /// To one binding by chance.
    #[serde(rename = "x-random")]
    Random,
    /// The same.
    #[serde(rename = "x-local-random")]
    LocalRandom,
    /// To every binding; a queue that is bound gets the last messages.
    #[serde(rename = "x-recent-history")]
    RecentHistory,
    /// To every binding, but for messages with a header whose value it has seen.
    #[serde(rename = "x-message-deduplication")]
    Deduplicating,
}

impl From<ExchangeKind> for Kind {
    fn from(kind: ExchangeKind) -> Kind {
        match kind {
            ExchangeKind::Direct => Kind::Direct,
            ExchangeKind::Fanout => Kind::Fanout,
            ExchangeKind::Topic => Kind::Topic,
            ExchangeKind::Headers => Kind::Headers,
            ExchangeKind::ConsistentHash => Kind::ConsistentHash,
            ExchangeKind::ModulusHash => Kind::ModulusHash,
            ExchangeKind::Random => Kind::Random,
            ExchangeKind::LocalRandom => Kind::LocalRandom,
            ExchangeKind::RecentHistory => Kind::RecentHistory,
            ExchangeKind::Deduplicating => Kind::Deduplicating,
        }
    }
}

impl From<Kind> for ExchangeKind {
    fn from(kind: Kind) -> ExchangeKind {
        match kind {
            Kind::Direct => ExchangeKind::Direct,
            Kind::Fanout => ExchangeKind::Fanout,
            Kind::Topic => ExchangeKind::Topic,
            Kind::Headers => ExchangeKind::Headers,
            Kind::ConsistentHash => ExchangeKind::ConsistentHash,
            Kind::ModulusHash => ExchangeKind::ModulusHash,
            Kind::Random => ExchangeKind::Random,
            Kind::LocalRandom => ExchangeKind::LocalRandom,
            Kind::RecentHistory => ExchangeKind::RecentHistory,
            Kind::Deduplicating => ExchangeKind::Deduplicating,
        }
    }
}

impl ExchangeSummary {
    fn of(exchange: &Exchange) -> ExchangeSummary {
        let spec = exchange.spec();
        ExchangeSummary {
            name: exchange.name().to_owned(),
            kind: spec.kind.into(),
            durable: spec.durable,
            auto_delete: spec.auto_delete,
            internal: spec.internal,
            bindings: exchange.binding_count(),
            arguments: arguments_to_json(&spec.arguments),
        }
    }
}

/// The exchanges of a namespace.
struct Exchanges(Namespace);

impl Source for Exchanges {
    type Object = Arc<Exchange>;
    type Place = Snapshot<Arc<Exchange>>;

    fn read(
        &self,
        _order: Order,
        place: &mut Snapshot<Arc<Exchange>>,
        max: usize,
        found: &mut Vec<Arc<Exchange>>,
    ) -> bool {
        place.read(|| self.0.exchanges_unordered(), max, |exchange| found.push(exchange))
    }

    fn page(&self, _order: Order, _skip: usize, _max: usize) -> Option<(Vec<Arc<Exchange>>, u64)> {
        None
    }

    fn name<'a>(&self, exchange: &'a Arc<Exchange>) -> &'a str {
        exchange.name()
    }

    fn columns(&self) -> &'static [Column<Arc<Exchange>>] {
        &[
            ("name", |exchange| exchange.name().into()),
            ("kind", |exchange| exchange.spec().kind.as_str().into()),
            ("bindings", |exchange| exchange.binding_count().into()),
        ]
    }

    fn id(&self) -> Option<String> {
        Some(format!("exchanges {}", self.0.name()))
    }
}

/// Lists the exchanges. The default exchange, whose routing keys are names of queues, is not one of them.
#[utoipa::path(get, path = "/exchanges", tag = "exchanges", params(Scope, ListQuery),
    responses((status = 200, body = Page<ExchangeSummary>)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    Listing(scope, query, _): Listing,
) -> Result<Page<ExchangeSummary>, Problem> {
    blocking(&app, move |app| {
        let exchanges = Exchanges(scope.namespace().clone());
        query.page(app, exchanges, |exchange| ExchangeSummary::of(exchange))
    })
    .await
}

/// The exchange of this name, or the problem that there is none.
pub(super) fn find(namespace: &Namespace, name: &str) -> Result<Arc<Exchange>, Problem> {
    namespace.exchange(name).ok_or_else(|| Problem::not_found(format!("there is no exchange `{name}`")))
}

/// An exchange.
#[utoipa::path(get, path = "/exchanges/{name}", tag = "exchanges",
    params(("name" = String, Path, description = "The exchange's name"), Scope),
    responses((status = 200, body = ExchangeSummary)))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    Name(name): Name,
    scope: Scope,
) -> Result<Json<ExchangeSummary>, Problem> {
    answer(&app, move |_| Ok(ExchangeSummary::of(&*find(scope.namespace(), &name)?))).await
}

/// An exchange to declare.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewExchange {
    kind: Kind,
    /// It survives a restart.
    #[serde(default = "yes")]
    #[schema(default = true)]
    durable: bool,
    /// It is deleted with its last binding.
    #[serde(default)]
    auto_delete: bool,
    /// It refuses publishes of clients.
    #[serde(default)]
    internal: bool,
    /// Further settings, such as `alternate-exchange`.
    #[serde(default)]
    #[schema(value_type = Object)]
    arguments: Map<String, JsonValue>,
}

fn yes() -> bool {
    true
}

/// Declares an exchange: 201 if it is new, 200 if it is there as declared, 409 if it is there otherwise.
#[utoipa::path(put, path = "/exchanges/{name}", tag = "exchanges", request_body = NewExchange,
    params(("name" = String, Path, description = "The exchange's name"), Scope),
    responses((status = 200, body = ExchangeSummary), (status = 201, body = ExchangeSummary)))]
pub(in crate::http) async fn declare(
    State(app): State<App>,
    Name(name): Name,
    scope: Scope,
    Body(new): Body<NewExchange>,
) -> Result<(StatusCode, Json<ExchangeSummary>), Problem> {
    durable(&app, move |_| {
        scope.check(ResourceKind::Exchange, &name, Operation::Create)?;
        let namespace = scope.namespace().clone();
        let is_reserved = name.starts_with("amq.") && namespace.exchange(&name).is_none();
        if name.is_empty() || name.len() > 255 || is_reserved {
            return Err(Problem::bad_request(
                "an exchange's name has 1 to 255 bytes and does not begin with `amq.`",
            ));
        }
        let arguments = arguments(new.arguments)?;
        if let Some(alternate) = arguments.get("alternate-exchange") {
            let alternate = alternate.as_str();
            let alternate = alternate.ok_or_else(|| Problem::bad_request("alternate-exchange is a text"))?;
            scope.check(ResourceKind::Exchange, &name, Operation::Read)?;
            scope.check_exchange(alternate, Operation::Write)?;
        }
        let kind: ExchangeKind = new.kind.into();
        if arguments.get(DELAYED_TYPE).is_some_and(|delayed| delayed.as_str() != Some(kind.as_str())) {
            return Err(Problem::bad_request(format!(
                "{DELAYED_TYPE} of an exchange that delays is its kind"
            )));
        }
        let spec = ExchangeSpec {
            kind,
            durable: new.durable,
            auto_delete: new.auto_delete,
            internal: new.internal,
            arguments,
        };
        let declared = namespace.declare_exchange(&name, spec.clone())?;
        if !declared.created && *declared.it.spec() != spec {
            return Err(Problem::conflict(format!("exchange `{name}` is declared otherwise")));
        }
        let shown = Json(ExchangeSummary::of(&declared.it));
        Ok(((put_status(declared.created), shown), declared.completion))
    })
    .await
}

/// When an exchange is deleted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct DeleteWhen {
    /// Only if it has no bindings.
    if_unused: bool,
}

/// Deletes an exchange with its bindings. The predeclared exchanges, whose names begin with `amq.`, stay.
#[utoipa::path(delete, path = "/exchanges/{name}", tag = "exchanges",
    params(("name" = String, Path, description = "The exchange's name"), Scope, DeleteWhen),
    responses((status = 204)))]
pub(in crate::http) async fn delete(
    State(app): State<App>,
    Name(name): Name,
    Scoped(scope, when): Scoped<DeleteWhen>,
) -> Result<StatusCode, Problem> {
    deleted(&app, move |_| {
        let namespace = scope.namespace().clone();
        scope.check(ResourceKind::Exchange, &name, Operation::Delete)?;
        find(&namespace, &name)?;
        if name.starts_with("amq.") {
            return Err(Problem::conflict("predeclared exchanges are not deleted"));
        }
        Ok(namespace.delete_exchange(&name, when.if_unused)?)
    })
    .await
}
