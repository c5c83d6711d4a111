//! Memory source: batches in memory, and their spilled part in the log.
//!
//! A full queue either refuses new messages, or spills them to a stream of its own that is deleted with the process.
//! Until the spilled part is consumed all new messages are spilled, so memory always holds the older ones. Both parts
//! share one numbering: offsets give the order of all messages.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use inver_storage::batch::{Batch, Record, records};
use inver_storage::{ColdRead, Entry, Held, Offset, StoredBatch, Stream, SubmitError};
use rustc_hash::FxHashMap;

use super::super::Delivery;
use super::super::sizes::size;
use super::{Offer, Open, SteppedOver, StreamSource, Taken};
use crate::context::Context;
use crate::peek::PeekedMessage;
use crate::rows;

/// Consumed messages of the spilled part are trimmed this many at a time.
const SPILL_TRIM_MESSAGES: u64 = 4096;

/// An empty table of taken messages with a larger capacity is released.
const EMPTY_CAPACITY_KEPT: usize = 4096;

/// The bounds of a queue in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBounds {
    /// Messages.
    pub messages_max: u64,
    /// Bytes of batches.
    pub bytes_max: u64,
    /// What happens at the bound.
    pub when_full: WhenFull,
}

/// What a full queue in memory does with a new message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It is refused and counted; also while no consumer is attached.
    DropNewest,
    /// It is spilled to the log until the spilled part is consumed. Nothing of it survives a restart.
    Spill,
}

/// The outcome of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::subscription) enum Pushed {
    Kept,
    Refused,
    /// The caller spills it to the log: see [`MemorySource::spill`].
    ToSpill,
}

/// A batch from a queue in memory, shared with all other receivers: equal addresses of the bytes mean the same batch.
#[derive(Clone, Debug)]
pub struct LiveBatch {
    /// The record batch.
    pub bytes: Bytes,
    /// Messages in it.
    pub messages: u64,
    /// As [`Delivery::topic`](crate::Delivery::topic), of all its messages.
    pub topic: Option<Arc<str>>,
}

/// A batch in memory that was not taken yet.
struct Waiting {
    bytes: Bytes,
    /// The offset of its first message.
    base: u64,
    messages: u64,
    topic: Option<Arc<str>>,
    /// Others have the same bytes, which count on their own.
    is_shared: bool,
}

/// A message that was taken and not settled.
struct Kept {
    record: Record,
    topic: Option<Arc<str>>,
    is_shared: bool,
}

/// The spilled part.
struct Spill {
    source: StreamSource,
    /// Added to the stream's offsets (modulo 2^64) this gives those of the whole queue.
    shift: u64,
    /// (First offset in the stream, source topic), ascending.
    topics: VecDeque<(u64, Option<Arc<str>>)>,
}

/// A queue in memory.
pub(in crate::subscription) struct MemorySource {
    bounds: MemoryBounds,
    /// Its part of the memory of all queues.
    held: Held,
    batches: VecDeque<Waiting>,
    open: Option<Open>,
    /// The offset of the next message pushed.
    end: u64,
    /// Messages in memory, those of the open batch included.
    messages: u64,
    bytes: u64,
    /// Of the bytes, those that no other queue has.
    own_bytes: u64,
    /// Messages and bytes of the open batch that are still counted, and whether others have it.
    open_rest: (u64, u64),
    is_open_shared: bool,
    dropped: u64,
    /// Messages that were taken and not settled: unacknowledged or requeued.
    taken: FxHashMap<u64, Kept>,
    taken_bytes: usize,
    own_taken_bytes: usize,
    /// Boxed: most queues never spill.
    spill: Option<Box<Spill>>,
}

impl MemorySource {
    /// Bytes of the batches that wait and that no other queue has.
    pub(super) fn own_bytes(&self) -> u64 {
        self.own_bytes
    }

    pub(in crate::subscription) fn new(bounds: MemoryBounds, held: Held) -> MemorySource {
        MemorySource {
            bounds,
            held,
            batches: VecDeque::new(),
            open: None,
            end: 0,
            messages: 0,
            bytes: 0,
            own_bytes: 0,
            open_rest: (0, 0),
            is_open_shared: false,
            dropped: 0,
            taken: FxHashMap::default(),
            taken_bytes: 0,
            own_taken_bytes: 0,
            spill: None,
        }
    }

    pub(super) fn ready(&self) -> u64 {
        self.messages + self.spill.as_ref().map_or(0, |s| s.source.submitted())
    }

    /// Messages that were refused.
    pub(in crate::subscription) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether it refuses messages at its bound.
    pub(in crate::subscription) fn drops(&self) -> bool {
        self.bounds.when_full == WhenFull::DropNewest
    }

    /// Counts messages that were refused by the caller.
    pub(in crate::subscription) fn count_dropped(&mut self, messages: u64) {
        self.dropped += messages;
    }

    pub(super) fn is_loading(&self) -> bool {
        self.spill.as_ref().is_some_and(|s| s.source.is_loading())
    }

    /// Whether a batch would exceed the bound, or the memory of all queues. An empty queue has room for any batch, unless it
    /// can be spilled: many queues of one large message each would hold more than there is.
    fn is_full_for(&self, batch: &Bytes, messages: u64, is_shared: bool) -> bool {
        let is_over_bound = self.messages + messages > self.bounds.messages_max
            || self.bytes + batch.len() as u64 > self.bounds.bytes_max;
        let own_bytes = self.own_bytes as usize + self.own_taken_bytes;
        let own_bytes = if is_shared { own_bytes } else { own_bytes + batch.len() };
        let in_all = self.bytes as usize + self.taken_bytes + batch.len();
        let (is_empty, spills) = (self.messages == 0, self.bounds.when_full == WhenFull::Spill);
        (!is_empty && is_over_bound) || ((!is_empty || spills) && !self.held.has_room(own_bytes, in_all))
    }

    /// Adds a batch. One that is shared with other queues was [charged](Batch::charged).
    pub(in crate::subscription) fn push(
        &mut self,
        batch: &Batch,
        topic: Option<&Arc<str>>,
        is_shared: bool,
    ) -> Pushed {
        let messages = u64::from(batch.record_count());
        if let Some(spill) = &self.spill {
            if !spill.source.is_drained() {
                return Pushed::ToSpill;
            }
            // The spilled part was consumed: its offsets are continued.
            if self.messages == 0 {
                self.end = spill.source.position().wrapping_add(spill.shift).max(self.end);
            }
        }
        if self.is_full_for(batch.bytes(), messages, is_shared) {
            if self.bounds.when_full == WhenFull::Spill {
                return Pushed::ToSpill;
            }
            self.dropped += messages;
            return Pushed::Refused;
        }
        self.batches.push_back(Waiting {
            bytes: batch.bytes().clone(),
            base: self.end,
            messages,
            topic: topic.cloned(),
            is_shared,
        });
        self.end += batch.header().offset_span().max(messages);
        self.messages += messages;
        self.bytes += batch.bytes().len() as u64;
        self.own_bytes += if is_shared { 0 } else { batch.bytes().len() as u64 };
        self.account();
        Pushed::Kept
    }

    /// Whether the spilled part exists; else [`begin_spill`](Self::begin_spill) makes it.
    pub(in crate::subscription) fn has_spill(&self) -> bool {
        self.spill.is_some()
    }

    pub(in crate::subscription) fn begin_spill(&mut self, source: StreamSource) {
        self.spill = Some(Box::new(Spill { source, shift: 0, topics: VecDeque::new() }));
    }

    /// Writes a batch to the spilled part.
    pub(in crate::subscription) fn spill(
        &mut self,
        context: &Context,
        batch: &Batch,
        topic: Option<&Arc<str>>,
    ) -> Result<(), SubmitError> {
        let Some(spill) = &mut self.spill else { return Ok(()) };
        if spill.source.is_drained() {
            spill.shift = self.end.wrapping_sub(spill.source.stream.next_offset().0);
            spill.topics.clear();
        }
        let mut entry = Entry::new();
        entry.batch(std::slice::from_ref(&spill.source.stream), batch.clone());
        let submitted = context.log.submit(entry)?;
        let base = submitted.bases.first().map_or(0, |b| b.0);
        if spill.topics.back().map_or(topic.is_some(), |(_, last)| last.as_ref() != topic) {
            spill.topics.push_back((base, topic.cloned()));
        }
        context.counters.spilled.increment(u64::from(batch.record_count()));
        Ok(())
    }

    /// See [`super::Source::step_over`]. Its offsets have no acknowledgement.
    pub(super) fn step_over(&mut self, to: u64) -> SteppedOver {
        let Some(spill) = &mut self.spill else { return SteppedOver::default() };
        let SteppedOver { first, messages, .. } = spill.source.step_over(to);
        SteppedOver { first: first.wrapping_add(spill.shift), messages, acked: 0..0 }
    }

    /// The offset up to which the spilled part was consumed and can be trimmed.
    pub(in crate::subscription) fn spill_consumed(&self) -> Option<(Stream, Offset)> {
        let source = &self.spill.as_ref()?.source;
        let far = source.position() >= source.stream.start().0 + SPILL_TRIM_MESSAGES;
        far.then(|| (source.stream.clone(), Offset(source.position())))
    }

    /// Messages that are not settled, from an offset on, at most `max`; those of the spilled part are not among them.
    pub(in crate::subscription) fn peek(&self, from: u64, max: usize) -> Vec<PeekedMessage> {
        let message = |offset, record: Record, topic: Option<Arc<str>>| PeekedMessage {
            offset,
            record,
            topic,
            unacked: false,
        };
        let taken = self.taken.iter().filter(|(offset, _)| **offset >= from);
        let mut found: Vec<PeekedMessage> =
            taken.map(|(offset, kept)| message(*offset, kept.record.clone(), kept.topic.clone())).collect();
        found.sort_unstable_by_key(|message| message.offset);
        found.truncate(max);
        let open = self.open.iter().filter(|_| self.open_rest.0 > 0);
        let open = open.map(|open| (open.base, open.floor, open.records.clone(), &open.topic));
        let waiting = self.batches.iter().filter_map(|waiting| {
            Some((waiting.base, waiting.base, records(&waiting.bytes).ok()?, &waiting.topic))
        });
        for (base, floor, records, topic) in open.chain(waiting) {
            for record in records.map_while(Result::ok) {
                if found.len() >= max {
                    return found;
                }
                let offset = base + u64::from(record.offset_delta);
                if offset >= floor.max(from) {
                    found.push(message(offset, record, topic.clone()));
                }
            }
        }
        found
    }

    /// The stream of the spilled part, the offset in it that is taken next, and what to add for the offset in the queue.
    pub(in crate::subscription) fn spilled_position(&self) -> Option<(Stream, u64, u64)> {
        let spill = self.spill.as_ref()?;
        Some((spill.source.stream.clone(), spill.source.position(), spill.shift))
    }

    /// The stream of the spilled part.
    pub(in crate::subscription) fn spilled_stream(&self) -> Option<&Stream> {
        self.spill.as_ref().map(|s| &s.source.stream)
    }

    /// Takes a whole batch, which counts as consumed; never mixed with [`take`](Self::take).
    pub(in crate::subscription) fn take_batch(&mut self) -> Option<LiveBatch> {
        let Waiting { bytes, messages, topic, is_shared, .. } = self.batches.pop_front()?;
        self.forget(messages, bytes.len() as u64, is_shared);
        Some(LiveBatch { bytes, messages, topic })
    }

    #[inline]
    pub(super) fn take(&mut self, read_bytes: usize) -> Offer {
        if let Some(taken) = self.take_from_memory() {
            return Offer::Taken(taken);
        }
        self.spill.as_mut().map_or(Offer::Empty, |spill| spill.take(read_bytes))
    }

    #[inline]
    fn take_from_memory(&mut self) -> Option<Taken> {
        loop {
            if let Some(open) = &mut self.open {
                if let Some(taken) = open.next() {
                    let taken_now = self.open_rest.0.min(1);
                    self.open_rest.0 -= taken_now;
                    self.messages -= taken_now;
                    return Some(taken);
                }
                self.close_open();
            }
            let Waiting { bytes, base, messages, topic, is_shared } = self.batches.pop_front()?;
            (self.open_rest, self.is_open_shared) = ((messages, bytes.len() as u64), is_shared);
            self.open = Open::in_memory(base, &bytes, topic);
            if self.open.is_none() {
                self.close_open();
            }
        }
    }

    /// Ends the open batch, whether or not all of it could be read.
    fn close_open(&mut self) {
        let (messages, bytes) = std::mem::take(&mut self.open_rest);
        self.forget(messages, bytes, self.is_open_shared);
        self.open = None;
    }

    /// Counts messages of a batch no more.
    fn forget(&mut self, messages: u64, bytes: u64, is_shared: bool) {
        self.messages -= messages;
        self.bytes -= bytes;
        self.own_bytes -= if is_shared { 0 } else { bytes };
        self.account();
    }

    pub(super) fn again(&self, offset: u64) -> Offer {
        match self.taken.get(&offset) {
            Some(Kept { record, topic, .. }) => {
                Offer::Taken(Taken { offset, record: record.clone(), topic: topic.clone(), redelivered: 0 })
            }
            None => Offer::Gone,
        }
    }

    pub(super) fn keep(&mut self, delivery: &Delivery) -> usize {
        let bytes = size(&delivery.record);
        // One of a batch that was closed since counts as its own.
        let is_shared =
            self.is_open_shared && self.open.as_ref().is_some_and(|open| open.has(delivery.id.offset));
        let kept = Kept { record: delivery.record.clone(), topic: delivery.topic.clone(), is_shared };
        if self.taken.insert(delivery.id.offset, kept).is_none() {
            self.taken_bytes += bytes;
            self.own_taken_bytes += if is_shared { 0 } else { bytes };
            self.account();
        }
        bytes
    }

    /// See [`super::Source::has_room_ahead`].
    pub(super) fn has_room_ahead(&self) -> bool {
        self.taken.len() as u64 <= self.bounds.messages_max
            && (self.taken_bytes as u64) < self.bounds.bytes_max
            && !self.held.is_short()
    }

    /// Accounts for what waits and what was taken.
    fn account(&mut self) {
        let own_bytes = self.own_bytes as usize + self.own_taken_bytes;
        self.held.force_of(own_bytes, self.bytes as usize + self.taken_bytes);
    }

    /// Whether the memory of all queues is used up.
    pub(super) fn is_short(&self) -> bool {
        self.held.is_short()
    }

    pub(super) fn kept_bytes(&self, offset: u64) -> usize {
        self.taken.get(&offset).map_or(0, |kept| size(&kept.record))
    }

    pub(super) fn settled(&mut self, offset: u64) {
        if let Some(Kept { record, is_shared, .. }) = self.taken.remove(&offset) {
            let bytes = size(&record);
            self.taken_bytes -= bytes;
            self.own_taken_bytes -= if is_shared { 0 } else { bytes };
            self.account();
        }
        if self.taken.is_empty() && self.taken.capacity() > EMPTY_CAPACITY_KEPT {
            self.taken = FxHashMap::default();
        }
    }

    pub(super) fn loaded(&mut self, batches: Vec<StoredBatch>) -> bool {
        self.spill.as_mut().is_some_and(|s| s.source.loaded(false, batches))
    }

    /// The part of it that is in the log.
    pub(super) fn spilled(&mut self) -> Option<&mut StreamSource> {
        self.spill.as_mut().map(|spill| &mut spill.source)
    }

    /// See [`super::Source::read_ahead`].
    pub(super) fn read_ahead(&mut self, read_bytes: usize) -> Option<ColdRead> {
        self.spill.as_mut()?.source.read_ahead(read_bytes)
    }

    /// See [`super::Source::release_buffered`].
    pub(super) fn release_buffered(&mut self) {
        if let Some(spill) = &mut self.spill {
            spill.source.release_buffered();
        }
    }

    /// See [`super::Source::skip`].
    pub(super) fn skip(&mut self, messages: u64) -> u64 {
        let mut left = messages;
        while left > 0 && self.messages > 0 {
            if self.open.is_some() {
                if self.open_rest.0 <= left {
                    left -= self.open_rest.0;
                    self.close_open();
                } else if self.take_from_memory().is_some() {
                    left -= 1;
                }
            } else if self.batches.front().is_some_and(|first| first.messages <= left) {
                left -= self.take_batch().map_or(0, |batch| batch.messages);
            } else if self.take_from_memory().is_some() {
                left -= 1;
            } else {
                break;
            }
        }
        if let Some(spill) = self.spill.as_mut().filter(|_| left > 0) {
            left -= spill.source.skip(left).messages;
        }
        messages - left
    }

    /// See [`super::Source::skip_older`]. What is in memory is as quickly taken.
    pub(super) fn skip_older(&mut self, timestamp_ms: i64) -> u64 {
        match &mut self.spill {
            Some(spill) if self.messages == 0 => spill.source.skip_older(timestamp_ms).messages,
            _ => 0,
        }
    }

    pub(super) fn skip_all(&mut self) -> u64 {
        let skipped = self.ready();
        self.batches.clear();
        self.open = None;
        (self.messages, self.bytes, self.own_bytes, self.open_rest) = (0, 0, 0, (0, 0));
        self.account();
        if let Some(spill) = &mut self.spill {
            spill.source.skip_all();
        }
        skipped
    }
}

impl Spill {
    fn take(&mut self, read_bytes: usize) -> Offer {
        match self.source.take(read_bytes) {
            Offer::Taken(mut taken) => {
                while self.topics.get(1).is_some_and(|(from, _)| *from <= taken.offset) {
                    self.topics.pop_front();
                }
                let of = self.topics.front().filter(|(from, _)| *from <= taken.offset);
                taken.topic = of.and_then(|(_, topic)| topic.clone());
                taken.offset = taken.offset.wrapping_add(self.shift);
                Offer::Taken(taken)
            }
            other => other,
        }
    }
}

/// The entry that creates the stream of a spilled part, which a restart deletes.
pub(in crate::subscription) fn spill_made(stream: inver_storage::StreamId) -> Entry {
    let mut entry = Entry::new();
    entry.create_stream(stream);
    entry.put(rows::SPILLS, spill_key(stream), Bytes::new());
    entry
}

/// The entry that deletes it.
pub(in crate::subscription) fn spill_ended(stream: inver_storage::StreamId) -> Entry {
    let mut entry = Entry::new();
    entry.delete_stream(stream);
    entry.delete(rows::SPILLS, spill_key(stream));
    entry
}

fn spill_key(stream: inver_storage::StreamId) -> Bytes {
    Bytes::copy_from_slice(&stream.0.to_be_bytes())
}
