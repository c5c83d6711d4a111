//! The node, and its listeners.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::error::Fault;
use super::list::ListQuery;
use super::node_name;
use super::overview::exchange_types;
use super::request::{Names, Params, found, work};
use crate::http::App;
use crate::http::api::node::Shown;
use crate::http::auth::Caller;
use crate::http::metrics::active_alarms;
use crate::memory::available_bytes;
use crate::protocols::RABBITMQ_VERSION;
use axum::response::Response;

pub(super) fn check_monitor(caller: &Caller) -> Result<(), Fault> {
    caller.check_sees_all().map_err(|_| Fault::not_authorised("Not monitor user"))
}

/// The one node.
pub(super) async fn list(State(app): State<App>, caller: Caller, params: Params) -> Result<Response, Fault> {
    check_monitor(&caller)?;
    let query = ListQuery::of(&params)?;
    work(&app, move |app| query.answer(vec![shown(app)], |_| node_name(), Clone::clone)).await
}

/// The node, by its name.
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    Names(node): Names<String>,
) -> Result<Json<Value>, Fault> {
    check_monitor(&caller)?;
    work(&app, move |app| found((node == node_name()).then(|| shown(app)))).await
}

/// The resources whose alarms are on, by RabbitMQ's names: `disk` and `memory`.
pub(super) fn resource_alarms(app: &App) -> Vec<&'static str> {
    let named = |(name, _): (&str, String)| match name {
        "disk_low" => Some("disk"),
        "memory_low" => Some("memory"),
        _ => None,
    };
    active_alarms(app).into_iter().filter_map(named).collect()
}

fn shown(app: &App) -> Value {
    let node = Shown::of(app);
    let alarms = resource_alarms(app);
    let (_, disk_min) = app.broker.log().free_bytes().unwrap_or_default();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    json!({
        "name": node_name(),
        "type": "disc",
        "running": node.ready,
        "being_drained": false,
        "uptime": node.uptime_s.saturating_mul(1000),
        "os_pid": node.process_id.to_string(),
        "db_dir": node.data_dir,
        "config_files": [],
        "log_files": [],
        "mem_used": node.memory.resident_bytes.unwrap_or_default(),
        "mem_limit": available_bytes().unwrap_or_default(),
        "mem_alarm": alarms.contains(&"memory"),
        "mem_calculation_strategy": "rss",
        "disk_free": node.disk.free_bytes.unwrap_or_default(),
        "disk_free_limit": disk_min,
        "disk_free_alarm": alarms.contains(&"disk"),
        "fd_used": node.files.open.unwrap_or_default(),
        "fd_total": node.files.max.unwrap_or_default(),
        "sockets_used": node.connections,
        "sockets_total": node.limits.connections_max,
        "proc_used": node.connections,
        "proc_total": node.limits.connections_max,
        "processors": threads,
        "run_queue": 0,
        "rates_mode": "basic",
        "net_ticktime": 60,
        "partitions": [],
        "cluster_links": [],
        "enabled_plugins": ["rabbitmq_management", "rabbitmq_mqtt", "rabbitmq_prometheus"],
        "exchange_types": exchange_types(),
        "auth_mechanisms": [
            {"name": "PLAIN", "description": "SASL PLAIN authentication mechanism", "enabled": true},
            {"name": "AMQPLAIN", "description": "QPid AMQPLAIN mechanism", "enabled": true},
        ],
        "applications": [
            {"name": "rabbit", "description": "Inver", "version": RABBITMQ_VERSION},
            {"name": "rabbitmq_management", "description": "Inver", "version": RABBITMQ_VERSION},
        ],
        "contexts": contexts(app),
    })
}

/// The addresses that are listened on.
pub(super) fn listeners(app: &App) -> Value {
    let listeners = app.listening.read();
    let shown = listeners.iter().map(|listener| {
        json!({
            "node": node_name(),
            "protocol": listener.rabbitmq_protocol(),
            "ip_address": listener.address.ip().to_string(),
            "port": listener.address.port(),
            "socket_opts": {},
        })
    });
    shown.collect()
}

/// The addresses of HTTP.
pub(super) fn contexts(app: &App) -> Value {
    let listeners = app.listening.read();
    let http = listeners.iter().filter(|listener| listener.protocol == crate::config::HTTP);
    let shown = http.map(|listener| {
        json!({
            "node": node_name(),
            "description": "Inver",
            "path": "/",
            "ip": listener.address.ip().to_string(),
            "port": listener.address.port().to_string(),
            "ssl_opts": [],
        })
    });
    shown.collect()
}
