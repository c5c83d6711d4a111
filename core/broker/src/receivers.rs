//! Receiver sets: the streams and in-memory subscriptions that a message is written to.

use std::sync::Arc;

use inver_storage::{Stream, StreamId};
use smallvec::SmallVec;

use crate::batch_format::BatchFormat;
use crate::queue::Queue;
use crate::subscription::Subscription;

/// The receivers of a message: streams of the log and in-memory subscriptions, each once.
#[derive(Default)]
pub(crate) struct ReceiverSet {
    pub(crate) log: SmallVec<[Stream; 2]>,
    pub(crate) live: SmallVec<[Arc<Subscription>; 2]>,
    /// The queues among them, for their limits.
    pub(crate) queues: SmallVec<[Arc<Queue>; 2]>,
    /// The batch format of all its receivers, if not the default.
    pub(crate) format: Option<Arc<BatchFormat>>,
    /// Sorted identities, to compare sets and find overlaps.
    ids: SmallVec<[u64; 4]>,
}

impl ReceiverSet {
    /// A set of one stream with a batch format.
    pub(crate) fn formatted(stream: &Stream, format: Arc<BatchFormat>) -> ReceiverSet {
        let mut set = ReceiverSet { format: Some(format), ..ReceiverSet::default() };
        set.add_stream(stream);
        set
    }

    /// Adds a receiver; false if it is present.
    pub(crate) fn add_stream(&mut self, stream: &Stream) -> bool {
        let new = self.note(id_of_stream(stream.id()));
        if new {
            self.log.push(stream.clone());
        }
        new
    }

    /// Adds a receiver; false if it is present.
    pub(crate) fn add_queue(&mut self, queue: &Arc<Queue>) -> bool {
        let new = match queue.stream() {
            Some(stream) => self.add_stream(stream),
            None => self.add_live(queue.subscription()),
        };
        if new {
            self.queues.push(queue.clone());
        }
        new
    }

    /// The set without some of its queues.
    pub(crate) fn without(&self, refusing: &[Arc<Queue>]) -> ReceiverSet {
        let mut ids: Vec<u64> = refusing.iter().map(id_of).collect();
        ids.sort_unstable();
        self.others(&ids)
    }

    /// The receivers that are not in the other set.
    pub(crate) fn beyond(&self, other: &ReceiverSet) -> ReceiverSet {
        ReceiverSet { format: self.format.clone(), ..self.others(&other.ids) }
    }

    /// The receivers whose ids are not among these, which are sorted.
    fn others(&self, ids: &[u64]) -> ReceiverSet {
        let is_other = |id: u64| ids.binary_search(&id).is_err();
        let mut set = ReceiverSet::default();
        for stream in self.log.iter().filter(|stream| is_other(id_of_stream(stream.id()))) {
            set.add_stream(stream);
        }
        for live in self.live.iter().filter(|live| is_other(id_of_live(live))) {
            set.add_live(live);
        }
        set
    }

    /// Whether a queue is among the receivers.
    pub(crate) fn has_queue(&self, queue: &Arc<Queue>) -> bool {
        self.ids.binary_search(&id_of(queue)).is_ok()
    }

    /// Adds a receiver; false if it is present.
    pub(crate) fn add_live(&mut self, subscription: &Arc<Subscription>) -> bool {
        let new = self.note(id_of_live(subscription));
        if new {
            self.live.push(subscription.clone());
        }
        new
    }

    /// Costs little for ids that come in their order, as [`in_order`] gives them.
    fn note(&mut self, id: u64) -> bool {
        if self.ids.last().is_none_or(|last| *last < id) {
            self.ids.push(id);
            return true;
        }
        match self.ids.binary_search(&id) {
            Ok(_) => false,
            Err(at) => {
                self.ids.insert(at, id);
                true
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether batches for one set are batches for the other.
    pub(crate) fn is_same(&self, other: &ReceiverSet) -> bool {
        self.ids == other.ids && self.format == other.format
    }

    /// Whether a receiver is in both sets.
    pub(crate) fn overlaps(&self, other: &ReceiverSet) -> bool {
        let (small, large) = if self.ids.len() < other.ids.len() { (self, other) } else { (other, self) };
        small.ids.iter().any(|id| large.ids.binary_search(id).is_ok())
    }

    /// Removes a stream.
    pub(crate) fn remove_stream(&mut self, stream: StreamId) {
        self.log.retain(|s| s.id() != stream);
        self.ids.retain(|id| *id != id_of_stream(stream));
    }

    /// A set of one of its streams, and one of its other receivers; none if it does not have that stream.
    pub(crate) fn split(&self, stream: StreamId) -> Option<(ReceiverSet, ReceiverSet)> {
        let found = self.log.iter().find(|s| s.id() == stream)?;
        let mut one = ReceiverSet { format: self.format.clone(), ..ReceiverSet::default() };
        one.add_stream(found);
        let others = ReceiverSet { format: self.format.clone(), ..self.others(&one.ids) };
        Some((one, others))
    }

    /// Whether it is this stream alone.
    pub(crate) fn is_only(&self, stream: StreamId) -> bool {
        self.ids[..] == [id_of_stream(stream)]
    }
}

/// Sorts queues as a set adds them fastest. Each is read once: of very many, most are in no cache.
pub(crate) fn in_order(queues: &mut [Arc<Queue>]) {
    queues.sort_by_cached_key(id_of);
}

fn id_of(queue: &Arc<Queue>) -> u64 {
    queue.stream().map_or_else(|| id_of_live(queue.subscription()), |stream| id_of_stream(stream.id()))
}

fn id_of_stream(stream: StreamId) -> u64 {
    stream.0 << 1
}

fn id_of_live(subscription: &Subscription) -> u64 {
    subscription.id() << 1 | 1
}
