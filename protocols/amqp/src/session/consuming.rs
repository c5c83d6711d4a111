//! `basic.consume`, `cancel`, `qos`, and deliveries.

use std::sync::Arc;

use inver_broker::{AttachError, ConsumerSpec, Subscription};

use super::attaching;
use super::channel::{Channel, Outcome};
use super::consumer::{Entry, Life};
use super::names::{REPLY_TO, generated_name, in_vhost};
use super::queues::declare_reply_queue;
use super::shared::{ConsumerRef, Shared};
use super::unacked::Unacked;
use crate::codec::{FRAME_OVERHEAD, Method, write};
use crate::error::Refusal;

/// Messages taken from a subscription at a time; others get their turn in between.
const PULL_MESSAGES_MAX: usize = 512;
/// Bytes taken from a subscription at a time.
const PULL_BYTES_MAX: usize = 64 * 1024;
/// Part of a content header frame that is not the headers table: generous.
const HEADER_FRAME_REST: usize = 14 * 256;

/// What a pull left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pulled {
    /// There is more, and room for it.
    More,
    /// It will be woken, or has no room.
    Idle,
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
        let slot = self.free_slot();
        let spec = ConsumerSpec {
            exclusive,
            auto_ack: no_ack,
            priority: attaching::priority(arguments)?,
            ..ConsumerSpec::new(shared.mailbox.clone(), self.at(slot).token())
        };
        let name = self.queue_name(queue)?;
        let (source, subscription) = if name == REPLY_TO {
            self.reply_consumer(no_ack, shared)?
        } else {
            let subscription = attaching::subscription(&name, exclusive, arguments, shared)?;
            (name, subscription)
        };
        let consumer = subscription.attach(spec).map_err(|error| match error {
            AttachError::InUse | AttachError::HeldExclusively => Refusal::access_refused(format_args!(
                "{} in exclusive use",
                in_vhost("queue", &source, shared)
            )),
            AttachError::Closed => Refusal::no_such("queue", &source, shared.vhost()),
        })?;
        let entry = Entry::new(&tag, &source, consumer, no_ack, self.prefetch);
        self.put(slot, entry);
        self.tags.insert(tag.clone(), slot);
        if !nowait {
            let number = self.number;
            // A named subscription of a log topic is promised to survive once it is answered.
            shared.reply(subscription.made(), out, |out| {
                write::method(out, number, &Method::BasicConsumeOk { consumer_tag: &tag });
            });
        }
        self.make_ready(slot, shared);
        Ok(Outcome::Done)
    }

    /// Consuming from `amq.rabbitmq.reply-to` makes a queue of the channel's own that replies go to.
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

    /// The client ends a consumer; one that is not there is no error.
    pub(super) fn cancel(&mut self, tag: &str) {
        let Some(slot) = self.tags.remove(tag) else { return };
        let Some(entry) = self.entry(slot) else { return };
        entry.stop();
        let source = std::mem::take(&mut entry.source);
        self.reply_queue.take_if(|queue| *queue == source);
        self.free_if_done(slot);
    }

    /// Takes what a consumer may be sent and writes it.
    pub(super) fn deliver(&mut self, slot: u32, shared: &mut Shared, out: &mut Vec<u8>) -> Pulled {
        let room_shared = match self.prefetch_shared {
            0 => usize::MAX,
            bound => bound.saturating_sub(self.unacked_shared) as usize,
        };
        let room_ledger = shared.limits.unacked_max.saturating_sub(self.unacked.len());
        let Some(entry) = self.entries.get_mut(slot as usize).and_then(Option::as_mut) else {
            return Pulled::Idle;
        };
        entry.queued = false;
        if entry.is_getter || entry.life == Life::Ended {
            return Pulled::Idle;
        }
        let mut room = entry.room().min(PULL_MESSAGES_MAX);
        if room == 0 {
            // What it was woken for goes to another.
            entry.pull(0, 0, &mut Vec::new());
            return Pulled::Idle;
        }
        if room_shared == 0 || room_ledger == 0 {
            entry.pull(0, 0, &mut Vec::new());
            // Whoever takes from the channel's room waits for it in turn, and those who need no acknowledgement with them.
            entry.queued = true;
            self.paused.push_back(slot);
            return Pulled::Idle;
        }
        if !entry.no_ack {
            room = room.min(room_shared).min(room_ledger);
        }
        let mut deliveries = std::mem::take(&mut shared.deliveries);
        deliveries.clear();
        let pull = entry.pull(room, PULL_BYTES_MAX, &mut deliveries);
        let table_max = table_bytes_max(shared.frame_max);
        for delivery in &deliveries {
            let tag = self.next_tag;
            self.next_tag += 1;
            let source = delivery.topic.as_deref().unwrap_or(&entry.source);
            let message = shared.renderer.render(&delivery.record, source, table_max, shared.now_ms);
            write::deliver(
                out,
                self.number,
                entry.tag.as_bytes(),
                tag,
                delivery.redelivered > 0,
                message.exchange,
                message.routing_key,
            );
            let properties = message.properties;
            write::content(
                out,
                self.number,
                shared.frame_max,
                |out| out.extend_from_slice(properties),
                message.body,
            );
            if !entry.no_ack {
                self.unacked.push(Unacked { tag, consumer: slot, id: delivery.id });
            }
        }
        if !entry.no_ack {
            let count = u32::try_from(deliveries.len()).unwrap_or(u32::MAX);
            entry.unacked += count;
            self.unacked_shared += count;
        }
        deliveries.clear();
        shared.deliveries = deliveries;
        if pull.cancelled {
            self.cancelled(slot, shared, out);
            return Pulled::Idle;
        }
        if pull.more { Pulled::More } else { Pulled::Idle }
    }

    /// The queue is gone: the client is told, if it wants to know.
    fn cancelled(&mut self, slot: u32, shared: &Shared, out: &mut Vec<u8>) {
        let number = self.number;
        let Some(entry) = self.entry(slot) else { return };
        entry.life = Life::Ended;
        let tag = std::mem::take(&mut entry.tag);
        if shared.capabilities.consumer_cancel_notify {
            write::method(out, number, &Method::BasicCancel { consumer_tag: &tag, nowait: true });
        }
        self.tags.remove(&tag);
        self.free_if_done(slot);
    }

    // ---- places

    pub(super) fn at(&self, slot: u32) -> ConsumerRef {
        ConsumerRef { channel: self.number, slot }
    }

    pub(super) fn entry(&mut self, slot: u32) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize).and_then(Option::as_mut)
    }

    pub(super) fn free_slot(&self) -> u32 {
        let at = self.entries.iter().position(Option::is_none).unwrap_or(self.entries.len());
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    pub(super) fn put(&mut self, slot: u32, entry: Entry) {
        let at = slot as usize;
        if at >= self.entries.len() {
            self.entries.resize_with(at + 1, || None);
        }
        if let Some(place) = self.entries.get_mut(at) {
            *place = Some(entry);
        }
    }

    /// An ended consumer that holds nothing is forgotten.
    pub(super) fn free_if_done(&mut self, slot: u32) {
        if self.entry(slot).is_some_and(|entry| entry.life == Life::Ended && entry.unacked == 0)
            && let Some(mut entry) = self.entries.get_mut(slot as usize).and_then(Option::take)
        {
            entry.send_acks();
        }
    }

    // ---- the line of those who are asked

    /// Puts a consumer into the line, once.
    pub(super) fn make_ready(&mut self, slot: u32, shared: &mut Shared) {
        let at = self.at(slot);
        if let Some(entry) = self.entry(slot)
            && !entry.queued
            && !entry.is_getter
            && entry.life == Life::Active
        {
            entry.queued = true;
            shared.ready.push_back(at);
        }
    }

    /// Room was made that any consumer of the channel may use.
    pub(super) fn resume_paused(&mut self, shared: &mut Shared) {
        while let Some(slot) = self.paused.pop_front() {
            if let Some(entry) = self.entry(slot) {
                entry.queued = false;
            }
            self.make_ready(slot, shared);
        }
    }
}

/// Bytes that the headers of a message of foreign origin may take in a content header frame.
pub(super) fn table_bytes_max(frame_max: u32) -> usize {
    (frame_max as usize).saturating_sub(FRAME_OVERHEAD + HEADER_FRAME_REST)
}
