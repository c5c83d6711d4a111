//! `basic.get`.
//!
//! The reply is `get-empty` only if the queue is still empty after everything submitted to the log before is committed.

use std::sync::Arc;

use inver_broker::{AttachError, ConsumerSpec};
use inver_driver::{Count, count};

use super::channel::{Channel, Outcome};
use super::consumer::{ChannelConsumer, State};
use super::consuming::table_bytes_max;
use super::shared::{Halt, Shared};
use super::traced;
use super::unacked::UnackedDelivery;
use crate::codec::{Method, write};
use crate::error::Refusal;
use crate::map::Tells;
use crate::topology::access::Access;

/// The most getters that a channel keeps for further requests.
const GETTERS_KEPT: usize = 16;

impl Channel {
    pub(super) fn get(
        &mut self,
        queue: &str,
        no_ack: bool,
        shared: &mut Shared,
        out: &mut Vec<u8>,
    ) -> Result<Outcome, Refusal> {
        let name = self.queue_name(queue)?;
        shared.check_queue(&name, Access::Read)?;
        let slot = self.getter(&name, shared)?;
        let mut deliveries = std::mem::take(&mut shared.deliveries);
        deliveries.clear();
        let Some(consumer) = self.consumer(slot) else { return Ok(Outcome::Done) };
        let pull = consumer.pull(1, usize::MAX, &mut deliveries);
        let taken = deliveries.pop();
        shared.deliveries = deliveries;
        match taken {
            Some(delivery) => {
                count(if no_ack { Count::GotAuto } else { Count::GotManual }, 1);
                count(Count::Redelivered, u64::from(delivery.redelivered > 0));
                let ready = consumer.core().subscription().depth().ready;
                if no_ack {
                    consumer.auto_ack(&[delivery.id]).map_err(Refusal::internal)?;
                } else {
                    consumer.unacked += 1;
                }
                let (tag, number) = (self.next_tag, self.number);
                self.next_tag += 1;
                if !no_ack {
                    self.unacked.push(UnackedDelivery { tag, consumer: slot, id: delivery.id });
                }
                let table_max = table_bytes_max(shared.frame_max);
                let source = delivery.topic.as_deref().unwrap_or(&name);
                if let Some(delivered) = traced::delivered(&delivery, source, shared)
                    && !no_ack
                {
                    self.traced.add(tag, delivered);
                }
                let message = shared.renderer.render(&delivery.record, source, table_max, shared.now_ms);
                let queue = shared.client.namespace.queue(&name);
                let tells = queue.map_or(Tells::Nothing, |queue| Tells::of_queue(queue.spec()));
                let properties = shared.told.properties(message.properties, tells.of(&delivery));
                write::get_ok(
                    out,
                    number,
                    tag,
                    delivery.redelivered > 0,
                    message.exchange,
                    message.routing_key,
                    u32::try_from(ready).unwrap_or(u32::MAX),
                );
                write::content(
                    out,
                    number,
                    shared.frame_max,
                    |out| out.extend_from_slice(properties),
                    message.body,
                );
                if shared.is_traced {
                    self.trace_delivered(std::slice::from_ref(&delivery), &name, table_max, shared);
                }
            }
            None if pull.pending => {
                shared.halt = Some(Halt::ColdRead(self.at(slot).token()));
                return Ok(Outcome::Retry);
            }
            None if pull.unreadable => {
                self.drop_getter(slot);
                return Err(Refusal::unreadable(shared.client.in_vhost("queue", &name)));
            }
            // In the next turn: this pull read as much of the queue as one may.
            None if pull.more => return Ok(Outcome::Retry),
            None if pull.cancelled => {
                self.drop_getter(slot);
                return Err(Refusal::no_such("queue", &name, shared.vhost()));
            }
            // A write may be pending: of this connection, of another, or a dead letter.
            None if !self.get_was_empty && !shared.all_writes_are_committed() => {
                self.get_was_empty = true;
                return Ok(Outcome::Retry);
            }
            None => {
                count(Count::GotNone, 1);
                write::method(out, self.number, &Method::BasicGetEmpty { cluster_id: "" });
            }
        }
        self.get_was_empty = false;
        Ok(Outcome::Done)
    }

    /// The slot of the getter for a queue; attaches one if there is none.
    fn getter(&mut self, name: &str, shared: &Shared) -> Result<u32, Refusal> {
        let queue = shared.accessible_queue(name)?;
        shared.check_not_stream(&queue, "basic.get")?;
        if let Some(slot) = self.getters.get(name).copied() {
            if self.consumer(slot).is_some_and(|e| Arc::ptr_eq(e.core().subscription(), queue.subscription()))
            {
                return Ok(slot);
            }
            self.drop_getter(slot);
        }
        if self.getters.len() >= GETTERS_KEPT {
            let idle: Vec<u32> = self.getters.values().copied().collect();
            idle.into_iter().for_each(|slot| self.drop_getter(slot));
        }
        if queue.spec().single_active && queue.spec().is_quorum() {
            return Err(Refusal::resource_locked(format_args!(
                "cannot obtain access to locked {}. basic.get operations are not supported by quorum queues with \
                 single active consumer",
                shared.in_vhost("queue", name)
            )));
        }
        let slot = self.next_slot();
        let spec = ConsumerSpec {
            passive: true,
            ..ConsumerSpec::new(shared.mailbox.clone(), self.at(slot).token())
        };
        let consumer = queue.subscription().attach(spec).map_err(|error| match error {
            AttachError::Closed => Refusal::no_such("queue", name, shared.vhost()),
            _ => Refusal::access_refused(format_args!("{} in exclusive use", shared.in_vhost("queue", name))),
        })?;
        let mut consumer = ChannelConsumer::new("", name, consumer, false, 0);
        consumer.is_getter = true;
        self.consumers.insert(consumer);
        self.getters.insert(name.to_owned(), slot);
        Ok(slot)
    }

    fn drop_getter(&mut self, slot: u32) {
        self.getters.retain(|_, kept| *kept != slot);
        if let Some(consumer) = self.consumer(slot) {
            consumer.state = State::Cancelled;
        }
        self.remove_if_done(slot);
    }
}
