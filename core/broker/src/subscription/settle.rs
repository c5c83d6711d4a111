//! Taking back: acknowledged, returned, thrown away.

use std::ops::Range;

use inver_storage::{Cursor, Offset};

use super::hand_out::size;
use super::keys::key_of;
use super::state::{SlotId, State};
use super::{AckBatch, Delivery, DeliveryId, Mode};

impl State {
    /// Takes a message out of a consumer's hands; none if it does not hold it.
    fn take_held(&mut self, slot: SlotId, id: DeliveryId) -> Option<Delivery> {
        let std::collections::hash_map::Entry::Occupied(held) = self.held.entry(id) else { return None };
        if held.get().slot != slot {
            return None;
        }
        let delivery = held.remove().delivery;
        if self.mode == Mode::KeyShared {
            self.keys.release(key_of(&delivery.record), slot);
        }
        if let Some(s) = self.slots.get_mut(&slot) {
            s.holds.0 = s.holds.0.saturating_sub(1);
            s.holds.1 = s.holds.1.saturating_sub(size(&delivery.record));
            if std::mem::take(&mut s.full) {
                s.spec.mailbox.post(s.spec.token);
            }
        }
        Some(delivery)
    }

    /// Takes messages out of a consumer's hands. What it does not hold is passed over.
    pub(super) fn release(&mut self, slot: SlotId, ids: &[DeliveryId]) -> Vec<Delivery> {
        ids.iter().filter_map(|id| self.take_held(slot, *id)).collect()
    }

    /// Acknowledges, and says what the log must be told.
    pub(super) fn ack(&mut self, slot: SlotId, ids: &[DeliveryId]) -> AckBatch {
        let durable = self.sources.iter().any(|s| s.cursor().is_some());
        let mut mine = Vec::with_capacity(if durable { ids.len() } else { 0 });
        for id in ids {
            if self.take_held(slot, *id).is_some() && durable {
                mine.push(*id);
            }
        }
        self.ranges(mine)
    }

    /// The ranges of these ids by cursor.
    pub(super) fn ranges(&self, mut ids: Vec<DeliveryId>) -> AckBatch {
        ids.sort_unstable();
        let mut batch = AckBatch::new();
        let mut at: Option<u32> = None;
        for id in ids {
            let Some(cursor) = self.cursor(id.partition) else { continue };
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

    /// Gives messages back. They come again, in their old order. Says whose delivery counts went up.
    pub(super) fn give_back(&mut self, slot: SlotId, ids: &[DeliveryId]) -> Vec<(Cursor, Vec<Offset>)> {
        let released = self.release(slot, ids);
        if released.is_empty() || self.closed {
            return Vec::new();
        }
        if self.mode == Mode::KeyShared {
            self.recall_all();
        }
        let mut told: Vec<(u32, Vec<Offset>)> = Vec::new();
        for delivery in released {
            let id = delivery.id;
            self.put_back(Delivery { redelivered: delivery.redelivered + 1, ..delivery });
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
        let slots: Vec<SlotId> = self.slots.keys().copied().collect();
        for slot in slots {
            let own = self.slots.get_mut(&slot).map(|s| std::mem::take(&mut s.own)).unwrap_or_default();
            self.recall(slot, own);
        }
    }

    pub(super) fn purge(&mut self) -> (u64, AckBatch) {
        self.recall_all();
        let ids: Vec<DeliveryId> = std::mem::take(&mut self.returned).into_keys().collect();
        let mut count = ids.len() as u64;
        let mut batch = self.ranges(ids);
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

fn extend(ranges: &mut Vec<Range<Offset>>, offset: u64) {
    match ranges.last_mut() {
        Some(last) if last.end.0 == offset => last.end = Offset(offset + 1),
        _ => ranges.push(Offset(offset)..Offset(offset + 1)),
    }
}
