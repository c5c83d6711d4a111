//! Write batches: the messages that one turn of a connection publishes, gathered by receivers into record batches.
//!
//! Messages for the same receivers share a batch as long as no message for only some of them is published in between, so
//! that every receiver gets messages in their order.

use std::sync::Arc;

use bytes::Bytes;
use inver_storage::batch::{Batch, BatchBuilder, HEADER_BYTES};
use inver_storage::{Compression, Entry, Log, SubmitError};
use rustc_hash::FxHashMap;

use crate::completion::Completion;
use crate::fan_out::FanOut;
use crate::history::History;
use crate::message::{HeaderWriter, Message};
use crate::queue::Queue;
use crate::receivers::ReceiverSet;
use crate::seeded_bugs::{Bug, is_seeded};
use crate::seen::FirstSeen;
use crate::subscription::Subscription;

/// A batch is closed at this size; one message may be larger.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Batches open at a time; the oldest is closed when another is needed.
const OPEN_BATCHES_MAX: usize = 64;

/// Spare builders kept for the next write batch, of some kilobytes each.
const SPARE_BUILDERS_MAX: usize = 2;

/// Bytes of an entry around a batch: its description, without the destinations.
const DESCRIPTION_BYTES: usize = 17;

/// Bytes of a destination in the description of a batch.
const DESTINATION_BYTES: usize = 16;

/// A write batch.
#[derive(Default)]
pub(crate) struct WriteBatch {
    open: Vec<(Arc<ReceiverSet>, BatchBuilder)>,
    sealed: Vec<(Arc<ReceiverSet>, Batch)>,
    spare: Vec<BatchBuilder>,
    /// For receivers whose batch format has fewer headers.
    headers: HeaderWriter,
    /// What exchanges keep once it is submitted, each in so many bytes with its others at most.
    to_keep: Vec<ToKeep>,
    history_bytes_max: usize,
    /// What exchanges remember once it is submitted.
    to_remember: FxHashMap<(usize, u128), FirstSeen>,
    bytes: usize,
}

/// A message that exchanges keep as one of their last.
type ToKeep = (Arc<[Arc<History>]>, Bytes);

impl WriteBatch {
    /// Copies a message into the batch of its receivers.
    pub(crate) fn add(&mut self, set: &Arc<ReceiverSet>, key: Option<&[u8]>, message: &Message<'_>) {
        let at = match self.open.iter().rposition(|(s, _)| Arc::ptr_eq(s, set) || s.is_same(set)) {
            Some(at) => at,
            None => self.open(set),
        };
        let headers = match &set.format {
            None => message.headers,
            Some(shape) => shape.headers(message.headers, &mut self.headers),
        };
        let builder = &mut self.open[at].1;
        let before = builder.bytes();
        builder.push_with(
            message.timestamp_ms,
            key.or(message.key),
            headers.count as usize,
            headers.bytes,
            message.value,
        );
        self.bytes += builder.bytes() - before;
        if builder.bytes() >= BATCH_BYTES_MAX {
            self.seal(at);
        }
    }

    /// Has exchanges keep a message, of at most `bytes_max` bytes with their others, once the batch is submitted.
    pub(crate) fn keep(&mut self, histories: &Arc<[Arc<History>]>, copy: Bytes, bytes_max: usize) {
        self.bytes += copy.len() + size_of::<ToKeep>();
        self.history_bytes_max = bytes_max;
        self.to_keep.push((histories.clone(), copy));
    }

    /// Has an exchange remember a message, once the batch is submitted.
    pub(crate) fn remember(&mut self, first: &FirstSeen) {
        self.to_remember.insert(first.key(), first.clone());
    }

    /// Whether it has a message of the same value for the same exchange.
    pub(crate) fn remembers(&self, first: &FirstSeen) -> bool {
        self.to_remember.contains_key(&first.key())
    }

    fn open(&mut self, set: &Arc<ReceiverSet>) -> usize {
        let mut i = 0;
        while i < self.open.len() {
            if self.open[i].0.overlaps(set) {
                self.seal(i);
            } else {
                i += 1;
            }
        }
        if self.open.len() == OPEN_BATCHES_MAX {
            self.seal(0);
        }
        let builder = self.spare.pop().unwrap_or_else(|| BatchBuilder::new(4096));
        self.bytes += HEADER_BYTES + DESCRIPTION_BYTES + DESTINATION_BYTES * set.log.len();
        self.open.push((set.clone(), builder));
        self.open.len() - 1
    }

    fn seal(&mut self, at: usize) {
        let (set, mut builder) = self.open.remove(at);
        let compression = set.format.as_ref().map_or(Compression::None, |shape| shape.compression);
        self.sealed.push((set, builder.finish_as(compression, None)));
        if self.spare.len() < SPARE_BUILDERS_MAX {
            self.spare.push(builder);
        }
    }

    /// Messages in it for a queue.
    pub(crate) fn messages_for(&self, queue: &Arc<Queue>) -> u64 {
        let has = |set: &ReceiverSet| set.has_queue(queue);
        let open: usize = self.open.iter().filter(|(s, _)| has(s)).map(|(_, b)| b.len()).sum();
        let sealed: u64 =
            self.sealed.iter().filter(|(s, _)| has(s)).map(|(_, b)| u64::from(b.record_count())).sum();
        open as u64 + sealed
    }

    /// Bytes of what it has, with those around each batch in an entry, and of what exchanges are to keep.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.sealed.is_empty() && self.to_keep.is_empty()
    }

    /// Discards everything.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
        self.sealed.clear();
        self.to_keep.clear();
        self.to_remember.clear();
        self.bytes = 0;
    }

    /// Closes all batches and adds those for streams to an entry. Whether there are any.
    pub(crate) fn put_in(&mut self, entry: &mut Entry) -> bool {
        while !self.open.is_empty() {
            self.seal(0);
        }
        self.bytes = 0;
        let mut any = false;
        for (set, batch) in self.sealed.iter().filter(|(set, _)| !set.log.is_empty()) {
            entry.batch(&set.log, batch.clone());
            any = true;
        }
        any
    }

    /// Delivers the closed batches to the in-memory receivers, and has exchanges keep what they are to keep.
    pub(crate) fn deliver(&mut self) {
        for (histories, copy) in self.to_keep.drain(..) {
            histories.iter().for_each(|history| history.keep(copy.clone(), self.history_bytes_max));
        }
        for (set, batch) in self.sealed.drain(..) {
            Subscription::push_to_all(&set.live, &batch, &batch, None);
        }
    }

    /// Submits everything as one entry, together with what `entry` has already. In-memory receivers get their batches
    /// only if the log accepts the entry.
    pub(crate) fn flush(&mut self, log: &Log, entry: Entry) -> Result<Completion, SubmitError> {
        let completion = self.submit(log, entry)?;
        self.deliver();
        Ok(completion)
    }

    /// Submits everything as one entry. The closed batches are to be delivered next.
    pub(crate) fn submit(&mut self, log: &Log, mut entry: Entry) -> Result<Completion, SubmitError> {
        let mut completion = Completion::Now;
        if self.put_in(&mut entry) || !entry.is_empty() {
            match log.submit(entry) {
                Ok(_) if is_seeded(Bug::ConfirmEarly) => {}
                Ok(submitted) => completion = Completion::At(submitted.lsn),
                Err(error) => {
                    self.clear();
                    return Err(error);
                }
            }
        }
        self.to_remember.drain().for_each(|(_, first)| first.remember(completion));
        Ok(completion)
    }

    /// The closed batches, to be delivered in slices, if they have very many receivers.
    pub(crate) fn fan_out(&mut self) -> Option<FanOut> {
        FanOut::of(&mut self.sealed)
    }
}
