//! Health checks: 200 if all is well, else 503 with the reason.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::error::Fault;
use super::node_name;
use super::nodes::resource_alarms;
use super::request::{Names, durable, operator, scope, work};
use crate::http::App;
use crate::http::auth::Caller;
use crate::http::metrics::active_alarms;
use crate::protocols::{MessageProperties, NewMessage, Settle};

/// The queue of the aliveness test, as in RabbitMQ.
const ALIVENESS_QUEUE: &str = "aliveness-test";

fn ok(more: &[(&str, Value)]) -> Response {
    let mut fields = Map::from_iter([("status".to_owned(), json!("ok"))]);
    fields.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Json(Value::Object(fields)).into_response()
}

fn failed(reason: &str, more: &[(&str, Value)]) -> Response {
    let mut fields =
        Map::from_iter([("status".to_owned(), json!("failed")), ("reason".to_owned(), json!(reason))]);
    fields.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    (StatusCode::SERVICE_UNAVAILABLE, Json(Value::Object(fields))).into_response()
}

/// Fails while disk or memory are low.
pub(super) async fn alarms(State(app): State<App>) -> Result<Response, Fault> {
    work(&app, |app| {
        let alarms = resource_alarms(app);
        if alarms.is_empty() {
            return Ok(ok(&[]));
        }
        let shown: Vec<Value> =
            alarms.iter().map(|resource| json!({"node": node_name(), "resource": resource})).collect();
        Ok(failed("There are alarms in effect in the cluster", &[("alarms", shown.into())]))
    })
    .await
}

/// Every virtual host is available as long as the broker answers.
pub(super) async fn fine() -> Response {
    ok(&[])
}

/// There is one node.
pub(super) async fn single_node() -> Response {
    ok(&[("reason", json!("single node cluster"))])
}

/// Fails while the broker accepts no connections.
pub(super) async fn ready(State(app): State<App>) -> Response {
    match app.node.ready.load(Ordering::Acquire) {
        true => ok(&[]),
        false => failed("the node does not accept connections", &[]),
    }
}

/// Fails when as many connections are open as may be.
pub(super) async fn below_connection_limit(State(app): State<App>) -> Result<Response, Fault> {
    work(&app, |app| {
        let (open, max) = (app.broker.connections().len(), app.node.monitored.connections_max);
        let counts = [("connections", json!(open)), ("limit", json!(max))];
        Ok(match active_alarms(app).iter().any(|(alarm, _)| *alarm == "connections_full") {
            false => ok(&counts),
            true => failed("connection limit is reached", &counts),
        })
    })
    .await
}

/// Fails unless this port is listened on.
pub(super) async fn port_listener(
    State(app): State<App>,
    Names(port): Names<String>,
) -> Result<Response, Fault> {
    let port: u16 = port.parse().map_err(|_| Fault::bad_request("Invalid port"))?;
    let ports: Vec<u16> = app.listening.read().iter().map(|listener| listener.address.port()).collect();
    Ok(match ports.contains(&port) {
        true => ok(&[("port", json!(port))]),
        false => failed("No active listener", &[("missing", json!(port)), ("ports", json!(ports))]),
    })
}

/// Fails unless a listener speaks this protocol.
pub(super) async fn protocol_listener(State(app): State<App>, Names(protocol): Names<String>) -> Response {
    let protocols: Vec<String> =
        app.listening.read().iter().map(super::super::Listening::rabbitmq_protocol).collect();
    let wanted = match protocol.as_str() {
        "amqp091" | "amqp0.9.1" | "amqp10" | "amqp1.0" => "amqp",
        "amqps" => "amqp/ssl",
        other => other,
    };
    match protocols.iter().any(|spoken| spoken == wanted) {
        true => ok(&[("protocol", json!(protocol))]),
        false => {
            failed("No active listener", &[("missing", json!(protocol)), ("protocols", json!(protocols))])
        }
    }
}

/// Publishes a message to a queue and gets it back.
pub(super) async fn aliveness(
    State(app): State<App>,
    caller: Caller,
    Names(vhost): Names<String>,
) -> Result<Response, Fault> {
    let scope = scope(&app, &caller, &vhost)?;
    let publishing = scope.clone();
    durable(&app, move |_| {
        let operator = operator(&publishing);
        let declared = operator.declare_queue(ALIVENESS_QUEUE, false, false, [].into())?;
        let properties = MessageProperties::default();
        let message = NewMessage {
            exchange: "",
            routing_key: ALIVENESS_QUEUE,
            properties: &properties,
            body: b"test_message",
        };
        let (_, done) = operator.publish(message)?;
        Ok(((), declared.completion.and(done)))
    })
    .await?;
    let (got, _) = operator(&scope).get(ALIVENESS_QUEUE, 1, Settle::Ack).await?;
    Ok(if got.is_empty() { failed("the message did not come back", &[]) } else { ok(&[]) })
}
