//! Connections and disconnections of clients as messages, as EMQX tells them:
//! `$SYS/brokers/inver/clients/CLIENT_ID/connected` and `…/disconnected`, and records of a log topic if one is set.
//!
//! Nothing waits for them, and nothing is kept where nobody listens.

use std::net::SocketAddr;

use inver_broker::message::HeaderWriter;
use inver_broker::{
    CloseReason, LoggedClient, Message, Namespace, Publisher, PublisherId, Target, TopicConfig, TopicError,
    TopicSpec,
};
use inver_driver::End;
use inver_storage::batch::BatchBuilder;
use serde_json::{Map, Value, json};

use crate::codec::{Qos, Version};
use crate::error::Stop;
use crate::map::{ORIGIN, server_headers};
use crate::server::Server;
use crate::session::Session;

/// The name of this server in the topics.
const NODE: &str = "inver";

/// What happened to a client.
#[derive(Clone, Copy)]
enum Event {
    Connected,
    Disconnected,
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Event::Connected => "connected",
            Event::Disconnected => "disconnected",
        }
    }
}

/// Tells that a client has connected.
pub(crate) fn connected(server: &Server, session: &Session, client: &LoggedClient, clean_start: bool) {
    if !server.config.events {
        return;
    }
    let now_ms = session.namespace().clock().now_ms();
    let more = json!({
        "keepalive": session.keep_alive_s(),
        "clean_start": clean_start,
        "expiry_interval": session.expiry_s(),
        "connected_at": now_ms,
        "connack": 0,
    });
    tell(server, session, client, Event::Connected, now_ms, more);
}

/// Tells that a client's connection has ended.
pub(crate) fn disconnected(server: &Server, session: &Session, client: &LoggedClient, end: &End<Stop>) {
    if !server.config.events {
        return;
    }
    let now_ms = session.namespace().clock().now_ms();
    let more = json!({ "reason": reason(end), "disconnected_at": now_ms });
    tell(server, session, client, Event::Disconnected, now_ms, more);
}

/// The word that EMQX has for the end of a connection.
fn reason(end: &End<Stop>) -> &'static str {
    match end {
        End::Closed => "tcp_closed",
        End::Io(_) => "tcp_error",
        End::Stalled => "stalled",
        End::NoMemory(_) | End::Protocol(Stop::NoMemory) => "out_of_memory",
        End::Protocol(Stop::Disconnected) => "normal",
        End::Protocol(Stop::KeepAliveTimeout) => "keepalive_timeout",
        End::Protocol(Stop::TakenOver) => "takenover",
        End::Protocol(Stop::ShuttingDown) => "shutdown",
        End::Protocol(Stop::Closed(CloseReason::CredentialExpired)) => "expired",
        End::Protocol(Stop::Closed(_)) => "kicked",
        End::Protocol(Stop::Violation(_)) => "protocol_error",
        End::Protocol(_) => "error",
    }
}

fn tell(server: &Server, session: &Session, client: &LoggedClient, event: Event, now_ms: i64, more: Value) {
    let address = client.address();
    let mut facts = facts(session, address);
    facts.insert("ts".to_owned(), now_ms.into());
    if let Value::Object(more) = more {
        facts.extend(more);
    }
    let namespace = session.namespace();
    publish(namespace, session.client_id(), event, &Value::Object(facts.clone()).to_string());
    if !server.config.events_topic.is_empty() {
        facts.insert("event".to_owned(), event.name().into());
        let value = Value::Object(facts).to_string();
        if let Err(error) =
            append(namespace, &server.config.events_topic, session.client_id(), &value, now_ms)
        {
            client.request_refused("event", &error);
        }
    }
}

fn facts(session: &Session, address: SocketAddr) -> Map<String, Value> {
    let (level, name) = match session.version() {
        Version::V31 => (3, "MQIsdp"),
        Version::V311 => (4, "MQTT"),
        Version::V5 => (5, "MQTT"),
    };
    let facts = json!({
        "clientid": session.client_id(),
        "username": session.user(),
        "ipaddress": address.ip().to_string(),
        "sockport": session.place().local().port(),
        "peerport": address.port(),
        "proto_name": name,
        "proto_ver": level,
        "protocol": "mqtt",
    });
    match facts {
        Value::Object(facts) => facts,
        _ => Map::new(),
    }
}

/// Publishes to who subscribed.
fn publish(namespace: &Namespace, client_id: &str, event: Event, payload: &str) {
    let topic = format!("$SYS/brokers/{NODE}/clients/{}/{}", level(client_id), event.name());
    let mut writer = HeaderWriter::default();
    let message = Message {
        timestamp_ms: namespace.clock().steady_ms(),
        key: None,
        value: Some(payload.as_bytes()),
        headers: server_headers(&mut writer, &topic, Qos::ExactlyOnce, None),
        guaranteed: true,
        lookup: None,
    };
    let mut publisher =
        Publisher::of_server(namespace.clone(), PublisherId { origin: ORIGIN, session: None });
    let published = publisher.publish(Target::Hub(topic.as_bytes()), &message);
    if let Err(error) = published.and_then(|_| publisher.flush()) {
        tracing::debug!(client_id, %error, "failed to publish an event of a client");
    }
}

/// A client identifier as one level of a topic: what separates levels, or is no part of a topic name, is percent-escaped.
fn level(client_id: &str) -> String {
    let mut level = String::with_capacity(client_id.len());
    for char in client_id.chars() {
        match char {
            '/' | '+' | '#' | '%' | '\0' => level.push_str(&format!("%{:02X}", u32::from(char))),
            char => level.push(char),
        }
    }
    level
}

/// Why a record was not appended.
#[derive(Debug, thiserror::Error)]
enum AppendError {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error(transparent)]
    Produce(#[from] inver_broker::ProduceError),
}

/// Appends a record to the log topic, which is made by the first.
fn append(
    namespace: &Namespace,
    topic: &str,
    client_id: &str,
    value: &str,
    now_ms: i64,
) -> Result<(), AppendError> {
    let spec = TopicSpec { partitions: 1, config: TopicConfig::new() };
    let found = match namespace.topic(topic) {
        Some(found) => found,
        None => match namespace.create_topic(topic, &spec) {
            Ok((made, _)) => made,
            // Made by another task meanwhile.
            Err(TopicError::Exists(name)) => namespace.topic(&name).ok_or(TopicError::Unknown(name))?,
            Err(error) => return Err(error.into()),
        },
    };
    let Some(partition) = found.partition_of(Some(client_id.as_bytes())) else { return Ok(()) };
    let mut batch = BatchBuilder::new(0);
    batch.push(now_ms, Some(client_id.as_bytes()), &[], Some(value.as_bytes()));
    namespace.produce(&found, &partition, batch.finish())?;
    Ok(())
}
