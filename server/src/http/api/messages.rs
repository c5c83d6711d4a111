//! Peeking at messages: nothing is taken, nothing is marked.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use inver_access::{Operation, ResourceKind};
use inver_broker::message::{HeaderView, Property};
use inver_broker::{Peeked, PeekedMessage};
use inver_storage::batch::Record;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::values::Data;
use super::{answer, queues, topics};
use crate::http::App;
use crate::http::auth::Scope;
use crate::http::problem::Problem;
use crate::http::request::Scoped;

/// Messages of one answer.
const MESSAGES_MAX: u64 = 500;
/// Bytes of the messages of one answer.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Bytes of a value shown where nothing else is wanted.
const VALUE_BYTES: u64 = 64 << 10;

/// Which messages are read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Which {
    /// What is read: a log topic, a queue, or the messages that wait for a session.
    #[param(inline)]
    source: SourceKind,
    /// The name of the topic or queue, or the client id of the session.
    #[param(max_length = 4096)]
    name: String,
    /// The partition of a log topic.
    #[serde(default)]
    partition: u32,
    /// The offset to read from; without it, the first message kept.
    #[param(nullable = false, maximum = 9_223_372_036_854_775_807_i64)]
    offset: Option<u64>,
    /// Of a log topic: read from the first message with a timestamp at or after this time, milliseconds since 1970.
    #[param(nullable = false)]
    time_ms: Option<i64>,
    /// Of a log topic: read the last messages, this many offsets from the end.
    #[param(nullable = false, minimum = 1, maximum = 9_223_372_036_854_775_807_i64)]
    last: Option<u64>,
    /// Messages to read.
    #[serde(default = "fifty")]
    #[param(minimum = 1, maximum = 500, default = 50)]
    count: u64,
    /// Bytes of each value to show.
    #[serde(default = "value_bytes")]
    #[param(maximum = 8_388_608, default = 65_536)]
    value_bytes: u64,
}

fn fifty() -> u64 {
    50
}

fn value_bytes() -> u64 {
    VALUE_BYTES
}

/// What messages are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum SourceKind {
    Topic,
    Queue,
    Inbox,
}

/// Messages that were read.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Messages {
    messages: Vec<Message>,
    /// The offset to read on from; none at the end.
    next: Option<u64>,
}

/// A message as it is stored.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Message {
    offset: u64,
    timestamp_ms: i64,
    /// The protocol that it was published with; none for a record of a producer's batch.
    origin: Option<String>,
    /// The topic that a message in a queue or an inbox was produced to.
    topic: Option<String>,
    key: Option<Data>,
    /// None for a null value.
    value: Option<Data>,
    /// Bytes of the whole value.
    value_size: u64,
    /// The value is shown in part.
    truncated: bool,
    /// What the publisher's protocol says beside value and headers, by name.
    properties: BTreeMap<String, String>,
    /// The publisher's own headers, in order.
    headers: Vec<Header>,
    /// It is delivered to a consumer and not acknowledged.
    unacked: bool,
}

/// A header.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Header {
    name: String,
    /// None for a null value.
    value: Option<Data>,
}

impl Message {
    fn of(message: PeekedMessage, value_bytes: usize) -> Message {
        let PeekedMessage { offset, record, topic, unacked } = message;
        let view = HeaderView::of(&record);
        let value = record.value.as_deref();
        let value_size = value.map_or(0, <[u8]>::len);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Message {
            offset,
            timestamp_ms: record.timestamp_ms,
            origin: view.origin().map(text),
            topic: topic.map(|topic| topic.to_string()),
            key: record.key.as_deref().map(Data::of),
            value: value.map(|value| shown(value, value_bytes)),
            value_size: value_size as u64,
            truncated: value_size > value_bytes,
            properties: properties(&record),
            headers: view
                .user()
                .map(|(name, value)| Header { name: text(name), value: value.map(Data::of) })
                .collect(),
            unacked,
        }
    }
}

/// The beginning of a value; a character of a text is not cut.
fn shown(value: &[u8], bytes: usize) -> Data {
    let part = value.get(..bytes).unwrap_or(value);
    match std::str::from_utf8(part) {
        Err(error) if part.len() < value.len() && error.error_len().is_none() => {
            Data::of(part.get(..error.valid_up_to()).unwrap_or(part))
        }
        _ => Data::of(part),
    }
}

fn properties(record: &Record) -> BTreeMap<String, String> {
    let all = HeaderView::of(record).properties();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shown = all.filter_map(|(name, value)| match Property::decode(name, value) {
        Property::Malformed => None,
        _ => Some((text(name), text(value.unwrap_or_default()))),
    });
    shown.collect()
}

/// Reads messages of a log topic, a queue or a session. Nothing is taken, nothing is marked. Needs the permission to read.
#[utoipa::path(get, path = "/messages", tag = "messages", params(Scope, Which),
    responses((status = 200, body = Messages)))]
pub(in crate::http) async fn peek(
    State(app): State<App>,
    Scoped(scope, which): Scoped<Which>,
) -> Result<Json<Messages>, Problem> {
    if !(1..=MESSAGES_MAX).contains(&which.count) {
        return Err(Problem::bad_request(format!("count is out of bounds: 1 to {MESSAGES_MAX}")));
    }
    let value_bytes = usize::try_from(which.value_bytes).unwrap_or(usize::MAX).min(ANSWER_BYTES_MAX);
    answer(&app, move |_| {
        let Peeked { messages, next } = read(&scope, &which)?;
        let messages = messages.into_iter().map(|message| Message::of(message, value_bytes)).collect();
        Ok(Messages { messages, next })
    })
    .await
}

fn read(scope: &Scope, which: &Which) -> Result<Peeked, Problem> {
    let (namespace, name, count) = (scope.namespace(), which.name.as_str(), which.count as usize);
    let starts = [which.offset.is_some(), which.time_ms.is_some(), which.last.is_some()];
    if starts.into_iter().filter(|given| *given).count() > 1 {
        return Err(Problem::bad_request("give one of offset, time_ms and last"));
    }
    if which.source != SourceKind::Topic
        && (which.time_ms.is_some() || which.last.is_some() || which.partition != 0)
    {
        return Err(Problem::bad_request("partition, time_ms and last are for log topics"));
    }
    match which.source {
        SourceKind::Topic => {
            scope.check(ResourceKind::Topic, name, Operation::Read)?;
            let topic = topics::find(namespace, name)?;
            let partition = topic.partition(which.partition).ok_or_else(|| {
                Problem::not_found(format!("topic `{name}` has no partition {}", which.partition))
            })?;
            let from = match (which.offset, which.time_ms, which.last) {
                (Some(offset), ..) => offset,
                (_, Some(at), _) => partition.offset_at(at)?.0,
                (_, _, Some(last)) => partition.stream().high_watermark().0.saturating_sub(last),
                _ => 0,
            };
            Ok(namespace.peek(&partition, from, count, ANSWER_BYTES_MAX)?)
        }
        SourceKind::Queue => {
            scope.check(ResourceKind::Topic, name, Operation::Read)?;
            let queue = queues::find_usable(namespace, name)?;
            Ok(queue.subscription().peek(which.offset.unwrap_or(0), count, ANSWER_BYTES_MAX)?)
        }
        SourceKind::Inbox => {
            scope.check(ResourceKind::Session, name, Operation::Read)?;
            let peeked = scope.sessions().peek(name, which.offset.unwrap_or(0), count, ANSWER_BYTES_MAX)?;
            peeked.ok_or_else(|| Problem::not_found(format!("there is no session `{name}`")))
        }
    }
}
