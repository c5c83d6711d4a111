//! Metrics over HTTP, in the text format of Prometheus.
//!
//! | path | what |
//! |---|---|
//! | `/metrics` | the metrics of the broker, none of single objects |
//! | `/metrics/detailed?family=…&name=…` | metrics of single objects, bounded by `http.detailed_series_max` |
//! | `/metrics/rabbitmq`, `/metrics/rabbitmq/per-object`, `/metrics/rabbitmq/detailed` | the names of RabbitMQ |
//!
//! With `http.prometheus_listen`, a listener serves RabbitMQ's names at RabbitMQ's paths.

pub(super) mod alarms;
mod detailed;
pub(super) mod node;
mod rabbitmq;
pub(super) mod text;

use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

pub(crate) use self::node::{CachedTotals, Disk, Monitored};

use self::detailed::{Bounded, FAMILIES, Wanted};
use self::rabbitmq::Source;
use self::text::{Exposition, Samples};
use super::App;
use super::problem::Problem;

/// The paths of the HTTP listener.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/metrics", get(own))
        .route("/metrics/detailed", get(own_detailed))
        .route("/metrics/rabbitmq", get(aggregated))
        .route("/metrics/rabbitmq/per-object", get(per_object))
        .route("/metrics/rabbitmq/detailed", get(rabbitmq_detailed))
}

/// The paths of the listener for RabbitMQ's names, which are RabbitMQ's.
pub(super) fn rabbitmq_routes() -> Router<App> {
    Router::new()
        .route("/metrics", get(aggregated))
        .route("/metrics/per-object", get(per_object))
        .route("/metrics/detailed", get(rabbitmq_detailed))
}

/// The alarms that are on: their names, and what is the case.
pub(super) fn active_alarms(app: &App) -> Vec<(&'static str, String)> {
    let text = recorded(app);
    alarms::active(app, &Samples::read(&text)).into_iter().map(alarms::Alarm::into_parts).collect()
}

/// The query of metrics of single objects.
type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

async fn own(State(app): State<App>) -> Result<Response, Problem> {
    blocking(move || {
        let mut text = recorded(&app);
        let totals = app.totals.get(&app.broker);
        let ready = app.node.ready.load(Ordering::Acquire);
        let mut more = Exposition::default();
        node::write(&mut more, &app.node.monitored, &app.broker, totals, ready);
        alarms::write(&mut more, &alarms::active(&app, &Samples::read(&text)));
        text.push_str(&more.into_text());
        text
    })
    .await
}

async fn own_detailed(State(app): State<App>, query: Pairs) -> Result<Response, Problem> {
    let (families, wanted) = parsed(query, "namespace", &FAMILIES)?;
    blocking(move || {
        let mut text = Exposition::default();
        let mut bounded = Bounded::new(&mut text, app.node.monitored.series_max);
        for family in families {
            detailed::write(&family, &mut bounded, &wanted, &app.broker);
        }
        bounded.finish();
        text.into_text()
    })
    .await
}

async fn aggregated(State(app): State<App>) -> Result<Response, Problem> {
    blocking(move || with_source(&app, "aggregated", rabbitmq::write)).await
}

async fn per_object(State(app): State<App>) -> Result<Response, Problem> {
    blocking(move || {
        with_source(&app, "per-object", |text, source| {
            rabbitmq::write_without_queues(text, source);
            let mut bounded = Bounded::new(text, app.node.monitored.series_max);
            detailed::rabbitmq_queues("rabbitmq_", &mut bounded, &Wanted::default(), &app.broker);
            bounded.finish();
        })
    })
    .await
}

async fn rabbitmq_detailed(State(app): State<App>, query: Pairs) -> Result<Response, Problem> {
    const QUEUES: [&str; 3] = ["queue_coarse_metrics", "queue_metrics", "queue_consumer_count"];
    let (families, wanted) = parsed(query, "vhost", &QUEUES)?;
    blocking(move || {
        with_source(&app, "detailed", |text, source| {
            rabbitmq::write_identity(text, source);
            if !families.is_empty() {
                let mut bounded = Bounded::new(text, app.node.monitored.series_max);
                detailed::rabbitmq_queues("rabbitmq_detailed_", &mut bounded, &wanted, &app.broker);
                bounded.finish();
            }
        })
    })
    .await
}

/// The families that are asked for, each once, and which objects of them.
fn parsed(query: Pairs, namespace: &str, known: &[&str]) -> Result<(Vec<String>, Wanted), Problem> {
    let Query(pairs) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let (mut families, mut wanted) = (Vec::new(), Wanted::default());
    for (key, value) in pairs {
        match key.as_str() {
            "family" => {
                for family in value.split(',').filter(|family| !family.is_empty()) {
                    if !known.contains(&family) {
                        let known = known.join(", ");
                        return Err(Problem::bad_request(format!("family: `{family}` is none of {known}")));
                    }
                    if !families.iter().any(|named| named == family) {
                        families.push(family.to_owned());
                    }
                }
            }
            "name" => wanted.name = Some(value),
            key if key == namespace => wanted.namespace = Some(value),
            key => return Err(Problem::bad_request(format!("unknown parameter `{key}`"))),
        }
    }
    Ok((families, wanted))
}

/// What the recorder has, with the process' own values.
pub(super) fn recorded(app: &App) -> String {
    app.broker.record();
    app.process.collect();
    app.node.metrics.render()
}

fn with_source(
    app: &App,
    endpoint: &'static str,
    write: impl FnOnce(&mut Exposition, &Source<'_>),
) -> String {
    let mut recorded = recorded(app);
    let mut alarm_text = Exposition::default();
    alarms::write(&mut alarm_text, &alarms::active(app, &Samples::read(&recorded)));
    recorded.push_str(&alarm_text.into_text());
    let source = Source {
        monitored: &app.node.monitored,
        disk_free_min: app.broker.log().free_bytes().map_or(0, |(_, min)| min),
        samples: &Samples::read(&recorded),
        totals: app.totals.get(&app.broker),
        uptime_s: (app.broker.clock().now() - app.node.started).as_secs_f64(),
        endpoint,
    };
    let mut text = Exposition::default();
    write(&mut text, &source);
    text.into_text()
}

/// Runs `render` on a blocking thread: it walks over all queues, and may read from disk.
async fn blocking(render: impl FnOnce() -> String + Send + 'static) -> Result<Response, Problem> {
    let text = tokio::task::spawn_blocking(render).await;
    let text = text.map_err(|_| Problem::internal("the metrics could not be written"))?;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
