//! `basic.consume`, `cancel`, `qos`, and deliveries.

use std::sync::Arc;

use inver_broker::{AttachError, ConsumerSpec, Pull, Subscription};
use inver_driver::{Count, CountedConsumer, count};

use super::attaching;
use super::channel::{Channel, Outcome};
use super::consumer::{ChannelConsumer, State};
use super::queues::declare_reply_queue;
use super::shared::{ConsumerRef, Shared};
use super::streams::StreamReader;
use super::traced;
use super::unacked::UnackedDelivery;
use crate::codec::{FRAME_OVERHEAD, Method, write};
use crate::error::Refusal;
use crate::map::Tells;
use crate::topology::access::Access;
use crate::topology::names::{REPLY_TO, generated_name};

/// The most messages pulled at a time, so that other consumers get their turn.
const PULL_MESSAGES_MAX: usize = 512;
/// The most bytes pulled at a time.
const PULL_BYTES_MAX: usize = 64 * 1024;
/// The most bytes of a content header frame beside the headers table: 14 properties of at most 256 bytes.
const HEADER_FRAME_REST: usize = 14 * 256;

/// The outcome of a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pulled {
    /// There may be more, and the prefetch allows more.
    More,
    /// The subscription will wake the consumer, or its prefetch is used up.
    Idle,
    /// The next messages cannot be read, and the channel holds no delivery.
    Unreadable,
}

impl Channel {
    pub(super) fn qos(
        &mut self,
        prefetch_size: u32,
        prefetch_count: u16,
        global: bool,
        shared: &mut Shared,
    ) -> Result<(), Refusal> {
        if prefetch_size != 0 {
            return Err(Refusal::not_implemented(format_args!("prefetch_size!=0 ({prefetch_size})")));
        }
        if global {
            self.prefetch_shared = prefetch_count.into();
        } else {
            self.prefetch = prefetch_count.into();
            self.prefetch_shared = 0;
        }
        self.resume_paused(shared);
        Ok(())
    }

    pub(super) fn consume(
        &mut self,
        method: &Method<'_>,
        shared: &mut Shared,
        out: &mut Vec<u8>,
    ) -> Result<Outcome, Refusal> {
        let Method::BasicConsume { queue, consumer_tag, no_ack, exclusive, nowait, arguments, .. } = *method
        else {
            return Ok(Outcome::Done);
        };
        if self.tags.contains_key(consumer_tag) {
            return Err(Refusal::not_allowed(format_args!("attempt to reuse consumer tag '{consumer_tag}'")));
        }
        if self.tags.len() >= shared.limits.consumers_max {
            return Err(Refusal::not_allowed(format_args!(
                "reached maximum ({}) of consumers per channel",
                shared.limits.consumers_max
            )));
        }
        let tag = match consumer_tag {
            "" => generated_name("amq.ctag-"),
            tag => tag.to_owned(),
        };
        let slot = self.next_slot();
        let spec = ConsumerSpec {
            exclusive,
            auto_ack: no_ack,
            priority: attaching::priority(queue, arguments, shared)?,
            ..ConsumerSpec::new(shared.mailbox.clone(), self.at(slot).token())
        };
        let name = self.queue_name(queue)?;
        let is_stream = shared.namespace.queue(&name).is_some_and(|queue| queue.spec().is_stream());
        let mut reader = match is_stream {
            true => {
                shared.check_queue(&name, Access::Read)?;
                Some(StreamReader::new(&name, no_ack, self.prefetch, arguments, shared)?)
            }
            false => None,
        };
        let (source, subscription) = if name == REPLY_TO {
            self.reply_consumer(no_ack, shared)?
        } else {
            let (subscription, from_ms) = attaching::subscription(&name, exclusive, arguments, shared)?;
            if from_ms.is_some() {
                reader = Some(reader.unwrap_or_default().starting_at(from_ms));
            }
            (name, subscription)
        };
        let queue = shared.namespace.queue(&source);
        if exclusive && queue.as_ref().is_some_and(|queue| queue.spec().single_active) {
            return Err(Refusal::access_refused(format_args!(
                "{} in exclusive use",
                shared.in_vhost("queue", &source)
            )));
        }
        let consumer = subscription.attach(spec).map_err(|error| match error {
            AttachError::InUse | AttachError::HeldExclusively => Refusal::access_refused(format_args!(
                "{} in exclusive use",
                shared.in_vhost("queue", &source)
            )),
            AttachError::Closed => Refusal::no_such("queue", &source, shared.vhost()),
        })?;
        let mut consumer = ChannelConsumer::new(&tag, &source, consumer, no_ack, self.prefetch);
        consumer.counted = Some(CountedConsumer::default());
        consumer.tells = match &queue {
            _ if is_stream => Tells::Offset,
            Some(queue) => Tells::of_queue(queue.spec()),
            None => Tells::Nothing,
        };
        consumer.reader = reader.map(Box::new);
        self.consumers.insert(consumer);
        self.tags.insert(tag.clone(), slot);
        self.tell_consumer_created(slot, exclusive, arguments, shared);
        if !nowait {
            let number = self.number;
            // A named subscription of a log topic is durable once `consume-ok` is sent.
            shared.reply(subscription.made(), out, |out| {
                write::method(out, number, &Method::BasicConsumeOk { consumer_tag: &tag });
            });
        }
        self.make_ready(slot, shared);
        Ok(Outcome::Done)
    }

    /// Declares the queue behind `amq.rabbitmq.reply-to` for a consumer of the channel's own replies.
    fn reply_consumer(
        &mut self,
        no_ack: bool,
        shared: &mut Shared,
    ) -> Result<(String, Arc<Subscription>), Refusal> {
        if !no_ack {
            return Err(Refusal::precondition_failed("reply consumer cannot acknowledge"));
        }
        if self.reply_queue.is_some() {
            return Err(Refusal::precondition_failed("reply consumer already set"));
        }
        let queue = declare_reply_queue(shared)?;
        self.reply_queue = Some(queue.name().to_owned());
        Ok((queue.name().to_owned(), queue.subscription().clone()))
    }

    /// Cancels a consumer. An unknown tag is not an error.
    pub(super) fn cancel(&mut self, tag: &str, shared: &Shared) {
        let Some(slot) = self.tags.remove(tag) else { return };
        self.tell_consumer_deleted(slot, shared);
        let Some(consumer) = self.consumer(slot) else { return };
        consumer.stop();
        let source = std::mem::take(&mut consumer.source);
        self.reply_queue.take_if(|queue| *queue == source);
        self.remove_if_done(slot);
    }

    /// Pulls the messages that a consumer may be sent, and writes their deliveries.
    pub(super) fn deliver(&mut self, slot: u32, shared: &mut Shared, out: &mut Vec<u8>) -> Pulled {
        let shared_left = match self.prefetch_shared {
            0 => usize::MAX,
            bound => bound.saturating_sub(self.unacked_shared) as usize,
        };
        let unacked_left = shared.limits.unacked_max.saturating_sub(self.unacked.len());
        let Some(consumer) = self.consumers.get_mut(slot as usize) else {
            return Pulled::Idle;
        };
        consumer.queued = false;
        if consumer.is_getter || consumer.state == State::Cancelled {
            return Pulled::Idle;
        }
        let mut messages_max = consumer.prefetch_left().min(PULL_MESSAGES_MAX).min(shared.deliveries_left);
        if messages_max == 0 {
            // The pull of nothing releases messages reserved for this consumer to others.
            consumer.pull(0, 0, &mut Vec::new());
            return Pulled::Idle;
        }
        if shared_left == 0 || unacked_left == 0 {
            consumer.pull(0, 0, &mut Vec::new());
            // Consumers without acknowledgements wait as well, and all resume in order.
            consumer.queued = true;
            self.paused.push_back(slot);
            return Pulled::Idle;
        }
        if !consumer.no_ack {
            messages_max = messages_max.min(shared_left).min(unacked_left);
        }
        let mut deliveries = std::mem::take(&mut shared.deliveries);
        deliveries.clear();
        let bytes_max = PULL_BYTES_MAX.min(shared.delivery_bytes);
        let pull = consumer.pull(messages_max, bytes_max, &mut deliveries);
        shared.deliveries_left = shared.deliveries_left.saturating_sub(deliveries.len());
        let left_out = consumer.reader.as_deref().map(|reader| reader.filter(&mut deliveries));
        if let Some(ids) = left_out.filter(|ids| !ids.is_empty())
            && let Err(error) = consumer.auto_ack(&ids)
        {
            tracing::warn!(%error, "failed to pass over messages that a consumer filters out");
        }
        let table_max = table_bytes_max(shared.frame_max);
        let mut redelivered = 0;
        for delivery in &deliveries {
            redelivered += u64::from(delivery.redelivered > 0);
            let tag = self.next_tag;
            self.next_tag += 1;
            let source = delivery.topic.as_deref().unwrap_or(&consumer.source);
            if let Some(delivered) = traced::delivered(delivery, source, shared)
                && !consumer.no_ack
            {
                self.traced.add(tag, delivered);
            }
            let message = shared.renderer.render(&delivery.record, source, table_max, shared.now_ms);
            let properties = shared.told.properties(message.properties, consumer.tells.of(delivery));
            write::deliver(
                out,
                self.number,
                consumer.tag.as_bytes(),
                tag,
                delivery.redelivered > 0,
                message.exchange,
                message.routing_key,
            );
            write::content(
                out,
                self.number,
                shared.frame_max,
                |out| out.extend_from_slice(properties),
                message.body,
            );
            if !consumer.no_ack {
                self.unacked.push(UnackedDelivery { tag, consumer: slot, id: delivery.id });
            }
        }
        let sent = if consumer.no_ack { Count::SentAuto } else { Count::SentManual };
        let is_traced = shared.is_traced && !deliveries.is_empty();
        count(sent, deliveries.len() as u64);
        count(Count::Redelivered, redelivered);
        if !consumer.no_ack {
            let count = u32::try_from(deliveries.len()).unwrap_or(u32::MAX);
            consumer.unacked += count;
            self.unacked_shared += count;
        }
        if is_traced && let Some(source) = self.consumers.get(slot as usize).map(|it| it.source.clone()) {
            self.trace_delivered(&deliveries, &source, table_max, shared);
        }
        deliveries.clear();
        shared.deliveries = deliveries;
        if pull.cancelled {
            self.cancelled(slot, shared, out);
            return Pulled::Idle;
        }
        match pull {
            Pull { unreadable: true, .. } if self.holds_deliveries() => {
                if !self.unreadable.contains(&slot) {
                    self.unreadable.push(slot);
                }
                Pulled::Idle
            }
            Pull { unreadable: true, .. } => Pulled::Unreadable,
            Pull { more: true, .. } => Pulled::More,
            _ => Pulled::Idle,
        }
    }

    /// Cancels the consumers of queues that the client may not read any more.
    pub(super) fn cancel_refused(&mut self, shared: &Shared, out: &mut Vec<u8>) {
        let is_refused = |consumer: &ChannelConsumer| {
            consumer.state == State::Active
                && !consumer.is_getter
                && !consumer.source.starts_with(REPLY_TO)
                && shared.check_queue(&consumer.source, Access::Read).is_err()
        };
        let refused = self.consumers.iter().filter(|(_, consumer)| is_refused(consumer));
        let slots: Vec<u32> = refused.filter_map(|(slot, _)| u32::try_from(slot).ok()).collect();
        for slot in slots {
            self.tell_consumer_deleted(slot, shared);
            if let Some(consumer) = self.consumer(slot) {
                consumer.stop();
            }
            self.cancelled(slot, shared, out);
        }
    }

    /// The queue was deleted, or may not be read any more: sends `basic.cancel` to clients with that capability.
    fn cancelled(&mut self, slot: u32, shared: &Shared, out: &mut Vec<u8>) {
        let number = self.number;
        self.tell_consumer_deleted(slot, shared);
        let Some(consumer) = self.consumer(slot) else { return };
        consumer.state = State::Cancelled;
        let tag = std::mem::take(&mut consumer.tag);
        if shared.capabilities.consumer_cancel_notify {
            write::method(out, number, &Method::BasicCancel { consumer_tag: &tag, nowait: true });
        }
        self.tags.remove(&tag);
        self.remove_if_done(slot);
    }

    // ---- slots

    pub(super) fn at(&self, slot: u32) -> ConsumerRef {
        ConsumerRef { channel: self.number, slot }
    }

    pub(super) fn consumer(&mut self, slot: u32) -> Option<&mut ChannelConsumer> {
        self.consumers.get_mut(slot as usize)
    }

    /// The slot that the next consumer gets.
    pub(super) fn next_slot(&self) -> u32 {
        u32::try_from(self.consumers.vacant_key()).unwrap_or(u32::MAX)
    }

    /// Removes a consumer that is cancelled and has no unacked deliveries.
    pub(super) fn remove_if_done(&mut self, slot: u32) {
        if self
            .consumer(slot)
            .is_some_and(|consumer| consumer.state == State::Cancelled && consumer.unacked == 0)
            && let Some(mut consumer) = self.consumers.try_remove(slot as usize)
        {
            consumer.send_last_acks();
        }
    }

    // ---- ready consumers

    /// Adds a consumer to the queue of those that may have messages, unless it is in it.
    pub(super) fn make_ready(&mut self, slot: u32, shared: &mut Shared) {
        let at = self.at(slot);
        if let Some(consumer) = self.consumer(slot)
            && !consumer.queued
            && !consumer.is_getter
            && consumer.state == State::Active
        {
            consumer.queued = true;
            shared.ready.push_back(at);
        }
    }

    /// Whether deliveries of any of its consumers are unacked, those included that a transaction settles.
    fn holds_deliveries(&self) -> bool {
        self.consumers.iter().any(|(_, consumer)| consumer.unacked > 0)
    }

    /// Has the consumers be told whose next messages cannot be read, once the channel holds no delivery.
    pub(super) fn tell_unreadable(&mut self, shared: &mut Shared) {
        if !self.unreadable.is_empty() && !self.holds_deliveries() {
            for slot in std::mem::take(&mut self.unreadable) {
                self.make_ready(slot, shared);
            }
        }
    }

    /// Resumes the consumers that were paused by a limit of the channel.
    pub(super) fn resume_paused(&mut self, shared: &mut Shared) {
        while let Some(slot) = self.paused.pop_front() {
            if let Some(consumer) = self.consumer(slot) {
                consumer.queued = false;
            }
            self.make_ready(slot, shared);
        }
    }
}

/// The most bytes of the headers table of a message from another protocol.
pub(super) fn table_bytes_max(frame_max: u32) -> usize {
    (frame_max as usize).saturating_sub(FRAME_OVERHEAD + HEADER_FRAME_REST)
}
