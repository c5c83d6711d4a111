//! Queues.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use inver_access::{Operation, ResourceKind};
use inver_broker::{
    Arguments, AuditKind, DeadLetter, LiveConnection, Namespace, Order, Overflow, Policy, Queue, QueueLimits,
    QueueSpec, Value,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue};
use utoipa::{IntoParams, ToSchema};

use super::values::arguments_to_json;
use super::{answer, blocking, durable, put_status};
use crate::http::App;
use crate::http::auth::Scope;
use crate::http::list::{ByName, Column, Indexed, ListQuery, Listing, Page};
use crate::http::problem::Problem;
use crate::http::request::{Body, Name, Scoped};

/// A queue.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct QueueSummary {
    name: String,
    durable: bool,
    auto_delete: bool,
    /// It belongs to one connection.
    exclusive: bool,
    /// Messages stored and deliverable.
    ready: u64,
    /// Messages delivered and not acknowledged.
    unacked: u64,
    consumers: usize,
}

impl QueueSummary {
    fn of(queue: &Queue) -> QueueSummary {
        let (spec, depth) = (queue.spec(), queue.depth());
        QueueSummary {
            name: queue.name().to_string(),
            durable: spec.durable,
            auto_delete: spec.auto_delete,
            exclusive: spec.owner.is_some(),
            ready: depth.ready,
            unacked: depth.unacked,
            consumers: depth.consumers,
        }
    }
}

/// A queue with its arguments and consumers.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct QueueDetail {
    #[serde(flatten)]
    summary: QueueSummary,
    /// One consumer is active at a time.
    single_active: bool,
    /// The arguments that it was declared with.
    #[schema(value_type = Object)]
    arguments: Map<String, JsonValue>,
    /// The policy that applies to it.
    policy: Option<String>,
    /// The operator policy that applies to it.
    operator_policy: Option<String>,
    /// The settings of both together.
    #[schema(value_type = Object)]
    policy_definition: Map<String, JsonValue>,
    members: Vec<Member>,
    /// Bytes of its messages in the log; none if it is in memory.
    bytes: Option<u64>,
    /// The time of its oldest message that is not acknowledged, milliseconds since 1970.
    oldest_ms: Option<i64>,
}

/// A consumer.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Member {
    /// The id of its connection.
    connection: Option<u64>,
    /// Its protocol, where known.
    protocol: Option<String>,
    /// The name that the client gives itself, or its id.
    client: Option<String>,
    address: Option<String>,
    user: Option<String>,
    /// It receives messages now; where one is active at a time, the others wait.
    active: bool,
    /// Messages delivered to it and not acknowledged.
    unacked: u64,
}

impl Member {
    /// A consumer of a connection in the registry.
    pub(super) fn of(app: &App, member: &inver_broker::Member) -> Member {
        let connection = member.connection.and_then(|id| app.broker.connections().get(id));
        let connection = connection.as_deref();
        Member {
            connection: connection.map(LiveConnection::id),
            protocol: connection.map(|connection| connection.protocol().to_owned()),
            client: connection
                .map(|connection| connection.name().to_string())
                .filter(|name| !name.is_empty()),
            address: connection.map(|connection| connection.peer().to_string()),
            user: connection.and_then(|connection| connection.user().map(str::to_owned)),
            active: member.active,
            unacked: member.unacked,
        }
    }
}

/// Consumers shown of one queue or subscription.
pub(super) const MEMBERS_SHOWN_MAX: usize = 1000;

impl QueueDetail {
    fn of(app: &App, queue: &Queue) -> Result<QueueDetail, Problem> {
        let subscription = queue.subscription();
        let members = subscription.members();
        let bytes = queue.topic().and_then(|topic| Some(topic.partition(0)?.stream().bytes()));
        let applied = queue.applied();
        let name = |policy: &Option<Arc<Policy>>| policy.as_ref().map(|policy| policy.name().to_owned());
        Ok(QueueDetail {
            summary: QueueSummary::of(queue),
            single_active: queue.spec().single_active,
            arguments: arguments_to_json(&queue.spec().arguments),
            policy: name(&applied.policy),
            operator_policy: name(&applied.operator),
            policy_definition: arguments_to_json(&applied.definition()),
            members: members.iter().take(MEMBERS_SHOWN_MAX).map(|member| Member::of(app, member)).collect(),
            bytes,
            oldest_ms: subscription.oldest_ms()?,
        })
    }
}

/// The queues of a namespace.
struct Queues(Namespace);

impl Indexed for Queues {
    type Object = Arc<Queue>;

    fn count(&self) -> u64 {
        self.0.queue_count() as u64
    }

    fn following(&self, order: Order, after: Option<&str>, skip: usize, max: usize) -> Vec<Arc<Queue>> {
        self.0.queues_following(order, after, skip, max)
    }

    fn name<'a>(&self, queue: &'a Arc<Queue>) -> &'a str {
        queue.name()
    }

    fn columns(&self) -> &'static [Column<Arc<Queue>>] {
        &[
            ("ready", |queue| queue.counts().ready.into()),
            ("unacked", |queue| queue.counts().unacked.into()),
            ("consumers", |queue| queue.counts().consumers.into()),
        ]
    }

    fn id(&self) -> String {
        format!("queues {}", self.0.name())
    }
}

/// Lists the queues.
#[utoipa::path(get, path = "/queues", tag = "queues", params(Scope, ListQuery),
    responses((status = 200, body = Page<QueueSummary>)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    Listing(scope, query, _): Listing,
) -> Result<Page<QueueSummary>, Problem> {
    blocking(&app, move |app| {
        let queues = Queues(scope.namespace().clone());
        query.page(app, ByName(queues), |queue| QueueSummary::of(queue))
    })
    .await
}

/// The queue of this name, or the problem that there is none.
pub(super) fn find(namespace: &Namespace, name: &str) -> Result<Arc<Queue>, Problem> {
    namespace.queue(name).ok_or_else(|| Problem::not_found(format!("there is no queue `{name}`")))
}

/// The queue of this name, which is not exclusive to a connection.
pub(super) fn find_usable(namespace: &Namespace, name: &str) -> Result<Arc<Queue>, Problem> {
    let queue = find(namespace, name)?;
    match queue.spec().is_usable_by(None) {
        true => Ok(queue),
        false => Err(Problem::conflict(format!("queue `{name}` is exclusive to a connection"))),
    }
}

/// A queue with its arguments and consumers.
#[utoipa::path(get, path = "/queues/{name}", tag = "queues",
    params(("name" = String, Path, description = "The queue's name"), Scope),
    responses((status = 200, body = QueueDetail)))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    Name(name): Name,
    scope: Scope,
) -> Result<Json<QueueDetail>, Problem> {
    answer(&app, move |app| QueueDetail::of(app, &*find(scope.namespace(), &name)?)).await
}

/// A queue to declare.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewQueue {
    /// It survives a restart.
    #[serde(default = "yes")]
    #[schema(default = true)]
    durable: bool,
    /// It is deleted when its last consumer leaves.
    #[serde(default)]
    auto_delete: bool,
    /// One consumer is active at a time.
    #[serde(default)]
    single_active: bool,
    /// Messages expire this long after they were published.
    #[schema(maximum = 4_000_000_000_000_i64, nullable = false)]
    message_ttl_ms: Option<u64>,
    /// The queue is deleted when unused for this long.
    #[schema(minimum = 1, maximum = 4_000_000_000_000_i64, nullable = false)]
    expires_after_ms: Option<u64>,
    /// Ready messages; beyond it `overflow` applies.
    #[schema(maximum = 4_000_000_000_000_i64, nullable = false)]
    messages_max: Option<u64>,
    /// Bytes of ready messages; beyond it `overflow` applies.
    #[schema(maximum = 4_000_000_000_000_i64, nullable = false)]
    bytes_max: Option<u64>,
    #[schema(nullable = false)]
    overflow: Option<OverflowKind>,
    /// The exchange that expired, rejected and overflowing messages are published to.
    #[schema(max_length = 255, nullable = false)]
    dead_letter_exchange: Option<String>,
    /// The routing key that they are published with; without it, their own.
    #[schema(max_length = 255, nullable = false)]
    dead_letter_routing_key: Option<String>,
    /// A message that was returned more often than this is dropped.
    #[schema(nullable = false)]
    deliveries_max: Option<u32>,
}

/// What a full queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum OverflowKind {
    /// It drops the oldest messages.
    DropHead,
    /// It refuses new messages.
    RejectPublish,
    /// It refuses new messages and dead-letters them.
    RejectPublishDeadLetter,
}

fn yes() -> bool {
    true
}

/// Bound of times and lengths.
const NUMBER_MAX: u64 = 4_000_000_000_000;

impl NewQueue {
    /// The queue, with the arguments by which AMQP clients declare the same.
    fn spec(self) -> Result<QueueSpec, Problem> {
        let mut arguments = Arguments::new();
        let numbers = [
            ("x-message-ttl", self.message_ttl_ms),
            ("x-expires", self.expires_after_ms),
            ("x-max-length", self.messages_max),
            ("x-max-length-bytes", self.bytes_max),
            ("x-delivery-limit", self.deliveries_max.map(u64::from)),
        ];
        for (name, number) in numbers {
            let Some(number) = number else { continue };
            if number > NUMBER_MAX {
                return Err(Problem::bad_request(format!("times and lengths are at most {NUMBER_MAX}")));
            }
            arguments.insert(name.into(), Value::Int(i128::from(number)));
        }
        if self.expires_after_ms == Some(0) {
            return Err(Problem::bad_request("expires_after_ms is at least 1"));
        }
        let overflow = self.overflow.map(|overflow| match overflow {
            OverflowKind::DropHead => Overflow::DropHead,
            OverflowKind::RejectPublish => Overflow::RejectPublish,
            OverflowKind::RejectPublishDeadLetter => Overflow::RejectPublishDeadLetter,
        });
        let mut texts = vec![
            ("x-overflow", overflow.map(|overflow| overflow.as_str().to_owned())),
            ("x-dead-letter-exchange", self.dead_letter_exchange.clone()),
            ("x-dead-letter-routing-key", self.dead_letter_routing_key.clone()),
        ];
        for (name, text) in texts.drain(..) {
            let Some(text) = text else { continue };
            if text.len() > 255 {
                return Err(Problem::bad_request(
                    "names of exchanges and routing keys have at most 255 bytes",
                ));
            }
            arguments.insert(name.into(), Value::Text(text.into_bytes()));
        }
        if self.single_active {
            arguments.insert("x-single-active-consumer".into(), Value::Bool(true));
        }
        let dead_letter = match (self.dead_letter_exchange, self.dead_letter_routing_key) {
            (None, Some(_)) => {
                return Err(Problem::bad_request("dead_letter_routing_key needs dead_letter_exchange"));
            }
            (None, None) => None,
            (Some(exchange), key) => Some(DeadLetter { exchange, routing_key: key.map(String::into_bytes) }),
        };
        let limits = QueueLimits {
            message_ttl_ms: self.message_ttl_ms,
            expires_after_ms: self.expires_after_ms,
            messages_max: self.messages_max,
            bytes_max: self.bytes_max,
            overflow: overflow.unwrap_or_default(),
            dead_letter,
            deliveries_max: self.deliveries_max,
        };
        Ok(QueueSpec {
            durable: self.durable,
            auto_delete: self.auto_delete,
            single_active: self.single_active,
            arguments,
            limits,
            ..QueueSpec::default()
        })
    }
}

/// Declares a queue: 201 if it is new, 200 if it is there as declared, 409 if it is there otherwise.
#[utoipa::path(put, path = "/queues/{name}", tag = "queues", request_body = NewQueue,
    params(("name" = String, Path, description = "The queue's name"), Scope),
    responses((status = 200, body = QueueDetail), (status = 201, body = QueueDetail)))]
pub(in crate::http) async fn declare(
    State(app): State<App>,
    Name(name): Name,
    scope: Scope,
    Body(new): Body<NewQueue>,
) -> Result<(StatusCode, Json<QueueDetail>), Problem> {
    durable(&app, move |app| {
        check_name(&name)?;
        scope.check(ResourceKind::Topic, &name, Operation::Create)?;
        let spec = new.spec()?;
        if let Some(dead_letter) = &spec.limits.dead_letter {
            scope.check(ResourceKind::Topic, &name, Operation::Read)?;
            scope.check_exchange(&dead_letter.exchange, Operation::Write)?;
        }
        let declared = scope.namespace().declare_queue(&name, spec.clone())?;
        if !declared.created && *declared.it.spec() != spec {
            return Err(Problem::conflict(format!("queue `{name}` is declared otherwise")));
        }
        let shown = Json(QueueDetail::of(app, &declared.it)?);
        Ok(((put_status(declared.created), shown), declared.completion))
    })
    .await
}

fn check_name(name: &str) -> Result<(), Problem> {
    if name.is_empty() || name.len() > 255 || name.starts_with("amq.") || name.starts_with("$share/") {
        return Err(Problem::bad_request(
            "a queue's name has 1 to 255 bytes and begins neither with `amq.` nor with `$share/`",
        ));
    }
    Ok(())
}

/// When a queue is deleted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
#[derive(Default)]
pub(in crate::http) struct DeleteWhen {
    /// Only if it has no consumers.
    if_unused: bool,
    /// Only if it has no messages.
    if_empty: bool,
}

/// How many messages an operation was about.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Count {
    pub(super) messages: u64,
}

/// Deletes a queue with its messages and bindings.
#[utoipa::path(delete, path = "/queues/{name}", tag = "queues",
    params(("name" = String, Path, description = "The queue's name"), Scope, DeleteWhen),
    responses((status = 200, body = Count)))]
pub(in crate::http) async fn delete(
    State(app): State<App>,
    Name(name): Name,
    Scoped(scope, when): Scoped<DeleteWhen>,
) -> Result<Json<Count>, Problem> {
    let messages = durable(&app, move |_| {
        let namespace = scope.namespace().clone();
        scope.check(ResourceKind::Topic, &name, Operation::Delete)?;
        refuse_hidden(&*find_usable(&namespace, &name)?)?;
        Ok(namespace.delete_queue(&name, when.if_unused, when.if_empty)?)
    })
    .await?;
    Ok(Json(Count { messages }))
}

/// The queue of a shared subscription lives and ends with its members.
fn refuse_hidden(queue: &Queue) -> Result<(), Problem> {
    if queue.spec().hidden {
        return Err(Problem::conflict(format!(
            "`{}` is the queue of a shared subscription, which ends with its last member",
            queue.name()
        )));
    }
    Ok(())
}

/// Steps over messages of a queue that cannot be read since the log is damaged, where its consumers stand: they are
/// acknowledged, and one message without a body is dead-lettered in their place. Messages that can be read stay.
#[utoipa::path(post, path = "/queues/{name}/skip-damaged", tag = "queues",
    params(("name" = String, Path, description = "The queue's name"), Scope),
    responses((status = 200, body = Count)))]
pub(in crate::http) async fn skip_damaged(
    State(app): State<App>,
    Name(name): Name,
    scope: Scope,
) -> Result<Json<Count>, Problem> {
    let messages = durable(&app, move |_| {
        scope.check(ResourceKind::Topic, &name, Operation::Read)?;
        let skipped = find_usable(scope.namespace(), &name)?.subscription().skip_damaged()?;
        scope.namespace().audit(AuditKind::Deleted, "skip-damaged", "queue", &name);
        Ok(skipped)
    })
    .await?;
    Ok(Json(Count { messages }))
}

/// Removes all ready messages of a queue; those that are delivered and not acknowledged stay.
#[utoipa::path(post, path = "/queues/{name}/purge", tag = "queues",
    params(("name" = String, Path, description = "The queue's name"), Scope),
    responses((status = 200, body = Count)))]
pub(in crate::http) async fn purge(
    State(app): State<App>,
    Name(name): Name,
    scope: Scope,
) -> Result<Json<Count>, Problem> {
    let messages = durable(&app, move |_| {
        scope.check(ResourceKind::Topic, &name, Operation::Read)?;
        let queue = find_usable(scope.namespace(), &name)?;
        if queue.spec().is_stream() {
            return Err(Problem::conflict(format!(
                "queue `{name}` is a stream, which nothing is taken out of"
            )));
        }
        let purged = queue.subscription().purge()?;
        scope.namespace().audit(AuditKind::Deleted, "purge", "queue", &name);
        Ok(purged)
    })
    .await?;
    Ok(Json(Count { messages }))
}
