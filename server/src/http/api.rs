//! The resources of `/api/v1`: an overview, topics, queues.
//!
//! Lists are assembled on a blocking thread, since they can be long.

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use inver_broker::{Queue, Topic, TopicKind};
use serde::Serialize;

use super::App;
use super::page::{Page, PageQuery};
use super::problem::Problem;

/// The resources, below `/api/v1`.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/overview", get(overview))
        .route("/topics", get(topics))
        .route("/topics/{name}", get(topic))
        .route("/queues", get(queues))
        .route("/queues/{name}", get(queue))
}

#[derive(Serialize)]
struct Overview {
    version: &'static str,
    uptime_s: u64,
    connections: usize,
    namespaces: Vec<NamespaceCounts>,
    log: LogSizes,
}

#[derive(Serialize)]
struct NamespaceCounts {
    name: String,
    topics: usize,
    queues: usize,
    exchanges: usize,
}

#[derive(Serialize)]
struct LogSizes {
    segments: u64,
    disk_bytes: u64,
    streams: u64,
    /// Submitted and not committed yet.
    queued_entries: u64,
    queued_bytes: u64,
    checkpoint_age_s: u64,
}

async fn overview(State(app): State<App>) -> Result<Json<Overview>, Problem> {
    blocking(move || {
        let (namespace, log) = (app.broker.default_namespace(), app.broker.log().stats());
        let counts = NamespaceCounts {
            name: namespace.name().to_string(),
            topics: namespace.topic_count(),
            queues: namespace.queue_count(),
            exchanges: namespace.exchanges().len(),
        };
        Ok(Overview {
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: (app.broker.clock().now() - app.node.started).as_secs(),
            connections: app.node.workers.connections(),
            namespaces: vec![counts],
            log: LogSizes {
                segments: log.segments,
                disk_bytes: log.disk_bytes,
                streams: log.streams,
                queued_entries: log.queued_entries,
                queued_bytes: log.queued_bytes,
                checkpoint_age_s: log.checkpoint_age.as_secs(),
            },
        })
    })
    .await
}

#[derive(Serialize)]
struct TopicSummary {
    name: String,
    /// `log` or `queue`.
    kind: &'static str,
    partitions: u32,
    /// Records kept, in all partitions.
    records: u64,
    /// Their stored bytes.
    bytes: u64,
}

impl TopicSummary {
    fn of(topic: &Topic) -> TopicSummary {
        let partitions = topic.partitions();
        let streams = || partitions.iter().map(|partition| partition.stream());
        TopicSummary {
            name: topic.name().to_string(),
            kind: match topic.kind() {
                TopicKind::Log => "log",
                TopicKind::Queue => "queue",
            },
            partitions: topic.partition_count(),
            records: streams().map(|stream| stream.high_watermark().0.saturating_sub(stream.start().0)).sum(),
            bytes: streams().map(|stream| stream.bytes()).sum(),
        }
    }
}

#[derive(Serialize)]
struct TopicDetail {
    #[serde(flatten)]
    summary: TopicSummary,
    settings: std::collections::BTreeMap<String, String>,
    offsets: Vec<PartitionOffsets>,
}

#[derive(Serialize)]
struct PartitionOffsets {
    partition: u32,
    /// Offset of the first record kept.
    start: u64,
    high_watermark: u64,
}

async fn topics(State(app): State<App>, query: PageQuery) -> Result<Json<Page<TopicSummary>>, Problem> {
    blocking(move || {
        let all = app.broker.default_namespace().topics();
        Ok(query.page(all, |topic| topic.name(), |topic| TopicSummary::of(topic)))
    })
    .await
}

async fn topic(State(app): State<App>, Path(name): Path<String>) -> Result<Json<TopicDetail>, Problem> {
    blocking(move || {
        let topic = app.broker.default_namespace().topic(&name);
        let topic = topic.ok_or_else(|| Problem::not_found(format!("there is no topic `{name}`")))?;
        let offsets = topic.partitions().into_iter().map(|partition| PartitionOffsets {
            partition: partition.index(),
            start: partition.stream().start().0,
            high_watermark: partition.stream().high_watermark().0,
        });
        Ok(TopicDetail {
            summary: TopicSummary::of(&topic),
            settings: (*topic.config()).clone(),
            offsets: offsets.collect(),
        })
    })
    .await
}

#[derive(Serialize)]
struct QueueSummary {
    name: String,
    durable: bool,
    auto_delete: bool,
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

async fn queues(State(app): State<App>, query: PageQuery) -> Result<Json<Page<QueueSummary>>, Problem> {
    blocking(move || {
        let all = app.broker.default_namespace().queues();
        Ok(query.page(all, |queue| queue.name(), |queue| QueueSummary::of(queue)))
    })
    .await
}

async fn queue(State(app): State<App>, Path(name): Path<String>) -> Result<Json<QueueSummary>, Problem> {
    blocking(move || {
        let queue = app.broker.default_namespace().queue(&name);
        let queue = queue.ok_or_else(|| Problem::not_found(format!("there is no queue `{name}`")))?;
        Ok(QueueSummary::of(&queue))
    })
    .await
}

/// Runs `read` on a blocking thread, so that no connection of the worker waits for it.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<Json<T>, Problem> {
    let result = tokio::task::spawn_blocking(read).await;
    result.unwrap_or_else(|_| Err(Problem::internal("the request failed"))).map(Json)
}
