//! Publishing, one message or several.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use inver_broker::Completion;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::App;
use crate::http::api::durable;
use crate::http::api::publish::{Destination, NewMessage, NewProperties, Published, send};
use crate::http::api::values::Data;
use crate::http::auth::{Caller, Scope};
use crate::http::problem::Problem;
use crate::http::request::Body;

/// Messages of one request.
const BULK_MAX: usize = 1000;

/// Reason codes of MQTT 5 (section 2.4).
const NO_SUBSCRIBERS: u8 = 0x10;
const UNSPECIFIED_ERROR: u8 = 0x80;
const QUOTA_EXCEEDED: u8 = 0x97;

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

/// The status and the answer for a message.
fn told(app: &App, published: &Published) -> (StatusCode, Value) {
    if published.is_refused() {
        let message = "a queue that is full refused the message";
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            json!({ "message": message, "reason_code": QUOTA_EXCEEDED }),
        );
    }
    match published.has_receivers() {
        true => (StatusCode::OK, json!({ "id": message_id(app) })),
        // Not an error: nobody has subscribed.
        false => {
            let message = json!({ "message": "no_matching_subscribers", "reason_code": NO_SUBSCRIBERS });
            (StatusCode::ACCEPTED, message)
        }
    }
}

/// Publishes a message.
pub(super) async fn publish(
    State(app): State<App>,
    caller: Caller,
    scope: Scope,
    Body(new): Body<New>,
) -> Result<Response, Problem> {
    let message = new.message()?;
    let (status, answer) = durable(&app, move |app| {
        let (published, completion) = send(app, &caller, &scope, message)?;
        Ok((told(app, &published), completion))
    })
    .await?;
    Ok((status, Json(answer)).into_response())
}

/// Publishes messages in order, all of them if all are well formed. The answer has an entry for each; its status is that of
/// the worst.
pub(super) async fn publish_bulk(
    State(app): State<App>,
    caller: Caller,
    scope: Scope,
    Body(all): Body<Vec<New>>,
) -> Result<Response, Problem> {
    if all.len() > BULK_MAX {
        return Err(Problem::bad_request(format!("more than {BULK_MAX} messages")));
    }
    let all = all.into_iter().map(New::message).collect::<Result<Vec<NewMessage>, Problem>>()?;
    let (worst, answers) = durable(&app, move |app| {
        let (mut worst, mut answers, mut done) =
            (StatusCode::OK, Vec::with_capacity(all.len()), Completion::Now);
        for message in all {
            let (status, answer) = match send(app, &caller, &scope, message) {
                Ok((published, completion)) => {
                    done = done.and(completion);
                    told(app, &published)
                }
                Err(problem) => {
                    let (status, detail) = problem.into_parts();
                    (status, json!({ "message": detail, "reason_code": UNSPECIFIED_ERROR }))
                }
            };
            worst = worst.max(status);
            answers.push(answer);
        }
        Ok(((worst, answers), done))
    })
    .await?;
    Ok((worst, Json(answers)).into_response())
}
