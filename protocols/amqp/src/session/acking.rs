//! `basic.ack`, `nack`, `reject` and `recover`.

use inver_broker::Completion;
use inver_driver::{Count, count};

use super::channel::Channel;
use super::shared::Shared;
use super::unacked::{Disposition, UnackedDelivery, by_consumer, unknown_tag};
use crate::error::Refusal;

impl Channel {
    pub(super) fn ack(&mut self, tag: u64, multiple: bool, shared: &mut Shared) -> Result<(), Refusal> {
        if self.transaction.is_some() {
            return self.hold_acks(tag, multiple, Disposition::Ack, shared);
        }
        if !multiple {
            let delivery = self.unacked.take(tag).ok_or_else(|| unknown_tag(tag))?;
            self.acked(delivery, shared);
            return Ok(());
        }
        let mut unacked = std::mem::take(&mut self.unacked);
        let known = tag == 0 || unacked.contains(tag);
        if known {
            let through = if tag == 0 { u64::MAX } else { tag };
            unacked.take_through(through, |delivery| self.acked(delivery, shared));
        }
        self.unacked = unacked;
        if known { Ok(()) } else { Err(unknown_tag(tag)) }
    }

    pub(super) fn nack(
        &mut self,
        tag: u64,
        multiple: bool,
        requeue: bool,
        shared: &mut Shared,
    ) -> Result<(), Refusal> {
        let disposition = if requeue { Disposition::Requeue } else { Disposition::Reject };
        if self.transaction.is_some() {
            return self.hold_acks(tag, multiple, disposition, shared);
        }
        let taken = self.take_tags(tag, multiple)?;
        let _not_answered = self.dispose(disposition, &taken, shared)?;
        Ok(())
    }

    pub(super) fn recover(&mut self, requeue: bool, shared: &mut Shared) -> Result<(), Refusal> {
        if !requeue {
            return Err(Refusal::not_implemented("requeue=false"));
        }
        let taken = self.take_tags(0, true)?;
        let _not_answered = self.dispose(Disposition::Requeue, &taken, shared)?;
        Ok(())
    }

    /// Removes the deliveries that a delivery tag denotes from the unacked ones.
    pub(super) fn take_tags(&mut self, tag: u64, multiple: bool) -> Result<Vec<UnackedDelivery>, Refusal> {
        let mut taken = Vec::new();
        match (multiple, tag) {
            (true, 0) => self.unacked.take_all(|delivery| taken.push(delivery)),
            (true, tag) if self.unacked.contains(tag) => {
                self.unacked.take_through(tag, |delivery| taken.push(delivery));
            }
            (true, tag) => return Err(unknown_tag(tag)),
            (false, tag) => taken.push(self.unacked.take(tag).ok_or_else(|| unknown_tag(tag))?),
        }
        Ok(taken)
    }

    /// Acknowledges one delivery. The broker learns of it when the input of the turn ends.
    fn acked(&mut self, delivery: UnackedDelivery, shared: &mut Shared) {
        count(Count::Acknowledged, 1);
        if !self.traced.is_empty() {
            self.send_settled(delivery.tag, Disposition::Ack, shared);
        }
        let at = self.at(delivery.consumer);
        if let Some(consumer) = self.consumer(delivery.consumer)
            && consumer.ack(delivery.id)
        {
            shared.acknowledged.push(at);
        }
        self.release_prefetch(delivery.consumer, 1, shared);
    }

    /// Disposes of deliveries, consumer by consumer and in order. Complete when the dead letters are stored.
    pub(super) fn dispose(
        &mut self,
        disposition: Disposition,
        taken: &[UnackedDelivery],
        shared: &mut Shared,
    ) -> Result<Completion, Refusal> {
        if disposition == Disposition::Ack {
            taken.iter().for_each(|delivery| self.acked(*delivery, shared));
            return Ok(Completion::Now);
        }
        if !self.traced.is_empty() {
            taken.iter().for_each(|delivery| self.send_settled(delivery.tag, disposition, shared));
        }
        let mut last = Completion::Now;
        for (slot, ids) in by_consumer(taken) {
            if let Some(consumer) = self.consumer(slot) {
                let disposed = match disposition {
                    Disposition::Requeue => consumer.requeue(&ids),
                    Disposition::Reject | Disposition::Ack => consumer.reject(&ids),
                };
                last = last.and(disposed.map_err(Refusal::internal)?);
            }
            self.release_prefetch(slot, u32::try_from(ids.len()).unwrap_or(u32::MAX), shared);
        }
        Ok(last)
    }

    /// Frees the prefetch of deliveries that are no longer unacked, and resumes consumers that waited for it.
    pub(super) fn release_prefetch(&mut self, slot: u32, count: u32, shared: &mut Shared) {
        if let Some(consumer) = self.consumer(slot) {
            consumer.unacked = consumer.unacked.saturating_sub(count);
            if !consumer.is_getter {
                self.unacked_shared = self.unacked_shared.saturating_sub(count);
            }
        }
        self.remove_if_done(slot);
        self.resume_paused(shared);
        self.make_ready(slot, shared);
    }
}
