//! Publishing a message, and getting messages of a queue.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use super::error::Fault;
use super::request::{Names, Object, durable, operator, scope, work};
use super::{exchanges, queues};
use crate::http::App;
use crate::http::api;
use crate::http::api::values::{arguments, arguments_to_json};
use crate::http::auth::Caller;
use crate::http::problem::Problem;
use crate::protocols::{GotMessage, MessageProperties, NewMessage, Settle};

/// Publishes a message; tells whether it was routed to anything.
pub(super) async fn publish(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, exchange)): Names<(String, String)>,
    body: Object,
) -> Result<Json<Value>, Fault> {
    let scope = scope(&app, &caller, &vhost)?;
    body.needs(&["properties", "routing_key", "payload", "payload_encoding"])?;
    let routed = durable(&app, move |app| {
        if let Some(shortage) = app.broker.log().gate().shortage() {
            return Err(Problem::unavailable(format!("{shortage}: try again later")).into());
        }
        let payload = body.text("payload")?.unwrap_or_default();
        let payload = match body.text("payload_encoding")?.unwrap_or_default() {
            "string" => payload.as_bytes().to_vec(),
            "base64" => BASE64
                .decode(payload.as_bytes())
                .map_err(|error| Fault::bad_request(format!("not_base64: {error}")))?,
            other => return Err(Fault::bad_request(format!("unsupported_encoding: {other}"))),
        };
        if payload.len() > app.node.settings.message_bytes_max {
            return Err(Fault::too_large("the body is larger than limits.message_bytes_max"));
        }
        let properties = properties(&body)?;
        let exchange = exchanges::find(scope.namespace(), &exchange);
        let exchange = exchange.map_err(|_| Fault::absent("exchange_not_found"))?;
        let message = NewMessage {
            exchange: exchange.as_ref().map_or("", |exchange| exchange.name()),
            routing_key: body.text("routing_key")?.unwrap_or_default(),
            properties: &properties,
            body: &payload,
        };
        Ok(operator(&scope).publish(message)?)
    })
    .await?;
    Ok(Json(json!({"routed": routed})))
}

fn properties(body: &Object) -> Result<MessageProperties, Fault> {
    let given = match body.0.get("properties") {
        Some(Value::Object(given)) => Object(given.clone()),
        Some(Value::Array(list)) if list.is_empty() => Object(Map::new()),
        _ => return Err(Fault::bad_request("properties is an object")),
    };
    let text = |name: &str| Ok::<_, Fault>(given.text(name)?.map(str::to_owned));
    let byte = |name: &str| match given.0.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let byte = value.as_u64().and_then(|number| u8::try_from(number).ok());
            byte.map(Some).ok_or_else(|| Fault::bad_request(format!("not_int: {name}")))
        }
    };
    let headers = match given.0.get("headers") {
        None | Some(Value::Null) => None,
        Some(Value::Object(headers)) => Some(arguments(headers.clone())?),
        Some(_) => return Err(Fault::bad_request("headers is an object")),
    };
    let timestamp = given.number("timestamp")?.map(u64::try_from).transpose();
    Ok(MessageProperties {
        content_type: text("content_type")?,
        content_encoding: text("content_encoding")?,
        headers,
        delivery_mode: byte("delivery_mode")?,
        priority: byte("priority")?,
        correlation_id: text("correlation_id")?,
        reply_to: text("reply_to")?,
        expiration: text("expiration")?,
        message_id: text("message_id")?,
        timestamp: timestamp.map_err(|_| Fault::bad_request("not_int: timestamp"))?,
        kind: text("type")?,
        user_id: text("user_id")?,
        app_id: text("app_id")?,
        cluster_id: text("cluster_id")?,
    })
}

fn shown_properties(properties: MessageProperties) -> Value {
    let mut shown = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            shown.insert(name.to_owned(), value);
        }
    };
    put("content_type", properties.content_type.map(Value::from));
    put("content_encoding", properties.content_encoding.map(Value::from));
    put("headers", properties.headers.map(|headers| Value::Object(arguments_to_json(&headers))));
    put("delivery_mode", properties.delivery_mode.map(Value::from));
    put("priority", properties.priority.map(Value::from));
    put("correlation_id", properties.correlation_id.map(Value::from));
    put("reply_to", properties.reply_to.map(Value::from));
    put("expiration", properties.expiration.map(Value::from));
    put("message_id", properties.message_id.map(Value::from));
    put("timestamp", properties.timestamp.map(Value::from));
    put("type", properties.kind.map(Value::from));
    put("user_id", properties.user_id.map(Value::from));
    put("app_id", properties.app_id.map(Value::from));
    put("cluster_id", properties.cluster_id.map(Value::from));
    // RabbitMQ shows no properties as an empty list.
    if shown.is_empty() { json!([]) } else { Value::Object(shown) }
}

/// How payloads are shown.
#[derive(Clone, Copy)]
struct Shape {
    is_base64: bool,
    bytes_max: usize,
}

fn shown(message: GotMessage, shape: Shape) -> Value {
    let payload = message.body.get(..shape.bytes_max).unwrap_or(&message.body);
    let (payload, encoding) = match std::str::from_utf8(payload) {
        Ok(text) if !shape.is_base64 => (text.to_owned(), "string"),
        _ => (BASE64.encode(payload), "base64"),
    };
    json!({
        "payload_bytes": message.body.len(),
        "redelivered": message.redelivered,
        "exchange": message.exchange,
        "routing_key": message.routing_key,
        "message_count": message.left,
        "properties": shown_properties(message.properties),
        "payload": payload,
        "payload_encoding": if shape.is_base64 { "base64" } else { encoding },
    })
}

/// Gets messages of a queue, and settles them.
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, queue)): Names<(String, String)>,
    body: Object,
) -> Result<Response, Fault> {
    let scope = scope(&app, &caller, &vhost)?;
    body.needs(&["ackmode", "count", "encoding"])?;
    let settle = match body.text("ackmode")?.unwrap_or_default() {
        "ack_requeue_false" => Settle::Ack,
        "ack_requeue_true" | "reject_requeue_true" => Settle::Requeue,
        "reject_requeue_false" => Settle::Reject,
        other => return Err(Fault::bad_request(format!("unknown ackmode: {other}"))),
    };
    let is_base64 = match body.text("encoding")?.unwrap_or_default() {
        "auto" => false,
        "base64" => true,
        _ => return Err(Fault::bad_request("Unsupported encoding. Please use auto or base64.")),
    };
    let number = |name: &str| {
        let number = body.number(name)?.map(usize::try_from).transpose();
        number.map_err(|_| Fault::bad_request(format!("not_int: {name}")))
    };
    let count = number("count")?.unwrap_or_default();
    let shape = Shape { is_base64, bytes_max: number("truncate")?.unwrap_or(usize::MAX) };
    queues::find(scope.namespace(), &queue).map_err(|_| Fault::absent("queue_not_found"))?;
    let (messages, completion) = operator(&scope).get(&queue, count, settle).await?;
    api::committed(&app, completion).await?;
    work(&app, move |_| {
        let shown: Vec<Value> = messages.into_iter().map(|message| shown(message, shape)).collect();
        Ok(Json(shown).into_response())
    })
    .await
}
