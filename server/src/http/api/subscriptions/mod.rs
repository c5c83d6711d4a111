//! Subscriptions of every kind in one list: consumer groups, named subscriptions of log topics, and shared subscriptions.

mod listing;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use inver_access::{Operation, ResourceKind};
use inver_broker::{
    AuditKind, CommittedOffset, GroupMember, NamedSubscription, Namespace, Queue, Start, Topic,
};
use inver_storage::Offset;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(in crate::http) use self::listing::*;

use super::queues::{Count, MEMBERS_SHOWN_MAX, Member};
use super::{answer, deleted, durable, topics};
use crate::http::App;
use crate::http::auth::Scope;
use crate::http::problem::Problem;
use crate::http::request::Body;

/// Partitions whose oldest message is read for one subscription.
const OLDEST_READ_MAX: usize = 256;
/// Partitions shown of one subscription.
const PARTITIONS_SHOWN_MAX: usize = 10_000;

/// What a subscription is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SubscriptionKind)]
pub(in crate::http) enum Kind {
    /// A consumer group: its members commit offsets.
    Group,
    /// A named position on a log topic, with acknowledgements.
    Named,
    /// A shared subscription of an address filter (`$share/group/filter`), which is on no topic.
    Shared,
}

/// A subscription.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct SubscriptionSummary {
    /// Of a group its id; of a named one the topic, `/` and the name; of a shared one `$share/group/filter`.
    name: String,
    kind: Kind,
    /// The topics that it reads.
    topics: Vec<String>,
    /// How its members share it, or the group's state.
    mode: String,
    /// Its position survives a restart.
    durable: bool,
    /// The number of members, by protocol.
    members: BTreeMap<String, usize>,
    /// Messages that wait to be delivered, in all partitions.
    lag: u64,
    /// The age of the oldest message that is not consumed, in milliseconds; none if there is none or it is not known.
    lag_ms: Option<u64>,
    /// Messages delivered and not acknowledged; groups do not tell.
    unacked: u64,
}

/// A subscription with its members and positions.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct SubscriptionDetail {
    #[serde(flatten)]
    summary: SubscriptionSummary,
    consumers: Vec<Member>,
    group_members: Vec<MemberOfGroup>,
    positions: Vec<Position>,
}

/// A member of a consumer group.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct MemberOfGroup {
    id: String,
    client: String,
    address: String,
    assigned: Vec<Assigned>,
}

/// A partition that a member reads.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Assigned {
    topic: String,
    partition: u32,
}

/// The position in one partition.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Position {
    topic: String,
    partition: u32,
    /// The next offset to consume; all below is acknowledged.
    offset: u64,
    /// The first offset kept.
    start: u64,
    /// The next offset of the partition.
    end: u64,
    lag: u64,
}

/// A subscription before it is shown.
#[derive(Clone)]
enum Found {
    Group { id: String },
    Named(NamedSubscription, String),
    Shared(Arc<Queue>),
}

impl Found {
    fn name(&self) -> &str {
        match self {
            Found::Group { id } => id,
            Found::Named(_, name) => name,
            Found::Shared(queue) => queue.name(),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Found::Group { .. } => Kind::Group,
            Found::Named(..) => Kind::Named,
            Found::Shared(_) => Kind::Shared,
        }
    }

    /// Refuses a client that may not do this to it: to the group, or to the subscription of that name and its topic.
    fn check(&self, scope: &Scope, operation: Operation) -> Result<(), Problem> {
        match self {
            Found::Group { id } => scope.check(ResourceKind::Group, id, operation),
            Found::Named(of, _) => {
                scope.check(ResourceKind::Group, of.subscription.name(), operation)?;
                scope.check(ResourceKind::Topic, of.topic.name(), Operation::Read)
            }
            Found::Shared(queue) => scope.check(ResourceKind::Group, queue.name(), operation),
        }
    }

    fn positions(&self, namespace: &Namespace) -> Vec<Position> {
        match self {
            Found::Group { id } => {
                let offsets = namespace.committed_offsets().of_group(id);
                let position = |(topic, partition, committed): (String, u32, CommittedOffset)| {
                    group_position(namespace, topic, partition, committed.offset)
                };
                offsets.into_iter().filter_map(position).collect()
            }
            Found::Named(of, _) => {
                let topic = of.topic.name();
                of.subscription.positions().iter().map(|at| Position::of(topic, at)).collect()
            }
            Found::Shared(queue) => {
                let positions = queue.subscription().positions();
                positions.iter().map(|at| Position::of(queue.name(), at)).collect()
            }
        }
    }

    /// Messages that wait.
    fn lag(&self, namespace: &Namespace) -> u64 {
        match self {
            Found::Group { .. } => self.positions(namespace).iter().map(|position| position.lag).sum(),
            Found::Named(of, _) => of.subscription.positions().iter().map(|at| at.ready).sum(),
            Found::Shared(queue) => queue.counts().ready,
        }
    }

    /// The time of the oldest message that is not consumed, milliseconds since 1970.
    fn oldest_ms(&self, namespace: &Namespace) -> Result<Option<i64>, Problem> {
        match self {
            Found::Group { .. } => {
                let mut oldest: Option<i64> = None;
                let behind = self.positions(namespace).into_iter().filter(|position| position.lag > 0);
                for position in behind.take(OLDEST_READ_MAX) {
                    let partition = namespace
                        .topic(&position.topic)
                        .and_then(|topic| topic.partition(position.partition));
                    let Some(partition) = partition else { continue };
                    let at = partition.timestamp_at(Offset(position.offset))?;
                    oldest = oldest.into_iter().chain(at).min();
                }
                Ok(oldest)
            }
            Found::Named(of, _) => Ok(of.subscription.oldest_ms()?),
            Found::Shared(queue) => Ok(queue.subscription().oldest_ms()?),
        }
    }

    fn summary(&self, app: &App, namespace: &Namespace) -> Result<SubscriptionSummary, Problem> {
        let (topics, mode, durable, members, unacked) = match self {
            Found::Group { id } => {
                let group = namespace.coordinated_group(id);
                let mut topics: Vec<String> =
                    self.positions(namespace).into_iter().map(|position| position.topic).collect();
                topics.dedup();
                let mode = group.as_ref().map_or("Empty", |group| group.state);
                let members = group.iter().filter(|group| !group.members.is_empty());
                let members = members.map(|group| (group.protocol.to_owned(), group.members.len()));
                (topics, mode, true, members.collect(), 0)
            }
            Found::Named(NamedSubscription { topic, subscription }, _) => {
                let members = by_protocol(app, &subscription.members());
                let unacked = subscription.depth().unacked;
                let mode = subscription.mode().as_str();
                (vec![topic.name().to_owned()], mode, subscription.is_durable(), members, unacked)
            }
            Found::Shared(queue) => {
                let subscription = queue.subscription();
                let members = by_protocol(app, &subscription.members());
                let mode = subscription.mode().as_str();
                (Vec::new(), mode, queue.spec().durable, members, queue.counts().unacked)
            }
        };
        let now_ms = app.broker.clock().now_ms();
        let lag_ms = self.oldest_ms(namespace)?.map(|at| now_ms.saturating_sub(at).max(0).unsigned_abs());
        Ok(SubscriptionSummary {
            name: self.name().to_owned(),
            kind: self.kind(),
            topics,
            mode: mode.to_owned(),
            durable,
            members,
            lag: self.lag(namespace),
            lag_ms,
            unacked,
        })
    }

    fn detail(&self, app: &App, namespace: &Namespace) -> Result<SubscriptionDetail, Problem> {
        let consumers = match self {
            Found::Group { .. } => Vec::new(),
            Found::Named(of, _) => of.subscription.members(),
            Found::Shared(queue) => queue.subscription().members(),
        };
        let group_members = match self {
            Found::Group { id } => {
                namespace.coordinated_group(id).map_or_else(Vec::new, |group| group.members)
            }
            _ => Vec::new(),
        };
        let mut positions = self.positions(namespace);
        positions.truncate(PARTITIONS_SHOWN_MAX);
        Ok(SubscriptionDetail {
            summary: self.summary(app, namespace)?,
            consumers: consumers
                .iter()
                .take(MEMBERS_SHOWN_MAX)
                .map(|member| Member::of(app, member))
                .collect(),
            group_members: group_members.into_iter().take(MEMBERS_SHOWN_MAX).map(MemberOfGroup::of).collect(),
            positions,
        })
    }
}

impl Position {
    fn of(topic: &str, at: &inver_broker::Position) -> Position {
        let inver_broker::Position { partition, offset, start, end, ready, .. } = *at;
        Position { topic: topic.to_owned(), partition, offset, start, end, lag: ready }
    }
}

impl MemberOfGroup {
    fn of(member: GroupMember) -> MemberOfGroup {
        let assigned = member.assigned.into_iter().map(|(topic, partition)| Assigned { topic, partition });
        MemberOfGroup {
            id: member.id,
            client: member.client,
            address: member.address,
            assigned: assigned.take(PARTITIONS_SHOWN_MAX).collect(),
        }
    }
}

/// The position of a group in a partition; none if the partition does not exist any more.
fn group_position(namespace: &Namespace, topic: String, partition: u32, committed: i64) -> Option<Position> {
    let of_topic = namespace.topic(&topic)?.partition(partition)?;
    let stream = of_topic.stream();
    let (start, end) = (stream.start().0, stream.high_watermark().0);
    let offset = u64::try_from(committed).unwrap_or(0);
    let lag = end.saturating_sub(offset.max(start));
    Some(Position { topic, partition, offset, start, end, lag })
}

fn by_protocol(app: &App, members: &[inver_broker::Member]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for member in members {
        let connection = member.connection.and_then(|id| app.broker.connections().get(id));
        let protocol = connection.map_or("unknown", |connection| connection.protocol());
        *counts.entry(protocol.to_owned()).or_default() += 1;
    }
    counts
}

/// The subscription of this kind and name, or the problem that there is none.
fn find(namespace: &Namespace, kind: Kind, name: &str) -> Result<Found, Problem> {
    let found = match kind {
        Kind::Group => {
            let is_known =
                namespace.committed_offsets().has_group(name) || namespace.coordinated_group(name).is_some();
            is_known.then(|| Found::Group { id: name.to_owned() })
        }
        // Names of topics and of subscriptions may both have a slash: every place is tried.
        Kind::Named => name.match_indices('/').find_map(|(at, _)| {
            let (topic, own) = (namespace.topic(name.get(..at)?)?, name.get(at + 1..)?);
            let subscription = namespace.subscription(&topic, own)?;
            Some(Found::Named(NamedSubscription { topic, subscription }, name.to_owned()))
        }),
        Kind::Shared => {
            let queue = namespace.queue(name).filter(|queue| queue.spec().hidden);
            queue.map(Found::Shared)
        }
    };
    found.ok_or_else(|| Problem::not_found(format!("there is no such subscription `{name}`")))
}

/// The kind and the name from a path.
type KindAndName = Path<(Kind, String)>;

/// A subscription with its members and positions.
#[utoipa::path(get, path = "/subscriptions/{kind}/{name}", tag = "subscriptions",
    params(("kind" = Kind, Path), ("name" = String, Path, description = "The name, as listed"), Scope),
    responses((status = 200, body = SubscriptionDetail)))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    path: Result<KindAndName, axum::extract::rejection::PathRejection>,
    scope: Scope,
) -> Result<Json<SubscriptionDetail>, Problem> {
    let (kind, name) = read(path)?;
    answer(&app, move |app| {
        let namespace = scope.namespace();
        find(namespace, kind, &name)?.detail(app, namespace)
    })
    .await
}

fn read(
    path: Result<KindAndName, axum::extract::rejection::PathRejection>,
) -> Result<(Kind, String), Problem> {
    path.map(|Path(read)| read).map_err(|error| Problem::bad_request(error.body_text()))
}

/// Deletes a group or a named subscription without members, with its positions.
#[utoipa::path(delete, path = "/subscriptions/{kind}/{name}", tag = "subscriptions",
    params(("kind" = Kind, Path), ("name" = String, Path, description = "The name, as listed"), Scope),
    responses((status = 204)))]
pub(in crate::http) async fn delete(
    State(app): State<App>,
    path: Result<KindAndName, axum::extract::rejection::PathRejection>,
    scope: Scope,
) -> Result<StatusCode, Problem> {
    let (kind, name) = read(path)?;
    deleted(&app, move |_| {
        let namespace = scope.namespace();
        let found = find(namespace, kind, &name)?;
        found.check(&scope, Operation::Delete)?;
        match found {
            Found::Group { id } => Ok(namespace.delete_group(&id)?),
            Found::Named(NamedSubscription { topic, subscription }, _) => {
                Ok(namespace.delete_subscription(&topic, subscription.name(), true)?)
            }
            Found::Shared(_) => {
                Err(Problem::conflict("a shared subscription ends with its last member: end their sessions"))
            }
        }
    })
    .await
}

/// Where positions are set.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[schema(as = ResetTo)]
pub(in crate::http) enum To {
    /// The first message kept.
    Earliest,
    /// The next message to arrive.
    Latest,
    /// This offset, within what is kept.
    Offset(u64),
    /// The first message with a timestamp at or after this time, milliseconds since 1970.
    Time(i64),
}

/// A change of positions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Reset {
    to: To,
    /// The topic of a group; without it, all topics that it has committed offsets of.
    #[schema(nullable = false, max_length = 249)]
    topic: Option<String>,
    /// The partition; without it, all.
    #[schema(nullable = false)]
    partition: Option<u32>,
    /// Only says what would change.
    #[serde(default)]
    dry_run: bool,
}

/// A position that was set.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Moved {
    topic: String,
    partition: u32,
    /// The position before; none if the group had none.
    from: Option<u64>,
    to: u64,
}

/// Steps over messages of a named or a shared subscription that cannot be read since the log is damaged, where its consumers
/// stand. Those that can be read stay. A group is moved behind them with `reset`.
#[utoipa::path(post, path = "/subscriptions/{kind}/{name}/skip-damaged", tag = "subscriptions",
    params(("kind" = Kind, Path), ("name" = String, Path, description = "The name, as listed"), Scope),
    responses((status = 200, body = Count)))]
pub(in crate::http) async fn skip_damaged(
    State(app): State<App>,
    path: Result<KindAndName, axum::extract::rejection::PathRejection>,
    scope: Scope,
) -> Result<Json<Count>, Problem> {
    let (kind, name) = read(path)?;
    let messages = durable(&app, move |_| {
        let namespace = scope.namespace();
        let found = find(namespace, kind, &name)?;
        found.check(&scope, Operation::Read)?;
        let skipped = match found {
            Found::Group { .. } => Err(Problem::conflict("a group is moved with `reset`")),
            Found::Named(of, _) => Ok(of.subscription.skip_damaged()?),
            Found::Shared(queue) => Ok(queue.subscription().skip_damaged()?),
        }?;
        namespace.audit(AuditKind::Deleted, "skip-damaged", "subscription", &name);
        Ok(skipped)
    })
    .await?;
    Ok(Json(Count { messages }))
}

/// Sets the positions of a group or a durable named subscription without members. Answers with what changed: a position
/// that goes back is how many messages are read again, one that goes forward how many are skipped.
#[utoipa::path(post, path = "/subscriptions/{kind}/{name}/reset", tag = "subscriptions", request_body = Reset,
    params(("kind" = Kind, Path), ("name" = String, Path, description = "The name, as listed"), Scope),
    responses((status = 200, body = Vec<Moved>)))]
pub(in crate::http) async fn reset(
    State(app): State<App>,
    path: Result<KindAndName, axum::extract::rejection::PathRejection>,
    scope: Scope,
    Body(reset): Body<Reset>,
) -> Result<Json<Vec<Moved>>, Problem> {
    let (kind, name) = read(path)?;
    let moved = durable(&app, move |app| {
        let namespace = scope.namespace();
        let found = find(namespace, kind, &name)?;
        found.check(&scope, Operation::Read)?;
        match found {
            Found::Group { id } => reset_group(app, namespace, &id, &reset),
            Found::Named(of, _) => reset_named(namespace, &of, &reset),
            Found::Shared(_) => Err(Problem::conflict(
                "a shared subscription removes what is acknowledged: it cannot go back",
            )),
        }
    })
    .await?;
    Ok(Json(moved))
}

type Done = (Vec<Moved>, inver_broker::Completion);

/// The wanted offset of each partition of a topic.
fn targets(topic: &Topic, reset: &Reset) -> Result<Vec<(u32, u64)>, Problem> {
    let mut targets = Vec::new();
    for partition in topic.partitions() {
        if reset.partition.is_some_and(|wanted| wanted != partition.index()) {
            continue;
        }
        let stream = partition.stream();
        let (start, end) = (stream.start().0, stream.high_watermark().0);
        let offset = match reset.to {
            To::Earliest => start,
            To::Latest => end,
            To::Offset(offset) => offset,
            To::Time(at) => partition.offset_at(at)?.0,
        };
        targets.push((partition.index(), offset.clamp(start, end)));
    }
    match (targets.is_empty(), reset.partition) {
        (true, Some(partition)) => {
            Err(Problem::not_found(format!("topic `{}` has no partition {partition}", topic.name())))
        }
        _ => Ok(targets),
    }
}

fn reset_group(app: &App, namespace: &Namespace, id: &str, reset: &Reset) -> Result<Done, Problem> {
    if namespace.coordinated_group(id).is_some_and(|group| !group.members.is_empty()) {
        return Err(Problem::conflict(format!("group `{id}` has members")));
    }
    let committed = namespace.committed_offsets();
    let topics: Vec<Arc<Topic>> = match &reset.topic {
        Some(name) => vec![topics::find(namespace, name)?],
        None => {
            let mut names: Vec<String> =
                committed.of_group(id).into_iter().map(|(topic, ..)| topic).collect();
            names.dedup();
            names.iter().filter_map(|name| namespace.topic(name)).collect()
        }
    };
    let (mut moved, mut offsets) = (Vec::new(), Vec::new());
    let now_ms = app.broker.clock().steady_ms();
    for topic in &topics {
        for (partition, to) in targets(topic, reset)? {
            let before = committed.get(id, topic.name(), partition);
            let from = before.as_ref().and_then(|before| u64::try_from(before.offset).ok());
            moved.push(Moved { topic: topic.name().to_owned(), partition, from, to });
            let offset = CommittedOffset {
                offset: i64::try_from(to).unwrap_or(i64::MAX),
                leader_epoch: -1,
                metadata: None,
                committed_ms: now_ms,
            };
            offsets.push((topic.name(), partition, offset));
        }
    }
    if reset.dry_run || offsets.is_empty() {
        return Ok((moved, inver_broker::Completion::Now));
    }
    committed.room_for(id, &offsets).map_err(|limit| Problem::conflict(limit.to_string()))?;
    let lsn = committed.commit(app.broker.log(), id, &offsets)?;
    Ok((moved, lsn.into()))
}

fn reset_named(namespace: &Namespace, of: &NamedSubscription, reset: &Reset) -> Result<Done, Problem> {
    if reset.topic.as_ref().is_some_and(|topic| topic != of.topic.name()) {
        return Err(Problem::bad_request(format!("the subscription is on topic `{}`", of.topic.name())));
    }
    let positions = of.subscription.positions();
    let targets = targets(&of.topic, reset)?;
    let moved = targets.iter().map(|(partition, to)| Moved {
        topic: of.topic.name().to_owned(),
        partition: *partition,
        from: positions.iter().find(|at| at.partition == *partition).map(|at| at.offset),
        to: *to,
    });
    let moved = moved.collect();
    if reset.dry_run {
        return Ok((moved, inver_broker::Completion::Now));
    }
    let starts: Vec<(u32, Start)> =
        targets.into_iter().map(|(partition, to)| (partition, Start::At(Offset(to)))).collect();
    let completion = namespace.reset_subscription(&of.topic, of.subscription.name(), &starts)?;
    Ok((moved, completion))
}
