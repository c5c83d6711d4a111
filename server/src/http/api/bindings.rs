//! Bindings to queues and exchanges. The subscriptions of sessions are listed with the sessions.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use inver_access::{Operation, ResourceKind};
use inver_broker::{BindDestination, BindingInfo, Exchange, Namespace, Order, Queue, may_bind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue};
use utoipa::{IntoParams, ToSchema};

use super::values::{arguments, arguments_to_json};
use super::{blocking, deleted, durable, queues};
use crate::http::App;
use crate::http::auth::Scope;
use crate::http::list::{Column, ListQuery, Listing, Page, Snapshot, SortKey, Source};
use crate::http::problem::Problem;
use crate::http::request::{Body, Scoped};

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

    /// The exchanges to which bindings are listed.
    fn exchanges(&self, namespace: &Namespace) -> Vec<Arc<Exchange>> {
        match &self.destination {
            _ if !self.wants(DestinationKind::Exchange) => Vec::new(),
            Some(name) => namespace.exchange(name).into_iter().collect(),
            None => namespace.exchanges_unordered(),
        }
    }

    /// Queues to which bindings are listed, behind the one of a name; none if there are no more.
    fn queues(&self, namespace: &Namespace, after: Option<&str>) -> Vec<Arc<Queue>> {
        match &self.destination {
            _ if !self.wants(DestinationKind::Queue) => Vec::new(),
            Some(name) if after.is_none() => namespace.queue(name).into_iter().collect(),
            Some(_) => Vec::new(),
            None => namespace.queues_following(Order::Ascending, after, 0, PART),
        }
    }
}

/// What a binding leads to.
#[derive(Clone)]
enum Destination {
    Queue(Arc<Queue>),
    Exchange(Arc<Exchange>),
}

impl Destination {
    fn name(&self) -> &str {
        match self {
            Destination::Queue(queue) => queue.name(),
            Destination::Exchange(exchange) => exchange.name(),
        }
    }

    fn kind(&self) -> DestinationKind {
        match self {
            Destination::Queue(_) => DestinationKind::Queue,
            Destination::Exchange(_) => DestinationKind::Exchange,
        }
    }

    fn bindings(&self, namespace: &Namespace, skip: usize, max: usize) -> (Vec<BindingInfo>, bool) {
        match self {
            Destination::Queue(queue) => namespace.bindings_to_queue(queue, skip, max),
            Destination::Exchange(exchange) => namespace.bindings_to_exchange(exchange, skip, max),
        }
    }
}

/// A binding before it is shown.
#[derive(Clone)]
struct Found {
    to: Destination,
    info: BindingInfo,
}

impl Found {
    fn show(&self) -> Binding {
        Binding {
            source: self.info.source.name().to_owned(),
            destination_kind: self.to.kind(),
            destination: self.to.name().to_owned(),
            key: String::from_utf8_lossy(&self.info.key).into_owned(),
            durable: self.info.durable,
            arguments: arguments_to_json(&self.info.arguments),
        }
    }
}

/// The bindings of a namespace.
struct Bindings {
    namespace: Namespace,
    filter: BindingFilter,
}

/// How far the bindings are read: to the exchanges first, then to the queues in the order of their names.
#[derive(Default)]
struct At {
    exchanges: Snapshot<Arc<Exchange>>,
    are_exchanges_read: bool,
    queues: VecDeque<Arc<Queue>>,
    last_queue: Option<String>,
    /// Bindings to this one are read, so many up to now.
    destination: Option<(Destination, usize)>,
}

impl At {
    fn next(&mut self, of: &Bindings) -> Option<Destination> {
        let mut next = None;
        if !self.are_exchanges_read {
            let take = || of.filter.exchanges(&of.namespace);
            self.are_exchanges_read = !self.exchanges.read(take, 1, |exchange| next = Some(exchange));
        }
        if let Some(exchange) = next {
            return Some(Destination::Exchange(exchange));
        }
        if self.queues.is_empty() {
            self.queues = of.filter.queues(&of.namespace, self.last_queue.as_deref()).into();
        }
        let queue = self.queues.pop_front()?;
        if self.queues.is_empty() {
            self.last_queue = Some(queue.name().to_owned());
        }
        Some(Destination::Queue(queue))
    }
}

impl Source for Bindings {
    type Object = Found;
    type Place = At;

    fn read(&self, _order: Order, at: &mut At, max: usize, found: &mut Vec<Found>) -> bool {
        let mut left = max;
        while left > 0 {
            let current = at.destination.take().or_else(|| Some((at.next(self)?, 0)));
            let Some((to, read)) = current else { return false };
            let (bindings, has_more) = to.bindings(&self.namespace, read, left);
            // One without bindings takes its time too.
            let visited = if has_more { left } else { bindings.len().max(1) };
            found.extend(bindings.into_iter().map(|info| Found { to: to.clone(), info }));
            at.destination = has_more.then_some((to, read + visited));
            left = left.saturating_sub(visited);
        }
        true
    }

    fn page(&self, _order: Order, _skip: usize, _max: usize) -> Option<(Vec<Found>, u64)> {
        None
    }

    fn name<'a>(&self, binding: &'a Found) -> &'a str {
        binding.to.name()
    }

    fn columns(&self) -> &'static [Column<Found>] {
        &[
            ("name", Found::place),
            ("source", |it| it.info.source.name().into()),
            ("destination", Found::place),
            ("key", |it| (&*String::from_utf8_lossy(&it.info.key)).into()),
        ]
    }

    fn lists(&self, binding: &Found) -> bool {
        self.filter.source.as_deref().is_none_or(|source| source == binding.info.source.name())
    }

    fn id(&self) -> Option<String> {
        Some(format!("bindings {:?} {}", self.filter, self.namespace.name()))
    }
}

impl Found {
    /// By destination, then by source and key.
    fn place(&self) -> SortKey {
        let (to, from) = (self.to.name(), self.info.source.name());
        (&*format!("{to}\0{from}\0{}", String::from_utf8_lossy(&self.info.key))).into()
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
        let bindings = Bindings { namespace: scope.namespace().clone(), filter };
        query.page(app, bindings, Found::show)
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
