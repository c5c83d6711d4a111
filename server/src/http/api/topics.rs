//! Topics: log topics, and the topics of durable queues.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use inver_access::{Operation, ResourceKind};
use inver_broker::{Namespace, Order, Topic, TopicKind, TopicSpec};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{answer, blocking, deleted, durable};
use crate::http::App;
use crate::http::auth::Scope;
use crate::http::list::{ByName, Column, Indexed, ListQuery, Listing, Page};
use crate::http::problem::Problem;
use crate::http::request::{Body, Name};

/// Partitions whose offsets are shown.
const PARTITIONS_SHOWN_MAX: usize = 10_000;

/// A topic.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct TopicSummary {
    name: String,
    kind: Kind,
    partitions: u32,
    /// Records kept, in all partitions.
    records: u64,
    /// Their stored bytes.
    bytes: u64,
}

/// How a topic keeps messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum Kind {
    /// By time, size or key.
    Log,
    /// Until they are acknowledged.
    Queue,
}

impl From<TopicKind> for Kind {
    fn from(kind: TopicKind) -> Kind {
        match kind {
            TopicKind::Log => Kind::Log,
            TopicKind::Queue => Kind::Queue,
        }
    }
}

impl TopicSummary {
    fn of(topic: &Topic) -> TopicSummary {
        TopicSummary {
            name: topic.name().to_string(),
            kind: topic.kind().into(),
            partitions: topic.partition_count(),
            records: records(topic),
            bytes: bytes(topic),
        }
    }
}

fn records(topic: &Topic) -> u64 {
    let of = |stream: &inver_storage::Stream| stream.high_watermark().0.saturating_sub(stream.start().0);
    topic.partitions().iter().map(|partition| of(partition.stream())).sum()
}

fn bytes(topic: &Topic) -> u64 {
    topic.partitions().iter().map(|partition| partition.stream().bytes()).sum()
}

/// A topic with its settings and partitions.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct TopicDetail {
    #[serde(flatten)]
    summary: TopicSummary,
    /// Settings that are not at their defaults.
    settings: BTreeMap<String, String>,
    offsets: Vec<PartitionOffsets>,
}

/// Offsets of a partition.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct PartitionOffsets {
    partition: u32,
    /// Offset of the first record kept.
    start: u64,
    /// Offset of the next record.
    high_watermark: u64,
    bytes: u64,
}

impl TopicDetail {
    fn of(topic: &Topic) -> TopicDetail {
        let partitions = topic.partitions().into_iter().take(PARTITIONS_SHOWN_MAX);
        let offsets = partitions.map(|partition| PartitionOffsets {
            partition: partition.index(),
            start: partition.stream().start().0,
            high_watermark: partition.stream().high_watermark().0,
            bytes: partition.stream().bytes(),
        });
        TopicDetail {
            summary: TopicSummary::of(topic),
            settings: (*topic.config()).clone(),
            offsets: offsets.collect(),
        }
    }
}

/// The topics of a namespace.
struct Topics {
    namespace: Namespace,
    kind: Option<Kind>,
}

impl Indexed for Topics {
    type Object = Arc<Topic>;

    fn count(&self) -> u64 {
        self.namespace.topic_count() as u64
    }

    fn following(&self, order: Order, after: Option<&str>, skip: usize, max: usize) -> Vec<Arc<Topic>> {
        self.namespace.topics_following(order, after, skip, max)
    }

    fn name<'a>(&self, topic: &'a Arc<Topic>) -> &'a str {
        topic.name()
    }

    fn columns(&self) -> &'static [Column<Arc<Topic>>] {
        &[
            ("partitions", |topic| u64::from(topic.partition_count()).into()),
            ("records", |topic| records(topic).into()),
            ("bytes", |topic| bytes(topic).into()),
        ]
    }

    fn lists(&self, topic: &Arc<Topic>) -> bool {
        self.kind.is_none_or(|kind| kind == topic.kind().into())
    }

    fn selects(&self) -> bool {
        self.kind.is_some()
    }

    fn id(&self) -> String {
        format!("topics {:?} {}", self.kind, self.namespace.name())
    }
}

/// Which topics are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct TopicFilter {
    /// Only topics of this kind.
    #[param(inline, nullable = false)]
    kind: Option<Kind>,
}

/// Lists the topics.
#[utoipa::path(get, path = "/topics", tag = "topics", params(Scope, ListQuery, TopicFilter),
    responses((status = 200, body = Page<TopicSummary>)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    Listing(scope, query, TopicFilter { kind }): Listing<TopicFilter>,
) -> Result<Page<TopicSummary>, Problem> {
    blocking(&app, move |app| {
        let topics = Topics { namespace: scope.namespace().clone(), kind };
        query.page(app, ByName(topics), |topic| TopicSummary::of(topic))
    })
    .await
}

/// The topic of this name, or the problem that there is none.
pub(super) fn find(namespace: &Namespace, name: &str) -> Result<Arc<Topic>, Problem> {
    namespace.topic(name).ok_or_else(|| Problem::not_found(format!("there is no topic `{name}`")))
}

/// A topic with its settings and partitions.
#[utoipa::path(get, path = "/topics/{name}", tag = "topics",
    params(("name" = String, Path, description = "The topic's name"), Scope),
    responses((status = 200, body = TopicDetail)))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    Name(name): Name,
    scope: Scope,
) -> Result<Json<TopicDetail>, Problem> {
    answer(&app, move |_| Ok(TopicDetail::of(&*find(scope.namespace(), &name)?))).await
}

/// A topic to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewTopic {
    #[schema(min_length = 1, max_length = 249)]
    name: String,
    #[schema(minimum = 1, maximum = 100_000, default = 1)]
    #[serde(default = "one")]
    partitions: u32,
    /// Settings by name, such as `retention.ms`.
    #[serde(default)]
    settings: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

/// Creates a log topic.
#[utoipa::path(post, path = "/topics", tag = "topics", params(Scope), request_body = NewTopic,
    responses((status = 201, body = TopicDetail)))]
pub(in crate::http) async fn create(
    State(app): State<App>,
    scope: Scope,
    Body(new): Body<NewTopic>,
) -> Result<(StatusCode, Json<TopicDetail>), Problem> {
    let detail = durable(&app, move |_| {
        let spec = TopicSpec { partitions: new.partitions, config: new.settings };
        scope.check(ResourceKind::Topic, &new.name, Operation::Create)?;
        let (topic, lsn) = scope.namespace().create_topic(&new.name, &spec)?;
        Ok((TopicDetail::of(&topic), lsn))
    })
    .await?;
    Ok((StatusCode::CREATED, Json(detail)))
}

/// A change of a topic.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct TopicChange {
    /// The number of partitions afterwards, more than before.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 100_000, nullable = false)]
    partitions: Option<u32>,
    /// Settings to change by name; null sets one back to its default.
    #[serde(default)]
    settings: BTreeMap<String, Option<String>>,
}

/// Changes the settings of a topic, or adds partitions.
#[utoipa::path(patch, path = "/topics/{name}", tag = "topics", request_body = TopicChange,
    params(("name" = String, Path, description = "The topic's name"), Scope),
    responses((status = 200, body = TopicDetail)))]
pub(in crate::http) async fn alter(
    State(app): State<App>,
    Name(name): Name,
    scope: Scope,
    Body(change): Body<TopicChange>,
) -> Result<Json<TopicDetail>, Problem> {
    let detail = durable(&app, move |_| {
        let namespace = scope.namespace().clone();
        let topic = find(&namespace, &name)?;
        if !change.settings.is_empty() {
            scope.check(ResourceKind::Topic, &name, Operation::AlterConfigs)?;
        }
        if change.partitions.is_some() {
            scope.check(ResourceKind::Topic, &name, Operation::Alter)?;
        }
        let mut lsn = None;
        if !change.settings.is_empty() {
            let mut config = (*topic.config()).clone();
            for (setting, value) in change.settings {
                match value {
                    Some(value) => config.insert(setting, value),
                    None => config.remove(&setting),
                };
            }
            lsn = Some(namespace.alter_config(&name, config)?);
        }
        if let Some(partitions) = change.partitions.filter(|count| *count != topic.partition_count()) {
            lsn = lsn.max(Some(namespace.add_partitions(&name, partitions)?));
        }
        Ok((TopicDetail::of(&topic), lsn))
    })
    .await?;
    Ok(Json(detail))
}

/// Deletes a log topic with its messages, subscriptions and committed offsets.
#[utoipa::path(delete, path = "/topics/{name}", tag = "topics",
    params(("name" = String, Path, description = "The topic's name"), Scope),
    responses((status = 204)))]
pub(in crate::http) async fn delete(
    State(app): State<App>,
    Name(name): Name,
    scope: Scope,
) -> Result<StatusCode, Problem> {
    deleted(&app, move |_| {
        scope.check(ResourceKind::Topic, &name, Operation::Delete)?;
        Ok(scope.namespace().delete_topic(&name)?)
    })
    .await
}
