//! Batches in memory as a source, and their overflow in the log.
//!
//! A queue that is full either refuses, or goes on in a stream of its own that ends with the process. Until
//! that part was consumed everything goes behind it, so memory always holds what is older. Both parts share
//! one numbering: offsets tell the order of all messages, wherever they lay.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use inver_storage::batch::{Batch, Record};
use inver_storage::{Entry, Offset, StoredBatch, Stream, SubmitError};
use rustc_hash::FxHashMap;

use super::super::Delivery;
use super::super::hand_out::size;
use super::{Offer, Open, StreamSource, Taken};
use crate::context::Context;
use crate::rows;

/// Consumed messages of the part in the log are trimmed this many at a time.
const SPILL_TRIM_MESSAGES: u64 = 4096;

/// An empty table of messages that are out gives its memory back from this capacity on.
const OUT_KEPT: usize = 4096;

/// What a queue in memory holds at most, and what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBounds {
    /// Messages.
    pub messages_max: u64,
    /// Bytes of batches.
    pub bytes_max: u64,
    /// At the bound.
    pub when_full: WhenFull,
}

/// What a full queue in memory does with a new message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It refuses the new message and counts it; also while nobody consumes.
    DropNewest,
    /// It goes on in the log until what is there was consumed. Nothing of it survives a restart.
    Spill,
}

/// What became of a pushed batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::subscription) enum Pushed {
    Held,
    Refused,
    /// It has to go on in the log: see [`MemorySource::spill`].
    ToSpill,
}

/// A batch from a queue in memory, shared with all other receivers: who gets the same bytes at the same place got
/// the same batch.
#[derive(Clone, Debug)]
pub struct LiveBatch {
    /// The record batch.
    pub bytes: Bytes,
    /// Messages in it.
    pub messages: u64,
    /// As [`Delivery::topic`](crate::Delivery::topic), of all its messages.
    pub topic: Option<Arc<str>>,
}

/// A batch in memory that was not handed out yet.
struct Waiting {
    bytes: Bytes,
    /// The offset of its first message.
    base: u64,
    messages: u64,
    topic: Option<Arc<str>>,
}

/// The part in the log.
struct Spill {
    source: StreamSource,
    /// Added to the stream's offsets (modulo 2^64) it gives those of the whole queue.
    shift: u64,
    /// From which offset of the stream on messages came with the batch of which topic.
    topics: VecDeque<(u64, Option<Arc<str>>)>,
}

/// See the module's text.
pub(in crate::subscription) struct MemorySource {
    bounds: MemoryBounds,
    batches: VecDeque<Waiting>,
    open: Option<Open>,
    /// The offset of the next message to come in.
    end: u64,
    /// Messages held, those of the open batch among them.
    held: u64,
    bytes: u64,
    /// Messages and bytes of the open batch that count as held.
    open_rest: (u64, u64),
    dropped: u64,
    /// Messages that are in somebody's hands, or came back.
    out: FxHashMap<u64, (Record, Option<Arc<str>>)>,
    /// In a box: most queues never have one.
    spill: Option<Box<Spill>>,
}

impl MemorySource {
    pub(in crate::subscription) fn new(bounds: MemoryBounds) -> MemorySource {
        MemorySource {
            bounds,
            batches: VecDeque::new(),
            open: None,
            end: 0,
            held: 0,
            bytes: 0,
            open_rest: (0, 0),
            dropped: 0,
            out: FxHashMap::default(),
            spill: None,
        }
    }

    pub(super) fn ready(&self) -> u64 {
        self.held + self.spill.as_ref().map_or(0, |s| s.source.submitted())
    }

    /// Messages that were refused.
    pub(in crate::subscription) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether it refuses what it has no room for.
    pub(in crate::subscription) fn drops(&self) -> bool {
        self.bounds.when_full == WhenFull::DropNewest
    }

    /// Messages were refused before they came here.
    pub(in crate::subscription) fn count_dropped(&mut self, messages: u64) {
        self.dropped += messages;
    }

    pub(super) fn is_loading(&self) -> bool {
        self.spill.as_ref().is_some_and(|s| s.source.is_loading())
    }

    /// Whether a batch would go beyond the bound. One batch always has room.
    fn is_full_for(&self, batch: &Bytes, messages: u64) -> bool {
        self.held > 0
            && (self.held + messages > self.bounds.messages_max
                || self.bytes + batch.len() as u64 > self.bounds.bytes_max)
    }

    pub(in crate::subscription) fn push(&mut self, batch: &Batch, topic: Option<&Arc<str>>) -> Pushed {
        let messages = u64::from(batch.record_count());
        if let Some(spill) = &self.spill {
            if !spill.source.is_drained() {
                return Pushed::ToSpill;
            }
            // What is in the log was consumed: the numbers go on behind it.
            if self.held == 0 {
                self.end = spill.source.position().wrapping_add(spill.shift).max(self.end);
            }
        }
        if self.is_full_for(batch.bytes(), messages) {
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
        });
        self.end += batch.header().offset_span().max(messages);
        self.held += messages;
        self.bytes += batch.bytes().len() as u64;
        Pushed::Held
    }

    /// Whether the part in the log is there; else [`begin_spill`](Self::begin_spill) comes first.
    pub(in crate::subscription) fn has_spill(&self) -> bool {
        self.spill.is_some()
    }

    pub(in crate::subscription) fn begin_spill(&mut self, source: StreamSource) {
        self.spill = Some(Box::new(Spill { source, shift: 0, topics: VecDeque::new() }));
    }

    /// Puts a batch into the part in the log.
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

    /// What of the part in the log was consumed and can be trimmed.
    pub(in crate::subscription) fn spill_consumed(&self) -> Option<(Stream, Offset)> {
        let source = &self.spill.as_ref()?.source;
        let far = source.position() >= source.stream.start().0 + SPILL_TRIM_MESSAGES;
        far.then(|| (source.stream.clone(), Offset(source.position())))
    }

    /// The stream of the part in the log, to be deleted.
    pub(in crate::subscription) fn spilled_stream(&self) -> Option<&Stream> {
        self.spill.as_ref().map(|s| &s.source.stream)
    }

    /// The next batch as a whole, for those who never [`take`](Self::take) singly. It counts as consumed.
    pub(in crate::subscription) fn take_batch(&mut self) -> Option<LiveBatch> {
        let Waiting { bytes, messages, topic, .. } = self.batches.pop_front()?;
        self.held -= messages;
        self.bytes -= bytes.len() as u64;
        Some(LiveBatch { bytes, messages, topic })
    }

    pub(super) fn take(&mut self, read_bytes: usize) -> Offer {
        match (self.take_held(), &mut self.spill) {
            (Some(taken), _) => Offer::Taken(taken),
            (None, Some(spill)) => spill.take(read_bytes),
            (None, None) => Offer::Empty,
        }
    }

    fn take_held(&mut self) -> Option<Taken> {
        loop {
            if let Some(open) = &mut self.open {
                if let Some(taken) = open.next() {
                    let taken_now = self.open_rest.0.min(1);
                    self.open_rest.0 -= taken_now;
                    self.held -= taken_now;
                    return Some(taken);
                }
                self.close_open();
            }
            let Waiting { bytes, base, messages, topic } = self.batches.pop_front()?;
            self.open_rest = (messages, bytes.len() as u64);
            self.open = Open::new(base, &bytes, topic);
            if self.open.is_none() {
                self.close_open();
            }
        }
    }

    /// The open batch is done, whether or not all of it could be read.
    fn close_open(&mut self) {
        let (messages, bytes) = std::mem::take(&mut self.open_rest);
        self.held -= messages;
        self.bytes -= bytes;
        self.open = None;
    }

    pub(super) fn again(&self, offset: u64) -> Offer {
        match self.out.get(&offset) {
            Some((record, topic)) => {
                Offer::Taken(Taken { offset, record: record.clone(), topic: topic.clone(), redelivered: 0 })
            }
            None => Offer::Gone,
        }
    }

    pub(super) fn keep(&mut self, delivery: &Delivery) -> usize {
        self.out.insert(delivery.id.offset, (delivery.record.clone(), delivery.topic.clone()));
        size(&delivery.record)
    }

    pub(super) fn kept_bytes(&self, offset: u64) -> usize {
        self.out.get(&offset).map_or(0, |(record, _)| size(record))
    }

    pub(super) fn settled(&mut self, offset: u64) {
        self.out.remove(&offset);
        if self.out.is_empty() && self.out.capacity() > OUT_KEPT {
            self.out = FxHashMap::default();
        }
    }

    pub(super) fn loaded(&mut self, batches: Vec<StoredBatch>) -> bool {
        self.spill.as_mut().is_some_and(|s| s.source.loaded(false, batches))
    }

    pub(super) fn skip_all(&mut self) -> u64 {
        let skipped = self.ready();
        self.batches.clear();
        self.open = None;
        (self.held, self.bytes, self.open_rest) = (0, 0, (0, 0));
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

/// The entry that makes the stream of a part in the log, which a restart deletes.
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
