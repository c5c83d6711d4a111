//! The broker as a whole, and who asks.

use axum::Json;
use axum::extract::State;
use inver_access::Tag;
use serde_json::{Map, Value, json};

use super::error::Fault;
use super::list::Columns;
use super::request::{Params, work};
use super::{node_name, nodes};
use crate::http::App;
use crate::http::auth::Caller;
use crate::http::metrics::node::Totals;
use crate::http::metrics::recorded;
use crate::http::metrics::text::Samples;
use crate::protocols::RABBITMQ_VERSION;

/// Types of exchanges, with their descriptions.
pub(super) fn exchange_types() -> Value {
    let kind =
        |name: &str, description: &str| json!({"name": name, "description": description, "enabled": true});
    json!([
        kind("direct", "AMQP direct exchange, as per the AMQP specification"),
        kind("fanout", "AMQP fanout exchange, as per the AMQP specification"),
        kind("headers", "AMQP headers exchange, as per the AMQP specification"),
        kind("topic", "AMQP topic exchange, as per the AMQP specification"),
        kind(
            "x-consistent-hash",
            "One binding for each message, by a hash of its key, a header or a property"
        ),
        kind("x-delayed-message", "Delays messages by their header x-delay, then routes as another type"),
        kind("x-message-deduplication", "All bindings, but for messages with a header whose value was seen"),
        kind("x-local-random", "One binding for each message, by chance"),
        kind("x-modulus-hash", "One binding for each message, by its key's hash modulo their number"),
        kind("x-random", "One binding for each message, by chance"),
    ])
}

/// The broker in numbers.
pub(super) async fn overview(
    State(app): State<App>,
    caller: Caller,
    params: Params,
) -> Result<Json<Value>, Fault> {
    let columns = Columns::of(&params);
    work(&app, move |app| Ok(Json(columns.of_value(shown(app, &caller))))).await
}

fn shown(app: &App, caller: &Caller) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let mut shown = json!({
        "management_version": RABBITMQ_VERSION,
        "rates_mode": "basic",
        "sample_retention_policies": {"global": [], "basic": [], "detailed": []},
        "exchange_types": exchange_types(),
        "product_version": version,
        "product_name": "Inver",
        "rabbitmq_version": RABBITMQ_VERSION,
        "cluster_name": node_name(),
        "cluster_tags": {},
        "node_tags": {},
        "erlang_version": "none",
        "erlang_full_version": "none",
        "release_series_support_status": "supported",
        "disable_stats": false,
        "default_queue_type": "classic",
        "is_op_policy_updating_enabled": false,
        "enable_queue_totals": true,
        "statistics_db_event_queue": 0,
        "node": node_name(),
    });
    let Value::Object(fields) = &mut shown else { return shown };
    let seen: Vec<_> =
        app.broker.namespaces().into_iter().filter(|it| caller.sees(&app.broker, it.name())).collect();
    let Totals { ready, unacked, consumers, .. } = match caller.sees_all() {
        true => app.totals.get(&app.broker),
        false => Totals::of(&seen),
    };
    fields.insert(
        "queue_totals".into(),
        json!({
            "messages": ready + unacked,
            "messages_ready": ready,
            "messages_unacknowledged": unacked,
        }),
    );
    let text = recorded(app);
    let samples = Samples::read(&text);
    let opened = samples.sum("inver_protocol_channels_opened_total", &[]);
    let closed = samples.sum("inver_protocol_channels_closed_total", &[]);
    fields.insert(
        "object_totals".into(),
        json!({
            "channels": (opened - closed).max(0.0) as u64,
            "connections": app.broker.connections().len(),
            "consumers": consumers,
            // The default exchange of each is one more.
            "exchanges": seen.iter().map(|it| it.exchange_count() + 1).sum::<usize>(),
            "queues": seen.iter().map(inver_broker::Namespace::queue_count).sum::<usize>(),
        }),
    );
    let can_see_all = caller.sees_all();
    let rates = app.rates.of(app.broker.clock().now(), &samples);
    fields.insert("message_stats".into(), if can_see_all { rates.messages() } else { json!({}) });
    fields.insert("churn_rates".into(), if can_see_all { rates.churn() } else { json!({}) });
    if can_see_all {
        fields.insert("listeners".into(), nodes::listeners(app));
        fields.insert("contexts".into(), nodes::contexts(app));
    }
    shown
}

/// Who asks.
pub(super) async fn whoami(State(app): State<App>, caller: Caller) -> Json<Value> {
    let name = caller.identity.name().unwrap_or(inver_broker::DEFAULT_USER);
    let tags: Vec<&str> = match caller.identity.name() {
        // Without users a client on this machine may do everything.
        None if !app.broker.access().has_users() => vec![Tag::Administrator.name()],
        _ => caller.tags.iter().map(Tag::name).collect(),
    };
    let is_internal = caller.identity.external_tags().is_none();
    let fields: Map<String, Value> = [
        ("name".to_owned(), json!(name)),
        ("tags".to_owned(), json!(tags)),
        ("is_internal_user".to_owned(), json!(is_internal)),
    ]
    .into_iter()
    .collect();
    Json(Value::Object(fields))
}

/// The version of RabbitMQ that clients are told.
pub(super) async fn version() -> Json<&'static str> {
    Json(RABBITMQ_VERSION)
}

/// The name of the cluster, which is the node's.
pub(super) async fn cluster_name() -> Json<Value> {
    Json(json!({"name": node_name()}))
}
