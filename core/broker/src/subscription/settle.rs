//! Taking back: acknowledged, returned, thrown away.

use std::ops::Range;
use std::sync::Arc;

use inver_storage::{Cursor, Entry, Lsn, Offset};

use super::slots::SlotId;
use super::source::Offer;
use super::state::{Held, Load, Returned, State};
use super::{DeliveryId, Mode, Subscription};
use crate::deadletter::Dropped;
use crate::spec::DropReason;

/// A hand that was fuller than this and is empty gives its memory back.
const EMPTY_HAND_KEPT: usize = 4096;

impl State {
    /// Takes a message out of a consumer's hands; none if it does not hold it.
    fn take_held(&mut self, slot: SlotId, id: DeliveryId) -> Option<Held> {
        let hand = self.hands.get_mut(&slot)?;
        let held = hand.held.remove(&id)?;
        self.unacked -= 1;
        if let Some(source) = self.sources.get(id.partition as usize) {
            hand.bytes = hand.bytes.saturating_sub(source.kept_bytes(id.offset));
        }
        if hand.held.is_empty() && hand.held.capacity() > EMPTY_HAND_KEPT {
            hand.held = Default::default();
        }
        if self.mode == Mode::KeyShared {
            self.keys.release(held.key, slot);
        }
        if let Some(s) = self.slots.get_mut(slot)
            && std::mem::take(&mut s.full)
        {
            s.post(&mut self.calls);
        }
        Some(held)
    }

    /// Acknowledges, and says what the log must be told.
    pub(super) fn ack(&mut self, slot: SlotId, ids: &[DeliveryId]) -> AckBatch {
        let mine: Vec<DeliveryId> =
            ids.iter().copied().filter(|id| self.take_held(slot, *id).is_some()).collect();
        self.settle(mine)
    }

    /// These are done: what a source keeps of them goes, and the log is to be told of these ranges.
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

    /// Lets messages die that a consumer holds. Those whose records are on the disk die when they were read.
    pub(super) fn doom(&mut self, slot: SlotId, ids: &[DeliveryId], loads: &mut Vec<Load>) -> Vec<Dropped> {
        let mut dead = Vec::new();
        for id in ids {
            let Some(held) = self.take_held(slot, *id) else { continue };
            let source = id.partition as usize;
            match self.sources.get_mut(source).map(|s| s.again(id.offset, 1)) {
                Some(Offer::Taken(taken)) => {
                    dead.push(Dropped { id: *id, record: taken.record, reason: DropReason::Rejected });
                    continue;
                }
                Some(Offer::Load(read)) => loads.push(Load { source, again: true, read }),
                Some(Offer::Empty) => {}
                Some(Offer::Gone) | None => continue,
            }
            let Held { redelivered, value_bytes, .. } = held;
            self.put_back(*id, Returned { redelivered, value_bytes, doomed: Some(DropReason::Rejected) });
        }
        if self.returned.is_empty() {
            self.sources.iter_mut().for_each(super::source::Source::close_again);
        }
        dead
    }

    /// Gives messages back. They come again, in their old order. Says whose delivery counts went up.
    pub(super) fn give_back(&mut self, slot: SlotId, ids: &[DeliveryId]) -> Vec<(Cursor, Vec<Offset>)> {
        if self.closed {
            return Vec::new();
        }
        let released: Vec<(DeliveryId, Held)> =
            ids.iter().filter_map(|id| Some((*id, self.take_held(slot, *id)?))).collect();
        if released.is_empty() {
            return Vec::new();
        }
        if self.mode == Mode::KeyShared {
            self.recall_all();
        }
        let mut told: Vec<(u32, Vec<Offset>)> = Vec::new();
        for (id, Held { redelivered, value_bytes, .. }) in released {
            self.put_back(id, Returned { redelivered: redelivered + 1, value_bytes, doomed: None });
            match told.iter_mut().find(|(p, _)| *p == id.partition) {
                Some((_, offsets)) => offsets.push(Offset(id.offset)),
                None => told.push((id.partition, vec![Offset(id.offset)])),
            }
        }
        self.wake_waiting();
        told.into_iter().filter_map(|(p, o)| self.cursor(p).map(|c| (c.clone(), o))).collect()
    }

    /// What was set aside goes back too, so that newer messages of a key do not overtake a returned one.
    fn recall_all(&mut self) {
        let slots: Vec<SlotId> = self.slots.ids().collect();
        for slot in slots {
            let own = self.slots.get_mut(slot).map(|s| std::mem::take(&mut s.own)).unwrap_or_default();
            self.recall(slot, own);
        }
    }

    pub(super) fn purge(&mut self) -> (u64, AckBatch) {
        self.recall_all();
        let mut ids: Vec<DeliveryId> = std::mem::take(&mut self.returned).into_keys().collect();
        ids.extend(self.head.take().map(|head| head.id));
        let mut count = ids.len() as u64;
        let mut batch = self.settle(ids);
        for source in &mut self.sources {
            let (messages, range) = source.skip_all();
            count += messages;
            if let (Some(cursor), false) = (source.cursor(), range.is_empty()) {
                batch.push((cursor.clone(), vec![Offset(range.start)..Offset(range.end)]));
            }
        }
        self.mortality.scale.clear();
        (count, batch)
    }
}

/// Acknowledgements by cursor.
pub(super) type AckBatch = Vec<(Cursor, Vec<Range<Offset>>)>;

impl Subscription {
    /// Dead messages are out of the queue.
    pub(crate) fn ack_dead(self: &Arc<Self>, ids: Vec<DeliveryId>) -> Option<Lsn> {
        let acks = self.locked(|state| state.settle(ids));
        self.commit_acks(acks)
    }

    pub(crate) fn ack_dead_in(self: &Arc<Self>, ids: Vec<DeliveryId>, entry: &mut Entry) {
        let acks = self.locked(|state| state.settle(ids));
        self.put_acks(acks, entry);
    }

    /// Writes acknowledgements to the log. The last position says when all hold.
    pub(super) fn commit_acks(self: &Subscription, acked: AckBatch) -> Option<Lsn> {
        let mut last = None;
        for (cursor, ranges) in acked {
            match cursor.ack(&ranges) {
                Ok(lsn) => last = Some(last.map_or(lsn, |l: Lsn| l.max(lsn))),
                // A poisoned log: the connection learns it from its next wait, and nothing more is promised.
                Err(error) => {
                    tracing::debug!(subscription = %self.name, %error, "acknowledgement not written");
                }
            }
        }
        if last.is_some() {
            self.note_moved();
        }
        last
    }

    /// Makes acknowledgements part of an entry.
    pub(super) fn put_acks(&self, acked: AckBatch, entry: &mut Entry) {
        if acked.is_empty() {
            return;
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
