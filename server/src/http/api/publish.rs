//! Publishing, and where a publish would go.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use inver_access::{Operation, ResourceKind};
use inver_broker::message::Property;
use inver_broker::{
    Completion, HeaderWriter, Message, Publisher, PublisherId, RoutePreview, Target, TopicKind,
};
use inver_storage::batch::BatchBuilder;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue};
use utoipa::ToSchema;

use super::values::{Data, Lookup, arguments};
use super::{answer, durable, queues, topics};
use crate::http::App;
use crate::http::auth::{Caller, Scope};
use crate::http::problem::Problem;
use crate::http::request::Body;

/// The origin of messages that are published over HTTP.
const ORIGIN: &str = "http";
/// Headers of one message.
const HEADERS_MAX: usize = 1000;

fn publisher_id() -> PublisherId {
    PublisherId { origin: ORIGIN, session: None }
}

/// Where a message goes.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(in crate::http) enum Destination {
    /// An address of the hub, as an MQTT topic: `a/b`.
    Address(String),
    /// A queue.
    Queue(String),
    /// A partition of a log topic; without `partition`, the one of the key.
    Topic {
        name: String,
        #[schema(nullable = false)]
        partition: Option<u32>,
    },
    /// An exchange, with a routing key.
    Exchange {
        name: String,
        #[serde(default)]
        routing_key: String,
    },
}

impl Destination {
    /// Refuses a client that may not publish there.
    fn check_write(&self, scope: &Scope) -> Result<(), Problem> {
        self.check(scope)?;
        match self {
            Destination::Address(address) => scope.check(ResourceKind::Address, address, Operation::Write),
            Destination::Exchange { name, .. } => scope.check_exchange(name, Operation::Write),
            Destination::Queue(_) | Destination::Topic { .. } => Ok(()),
        }
    }

    fn check(&self, scope: &Scope) -> Result<(), Problem> {
        // The publisher checks exchanges and addresses.
        if let Destination::Queue(name) | Destination::Topic { name, .. } = self {
            scope.check(ResourceKind::Topic, name, Operation::Write)?;
        }
        match self {
            Destination::Address(address)
                if address.is_empty()
                    || address.len() > 65_535
                    || address.contains(['+', '#', '\0'])
                    || address.starts_with('$') =>
            {
                Err(Problem::bad_request(
                    "an address has 1 to 65535 bytes, no `+`, `#` or NUL, and does not begin with `$`",
                ))
            }
            Destination::Exchange { routing_key, .. } if routing_key.len() > 65_535 => {
                Err(Problem::bad_request("a routing key has at most 65535 bytes"))
            }
            _ => Ok(()),
        }
    }
}

/// A message to publish.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewMessage {
    pub(in crate::http) to: Destination,
    /// The body; without it, a null value, which deletes its key in compacted topics.
    #[schema(nullable = false)]
    pub(in crate::http) value: Option<Data>,
    /// The record's key.
    #[schema(nullable = false)]
    pub(in crate::http) key: Option<Data>,
    /// Headers of the publisher.
    #[serde(default)]
    pub(in crate::http) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(in crate::http) properties: NewProperties,
    /// The message survives a crash where it is stored durably, and is answered for once it does.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub(in crate::http) guaranteed: bool,
    /// It becomes the retained message of its address; with an empty body that is cleared.
    #[serde(default)]
    pub(in crate::http) retain: bool,
}

/// Properties of a message to publish.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::http) struct NewProperties {
    #[schema(nullable = false, max_length = 255)]
    pub(in crate::http) content_type: Option<String>,
    #[schema(nullable = false, max_length = 255)]
    pub(in crate::http) correlation_id: Option<String>,
    #[schema(nullable = false, max_length = 255)]
    pub(in crate::http) message_id: Option<String>,
    #[schema(nullable = false, max_length = 255)]
    pub(in crate::http) r#type: Option<String>,
    #[schema(nullable = false, max_length = 255)]
    pub(in crate::http) app_id: Option<String>,
    #[schema(nullable = false)]
    pub(in crate::http) priority: Option<u8>,
    /// It expires after this time.
    #[schema(nullable = false, maximum = 4_000_000_000_000_i64)]
    pub(in crate::http) expires_after_ms: Option<u64>,
}

impl NewProperties {
    fn check(&self) -> Result<(), Problem> {
        let texts = [&self.content_type, &self.correlation_id, &self.message_id, &self.r#type, &self.app_id];
        if texts.into_iter().flatten().any(|text| text.len() > 255) {
            return Err(Problem::bad_request("a property has at most 255 bytes"));
        }
        Ok(())
    }
}

fn yes() -> bool {
    true
}

/// Where a message went.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(in crate::http) struct Published {
    /// Receivers, captures not counted.
    destinations: u64,
    /// A full queue refused it.
    refused: bool,
    /// The partition of a log topic that was named.
    partition: Option<u32>,
    /// The offset in it.
    offset: Option<u64>,
}

impl Published {
    /// Whether a full queue refused it.
    pub(in crate::http) fn is_refused(&self) -> bool {
        self.refused
    }

    /// Whether anybody receives it.
    pub(in crate::http) fn has_receivers(&self) -> bool {
        self.destinations > 0
    }
}

/// Publishes a message. Answers once the message is stored as its receivers promise.
#[utoipa::path(post, path = "/publish", tag = "messages", params(Scope), request_body = NewMessage,
    responses((status = 200, body = Published)))]
pub(in crate::http) async fn publish(
    State(app): State<App>,
    caller: Caller,
    scope: Scope,
    Body(new): Body<NewMessage>,
) -> Result<Json<Published>, Problem> {
    durable(&app, move |app| send(app, &caller, &scope, new)).await.map(Json)
}

/// Publishes a message; what is returned is to be waited for.
pub(in crate::http) fn send(
    app: &App,
    caller: &Caller,
    scope: &Scope,
    new: NewMessage,
) -> Result<(Published, Completion), Problem> {
    if let Some(shortage) = app.broker.log().gate().shortage() {
        return Err(Problem::unavailable(format!("{shortage}: try again later")));
    }
    new.to.check(scope)?;
    new.properties.check()?;
    if new.headers.len() > HEADERS_MAX {
        return Err(Problem::bad_request(format!("more than {HEADERS_MAX} headers")));
    }
    let bytes = |data: Option<Data>| data.map_or(Ok(None), Data::bytes);
    let (value, key) = (bytes(new.value)?, bytes(new.key)?);
    if value.as_ref().map_or(0, Vec::len) > app.node.settings.message_bytes_max {
        return Err(Problem::too_large("the body is larger than limits.message_bytes_max"));
    }
    let (namespace, now_ms) = (scope.namespace(), app.broker.clock().steady_ms());
    if let Destination::Topic { name, partition } = &new.to {
        if new.retain {
            return Err(Problem::bad_request("a retained message needs an address"));
        }
        let topic = topics::find(namespace, name)?;
        if topic.kind() != TopicKind::Log {
            return Err(Problem::conflict(format!("`{name}` is a queue")));
        }
        let found = match partition {
            Some(index) => topic.partition(*index),
            None => topic.partition_of(key.as_deref()),
        };
        let partition =
            found.ok_or_else(|| Problem::not_found(format!("topic `{name}` has no such partition")))?;
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            new.headers.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_bytes()))).collect();
        let mut builder = BatchBuilder::new(0);
        builder.push(now_ms, key.as_deref(), &headers, value.as_deref());
        let submitted = namespace.produce(&topic, &partition, builder.finish())?;
        let published = Published {
            destinations: 1,
            partition: Some(partition.index()),
            offset: submitted.bases.first().map(|base| base.0),
            ..Published::default()
        };
        return Ok((published, submitted.lsn.into()));
    }
    let mut writer = HeaderWriter::default();
    write_headers(&mut writer, &new.to, &new.properties, &new.headers, caller, now_ms, new.guaranteed);
    let message = Message {
        timestamp_ms: now_ms,
        key: key.as_deref(),
        value: value.as_deref(),
        headers: writer.headers(),
        guaranteed: new.guaranteed,
        lookup: None,
    };
    let mut publisher =
        Publisher::new(namespace.clone(), publisher_id()).with_permissions(scope.permissions().clone());
    let lookup = headers_to_route_by(&new.headers);
    let lookup = Lookup(&lookup);
    let message = Message { lookup: Some(&lookup), ..message };
    let target = match &new.to {
        Destination::Address(address) => Target::Hub(address.as_bytes()),
        Destination::Queue(name) => {
            queues::find(namespace, name)?;
            Target::Exchange { name: "", routing_key: name.as_bytes(), more_keys: &[] }
        }
        Destination::Exchange { name, routing_key } => {
            Target::Exchange { name, routing_key: routing_key.as_bytes(), more_keys: &[] }
        }
        Destination::Topic { .. } => return Err(Problem::internal("a topic is not a target")),
    };
    let routed = match (new.retain, &new.to) {
        (false, _) => publisher.publish(target, &message)?,
        (true, Destination::Address(address)) => {
            let (routed, retained) = publisher.publish_retained(address.as_bytes(), &message)?;
            if let Err(limit) = retained {
                publisher.discard();
                return Err(Problem::conflict(limit.to_string()));
            }
            routed
        }
        (true, _) => return Err(Problem::bad_request("a retained message needs an address")),
    };
    let completion = publisher.flush()?;
    let published = Published {
        destinations: routed.destinations as u64,
        refused: routed.refused,
        ..Published::default()
    };
    Ok((published, completion))
}

fn headers_to_route_by(headers: &BTreeMap<String, String>) -> inver_broker::Arguments {
    let value = |text: &String| inver_broker::Value::Text(text.clone().into_bytes());
    headers.iter().map(|(name, text)| (name.clone(), value(text))).collect()
}

fn write_headers(
    writer: &mut HeaderWriter,
    to: &Destination,
    properties: &NewProperties,
    headers: &BTreeMap<String, String>,
    caller: &Caller,
    now_ms: i64,
    guaranteed: bool,
) {
    let expires = properties.expires_after_ms.map(|after| now_ms.saturating_add_unsigned(after));
    writer.begin(ORIGIN, expires);
    match to {
        Destination::Address(address) => {
            writer.put(Property::Address(address.as_bytes()));
            if guaranteed {
                writer.put(Property::Qos(1));
            }
        }
        Destination::Queue(name) => {
            writer.put(Property::Exchange(b""));
            writer.put(Property::RoutingKey(name.as_bytes()));
        }
        Destination::Exchange { name, routing_key } => {
            writer.put(Property::Exchange(name.as_bytes()));
            writer.put(Property::RoutingKey(routing_key.as_bytes()));
        }
        Destination::Topic { .. } => {}
    }
    if guaranteed && !matches!(to, Destination::Address(_)) {
        writer.put(Property::DeliveryMode(2));
    }
    let texts = [
        properties.content_type.as_deref().map(|text| Property::ContentType(text.as_bytes())),
        properties.correlation_id.as_deref().map(|text| Property::CorrelationId(text.as_bytes())),
        properties.message_id.as_deref().map(|text| Property::MessageId(text.as_bytes())),
        properties.r#type.as_deref().map(|text| Property::Type(text.as_bytes())),
        properties.app_id.as_deref().map(|text| Property::AppId(text.as_bytes())),
    ];
    texts.into_iter().flatten().for_each(|property| writer.put(property));
    if let Some(priority) = properties.priority {
        writer.put(Property::Priority(priority));
    }
    if let Some(user) = caller.identity.name() {
        writer.put(Property::UserId(user.as_bytes()));
    }
    for (name, value) in headers {
        writer.user(name.as_bytes(), Some(value.as_bytes()));
    }
}

/// A publish to preview.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct RouteTest {
    to: Destination,
    /// Headers that a headers exchange routes by.
    #[serde(default)]
    #[schema(value_type = Object)]
    headers: Map<String, JsonValue>,
    /// The protocol that would publish, for capture rules that name one.
    #[schema(nullable = false, max_length = 32)]
    protocol: Option<String>,
}

/// Where a publish would go.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Route {
    /// The queues, those of shared subscriptions included.
    queues: Vec<String>,
    topics: Vec<RoutedPartition>,
    sessions: Vec<RoutedSession>,
    captured: Option<Captured>,
}

/// A partition of a log topic.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct RoutedPartition {
    topic: String,
    partition: u32,
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct RoutedSession {
    client_id: String,
    /// A guaranteed message would be delivered guaranteed.
    guaranteed: bool,
}

/// What a capture rule appends the message to.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Captured {
    /// The topic, which may not exist yet.
    topic: String,
    key: String,
}

impl Route {
    fn of(preview: RoutePreview) -> Route {
        let sessions = preview.sessions.into_iter();
        let topics = preview.topics.into_iter();
        Route {
            queues: preview.queues.iter().map(|queue| queue.name().to_owned()).collect(),
            topics: topics.map(|(topic, partition)| RoutedPartition { topic, partition }).collect(),
            sessions: sessions
                .map(|session| RoutedSession { client_id: session.client_id, guaranteed: session.guaranteed })
                .collect(),
            captured: preview
                .captured
                .map(|(topic, key)| Captured { topic, key: String::from_utf8_lossy(&key).into_owned() }),
        }
    }
}

/// Tells where a publish would go. Nothing is published, nothing is created.
#[utoipa::path(post, path = "/routes/test", tag = "messages", params(Scope), request_body = RouteTest,
    responses((status = 200, body = Route)))]
pub(in crate::http) async fn test(
    State(app): State<App>,
    scope: Scope,
    Body(test): Body<RouteTest>,
) -> Result<Json<Route>, Problem> {
    answer(&app, move |app| {
        test.to.check_write(&scope)?;
        let origin = test.protocol.as_deref().unwrap_or(ORIGIN);
        let known = app.node.settings.protocols.iter().chain([&ORIGIN]).find(|name| **name == origin);
        let origin = known.ok_or_else(|| Problem::bad_request(format!("there is no protocol `{origin}`")))?;
        let by = PublisherId { origin, session: None };
        let namespace = scope.namespace();
        let preview = match &test.to {
            Destination::Address(address) => namespace.preview_address(address.as_bytes(), &by),
            Destination::Queue(name) => namespace.preview_exchange("", name.as_bytes(), None, &by)?,
            Destination::Exchange { name, routing_key } => {
                let headers = arguments(test.headers)?;
                namespace.preview_exchange(name, routing_key.as_bytes(), Some(&Lookup(&headers)), &by)?
            }
            Destination::Topic { name, partition } => {
                let topic = topics::find(namespace, name)?;
                // What the topic's address reaches in the hub, beside the topic itself.
                let address = name.replace('.', "/");
                let preview = namespace.preview_address(address.as_bytes(), &by);
                let own = (topic.name().to_owned(), partition.unwrap_or(0));
                let mut topics = preview.topics;
                topics.retain(|(name, _)| *name != own.0);
                topics.insert(0, own);
                RoutePreview { topics, captured: None, ..preview }
            }
        };
        Ok(Route::of(preview))
    })
    .await
}
