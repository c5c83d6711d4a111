//! The firehose: while a virtual host is traced, its exchange `amq.rabbitmq.trace` gets a copy of each message that clients
//! publish and get, with headers that tell where it came from and went.

use inver_broker::{Message, Namespace, PublishError, Publisher, PublisherId, Target};

use crate::codec::Properties;
use crate::codec::table::{Table, TableWriter, Value, array_of};
use crate::error::Refusal;
use crate::map::{Composer, ORIGIN, Outgoing, Publish, more_keys_of};

/// The exchange. What is published to it is not traced.
const EXCHANGE: &str = "amq.rabbitmq.trace";
/// The name of this server.
const NODE: &[u8] = b"inver";
/// Bytes of a routing key.
const KEY_BYTES_MAX: usize = 255;
/// Bytes of a message's properties, of its keys, and of the names of its queues, in the headers; properties of more are left out,
/// and so are further keys and queues.
const PART_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a text in an array beside its own.
const TEXT_OVERHEAD: usize = 5;

/// Whose messages are traced.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Firehose<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) user: &'a str,
    /// The name of the connection.
    pub(crate) connection: &'a str,
    pub(crate) channel: u16,
}

/// Why a trace is not published.
#[derive(Debug, thiserror::Error)]
enum Untraced {
    #[error("{}", .0.text)]
    Message(Refusal),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl Firehose<'_> {
    /// A client published a message, which was routed to these queues.
    pub(crate) fn published(&self, publish: &Publish<'_>, more_keys: &[&[u8]], queues: &[String]) {
        if !self.is_bound() {
            return;
        }
        let keys = std::iter::once(publish.routing_key).chain(more_keys.iter().copied());
        let mut headers = self.headers(publish.exchange.as_bytes(), keys, publish.properties);
        let (mut array, mut left) = (Vec::new(), PART_BYTES_MAX);
        let mut names = TableWriter::new(&mut array);
        for queue in queues {
            let Some(rest) = left.checked_sub(TEXT_OVERHEAD + queue.len()) else { break };
            left = rest;
            names.value(Value::Text(queue.as_bytes()));
        }
        TableWriter::new(&mut headers).field(b"routed_queues", array_of(&array));
        self.send("publish.", publish.exchange.as_bytes(), &headers, publish.body);
    }

    /// A client got a message of a queue.
    pub(crate) fn delivered(&self, queue: &str, is_redelivered: bool, message: &Outgoing<'_>) {
        if message.exchange == EXCHANGE.as_bytes() || !self.is_bound() || is_dead_trace(message.properties) {
            return;
        }
        let more_keys = more_keys_of(message.properties);
        let keys = std::iter::once(message.routing_key).chain(more_keys);
        let mut headers = self.headers(message.exchange, keys, message.properties);
        TableWriter::new(&mut headers).field(b"redelivered", Value::I32(is_redelivered.into()));
        self.send("deliver.", queue.as_bytes(), &headers, message.body);
    }

    /// Whether a trace would get anywhere.
    fn is_bound(&self) -> bool {
        self.namespace.exchange(EXCHANGE).is_some_and(|exchange| exchange.binding_count() > 0)
    }

    /// The headers that both have.
    fn headers<'k>(
        &self,
        exchange: &[u8],
        keys: impl Iterator<Item = &'k [u8]>,
        properties: &[u8],
    ) -> Vec<u8> {
        let (mut table, mut array) = (Vec::new(), Vec::new());
        let (mut list, mut left) = (TableWriter::new(&mut array), PART_BYTES_MAX);
        for key in keys {
            let Some(rest) = left.checked_sub(TEXT_OVERHEAD + key.len()) else { break };
            left = rest;
            list.value(Value::Text(key));
        }
        let shown = Some(properties).filter(|raw| raw.len() <= PART_BYTES_MAX);
        let shown = properties_table(&shown.and_then(|raw| Properties::parse(raw).ok()).unwrap_or_default());
        TableWriter::new(&mut table)
            .field(b"exchange_name", Value::Text(exchange))
            .field(b"routing_keys", array_of(&array))
            .field(b"properties", Value::Table(Table::of(&shown)))
            .field(b"node", Value::Text(NODE))
            .field(b"vhost", Value::Text(self.namespace.name().as_bytes()))
            .field(b"connection", Value::Text(self.connection.as_bytes()))
            .field(b"channel", Value::I32(self.channel.into()))
            .field(b"user", Value::Text(self.user.as_bytes()));
        table
    }

    fn send(&self, kind: &str, name: &[u8], headers: &[u8], body: &[u8]) {
        let mut routing_key = [kind.as_bytes(), name].concat();
        routing_key.truncate(KEY_BYTES_MAX);
        if let Err(error) = self.publish(&routing_key, headers, body) {
            tracing::debug!(%error, "failed to publish a trace");
        }
    }

    /// Each is an entry of its own, before that of the message itself.
    fn publish(&self, routing_key: &[u8], headers: &[u8], body: &[u8]) -> Result<(), Untraced> {
        let mut raw = Vec::new();
        Properties { headers: Some(Table::of(headers)), ..Properties::default() }.encode(&mut raw);
        let publish = Publish { exchange: EXCHANGE, routing_key, mandatory: false, properties: &raw, body };
        let mut composer = Composer::default();
        let now_ms = self.namespace.clock().steady_ms();
        let composed = composer.compose(&publish, now_ms).map_err(Untraced::Message)?;
        let message = Message {
            timestamp_ms: now_ms,
            key: None,
            value: Some(body),
            headers: composed.headers,
            guaranteed: false,
            lookup: Some(&composed.table),
        };
        let id = PublisherId { origin: ORIGIN, session: None };
        let mut publisher = Publisher::of_server(self.namespace.clone(), id);
        publisher.publish(Target::Exchange { name: EXCHANGE, routing_key, more_keys: &[] }, &message)?;
        publisher.flush()?;
        Ok(())
    }
}

/// Whether a message is a trace that a queue of its own dead-lettered: tracing its delivery would go on for ever.
fn is_dead_trace(properties: &[u8]) -> bool {
    let headers = Properties::parse(properties).ok().and_then(|properties| properties.headers);
    let first = headers.and_then(|headers| headers.get("x-first-death-exchange"));
    first == Some(Value::Text(EXCHANGE.as_bytes()))
}

/// Properties as a table, by their names.
fn properties_table(properties: &Properties<'_>) -> Vec<u8> {
    let mut table = Vec::new();
    let mut writer = TableWriter::new(&mut table);
    let texts = [
        ("content_type", properties.content_type),
        ("content_encoding", properties.content_encoding),
        ("correlation_id", properties.correlation_id),
        ("reply_to", properties.reply_to),
        ("expiration", properties.expiration),
        ("message_id", properties.message_id),
        ("type", properties.kind),
        ("user_id", properties.user_id),
        ("app_id", properties.app_id),
        ("cluster_id", properties.cluster_id),
    ];
    for (name, text) in texts {
        text.into_iter().for_each(|text| _ = writer.field(name.as_bytes(), Value::Text(text)));
    }
    if let Some(headers) = properties.headers {
        writer.field(b"headers", Value::Table(headers));
    }
    if let Some(mode) = properties.delivery_mode {
        writer.field(b"delivery_mode", Value::I32(mode.into()));
    }
    if let Some(priority) = properties.priority {
        writer.field(b"priority", Value::I32(priority.into()));
    }
    if let Some(seconds) = properties.timestamp {
        writer.field(b"timestamp", Value::I64(i64::try_from(seconds).unwrap_or(i64::MAX)));
    }
    table
}
