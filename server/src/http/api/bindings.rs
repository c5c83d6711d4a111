//! Bindings to queues and exchanges. The subscriptions of sessions are listed with the sessions.

use axum::extract::State;
use axum::http::StatusCode;
use inver_access::{Operation, ResourceKind};
use inver_broker::{BindDestination, BindingInfo, Namespace, Order, may_bind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue};
use utoipa::{IntoParams, ToSchema};

use super::values::{arguments, arguments_to_json};
use super::{blocking, deleted, durable, queues};
use crate::http::App;
use crate::http::auth::Scope;
use crate::http::list::{Column, ListQuery, Listing, Page, Whole};
use crate::http::problem::Problem;
use crate::http::request::{Body, Scoped};

/// Bindings that one list holds.
const LISTED_MAX: usize = 1_000_000;
/// Queues read at a time.
const PART: usize = 4096;
/// Bytes of a binding's key.
const KEY_BYTES_MAX: usize = 65_535;

/// A binding.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct Binding {
    /// The exchange that it leads from.
    source: String,
    destination_kind: DestinationKind,
    destination: String,
    /// The binding's key; for the hub, a filter with `.`, `*` and `#`, or, of a shared subscription, with `/`, `+` and `#`.
    key: String,
    durable: bool,
    #[schema(value_type = Object)]
    arguments: Map<String, JsonValue>,
}

/// What a binding leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum DestinationKind {
    #[default]
    Queue,
    Exchange,
}

/// Which bindings are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct BindingFilter {
    /// Only bindings from this exchange.
    #[param(nullable = false, max_length = 255)]
    source: Option<String>,
    /// Only bindings to the queue or exchange of this name.
    #[param(nullable = false, max_length = 1024)]
    destination: Option<String>,
    /// Only bindings to queues, or to exchanges.
    #[param(inline, nullable = false)]
    destination_kind: Option<DestinationKind>,
}

impl BindingFilter {
    fn wants(&self, kind: DestinationKind) -> bool {
        self.destination_kind.is_none_or(|wanted| wanted == kind)
    }

    fn find(&self, namespace: &Namespace) -> Result<Vec<Binding>, Problem> {
        let mut found = Vec::new();
        if self.wants(DestinationKind::Exchange) {
            let named = |name: &String| namespace.exchange(name).into_iter().collect();
            for exchange in self.destination.as_ref().map_or_else(|| namespace.exchanges(), named) {
                let bindings = namespace.bindings_to_exchange(&exchange, LISTED_MAX);
                self.add(bindings, DestinationKind::Exchange, exchange.name(), &mut found)?;
            }
        }
        if !self.wants(DestinationKind::Queue) {
            return Ok(found);
        }
        if let Some(name) = &self.destination {
            if let Some(queue) = namespace.queue(name) {
                let bindings = namespace.bindings_to_queue(&queue, LISTED_MAX);
                self.add(bindings, DestinationKind::Queue, name, &mut found)?;
            }
            return Ok(found);
        }
        let mut after: Option<String> = None;
        loop {
            let queues = namespace.queues_following(Order::Ascending, after.as_deref(), 0, PART);
            for queue in &queues {
                let bindings = namespace.bindings_to_queue(queue, LISTED_MAX);
                self.add(bindings, DestinationKind::Queue, queue.name(), &mut found)?;
            }
            match queues.last() {
                Some(last) if queues.len() == PART => after = Some(last.name().to_owned()),
                _ => return Ok(found),
            }
        }
    }

    fn add(
        &self,
        bindings: Vec<BindingInfo>,
        destination_kind: DestinationKind,
        destination: &str,
        found: &mut Vec<Binding>,
    ) -> Result<(), Problem> {
        let wanted =
            |binding: &BindingInfo| self.source.as_ref().is_none_or(|source| source == binding.source.name());
        for binding in bindings.into_iter().filter(wanted) {
            if found.len() >= LISTED_MAX {
                return Err(Problem::bad_request(format!(
                    "more than {LISTED_MAX} bindings: give `destination` or `source`"
                )));
            }
            found.push(Binding {
                source: binding.source.name().to_owned(),
                destination_kind,
                destination: destination.to_owned(),
                key: String::from_utf8_lossy(&binding.key).into_owned(),
                durable: binding.durable,
                arguments: arguments_to_json(&binding.arguments),
            });
        }
        Ok(())
    }
}

/// Lists the bindings to queues and exchanges, ordered by destination. `filter` is about the destination.
#[utoipa::path(get, path = "/bindings", tag = "bindings", params(Scope, ListQuery, BindingFilter),
    responses((status = 200, body = Page<Binding>)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    Listing(scope, query, filter): Listing<BindingFilter>,
) -> Result<Page<Binding>, Problem> {
    blocking(&app, move |app| {
        let mut found = filter.find(scope.namespace())?;
        found.sort_by(|a, b| (&a.source, &a.key).cmp(&(&b.source, &b.key)));
        let columns: &[Column<Binding>] = &[
            ("source", |binding| binding.source.as_str().into()),
            ("destination", |binding| binding.destination.as_str().into()),
            ("key", |binding| binding.key.as_str().into()),
        ];
        query.page(app, Whole::new(found, |binding| &binding.destination, columns), Clone::clone)
    })
    .await
}

/// A binding to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewBinding {
    /// The exchange that it leads from.
    source: String,
    #[serde(default)]
    destination_kind: DestinationKind,
    destination: String,
    #[serde(default)]
    #[schema(max_length = 65_535)]
    key: String,
    #[serde(default)]
    #[schema(value_type = Object)]
    arguments: Map<String, JsonValue>,
}

impl NewBinding {
    /// A binding reads from its source and writes to its destination.
    fn check(&self, scope: &Scope) -> Result<(), Problem> {
        scope.check(ResourceKind::Exchange, &self.source, Operation::Read)?;
        let kind = match self.destination_kind {
            DestinationKind::Queue => ResourceKind::Topic,
            DestinationKind::Exchange => ResourceKind::Exchange,
        };
        scope.check(kind, &self.destination, Operation::Write)?;
        if kind == ResourceKind::Topic && scope.namespace().queue(&self.destination).is_some() {
            queues::find_usable(scope.namespace(), &self.destination)?;
        }
        let source = scope.namespace().exchange(&self.source);
        if source.is_none_or(|source| may_bind(scope.permissions(), &source, &self.key)) {
            return Ok(());
        }
        Err(Problem::forbidden(format!(
            "no permission for read on `{}` in exchange `{}`",
            self.key, self.source
        )))
    }

    fn destination(&self) -> BindDestination<'_> {
        match self.destination_kind {
            DestinationKind::Queue => BindDestination::Queue(&self.destination),
            DestinationKind::Exchange => BindDestination::Exchange(&self.destination),
        }
    }
}

/// Creates a binding; one that is there stays.
#[utoipa::path(post, path = "/bindings", tag = "bindings", params(Scope), request_body = NewBinding,
    responses((status = 201, description = "It is there")))]
pub(in crate::http) async fn create(
    State(app): State<App>,
    scope: Scope,
    Body(new): Body<NewBinding>,
) -> Result<StatusCode, Problem> {
    durable(&app, move |_| {
        if new.key.len() > KEY_BYTES_MAX {
            return Err(Problem::bad_request(format!("a key has at most {KEY_BYTES_MAX} bytes")));
        }
        new.check(&scope)?;
        let arguments = arguments(new.arguments.clone())?;
        let (key, client) = (new.key.as_bytes(), Some(scope.permissions()));
        Ok(((), scope.namespace().bind_as(client, &new.source, new.destination(), key, &arguments)?))
    })
    .await?;
    Ok(StatusCode::CREATED)
}

/// The binding to delete.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct OldBinding {
    /// The exchange that it leads from.
    #[param(max_length = 255)]
    source: String,
    /// What it leads to.
    #[serde(default)]
    #[param(inline)]
    destination_kind: DestinationKind,
    #[param(max_length = 1024)]
    destination: String,
    #[serde(default)]
    #[param(max_length = 1024)]
    key: String,
    /// Its arguments, as a JSON object.
    #[serde(default)]
    #[param(max_length = 1024)]
    arguments: String,
}

/// Deletes a binding; one that is not there is no error.
#[utoipa::path(delete, path = "/bindings", tag = "bindings", params(Scope, OldBinding),
    responses((status = 204)))]
pub(in crate::http) async fn delete(
    State(app): State<App>,
    Scoped(scope, old): Scoped<OldBinding>,
) -> Result<StatusCode, Problem> {
    deleted(&app, move |_| {
        let given = match old.arguments.as_str() {
            "" => Map::new(),
            text => serde_json::from_str(text)
                .map_err(|error| Problem::bad_request(format!("arguments: {error}")))?,
        };
        let (namespace, arguments) = (scope.namespace().clone(), arguments(given)?);
        let OldBinding { source, destination_kind, destination, key, .. } = old;
        let old = NewBinding { source, destination_kind, destination, key, arguments: Map::new() };
        old.check(&scope)?;
        Ok(namespace.unbind(&old.source, old.destination(), old.key.as_bytes(), &arguments)?)
    })
    .await
}
