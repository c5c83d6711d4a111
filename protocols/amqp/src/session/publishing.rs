//! `basic.publish`, mandatory messages and `basic.return`.

use inver_broker::{Message, Target};
use inver_driver::{Count, CountedPublisher, count, count_received};

use super::assembly::Assembly;
use super::channel::Channel;
use super::confirms::{Answer, ChannelConfirms};
use super::shared::Shared;
use super::tracing::trace_published;
use super::transaction::Transaction;
use crate::codec::content::Properties;
use crate::codec::{ContentHeader, Method, write};
use crate::error::{Refusal, ReplyCode};
use crate::map::Publish;
use crate::topology::access::check_user_id;
use crate::topology::names::REPLY_TO;

impl Channel {
    /// Processes a content header frame.
    pub(super) fn content_header(
        &mut self,
        header: &ContentHeader<'_>,
        shared: &mut Shared,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let (assembly, publishing) = self.split();
        match assembly.header(header, shared.limits.message_bytes_max)? {
            Some(publish) => publishing.publish(&publish, shared, out),
            None => Ok(()),
        }
    }

    /// Processes a content body frame.
    pub(super) fn content_body(
        &mut self,
        payload: &[u8],
        shared: &mut Shared,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let (assembly, publishing) = self.split();
        let result = match assembly.body(payload, &mut shared.bodies) {
            Ok(Some(publish)) => publishing.publish(&publish, shared, out),
            Ok(None) => Ok(()),
            Err(refusal) => Err(refusal),
        };
        assembly.trim(&mut shared.bodies);
        result
    }

    /// The message that is being assembled, and what publishes it when it is whole.
    fn split(&mut self) -> (&mut Assembly, Publishing<'_>) {
        let Channel { number, assembly, confirms, transaction, reply_queue, publisher, .. } = self;
        let replies = Replies { number: *number, queue: reply_queue.as_deref() };
        (assembly, Publishing { replies, confirms, transaction, publisher })
    }

    /// See [`Replies::publish`].
    pub(super) fn publish_now(
        &mut self,
        publish: &Publish<'_>,
        shared: &mut Shared,
        out: &mut Vec<u8>,
    ) -> Result<Answer, Refusal> {
        Replies { number: self.number, queue: self.reply_queue.as_deref() }.publish(publish, shared, out)
    }
}

/// What of a channel takes part in a publish, beside the message that it assembled.
struct Publishing<'c> {
    replies: Replies<'c>,
    confirms: &'c mut ChannelConfirms,
    transaction: &'c mut Option<Transaction>,
    publisher: &'c mut Option<CountedPublisher>,
}

/// Where what comes back of a publish goes.
#[derive(Clone, Copy)]
struct Replies<'c> {
    /// The channel number.
    number: u16,
    /// The queue behind `amq.rabbitmq.reply-to`, if the channel consumes from it.
    queue: Option<&'c str>,
}

impl Publishing<'_> {
    /// Publishes a whole message, or holds it for the commit of a transaction.
    fn publish(self, publish: &Publish<'_>, shared: &mut Shared, out: &mut Vec<u8>) -> Result<(), Refusal> {
        count_received(publish.body.len());
        self.publisher.get_or_insert_default();
        if let Some(transaction) = self.transaction {
            let (name, routing_key) = (publish.exchange, publish.routing_key);
            let to = Target::Exchange { name, routing_key, more_keys: &[] };
            shared.publisher.check(to).map_err(|error| shared.publish_refused(error))?;
            let held_bytes = &mut shared.transaction_bytes;
            return transaction.hold(publish, shared.limits.transaction_bytes_max, held_bytes);
        }
        let answer = self.replies.publish(publish, shared, out)?;
        if self.confirms.enabled {
            shared.unconfirmed += 1;
            count(Count::ToConfirm, 1);
            if self.confirms.count(answer) {
                shared.published.push(self.replies.number);
            }
        }
        Ok(())
    }
}

impl Replies<'_> {
    /// Routes a message into the write batch. A mandatory message that matches no binding is returned.
    fn publish(
        self,
        publish: &Publish<'_>,
        shared: &mut Shared,
        out: &mut Vec<u8>,
    ) -> Result<Answer, Refusal> {
        let replaced = self.reply_to(publish)?;
        let to_store = match &replaced {
            Some(properties) => &Publish { properties, ..*publish },
            None => publish,
        };
        let composed = shared.composer.compose(to_store, shared.now_ms)?;
        let more_keys = if composed.more_keys { composed.more_keys() } else { Vec::new() };
        let message = Message {
            timestamp_ms: shared.now_ms,
            key: composed.key,
            value: composed.value,
            headers: composed.headers,
            guaranteed: composed.persistent,
            lookup: Some(&composed.table),
        };
        let target = Target::Exchange {
            name: publish.exchange,
            routing_key: publish.routing_key,
            more_keys: &more_keys,
        };
        if let Some(claimed) = composed.user_id
            && let Err(refusal) = check_user_id(claimed, &shared.client.permissions)
        {
            let permitted = shared.publisher.check(target);
            return Err(permitted.err().map_or(refusal, |error| shared.publish_refused(error)));
        }
        match shared.publisher.publish(target, &message) {
            Ok(routed) => {
                let outcome = match (routed.destinations, publish.mandatory) {
                    (0, true) => Count::Returned,
                    (0, false) => Count::Unroutable,
                    _ => Count::Routed,
                };
                count(outcome, 1);
                if outcome == Count::Returned {
                    write_return(publish, self.number, shared.frame_max, out);
                }
                if shared.is_traced
                    && let Some(queues) = shared.publisher.take_traced()
                {
                    let (namespace, connection) = (&shared.client.namespace, &shared.connection);
                    trace_published(self.number, publish, &more_keys, &queues, namespace, connection);
                }
                Ok(if routed.refused { Answer::Nack } else { Answer::Ack })
            }
            Err(error) => Err(shared.publish_refused(error)),
        }
    }

    /// The properties with the channel's reply queue in place of `amq.rabbitmq.reply-to`.
    fn reply_to(self, publish: &Publish<'_>) -> Result<Option<Vec<u8>>, Refusal> {
        let needle = REPLY_TO.as_bytes();
        if publish.properties.len() <= needle.len() {
            return Ok(None);
        }
        let properties = Properties::parse(publish.properties)?;
        if properties.reply_to != Some(needle) {
            return Ok(None);
        }
        let Some(queue) = self.queue else {
            return Err(Refusal::precondition_failed("fast reply consumer does not exist"));
        };
        let mut raw = Vec::new();
        Properties { reply_to: Some(queue.as_bytes()), ..properties }.encode(&mut raw);
        Ok(Some(raw))
    }
}

/// Writes `basic.return` with the content as received.
fn write_return(publish: &Publish<'_>, number: u16, frame_max: u32, out: &mut Vec<u8>) {
    // It was decoded as UTF-8.
    let routing_key = std::str::from_utf8(publish.routing_key).unwrap_or_default();
    write::method(
        out,
        number,
        &Method::BasicReturn {
            reply_code: ReplyCode::NoRoute.number(),
            reply_text: ReplyCode::NoRoute.name(),
            exchange: publish.exchange,
            routing_key,
        },
    );
    let properties = publish.properties;
    write::content(out, number, frame_max, |out| out.extend_from_slice(properties), publish.body);
}
