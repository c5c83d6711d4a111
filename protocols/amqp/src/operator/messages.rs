//! Publishing a message, and getting messages of a queue.

use std::borrow::Cow;

use bytes::Bytes;
use inver_broker::{
    Arguments, AttachError, Completion, ConsumerSpec, Delivery, Mailbox, Message, Publisher, PublisherId,
    Target, Value as CoreValue,
};

use super::{Operator, Refused};
use crate::codec::Properties;
use crate::codec::table::{Table, TableWriter, Value, array_of};
use crate::error::Refusal;
use crate::firehose::Firehose;
use crate::map::{Composer, ORIGIN, Publish, Renderer, Tells, Told, core_arguments};
use crate::topology::access::{Access, check_user_id};
use crate::topology::names::REPLY_TO;

/// Bytes of the bodies of one get: fewer messages are returned than asked for beyond it.
const GET_BYTES_MAX: usize = 16 << 20;
/// Messages of one get.
const GET_MESSAGES_MAX: usize = 10_000;
/// Bytes of the headers of a message of another protocol.
const TABLE_BYTES_MAX: usize = 1 << 20;
/// The name of the connection in traces of what is published without one.
const HTTP: &str = "http";
/// The one token of a mailbox.
const TOKEN: u64 = 1;

/// The properties of a message. Texts that are not UTF-8 are shown with replacement characters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MessageProperties {
    /// `content_type`
    pub content_type: Option<String>,
    /// `content_encoding`
    pub content_encoding: Option<String>,
    /// `headers`
    pub headers: Option<Arguments>,
    /// `delivery_mode`
    pub delivery_mode: Option<u8>,
    /// `priority`
    pub priority: Option<u8>,
    /// `correlation_id`
    pub correlation_id: Option<String>,
    /// `reply_to`
    pub reply_to: Option<String>,
    /// `expiration`
    pub expiration: Option<String>,
    /// `message_id`
    pub message_id: Option<String>,
    /// `timestamp`
    pub timestamp: Option<u64>,
    /// `type`
    pub kind: Option<String>,
    /// `user_id`
    pub user_id: Option<String>,
    /// `app_id`
    pub app_id: Option<String>,
    /// `cluster_id`
    pub cluster_id: Option<String>,
}

/// A message to publish.
#[derive(Debug, Clone, Copy)]
pub struct NewMessage<'a> {
    /// The exchange; empty for the default exchange.
    pub exchange: &'a str,
    /// The routing key.
    pub routing_key: &'a str,
    /// The properties.
    pub properties: &'a MessageProperties,
    /// The body.
    pub body: &'a [u8],
}

/// What becomes of messages that were got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// They are acknowledged.
    Ack,
    /// They return to the queue.
    Requeue,
    /// They are dead-lettered or dropped.
    Reject,
}

/// A message that was got.
#[derive(Debug, Clone)]
pub struct GotMessage {
    /// The exchange that it was published to.
    pub exchange: String,
    /// The routing key that it was published with.
    pub routing_key: String,
    /// It was delivered before.
    pub redelivered: bool,
    /// Messages left in the queue when it was taken.
    pub left: u64,
    /// Its properties.
    pub properties: MessageProperties,
    /// Its body.
    pub body: Bytes,
}

impl MessageProperties {
    /// The property flags and property list.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Refusal> {
        let mut raw = Vec::new();
        let mut table = Vec::new();
        if let Some(headers) = &self.headers {
            write_table(headers, &mut table)?;
        }
        let properties = Properties {
            content_type: short(self.content_type.as_ref())?,
            content_encoding: short(self.content_encoding.as_ref())?,
            headers: self.headers.as_ref().map(|_| Table::of(&table)),
            delivery_mode: self.delivery_mode,
            priority: self.priority,
            correlation_id: short(self.correlation_id.as_ref())?,
            reply_to: short(self.reply_to.as_ref())?,
            expiration: short(self.expiration.as_ref())?,
            message_id: short(self.message_id.as_ref())?,
            timestamp: self.timestamp,
            kind: short(self.kind.as_ref())?,
            user_id: short(self.user_id.as_ref())?,
            app_id: short(self.app_id.as_ref())?,
            cluster_id: short(self.cluster_id.as_ref())?,
        };
        properties.encode(&mut raw);
        Ok(raw)
    }

    fn decode(raw: &[u8]) -> MessageProperties {
        let all = Properties::parse(raw).unwrap_or_default();
        let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        MessageProperties {
            content_type: text(all.content_type),
            content_encoding: text(all.content_encoding),
            headers: all.headers.map(core_arguments),
            delivery_mode: all.delivery_mode,
            priority: all.priority,
            correlation_id: text(all.correlation_id),
            reply_to: text(all.reply_to),
            expiration: text(all.expiration),
            message_id: text(all.message_id),
            timestamp: all.timestamp,
            kind: text(all.kind),
            user_id: text(all.user_id),
            app_id: text(all.app_id),
            cluster_id: text(all.cluster_id),
        }
    }
}

/// A property that is a short string on the wire.
fn short(text: Option<&String>) -> Result<Option<&[u8]>, Refusal> {
    match text {
        Some(text) if text.len() > 255 => {
            Err(Refusal::precondition_failed("properties and names of headers have at most 255 bytes"))
        }
        text => Ok(text.map(String::as_bytes)),
    }
}

fn write_table(arguments: &Arguments, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let mut writer = TableWriter::new(out);
    for (name, value) in arguments {
        short(Some(name))?;
        with_value(value, &mut |value| _ = writer.field(name.as_bytes(), value))?;
    }
    Ok(())
}

/// Calls `write` with a value of the model as a field's value. Recursion is as deep as the value.
fn with_value(value: &CoreValue, write: &mut dyn FnMut(Value<'_>)) -> Result<(), Refusal> {
    let mut nested = Vec::new();
    let value = match value {
        CoreValue::Null => Value::Void,
        CoreValue::Bool(flag) => Value::Bool(*flag),
        CoreValue::Int(number) => match i64::try_from(*number) {
            Ok(number) => Value::I64(number),
            Err(_) => return Err(Refusal::precondition_failed("a number in the headers is too large")),
        },
        CoreValue::Float(number) => Value::F64(*number),
        CoreValue::Decimal { scale, unscaled } => {
            Value::Decimal { scale: *scale, value: u32::try_from(*unscaled).unwrap_or_default() }
        }
        CoreValue::Text(text) => Value::Text(text),
        CoreValue::Bytes(bytes) => Value::Binary(bytes),
        CoreValue::Timestamp(seconds) => Value::Timestamp(*seconds),
        CoreValue::List(list) => {
            let mut writer = TableWriter::new(&mut nested);
            for value in list {
                with_value(value, &mut |value| writer.value(value))?;
            }
            array_of(&nested)
        }
        CoreValue::Map(map) => {
            write_table(map, &mut nested)?;
            Value::Table(Table::of(&nested))
        }
    };
    write(value);
    Ok(())
}

impl Operator {
    /// Publishes a message; returns whether it was routed to anything, and when that is durable.
    ///
    /// # Errors
    /// There is no such exchange, the properties are wrong, or it is not permitted.
    pub fn publish(&self, message: NewMessage<'_>) -> Result<(bool, Completion), Refused> {
        let NewMessage { exchange, routing_key, properties, body } = message;
        if properties.reply_to.as_deref() == Some(REPLY_TO) {
            return Err(Refusal::precondition_failed("fast reply consumer does not exist").into());
        }
        if routing_key.len() > 255 {
            return Err(Refusal::precondition_failed("a routing key has at most 255 bytes").into());
        }
        let client = &self.0;
        let now_ms = client.namespace.clock().steady_ms();
        let raw = properties.encode()?;
        let publish = Publish {
            exchange,
            routing_key: routing_key.as_bytes(),
            mandatory: true,
            properties: &raw,
            body,
        };
        let mut composer = Composer::default();
        let composed = composer.compose(&publish, now_ms)?;
        if let Some(claimed) = composed.user_id {
            check_user_id(claimed, &client.permissions)?;
        }
        let more_keys = composed.more_keys();
        let message = Message {
            timestamp_ms: now_ms,
            key: composed.key,
            value: composed.value,
            headers: composed.headers,
            guaranteed: composed.persistent,
            lookup: Some(&composed.table),
        };
        let target =
            Target::Exchange { name: exchange, routing_key: publish.routing_key, more_keys: &more_keys };
        let id = PublisherId { origin: ORIGIN, session: None };
        let mut publisher =
            Publisher::new(client.namespace.clone(), id).with_permissions(client.permissions.clone());
        let routed = publisher.publish(target, &message).map_err(|error| client.publish_refused(error))?;
        if let Some(queues) = publisher.take_traced() {
            let firehose = Firehose {
                namespace: &client.namespace,
                user: client.permissions.user().unwrap_or_default(),
                connection: HTTP,
                channel: 1,
            };
            firehose.published(&publish, &more_keys, &queues);
        }
        let done = publisher.flush().map_err(Refusal::internal)?;
        Ok((routed.destinations > 0 && !routed.refused, done))
    }

    /// Takes up to `count` messages of a queue and settles them; returns them, and when that is durable. Sees what was
    /// submitted to the log before. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// There is no such queue, a consumer has it exclusively, or it is not permitted.
    pub async fn get(
        &self,
        queue: &str,
        count: usize,
        settle: Settle,
    ) -> Result<(Vec<GotMessage>, Completion), Refused> {
        let client = &self.0;
        client.check_queue(queue, Access::Read)?;
        let found = client.accessible_queue(queue)?;
        client.check_not_stream(&found, "basic.get")?;
        let log = client.namespace.log();
        log.wait_committed(log.submitted()).await.map_err(Refusal::internal)?;
        let mailbox = Mailbox::new();
        let spec = ConsumerSpec { passive: true, ..ConsumerSpec::new(mailbox.clone(), TOKEN) };
        let mut consumer = found.subscription().attach(spec).map_err(|error| match error {
            AttachError::Closed => Refusal::no_such("queue", queue, client.vhost()),
            _ => {
                Refusal::access_refused(format_args!("{} in exclusive use", client.in_vhost("queue", queue)))
            }
        })?;
        let count = count.min(GET_MESSAGES_MAX);
        let mut deliveries: Vec<Delivery> = Vec::new();
        let mut bytes_left = GET_BYTES_MAX;
        while deliveries.len() < count && bytes_left > 0 {
            let before = deliveries.len();
            let pull = consumer.pull(count - before, bytes_left, &mut deliveries);
            let taken = deliveries.iter().skip(before);
            let bytes: usize = taken.map(|it| it.record.value.as_ref().map_or(0, Bytes::len)).sum();
            bytes_left = bytes_left.saturating_sub(bytes);
            if pull.cancelled {
                return Err(Refusal::no_such("queue", queue, client.vhost()).into());
            } else if pull.unreadable {
                return Err(Refusal::unreadable(client.in_vhost("queue", queue)).into());
            } else if pull.pending {
                mailbox.wait().await;
                mailbox.drain(&mut Vec::new());
            } else if deliveries.len() == before {
                if !pull.more {
                    break;
                }
                // A part of a long queue was put in order: others of this thread have their turn.
                tokio::task::yield_now().await;
            }
        }
        let ready = found.depth().ready;
        let tells = Tells::of_queue(found.spec());
        let now_ms = client.namespace.clock().steady_ms();
        let (mut renderer, mut told) = (Renderer::default(), Told::default());
        let last = deliveries.len().saturating_sub(1);
        let mut got = Vec::with_capacity(deliveries.len());
        for (at, delivery) in deliveries.iter().enumerate() {
            let source = delivery.topic.as_deref().unwrap_or(queue);
            let shown = renderer.render(&delivery.record, source, TABLE_BYTES_MAX, now_ms);
            let text = |bytes: &[u8]| match String::from_utf8_lossy(bytes) {
                Cow::Borrowed(text) => text.to_owned(),
                Cow::Owned(text) => text,
            };
            got.push(GotMessage {
                exchange: text(shown.exchange),
                routing_key: text(shown.routing_key),
                redelivered: delivery.redelivered > 0,
                left: ready + (last - at) as u64,
                properties: MessageProperties::decode(told.properties(shown.properties, tells.of(delivery))),
                body: delivery.record.value.clone().unwrap_or_default(),
            });
        }
        let ids: Vec<_> = deliveries.iter().map(|delivery| delivery.id).collect();
        let settled = match settle {
            Settle::Ack => consumer.ack(&ids),
            Settle::Requeue => consumer.requeue(&ids),
            Settle::Reject => consumer.reject(&ids),
        };
        Ok((got, settled.map_err(Refusal::internal)?))
    }
}
