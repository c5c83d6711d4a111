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

/// Bytes of copies in one entry; one larger record is an entry's share alone.
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

/// The records of a transaction that are to be passed on.
pub(super) struct Relay {
    producer_id: i64,
    parts: VecDeque<Part>,
    /// Read, and not copied.
    batches: VecDeque<(Arc<Topic>, StoredBatch)>,
    /// What is not copied of the batch before those.
    left: Option<(Arc<Topic>, Peekable<Flatten<Records>>)>,
    retains: bool,
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
        Relay { producer_id, parts, batches: VecDeque::new(), left: None, retains }
    }

    /// Whether all of it was copied.
    pub(super) fn is_done(&self) -> bool {
        self.left.is_none() && self.batches.is_empty() && self.parts.is_empty()
    }

    /// Held from before records are copied until they are submitted: who subscribes meanwhile finds the value retained.
    pub(super) fn in_order<'n>(&self, namespace: &'n Namespace) -> Option<MutexGuard<'n, ()>> {
        self.retains.then(|| namespace.retained().in_order())
    }

    /// Copies records to the end, or up to what fits into one entry.
    pub(super) fn copy(&mut self, namespace: &Namespace, client: Option<&Permissions>) -> Copies {
        let bytes_max = namespace.log().entry_bytes_max() / ENTRY_SHARE;
        let wanted = COPIED_BYTES_MAX.min(bytes_max);
        let mut copies = Copies::default();
        while let Some((topic, mut records)) = self.next_records(namespace) {
            let fits = |copies: &Copies, record: &Record| {
                copies.is_empty() || copies.bytes() + peek::size(record) * FORMATS <= wanted
            };
            while let Err(error) = copies.add_while(namespace, client, &topic, &mut records, fits) {
                let (namespace, topic) = (namespace.name(), topic.name());
                tracing::error!(namespace, topic, %error, "failed to pass a record of a transaction on to the hub");
            }
            if records.peek().is_some() {
                self.left = Some((topic, records));
                break;
            }
        }
        // A record alone: it would be refused, and what is in the same entry with it.
        if copies.bytes() > bytes_max.max(wanted.saturating_mul(2)) {
            let (namespace, bytes) = (namespace.name(), copies.bytes());
            tracing::error!(
                namespace,
                bytes,
                bytes_max,
                "a record of a transaction is too large to be passed on to the hub"
            );
            return Copies::default();
        }
        copies
    }

    /// The records that come next, of one batch; none at the end.
    fn next_records(&mut self, namespace: &Namespace) -> Option<(Arc<Topic>, Peekable<Flatten<Records>>)> {
        if let Some(left) = self.left.take() {
            return Some(left);
        }
        loop {
            if let Some((topic, batch)) = self.batches.pop_front() {
                match records(&batch.bytes) {
                    Ok(records) => return Some((topic, records.flatten().peekable())),
                    Err(_) => continue,
                }
            }
            let part = self.parts.front_mut()?;
            match part.read(self.producer_id) {
                Ok(Some(batches)) => {
                    self.batches.extend(batches.into_iter().map(|batch| (part.topic.clone(), batch)));
                }
                Ok(None) => drop(self.parts.pop_front()),
                Err(error) => {
                    let (namespace, topic) = (namespace.name(), part.topic.name());
                    tracing::error!(namespace, topic, %error, "failed to read a transaction for the hub");
                    self.parts.pop_front();
                }
            }
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
