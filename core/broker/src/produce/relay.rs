//! Passing the records of a committed transaction on to the subscribers in the hub: they are read again from their
//! partitions, and copied an entry's share at a time.

use std::collections::VecDeque;
use std::iter::{Flatten, Peekable};
use std::sync::Arc;

use inver_storage::batch::{BatchHeader, Record, Records, records};
use inver_storage::{Offset, ReadError, StoredBatch, Stream};
use parking_lot::MutexGuard;

use super::copies::Copies;
use crate::access::Permissions;
use crate::namespace::Namespace;
use crate::peek;
use crate::spec::HubMode;
use crate::topic::Topic;
use crate::transactions::Ending;

/// Bytes of copies in one entry, and of records that wait to be copied; one larger record is an entry's share alone, and a
/// batch of more is decompressed alone.
const COPIED_BYTES_MAX: usize = 8 << 20;

/// The share of the largest entry that copies take at most: the entry that ends the transaction has its markers too.
const ENTRY_SHARE: usize = 4;

/// Times that a record is copied at most, as is expected: once for each format that its receivers have.
const FORMATS: usize = 4;

/// Bytes read from a partition at a time.
const READ_BYTES: usize = 1 << 20;

/// Whether records of a topic can have receivers beside its readers.
pub(super) fn is_relayed(namespace: &Namespace, topic: &Topic) -> bool {
    topic.hub() != HubMode::Off && (namespace.has_hub_subscribers() || topic.retains())
}

/// The partitions of a transaction whose records can have receivers in the hub.
pub(super) fn relayed_partitions(namespace: &Namespace, ending: &Ending) -> Vec<(Arc<Topic>, Stream)> {
    let partitions = ending.partitions().into_iter();
    let relayed = partitions.filter_map(|(name, index, stream)| {
        let topic = namespace.topic(&name).filter(|topic| is_relayed(namespace, topic))?;
        let stream = topic.partition(index).filter(|p| p.stream().id() == stream)?.stream().clone();
        Some((topic, stream))
    });
    relayed.collect()
}

/// The records of a transaction that are to be passed on: of partitions, which are read into stored batches, which are
/// decompressed into records.
pub(super) struct Relay {
    producer_id: i64,
    parts: VecDeque<Part>,
    stored: VecDeque<(Arc<Topic>, StoredBatch)>,
    filled: VecDeque<Filled>,
    retains: bool,
}

/// Records of one batch that are to be copied.
struct Filled {
    topic: Arc<Topic>,
    /// Of all the batch's records.
    bytes: usize,
    records: Peekable<Flatten<Records>>,
}

impl Relay {
    /// Reads nothing yet, but waits for the log if there are partitions.
    pub(super) fn new(
        namespace: &Namespace,
        producer_id: i64,
        partitions: Vec<(Arc<Topic>, Stream)>,
    ) -> Relay {
        let retains = partitions.iter().any(|(topic, _)| topic.retains());
        if !partitions.is_empty() {
            // Its batches are read, and the producer's transaction before this one does not count as open any more. A
            // failure of the log is reported by the submission.
            let _ = namespace.log().wait_committed_blocking(namespace.log().submitted());
        }
        let part = |(topic, stream): (Arc<Topic>, Stream)| {
            let open = stream.open_transactions();
            let open = open.iter().find(|open| open.producer_id == producer_id)?;
            let next = open.first.max(stream.start());
            Some(Part { topic, stream, next, end: open.end })
        };
        let parts = partitions.into_iter().filter_map(part).collect();
        Relay { producer_id, parts, stored: VecDeque::new(), filled: VecDeque::new(), retains }
    }

    /// Whether all of it was copied.
    pub(super) fn is_done(&self) -> bool {
        self.filled.is_empty() && self.stored.is_empty() && self.parts.is_empty()
    }

    /// Whether copies leave room for the end of the transaction in the same entry.
    pub(super) fn fits_with_end(namespace: &Namespace, copies: &Copies) -> bool {
        copies.bytes() <= namespace.log().entry_bytes_max() / ENTRY_SHARE
    }

    /// Copies what comes next, as many records as fit into one entry; none at the end. The order of retained values, where
    /// records can change them, is held from before the copies until the caller has submitted them: who subscribes
    /// meanwhile finds the value retained. Nothing is read or decompressed while it is held, so that it ends with the
    /// records that were there before.
    pub(super) fn next_copies<'n>(
        &mut self,
        namespace: &'n Namespace,
        client: Option<&Permissions>,
    ) -> (Copies, Option<MutexGuard<'n, ()>>) {
        let mut copies = Copies::default();
        loop {
            self.fill(namespace);
            let order = self.retains.then(|| namespace.retained().in_order());
            self.copy(namespace, client, &mut copies);
            let is_full = !self.filled.is_empty() || (order.is_some() && !copies.is_empty());
            if is_full || self.is_done() {
                return (copies, order);
            }
        }
    }

    /// Has [`COPIED_BYTES_MAX`] bytes of records to copy, or a batch more, or all that are left.
    fn fill(&mut self, namespace: &Namespace) {
        let mut bytes: usize = self.filled.iter().map(|filled| filled.bytes).sum();
        while bytes < COPIED_BYTES_MAX {
            if self.stored.is_empty() && !self.read(namespace) {
                return;
            }
            let Some((topic, batch)) = self.stored.pop_front() else { continue };
            let Ok(records) = records(&batch.bytes) else { continue };
            let of_batch = records.rest().len();
            bytes += of_batch;
            let records = records.flatten().peekable();
            self.filled.push_back(Filled { topic, bytes: of_batch, records });
        }
    }

    /// Reads from the next partition. False if there is none.
    fn read(&mut self, namespace: &Namespace) -> bool {
        let Some(part) = self.parts.front_mut() else { return false };
        match part.read(self.producer_id) {
            Ok(Some(batches)) => {
                self.stored.extend(batches.into_iter().map(|batch| (part.topic.clone(), batch)));
            }
            Ok(None) => drop(self.parts.pop_front()),
            Err(error) => {
                let (namespace, topic) = (namespace.name(), part.topic.name());
                tracing::error!(namespace, topic, %error, "failed to read a transaction for the hub");
                self.parts.pop_front();
            }
        }
        true
    }

    /// Copies the filled records, or as many of them as fit into one entry.
    fn copy(&mut self, namespace: &Namespace, client: Option<&Permissions>, copies: &mut Copies) {
        let wanted = COPIED_BYTES_MAX.min(namespace.log().entry_bytes_max() / ENTRY_SHARE);
        let fits = |copies: &Copies, record: &Record| {
            copies.is_empty() || copies.bytes() + peek::size(record) * FORMATS <= wanted
        };
        while let Some(Filled { topic, records, .. }) = self.filled.front_mut() {
            while let Err(error) = copies.add_while(namespace, client, topic, records, fits) {
                let (namespace, topic) = (namespace.name(), topic.name());
                tracing::error!(namespace, topic, %error, "failed to pass a record of a transaction on to the hub");
            }
            if records.peek().is_some() {
                return;
            }
            self.filled.pop_front();
        }
    }
}

/// A partition, and what of it is left to read.
struct Part {
    topic: Arc<Topic>,
    stream: Stream,
    next: Offset,
    end: Offset,
}

impl Part {
    /// Batches of the producer at and behind `next`; none at the end.
    fn read(&mut self, producer_id: i64) -> Result<Option<Vec<StoredBatch>>, ReadError> {
        if self.next >= self.end {
            return Ok(None);
        }
        let mut batches = peek::read(&self.stream, self.next, READ_BYTES)?;
        let Some(last) = batches.last() else { return Ok(None) };
        let span = BatchHeader::parse(&last.bytes).map_or(1, |header| header.offset_span());
        self.next = last.base_offset.plus(span);
        batches.retain(|batch| {
            let header = BatchHeader::parse(&batch.bytes);
            batch.base_offset < self.end
                && header.is_ok_and(|header| {
                    header.producer_id == producer_id && header.is_transactional() && !header.is_control()
                })
        });
        Ok(Some(batches))
    }
}
