//! Publishing, one message or several.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::App;
use crate::http::api::publish::{Destination, NewMessage, NewProperties, Published, send};
use crate::http::api::values::Data;
use crate::http::api::{blocking, committed};
use crate::http::auth::{Caller, Scope};
use crate::http::problem::Problem;
use crate::http::request::Body;

/// Messages of one request.
const BULK_MAX: usize = 1000;

/// How the payload is written.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Plain,
    Base64,
}

/// A message; other fields of EMQX are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct New {
    topic: String,
    #[serde(default)]
    payload: String,
    #[serde(default)]
    payload_encoding: Encoding,
    #[serde(default)]
    qos: u8,
    #[serde(default)]
    retain: bool,
    #[serde(default)]
    properties: Properties,
}

/// Properties of MQTT 5.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Properties {
    content_type: Option<String>,
    correlation_data: Option<String>,
    /// Seconds.
    message_expiry_interval: Option<u32>,
    user_properties: BTreeMap<String, String>,
}

impl New {
    fn message(self) -> Result<NewMessage, Problem> {
        if self.qos > 2 {
            return Err(Problem::bad_request("qos is 0, 1 or 2"));
        }
        let value = match self.payload_encoding {
            Encoding::Plain => Data { text: Some(self.payload), base64: None },
            Encoding::Base64 => Data { text: None, base64: Some(self.payload) },
        };
        let properties = NewProperties {
            content_type: self.properties.content_type,
            correlation_id: self.properties.correlation_data,
            expires_after_ms: self
                .properties
                .message_expiry_interval
                .map(|seconds| u64::from(seconds) * 1000),
            ..NewProperties::default()
        };
        Ok(NewMessage {
            to: Destination::Address(self.topic),
            value: Some(value),
            key: None,
            headers: self.properties.user_properties,
            properties,
            guaranteed: self.qos > 0,
            retain: self.retain,
        })
    }
}

/// An id that no other message of this process has.
fn message_id(app: &App) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{:016X}{number:016X}", app.broker.clock().now_ms())
}

async fn one(app: &App, caller: &Caller, scope: &Scope, new: New) -> Result<(StatusCode, Value), Problem> {
    let (message, caller, scope) = (new.message()?, caller.clone(), scope.clone());
    let sent = blocking(app, move |app| send(app, &caller, &scope, message)).await;
    let (published, completion): (Published, _) = sent?;
    committed(app, completion).await?;
    if published.is_refused() {
        return Err(Problem::unavailable("a queue that is full refused the message"));
    }
    Ok(match published.has_receivers() {
        true => (StatusCode::OK, json!({ "id": message_id(app) })),
        // Not an error: nobody has subscribed.
        false => (StatusCode::ACCEPTED, json!({ "message": "no_matching_subscribers", "reason_code": 16 })),
    })
}

/// Publishes a message.
pub(super) async fn publish(
    State(app): State<App>,
    caller: Caller,
    scope: Scope,
    Body(new): Body<New>,
) -> Result<Response, Problem> {
    let (status, answer) = one(&app, &caller, &scope, new).await?;
    Ok((status, Json(answer)).into_response())
}

/// Publishes messages in order. The answer has an entry for each; its status is that of the worst.
pub(super) async fn publish_bulk(
    State(app): State<App>,
    caller: Caller,
    scope: Scope,
    Body(all): Body<Vec<New>>,
) -> Result<Response, Problem> {
    if all.len() > BULK_MAX {
        return Err(Problem::bad_request(format!("more than {BULK_MAX} messages")));
    }
    let (mut worst, mut answers) = (StatusCode::OK, Vec::with_capacity(all.len()));
    for new in all {
        let (status, answer) = one(&app, &caller, &scope, new).await?;
        worst = worst.max(status);
        answers.push(answer);
    }
    Ok((worst, Json(answers)).into_response())
}
