//! Acknowledging, rejecting, requeueing and purging.

use std::ops::Range;
use std::sync::Arc;

use inver_storage::{Cursor, Entry, Offset, SubmitError};

use super::drops::{AckBatch, Dropped};
use super::slots::SlotId;
use super::source::Offer;
use super::state::{Load, Requeued, State, UnackedMessage};
use super::{DeliveryId, Mode, Subscription};
use crate::completion::Completion;
use crate::seeded_bugs::{Bug, is_seeded};
use crate::spec::DropReason;

/// Messages whose delivery counts went up, by cursor.
pub(super) type Counted = Vec<(Cursor, Vec<Offset>)>;

/// An empty table of unacknowledged messages with a larger capacity is released.
const EMPTY_CAPACITY_KEPT: usize = 4096;

impl State {
    /// Removes a message from a consumer's unacknowledged ones; none if it is not among them.
    fn take_unacked(&mut self, slot: SlotId, id: DeliveryId) -> Option<UnackedMessage> {
        let in_flight = self.in_flight_by_consumer.get_mut(&slot)?;
        let message = in_flight.unacked.remove(&id)?;
        if is_seeded(Bug::RequeueAndKeep) {
            let UnackedMessage { key, redelivered, value_bytes } = message;
            in_flight.unacked.insert(id, UnackedMessage { key, redelivered, value_bytes });
            self.unacked += 1;
        }
        self.unacked -= 1;
        if let Some(source) = self.sources.get(id.partition as usize) {
            in_flight.bytes = in_flight.bytes.saturating_sub(source.kept_bytes(id.offset));
        }
        let holds_none = in_flight.unacked.is_empty();
        if holds_none && in_flight.unacked.capacity() > EMPTY_CAPACITY_KEPT {
            in_flight.unacked = Default::default();
        }
        if self.mode == Mode::KeyShared {
            self.keys.release(message.key, slot);
        }
        // It is to be told now.
        let is_last = holds_none && self.unreadable;
        if let Some(s) = self.slots.get_mut(slot)
            && (std::mem::take(&mut s.full) || is_last)
        {
            s.wake(&mut self.wakeups);
        }
        self.hand_over();
        Some(message)
    }

    /// Acknowledges messages of a consumer. Returns what to write to the log.
    pub(super) fn ack(&mut self, slot: SlotId, ids: &[DeliveryId]) -> AckBatch {
        let own: Vec<DeliveryId> =
            ids.iter().copied().filter(|id| self.take_unacked(slot, *id).is_some()).collect();
        self.settle(own)
    }

    /// Releases what sources keep of these messages. Returns the acknowledgements to write to the log.
    pub(super) fn settle(&mut self, mut ids: Vec<DeliveryId>) -> AckBatch {
        ids.sort_unstable();
        let mut batch = AckBatch::new();
        let mut at: Option<u32> = None;
        for id in ids {
            let Some(source) = self.sources.get_mut(id.partition as usize) else { continue };
            source.settled(id.offset);
            let Some(cursor) = source.cursor() else { continue };
            if at != Some(id.partition) {
                batch.push((cursor.clone(), Vec::new()));
                at = Some(id.partition);
            }
            if let Some((_, ranges)) = batch.last_mut() {
                extend(ranges, id.offset);
            }
        }
        batch
    }

    fn cursor(&self, partition: u32) -> Option<&Cursor> {
        self.sources.get(partition as usize)?.cursor()
    }

    /// Rejects messages of a consumer. Returns those whose records are in memory; the others are dropped once their
    /// records are read, and count as delivered once more until then.
    pub(super) fn reject(
        &mut self,
        slot: SlotId,
        ids: &[DeliveryId],
        loads: &mut Vec<Load>,
    ) -> (Vec<Dropped>, Counted) {
        let (mut dropped, mut late) = (Vec::new(), Vec::new());
        for id in ids {
            let Some(message) = self.take_unacked(slot, *id) else { continue };
            let source = id.partition as usize;
            match self.sources.get_mut(source).map(|s| s.again(id.offset, 1)) {
                Some(Offer::Taken(taken)) => {
                    dropped.push(Dropped { id: *id, record: taken.record, reason: DropReason::Rejected });
                    continue;
                }
                Some(Offer::Load(read)) => loads.push(Load { source, again: true, read }),
                Some(Offer::Empty) => {}
                Some(Offer::Gone) | None => continue,
            }
            let rank = self.rank_of(&message);
            let UnackedMessage { redelivered, value_bytes, .. } = message;
            late.push(*id);
            self.put_back(
                *id,
                Requeued { redelivered, value_bytes, rank, drop_reason: Some(DropReason::Rejected) },
            );
        }
        if self.reads_nothing_again() {
            self.sources.iter_mut().for_each(super::source::Source::close_again);
        }
        (dropped, self.by_cursor(late))
    }

    /// The cursors that count the deliveries of messages, with the offsets of these.
    fn by_cursor(&self, ids: impl IntoIterator<Item = DeliveryId>) -> Counted {
        let mut counted: Vec<(u32, Vec<Offset>)> = Vec::new();
        for id in ids {
            match counted.iter_mut().find(|(p, _)| *p == id.partition) {
                Some((_, offsets)) => offsets.push(Offset(id.offset)),
                None => counted.push((id.partition, vec![Offset(id.offset)])),
            }
        }
        counted.into_iter().filter_map(|(p, o)| self.cursor(p).map(|c| (c.clone(), o))).collect()
    }

    /// Requeues messages of a consumer in their old order. Returns those whose delivery counts went up.
    pub(super) fn requeue(&mut self, slot: SlotId, ids: &[DeliveryId]) -> Counted {
        if self.closed {
            return Vec::new();
        }
        let released: Vec<(DeliveryId, UnackedMessage)> =
            ids.iter().filter_map(|id| Some((*id, self.take_unacked(slot, *id)?))).collect();
        if released.is_empty() {
            return Vec::new();
        }
        if self.mode == Mode::KeyShared {
            self.unassign_all();
        }
        let ids: Vec<DeliveryId> = released.iter().map(|(id, _)| *id).collect();
        for (id, message) in released {
            let rank = self.rank_of(&message);
            let redelivered = message.redelivered + u32::from(!is_seeded(Bug::KeepCount));
            let value_bytes = message.value_bytes;
            self.put_back(id, Requeued { redelivered, value_bytes, rank, drop_reason: None });
        }
        self.try_again();
        self.by_cursor(ids)
    }

    /// KeyShared: makes assigned messages available to all, so that newer ones of a key do not overtake a requeued one.
    pub(super) fn unassign_all(&mut self) {
        if self.keys.assigned == 0 {
            return;
        }
        let slots: Vec<SlotId> = self.slots.ids().collect();
        for slot in slots {
            let assigned = self.slots.get_mut(slot).map(|s| std::mem::take(&mut s.assigned));
            self.unassign(slot, assigned.unwrap_or_default());
        }
    }

    /// Removes all waiting messages. Returns how many, and the acknowledgements to write to the log.
    pub(super) fn purge(&mut self) -> (u64, AckBatch) {
        self.unassign_all();
        let mut ids: Vec<DeliveryId> = match is_seeded(Bug::PurgeOnlyNew) {
            true => Vec::new(),
            false => std::mem::take(&mut self.requeued).into_keys().collect(),
        };
        ids.extend(self.peeked.take().map(|peeked| peeked.id));
        ids.extend(self.undelivered.take().into_iter().flat_map(|undelivered| (*undelivered).into_ids()));
        ids.extend(self.priorities.iter_mut().flat_map(|priorities| priorities.take_all()));
        let mut count = ids.len() as u64;
        let mut batch = self.settle(ids);
        for source in &mut self.sources {
            let (messages, range) = source.skip_all();
            count += messages;
            if let (Some(cursor), false) = (source.cursor(), range.is_empty()) {
                batch.push((cursor.clone(), vec![Offset(range.start)..Offset(range.end)]));
            }
        }
        self.limits.bytes.clear();
        if is_seeded(Bug::ForgetPurge) {
            batch.clear();
        }
        (count, batch)
    }
}

impl Subscription {
    /// Dead-letters messages. Returns the position to wait for before they are promised in their new queues.
    pub(super) fn dead_letter(self: &Arc<Self>, dropped: &[Dropped]) -> Result<Completion, SubmitError> {
        if dropped.is_empty() {
            return Ok(Completion::Now);
        }
        match self.owner.get() {
            Some(owner) => owner.sink.dropped(self, dropped),
            None => {
                self.context.counters.dropped.increment(dropped.len() as u64);
                self.ack_dropped(dropped.iter().map(|d| d.id).collect())
            }
        }
    }

    /// Removes dropped messages from the queue.
    pub(crate) fn ack_dropped(self: &Arc<Self>, ids: Vec<DeliveryId>) -> Result<Completion, SubmitError> {
        let acks = self.locked(|state| state.settle(ids));
        self.commit_acks(acks)
    }

    /// Removes dropped messages from the queue as part of an entry.
    pub(crate) fn ack_dropped_in(self: &Arc<Self>, ids: Vec<DeliveryId>, entry: &mut Entry) {
        let acks = self.locked(|state| state.settle(ids));
        self.put_acks(acks, entry);
    }

    /// Writes acknowledgements to the log; complete when all hold.
    pub(super) fn commit_acks(&self, acked: AckBatch) -> Result<Completion, SubmitError> {
        let mut completion = Completion::Now;
        for (cursor, ranges) in acked.into_iter().filter(|_| !is_seeded(Bug::ForgetAcks)) {
            completion = completion.and(Completion::At(cursor.ack(&ranges)?));
        }
        if let Completion::At(lsn) = completion {
            self.note_moved();
            self.context.measure_settlement(lsn);
        }
        Ok(completion)
    }

    /// Writes acknowledgements that no client waits for; what the log rejects is logged.
    pub(super) fn commit_acks_unattended(&self, acked: AckBatch) {
        if let Err(error) = self.commit_acks(acked) {
            tracing::warn!(subscription = %self.name, %error, "failed to write acknowledgement");
        }
    }

    /// Makes acknowledgements part of an entry.
    pub(super) fn put_acks(&self, acked: AckBatch, entry: &mut Entry) {
        if acked.is_empty() {
            return;
        }
        if is_seeded(Bug::AckBeforeTransaction) {
            return self.commit_acks_unattended(acked);
        }
        for (cursor, ranges) in acked {
            entry.ack(&cursor, &ranges);
        }
        self.note_moved();
    }
}

fn extend(ranges: &mut Vec<Range<Offset>>, offset: u64) {
    match ranges.last_mut() {
        Some(last) if last.end.0 == offset => last.end = Offset(offset + 1),
        _ => ranges.push(Offset(offset)..Offset(offset + 1)),
    }
}
