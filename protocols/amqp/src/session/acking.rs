//! `basic.ack`, `nack`, `reject` and `recover`.

use inver_broker::Completion;
use inver_driver::{Count, count};

use super::channel::{Channel, Outcome};
use super::shared::Shared;
use super::unacked::{Disposition, UnackedDelivery, by_consumer, unknown_tag};
use crate::error::Refusal;

/// Deliveries that a method settles in one turn; it goes on with the others in the next ones.
const SETTLED_MAX: usize = 4096;

impl Channel {
    pub(super) fn ack(&mut self, tag: u64, multiple: bool, shared: &mut Shared) -> Result<Outcome, Refusal> {
        if self.transaction.is_some() {
            return self.hold_acks(tag, multiple, Disposition::Ack, shared);
        }
        if !multiple {
            let delivery = self.unacked.take(tag).ok_or_else(|| unknown_tag(tag))?;
            self.acked(delivery, shared);
            return Ok(Outcome::Done);
        }
        let through = self.settles_through(tag)?;
        let mut unacked = std::mem::take(&mut self.unacked);
        let are_all = unacked.take_through(through, SETTLED_MAX, |delivery| self.acked(delivery, shared));
        self.unacked = unacked;
        Ok(self.settled_through(through, are_all))
    }

    pub(super) fn nack(
        &mut self,
        tag: u64,
        multiple: bool,
        requeue: bool,
        shared: &mut Shared,
    ) -> Result<Outcome, Refusal> {
        let disposition = if requeue { Disposition::Requeue } else { Disposition::Reject };
        if self.transaction.is_some() {
            return self.hold_acks(tag, multiple, disposition, shared);
        }
        if !multiple {
            let delivery = self.unacked.take(tag).ok_or_else(|| unknown_tag(tag))?;
            let _not_answered = self.dispose(disposition, &[delivery], shared)?;
            return Ok(Outcome::Done);
        }
        let (taken, outcome) = self.take_multiple(tag, SETTLED_MAX)?;
        let _not_answered = self.dispose(disposition, &taken, shared)?;
        Ok(outcome)
    }

    pub(super) fn recover(&mut self, requeue: bool, shared: &mut Shared) -> Result<Outcome, Refusal> {
        if !requeue {
            return Err(Refusal::not_implemented("requeue=false"));
        }
        let (taken, outcome) = self.take_multiple(0, SETTLED_MAX)?;
        let _not_answered = self.dispose(Disposition::Requeue, &taken, shared)?;
        Ok(outcome)
    }

    /// Removes the deliveries that a delivery tag denotes from the unacked ones.
    pub(super) fn take_tags(&mut self, tag: u64, multiple: bool) -> Result<Vec<UnackedDelivery>, Refusal> {
        match multiple {
            true => Ok(self.take_multiple(tag, usize::MAX)?.0),
            false => Ok(vec![self.unacked.take(tag).ok_or_else(|| unknown_tag(tag))?]),
        }
    }

    /// Removes deliveries up to a tag (0: all that there are now) from the unacked ones, at most `max`.
    fn take_multiple(&mut self, tag: u64, max: usize) -> Result<(Vec<UnackedDelivery>, Outcome), Refusal> {
        let through = self.settles_through(tag)?;
        let mut taken = Vec::new();
        let are_all = self.unacked.take_through(through, max, |delivery| taken.push(delivery));
        Ok((taken, self.settled_through(through, are_all)))
    }

    /// The tag up to which a method settles deliveries: the same one each time that it is processed.
    fn settles_through(&mut self, tag: u64) -> Result<u64, Refusal> {
        match (self.settling.take(), tag) {
            (Some(through), _) => Ok(through),
            (None, 0) => Ok(self.unacked.last_tag().unwrap_or(0)),
            (None, tag) if self.unacked.contains(tag) => Ok(tag),
            (None, tag) => Err(unknown_tag(tag)),
        }
    }

    /// Has the method processed again in the next turn unless it settled all.
    fn settled_through(&mut self, through: u64, are_all: bool) -> Outcome {
        self.settling = (!are_all).then_some(through);
        if are_all { Outcome::Done } else { Outcome::Retry }
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
        self.tell_unreadable(shared);
    }
}
