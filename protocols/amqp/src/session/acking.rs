//! `basic.ack`, `nack`, `reject` and `recover`: from delivery tags to what the consumers hold.

use inver_broker::DeliveryId;
use inver_storage::Lsn;

use super::channel::Channel;
use super::shared::Shared;
use super::unacked::Unacked;
use crate::error::Refusal;

/// What is to become of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settle {
    /// It is done with.
    Ack,
    /// It comes again.
    Requeue,
    /// Nobody wants it.
    Discard,
}

impl Channel {
    pub(super) fn ack(&mut self, tag: u64, multiple: bool, shared: &mut Shared) -> Result<(), Refusal> {
        if self.transaction.is_some() {
            return self.settle_later(tag, multiple, Settle::Ack, shared);
        }
        if !multiple {
            let delivery = self.unacked.take(tag).ok_or_else(|| unknown_tag(tag))?;
            self.acked(delivery, shared);
            return Ok(());
        }
        let mut ledger = std::mem::take(&mut self.unacked);
        let known = tag == 0 || ledger.contains(tag);
        if known {
            let through = if tag == 0 { u64::MAX } else { tag };
            ledger.take_through(through, |delivery| self.acked(delivery, shared));
        }
        self.unacked = ledger;
        if known { Ok(()) } else { Err(unknown_tag(tag)) }
    }

    pub(super) fn nack(
        &mut self,
        tag: u64,
        multiple: bool,
        requeue: bool,
        shared: &mut Shared,
    ) -> Result<(), Refusal> {
        let settle = if requeue { Settle::Requeue } else { Settle::Discard };
        if self.transaction.is_some() {
            return self.settle_later(tag, multiple, settle, shared);
        }
        let taken = self.take_tags(tag, multiple)?;
        self.settle(settle, &taken, shared);
        Ok(())
    }

    pub(super) fn recover(&mut self, requeue: bool, shared: &mut Shared) -> Result<(), Refusal> {
        if !requeue {
            return Err(Refusal::not_implemented("requeue=false"));
        }
        let taken = self.take_tags(0, true)?;
        self.settle(Settle::Requeue, &taken, shared);
        Ok(())
    }

    /// Takes the deliveries that a tag means out of the ledger.
    pub(super) fn take_tags(&mut self, tag: u64, multiple: bool) -> Result<Vec<Unacked>, Refusal> {
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

    /// One delivery is acknowledged: noted, and sent on at the end of the burst.
    fn acked(&mut self, delivery: Unacked, shared: &mut Shared) {
        let at = self.at(delivery.consumer);
        if let Some(entry) = self.entry(delivery.consumer)
            && entry.ack(delivery.id)
        {
            shared.acknowledged.push(at);
        }
        self.released(delivery.consumer, 1, shared);
    }

    /// Settles deliveries, consumer by consumer, in their order. The position where rejections hold.
    pub(super) fn settle(&mut self, settle: Settle, taken: &[Unacked], shared: &mut Shared) -> Option<Lsn> {
        if settle == Settle::Ack {
            taken.iter().for_each(|delivery| self.acked(*delivery, shared));
            return None;
        }
        let mut last = None;
        for (slot, ids) in by_consumer(taken) {
            if let Some(entry) = self.entry(slot) {
                match settle {
                    Settle::Requeue => entry.requeue(&ids),
                    Settle::Discard | Settle::Ack => last = last.max(entry.reject(&ids)),
                }
            }
            self.released(slot, u32::try_from(ids.len()).unwrap_or(u32::MAX), shared);
        }
        last
    }

    /// A consumer holds fewer messages: there is room for others.
    pub(super) fn released(&mut self, slot: u32, count: u32, shared: &mut Shared) {
        if let Some(entry) = self.entry(slot) {
            entry.unacked = entry.unacked.saturating_sub(count);
            if !entry.is_getter {
                self.unacked_shared = self.unacked_shared.saturating_sub(count);
            }
        }
        self.free_if_done(slot);
        self.resume_paused(shared);
        self.make_ready(slot, shared);
    }
}

/// Groups deliveries by consumer.
pub(super) fn by_consumer(taken: &[Unacked]) -> Vec<(u32, Vec<DeliveryId>)> {
    let mut groups: Vec<(u32, Vec<DeliveryId>)> = Vec::new();
    for delivery in taken {
        match groups.iter_mut().find(|(slot, _)| *slot == delivery.consumer) {
            Some((_, ids)) => ids.push(delivery.id),
            None => groups.push((delivery.consumer, vec![delivery.id])),
        }
    }
    groups
}

pub(super) fn unknown_tag(tag: u64) -> Refusal {
    Refusal::precondition_failed(format_args!("unknown delivery tag {tag}"))
}
