//! Where a subscription's messages come from: a stream of the log, or batches held in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use inver_storage::batch::{BatchHeader, Record, Records, records};
use inver_storage::{ColdRead, Cursor, Listening, Offset, Read, StoredBatch, Stream};

use crate::namespace::Surroundings;

/// Bytes asked of a stream at a time.
const READ_BYTES: usize = 256 * 1024;

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
    /// It refuses the new message and counts it.
    DropNewest,
    /// It goes on in the log until what is there was consumed. Nothing of it survives a restart.
    Spill,
}

/// A message taken from a source.
pub(super) struct Taken {
    pub(super) offset: u64,
    pub(super) record: Record,
    pub(super) topic: Option<Arc<str>>,
}

/// What a source had to offer.
pub(super) enum Offer {
    Taken(Taken),
    /// Nothing now; a wake-up will come.
    Empty,
    /// The records are on the disk: load them and hand them to [`StreamSource::loaded`].
    Load(ColdRead),
}

/// The records of one batch, being handed out.
struct Open {
    base: u64,
    records: Records,
    topic: Option<Arc<str>>,
}

impl Open {
    fn new(base: u64, bytes: &Bytes, topic: Option<Arc<str>>) -> Option<Open> {
        match records(bytes) {
            Ok(records) => Some(Open { base, records, topic }),
            Err(error) => {
                // The log checked it when it came in; a reader can only step over it.
                tracing::error!(offset = base, %error, "a stored batch cannot be read; its records are skipped");
                None
            }
        }
    }

    fn next(&mut self) -> Option<Taken> {
        match self.records.next()? {
            Ok(record) => {
                let offset = self.base + u64::from(record.offset_delta);
                Some(Taken { offset, record, topic: self.topic.clone() })
            }
            Err(error) => {
                tracing::error!(offset = self.base, %error, "the rest of a stored batch cannot be read");
                None
            }
        }
    }
}

/// A stream of the log, read in order, acknowledged records left out.
pub(super) struct StreamSource {
    pub(super) stream: Stream,
    pub(super) cursor: Option<Cursor>,
    /// The next offset to hand out.
    next: u64,
    /// Below this, records may have been acknowledged before this process read them.
    holes_below: u64,
    batches: VecDeque<StoredBatch>,
    open: Option<Open>,
    pub(super) loading: bool,
    /// It is what a queue in memory could not hold: what was submitted counts, committed or not.
    pub(super) is_spill: bool,
    surroundings: Arc<Surroundings>,
    _listening: Option<Listening>,
}

impl StreamSource {
    pub(super) fn new(
        stream: Stream,
        cursor: Option<Cursor>,
        from: Offset,
        surroundings: &Arc<Surroundings>,
    ) -> StreamSource {
        let holes_below = cursor.as_ref().and_then(|c| c.acked_above().last().map(|r| r.end.0)).unwrap_or(0);
        StreamSource {
            next: from.0,
            holes_below,
            stream,
            cursor,
            batches: VecDeque::new(),
            open: None,
            loading: false,
            is_spill: false,
            surroundings: surroundings.clone(),
            _listening: None,
        }
    }

    pub(super) fn listen(&mut self, listening: Listening) {
        self._listening = Some(listening);
    }

    /// How many records are ahead. Exact but for holes of compaction.
    pub(super) fn ready(&self) -> u64 {
        let end = if self.is_spill { self.stream.next_offset() } else { self.stream.high_watermark() };
        let ahead = end.0.saturating_sub(self.next.max(self.acked_below()));
        if self.holes_below <= self.next {
            return ahead;
        }
        let acked: u64 = self.cursor.as_ref().map_or(0, |c| {
            c.acked_above().iter().map(|r| r.end.0.saturating_sub(r.start.0.max(self.next))).sum()
        });
        ahead.saturating_sub(acked)
    }

    fn acked_below(&self) -> u64 {
        self.cursor.as_ref().map_or(0, |c| c.position().0)
    }

    pub(super) fn position(&self) -> u64 {
        self.next
    }

    /// Whether everything submitted was handed out.
    pub(super) fn is_drained(&self) -> bool {
        self.next >= self.stream.next_offset().0
    }

    pub(super) fn take(&mut self) -> Offer {
        loop {
            if let Some(open) = &mut self.open {
                while let Some(taken) = open.next() {
                    if taken.offset < self.next {
                        continue;
                    }
                    self.next = taken.offset + 1;
                    if taken.offset < self.holes_below
                        && self.cursor.as_ref().is_some_and(|c| c.is_acked(Offset(taken.offset)))
                    {
                        continue;
                    }
                    return Offer::Taken(taken);
                }
                self.open = None;
            }
            if let Some(batch) = self.batches.pop_front() {
                let foreign = batch.origin != self.stream.id();
                let topic = if foreign { self.surroundings.stream_names.get(batch.origin) } else { None };
                self.open = Open::new(batch.base_offset.0, &batch.bytes, topic);
                if self.open.is_none() {
                    self.step_over(&batch);
                }
                continue;
            }
            if self.loading {
                return Offer::Empty;
            }
            // Trimmed, or acknowledged from elsewhere, before it was read.
            self.next = self.next.max(self.stream.start().0).max(self.acked_below());
            if self.next >= self.stream.high_watermark().0 {
                return Offer::Empty;
            }
            match self.stream.read(Offset(self.next), READ_BYTES) {
                Ok(Read::Ready(batches)) if !batches.is_empty() => self.batches.extend(batches),
                Ok(Read::Ready(_) | Read::Empty) => return Offer::Empty,
                Ok(Read::Cold(cold)) => {
                    self.loading = true;
                    return Offer::Load(cold);
                }
                Err(error) => {
                    tracing::error!(stream = %self.stream.id(), offset = self.next, %error, "cannot read");
                    return Offer::Empty;
                }
            }
        }
    }

    fn step_over(&mut self, batch: &StoredBatch) {
        let span = BatchHeader::parse(&batch.bytes).map_or(1, |h| h.offset_span());
        self.next = self.next.max(batch.base_offset.0 + span);
    }

    /// What a [`ColdRead`] brought.
    pub(super) fn loaded(&mut self, batches: Vec<StoredBatch>) {
        self.loading = false;
        self.batches.extend(batches);
    }

    /// Skips everything up to the high watermark; returns the range that was skipped.
    pub(super) fn skip_all(&mut self) -> std::ops::Range<u64> {
        let from = self.next;
        self.next = self.stream.high_watermark().0.max(from);
        self.batches.clear();
        self.open = None;
        from..self.next
    }
}

/// A batch in memory that was not handed out yet.
struct Waiting {
    bytes: Bytes,
    /// The offset of its first message.
    base: u64,
    messages: u64,
    topic: Option<Arc<str>>,
}

/// Batches in memory.
pub(super) struct MemorySource {
    bounds: MemoryBounds,
    batches: VecDeque<Waiting>,
    open: Option<Open>,
    /// The offset of the next message to come in.
    end: u64,
    /// The next offset to hand out.
    next: u64,
    bytes: u64,
    open_bytes: u64,
    pub(super) dropped: u64,
}

impl MemorySource {
    pub(super) fn new(bounds: MemoryBounds) -> MemorySource {
        MemorySource {
            bounds,
            batches: VecDeque::new(),
            open: None,
            end: 0,
            next: 0,
            bytes: 0,
            open_bytes: 0,
            dropped: 0,
        }
    }

    pub(super) fn ready(&self) -> u64 {
        self.end - self.next
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn spills(&self) -> bool {
        self.bounds.when_full == WhenFull::Spill
    }

    /// Whether a batch would go beyond the bound. One batch always has room.
    pub(super) fn is_full_for(&self, batch: &Bytes, messages: u64) -> bool {
        self.ready() > 0
            && (self.ready() + messages > self.bounds.messages_max
                || self.bytes + batch.len() as u64 > self.bounds.bytes_max)
    }

    /// False if there was no room.
    pub(super) fn push(&mut self, batch: &Bytes, messages: u64, topic: Option<&Arc<str>>) -> bool {
        if self.is_full_for(batch, messages) {
            self.dropped += messages;
            return false;
        }
        self.batches.push_back(Waiting {
            bytes: batch.clone(),
            base: self.end,
            messages,
            topic: topic.cloned(),
        });
        self.end += messages;
        self.bytes += batch.len() as u64;
        true
    }

    pub(super) fn take(&mut self) -> Option<Taken> {
        loop {
            if let Some(open) = &mut self.open {
                if let Some(taken) = open.next() {
                    self.next = taken.offset + 1;
                    return Some(taken);
                }
                self.bytes -= self.open_bytes;
                self.open_bytes = 0;
                self.open = None;
            }
            let Waiting { bytes, base, messages, topic } = self.batches.pop_front()?;
            self.open_bytes = bytes.len() as u64;
            self.open = Open::new(base, &bytes, topic);
            self.next = base;
            if self.open.is_none() {
                self.next = base + messages;
                self.bytes -= self.open_bytes;
                self.open_bytes = 0;
            }
        }
    }

    pub(super) fn skip_all(&mut self) -> u64 {
        let skipped = self.ready();
        self.batches.clear();
        self.open = None;
        self.next = self.end;
        self.bytes = 0;
        self.open_bytes = 0;
        skipped
    }
}
