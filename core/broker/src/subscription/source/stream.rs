//! Stream source: records of a stream of the log in order, without acknowledged ones.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use inver_storage::{
    ColdRead, Cursor, CursorId, Entry, Listening, Offset, Read, ReadError, StoredBatch, Stream,
};

use super::again::{Again, Found};
use super::delivered::Delivered;
use super::{Offer, Open, Opened, Skipped, SteppedOver, span};
use crate::context::Context;
use crate::peek::{is_stable, is_visible};
use crate::rows;
use crate::seeded_bugs::{Bug, is_seeded};

/// See [`StreamSource::loading_from`].
const NO_LOAD: u64 = u64::MAX;

/// A stream of the log and the position in it.
pub(in crate::subscription) struct StreamSource {
    pub(in crate::subscription) stream: Stream,
    pub(in crate::subscription) cursor: Option<Cursor>,
    /// The next offset to take.
    next: u64,
    /// Below this, records may have been acknowledged before this process read them.
    holes_below: u64,
    /// Below this, records may have been requeued before this process read them.
    counts_below: u64,
    batches: VecDeque<StoredBatch>,
    open: Option<Open>,
    /// The offset from which the load that is under way reads; [`NO_LOAD`]: none is.
    loading_from: u64,
    /// Boxed: most have no requeued messages.
    again: Option<Box<Again>>,
    /// Boxed: most have no message with a consumer. None too where another layer keeps this.
    delivered: Option<Box<Delivered>>,
    notes_delivered: bool,
    context: Arc<Context>,
    listening: Option<Listening>,
}

impl StreamSource {
    pub(in crate::subscription) fn new(
        stream: Stream,
        cursor: Option<Cursor>,
        from: Offset,
        context: &Arc<Context>,
    ) -> StreamSource {
        let holes_below = cursor.as_ref().and_then(|c| c.acked_above().last().map(|r| r.end.0));
        let counts_below = cursor.as_ref().and_then(|c| c.delivery_counts().last().map(|(o, _)| o.0 + 1));
        let delivered = cursor.as_ref().and_then(|c| recovered(c, context));
        let counts_below = counts_below
            .into_iter()
            .chain(delivered.as_ref().map(|delivered| delivered.counts_below()))
            .max();
        let cursor_is_durable = cursor.is_some();
        StreamSource {
            next: from.0,
            holes_below: holes_below.unwrap_or(0),
            counts_below: counts_below.unwrap_or(0),
            stream,
            cursor,
            batches: VecDeque::new(),
            open: None,
            loading_from: NO_LOAD,
            again: None,
            notes_delivered: cursor_is_durable,
            delivered,
            context: context.clone(),
            listening: None,
        }
    }

    /// Keeps the registration that wakes its subscription.
    pub(in crate::subscription) fn listen(&mut self, listening: Listening) {
        self.listening = Some(listening);
    }

    /// Leaves it to another layer to know what was delivered before a restart.
    pub(in crate::subscription) fn forgo_delivered(&mut self) {
        self.notes_delivered = false;
    }

    /// See [`super::Source::deliver`].
    pub(super) fn deliver(&mut self, offset: u64, now_ms: i64) {
        if self.notes_delivered {
            self.delivered.get_or_insert_default().deliver(offset, now_ms);
        }
    }

    /// Nothing is with consumers any more.
    pub(in crate::subscription) fn take_back(&mut self) {
        self.delivered.iter_mut().for_each(|delivered| delivered.take_back());
    }

    /// Whether it notes in the log what is delivered.
    pub(in crate::subscription) fn notes_delivered(&self) -> bool {
        self.notes_delivered
    }

    /// Counts messages of ranges that a consumer returned.
    pub(in crate::subscription) fn returned(&mut self, ranges: Vec<Range<u64>>) {
        let delivered = self.delivered.get_or_insert_default();
        ranges.into_iter().for_each(|range| delivered.returned(range));
    }

    /// Adds what changed of what is delivered to the entry.
    pub(in crate::subscription) fn put_delivered(&mut self, entry: &mut Entry) {
        let (Some(cursor), Some(delivered)) = (&self.cursor, &mut self.delivered) else { return };
        match delivered.take_change() {
            None => {}
            Some(Some(row)) => entry.put(rows::DELIVERED, delivered_key(cursor.id()), rows::encode(row)),
            Some(None) => entry.delete(rows::DELIVERED, delivered_key(cursor.id())),
        }
    }

    /// Deletes the row of what is delivered with the cursor.
    pub(in crate::subscription) fn delete_delivered(&self, entry: &mut Entry) {
        if let (Some(cursor), true) = (&self.cursor, self.has_row()) {
            entry.delete(rows::DELIVERED, delivered_key(cursor.id()));
        }
    }

    /// Whether the log has a row of what is delivered.
    pub(in crate::subscription) fn has_row(&self) -> bool {
        self.delivered.as_ref().is_some_and(|delivered| delivered.is_stored())
    }

    /// How many records can be read. Exact but for holes of compaction, and for what transactions leave: markers, and records
    /// of aborted ones.
    pub(in crate::subscription) fn ready(&self) -> u64 {
        self.ahead(self.stream.stable_offset())
    }

    /// As [`ready`](Self::ready), uncommitted records included.
    pub(super) fn submitted(&self) -> u64 {
        self.ahead(self.stream.next_stable_offset())
    }

    fn ahead(&self, end: Offset) -> u64 {
        let ahead = end.0.saturating_sub(self.next.max(self.acked_below()));
        let acked: u64 = self.acked_ahead().map(|r| r.end.min(end.0).saturating_sub(r.start)).sum();
        ahead.saturating_sub(acked)
    }

    /// Ranges at and above `next` that were acknowledged before this process started.
    fn acked_ahead(&self) -> impl Iterator<Item = Range<u64>> {
        let next = self.next;
        let cursor = self.cursor.as_ref().filter(|_| self.holes_below > next);
        let acked = cursor.map(Cursor::acked_above).unwrap_or_default();
        acked.into_iter().map(move |r| r.start.0.max(next)..r.end.0).filter(|r| !r.is_empty())
    }

    fn acked_below(&self) -> u64 {
        self.cursor.as_ref().map_or(0, |c| c.position().0)
    }

    pub(in crate::subscription) fn position(&self) -> u64 {
        self.next
    }

    /// Whether everything submitted was taken.
    pub(super) fn is_drained(&self) -> bool {
        self.next >= self.stream.next_offset().0
    }

    pub(super) fn is_loading_next(&self) -> bool {
        self.loading_from != NO_LOAD
    }

    pub(super) fn is_loading(&self) -> bool {
        self.is_loading_next() || self.again.as_ref().is_some_and(|again| again.loading)
    }

    /// See [`super::Source::again`].
    pub(super) fn again(&mut self, offset: u64, read_bytes: usize) -> Offer {
        let own = self.stream.id();
        let names = &self.context.stream_names;
        let topic_of = |origin| if origin == own { None } else { names.get(origin) };
        match self.again.get_or_insert_default().take(&self.stream, offset, read_bytes, topic_of) {
            Found::Taken(taken) => Offer::Taken(taken),
            Found::Load(cold) => Offer::Load(cold),
            Found::Later => Offer::Empty,
            Found::Gone => {
                pass_over(self.cursor.as_ref(), offset..offset + 1);
                Offer::Gone
            }
        }
    }

    pub(super) fn close_again(&mut self) {
        if self.again.as_ref().is_some_and(|again| !again.loading) {
            self.again = None;
        }
    }

    pub(super) fn take(&mut self, read_bytes: usize) -> Offer {
        loop {
            if let Some(taken) = self.take_open() {
                return taken;
            }
            let end = self.stream.stable_offset();
            let start = self.stream.start().0;
            // What was trimmed as a whole is passed over.
            let is_next =
                |batch: &mut StoredBatch| is_stable(&self.stream, batch, end) || end_of(batch) <= start;
            if let Some(batch) = self.batches.pop_front_if(is_next) {
                match self.open_batch(&batch) {
                    true => continue,
                    // What was read behind it is read again.
                    false => return self.load_next(read_bytes),
                }
            }
            if !self.batches.is_empty() {
                // A transaction is open: its marker wakes the subscription.
                return Offer::Empty;
            }
            if self.loading_from != NO_LOAD {
                return Offer::Empty;
            }
            self.reach_start();
            if self.next >= end.0 {
                return Offer::Empty;
            }
            match self.stream.read(Offset(self.next), read_bytes) {
                Ok(Read::Ready(batches)) if !batches.is_empty() => self.batches.extend(batches),
                Ok(Read::Ready(_) | Read::Empty) => return Offer::Empty,
                Ok(Read::Cold(cold)) => {
                    self.loading_from = self.next;
                    return Offer::Load(cold);
                }
                // It was trimmed after its start was read above.
                Err(ReadError::OutOfRange { start, .. }) if start.0 > self.next => {}
                Err(ReadError::Deleted) => return Offer::Empty,
                Err(error) => {
                    tracing::error!(stream = %self.stream.id(), offset = self.next, %error, "failed to read from the log");
                    return Offer::Empty;
                }
            }
        }
    }

    /// The next record of the open batch that is not acknowledged.
    fn take_open(&mut self) -> Option<Offer> {
        let open = self.open.as_mut()?;
        while let Some(mut taken) = open.next() {
            if taken.offset < self.next {
                continue;
            }
            pass_over(self.cursor.as_ref(), self.next..taken.offset);
            self.next = taken.offset + 1;
            let Some(cursor) = &self.cursor else { return Some(Offer::Taken(taken)) };
            if taken.offset < self.holes_below
                && cursor.is_acked(Offset(taken.offset))
                && !is_seeded(Bug::ForgetHoles)
            {
                continue;
            }
            if taken.offset < self.counts_below {
                let by_range = self.delivered.as_ref().map_or(0, |d| d.count(taken.offset));
                taken.redelivered = cursor.delivery_count(Offset(taken.offset)).saturating_add(by_range);
            }
            return Some(Offer::Taken(taken));
        }
        // The batch is done whatever offsets its records had, and is not read again.
        pass_over(self.cursor.as_ref(), self.next..open.end);
        self.next = self.next.max(open.end);
        self.open = None;
        None
    }

    /// Opens a batch. False if that is left to a load.
    fn open_batch(&mut self, batch: &StoredBatch) -> bool {
        let foreign = batch.origin != self.stream.id();
        let topic = if foreign { self.context.stream_names.get(batch.origin) } else { None };
        let opened = match is_visible(&self.stream, batch) {
            true => Opened::new(batch.base_offset.0, &batch.bytes, topic),
            false => Opened::Nothing,
        };
        match opened {
            Opened::Open(open) => self.open = Some(open),
            Opened::Long => return false,
            Opened::Nothing => {
                let end = batch.base_offset.0 + span(&batch.bytes);
                pass_over(self.cursor.as_ref(), self.next..end);
                self.next = self.next.max(end);
            }
        }
        true
    }

    /// Has the next batch loaded, unless a load is in progress.
    fn load_next(&mut self, read_bytes: usize) -> Offer {
        self.batches.clear();
        if self.loading_from != NO_LOAD {
            return Offer::Empty;
        }
        self.loading_from = self.next;
        Offer::Load(self.stream.read_later(Offset(self.next), read_bytes))
    }

    /// Takes the result of a read. A failed read is retried when the stream advances, not at once.
    pub(super) fn loaded(&mut self, again: bool, batches: Vec<StoredBatch>) -> bool {
        if again {
            let start = self.stream.start();
            return self.again.as_mut().is_some_and(|again| again.loaded(batches, start));
        }
        let (next, any) = (self.next, !batches.is_empty());
        // What is between the buffer and a read ahead of it may have been released: then it is read again in order.
        if std::mem::replace(&mut self.loading_from, NO_LOAD) <= self.buffered_end() {
            // Some may have been skipped meanwhile.
            self.batches.extend(batches.into_iter().filter(|batch| end_of(batch) > next));
        }
        any || !self.batches.is_empty() || self.stream.start().0 > self.next
    }

    /// The offset after what was taken or is buffered.
    fn buffered_end(&self) -> u64 {
        let open = self.open.as_ref().map(|open| open.end);
        self.batches.back().map(end_of).or(open).unwrap_or(0).max(self.next)
    }

    /// See [`super::Source::read_ahead`].
    pub(super) fn read_ahead(&mut self, read_bytes: usize) -> Option<ColdRead> {
        let from = self.buffered_end();
        let buffered: usize = self.batches.iter().map(|batch| batch.bytes.len()).sum();
        let is_enough = self.batches.is_empty() || buffered >= read_bytes;
        if is_enough || self.loading_from != NO_LOAD || from >= self.stream.stable_offset().0 {
            return None;
        }
        match self.stream.read(Offset(from), read_bytes) {
            Ok(Read::Cold(cold)) => {
                self.loading_from = from;
                Some(cold)
            }
            // What is in memory is read when it is wanted.
            _ => None,
        }
    }

    /// The read of a message that waits again, or of the next one.
    pub(in crate::subscription) fn read_of(&mut self, again: Option<u64>, read_bytes: usize) -> ColdRead {
        self.reach_start();
        self.stream.read_later(Offset(again.unwrap_or(self.next)), read_bytes)
    }

    /// See [`super::Source::release_buffered`].
    pub(super) fn release_buffered(&mut self) {
        self.batches = VecDeque::new();
    }

    #[cfg(test)]
    pub(super) fn buffered_batches(&self) -> usize {
        self.batches.len()
    }

    /// See [`super::Source::skip`].
    pub(super) fn skip(&mut self, messages: u64) -> Skipped {
        self.reach_start();
        let mut to = self.next.saturating_add(messages);
        for acked in self.acked_ahead() {
            if acked.start >= to {
                break;
            }
            to = to.saturating_add(acked.end - acked.start);
        }
        self.skip_to(to)
    }

    /// See [`super::Source::skip_older`].
    pub(super) fn skip_older(&mut self, timestamp_ms: i64) -> Skipped {
        self.reach_start();
        let to = self.stream.older_until(Offset(self.next), timestamp_ms);
        self.skip_to(to.0)
    }

    /// See [`super::Source::step_over`].
    pub(super) fn step_over(&mut self, to: u64) -> SteppedOver {
        // A batch that was taken from before, by a reader that has all of it in memory, is not skipped.
        let Skipped { messages, offsets } = self.skip_to(to);
        SteppedOver { first: offsets.start, messages, acked: offsets }
    }

    fn skip_to(&mut self, to: u64) -> Skipped {
        let to = to.min(self.stream.stable_offset().0).max(self.next);
        let skipped = Skipped { messages: self.ahead(Offset(to)), offsets: self.next..to };
        self.next = to;
        while self.batches.front().is_some_and(|batch| end_of(batch) <= to) {
            self.batches.pop_front();
        }
        self.open.take_if(|open| open.end <= to);
        skipped
    }

    /// Passes over offsets that were trimmed, or acknowledged elsewhere, before they were read.
    fn reach_start(&mut self) {
        self.next = self.next.max(self.stream.start().0).max(self.acked_below());
    }

    /// Skips everything submitted. Returns the range that was skipped.
    pub(super) fn skip_all(&mut self) -> Range<u64> {
        let from = self.next;
        self.next = self.stream.next_stable_offset().0.max(from);
        self.batches.clear();
        self.open = None;
        from..self.next
    }
}

/// What an earlier process left with consumers.
fn recovered(cursor: &Cursor, context: &Context) -> Option<Box<Delivered>> {
    let row = context.redeliveries.get()?.lock().remove(&cursor.id().0)?;
    // The broker read it before.
    rows::decode(rows::DELIVERED, &row).ok().map(|row| Box::new(Delivered::recovered(row)))
}

/// The key of the row of what is delivered.
pub(in crate::subscription) fn delivered_key(cursor: CursorId) -> Bytes {
    Bytes::copy_from_slice(&cursor.0.to_be_bytes())
}

/// The offset after the last one of a batch.
fn end_of(batch: &StoredBatch) -> u64 {
    batch.base_offset.0 + span(&batch.bytes)
}

/// Acknowledges offsets that no record has: otherwise they would hold back the durable position, and with it the data.
fn pass_over(cursor: Option<&Cursor>, offsets: Range<u64>) {
    if let (Some(cursor), false) = (cursor, offsets.is_empty())
        && let Err(error) = cursor.ack(&[Offset(offsets.start)..Offset(offsets.end)])
    {
        tracing::debug!(%error, "failed to acknowledge offsets without a record");
    }
}
