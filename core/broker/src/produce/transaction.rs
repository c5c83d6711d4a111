//! Producing in a transaction: a batch is appended to its partition at once, and reaches the subscribers in the hub when
//! the transaction is committed, in the entry that commits it.
//!
//! Of a transaction with many records for the hub, those beyond [`RELAYED_BYTES_MAX`] follow in entries of their own behind
//! that one.

use std::collections::VecDeque;
use std::sync::Arc;

use inver_storage::batch::{BatchHeader, marker, records};
use inver_storage::{Batch, Entry, Offset, ReadError, StoredBatch, Stream, SubmitError, Submitted};

use super::{ProduceError, RetainedChanges, addressed_records, check_address, copy_each, named_address};
use crate::access::Permissions;
use crate::completion::Completion;
use crate::namespace::Namespace;
use crate::peek;
use crate::publisher::LENGTH_CHECK_MS;
use crate::queue::Queue;
use crate::spec::HubMode;
use crate::topic::{Partition, Topic};
use crate::transactions::{Ended, Ending, Producer, TransactionError};
use crate::write_batch::WriteBatch;

/// Bytes of a transaction's batches that are copied for the hub's subscribers in one entry; a batch more at most.
const RELAYED_BYTES_MAX: usize = 8 << 20;

impl Namespace {
    /// Appends a finished batch to a partition as it is, in the open transaction of the producer that it names.
    /// `adds_partition`: the partition need not be in the transaction, which begins where none is open.
    pub fn produce_in_transaction(
        &self,
        id: &str,
        topic: &Topic,
        partition: &Partition,
        batch: Batch,
        adds_partition: bool,
    ) -> Result<Submitted, ProduceError> {
        // Its records are copied later, and must not be refused then.
        if is_relayed(self, topic)
            && let Some(records) = addressed_records(self, &batch)
        {
            let limits = self.limits();
            for record in records.flatten() {
                named_address(self, &record).map_or(Ok(()), |it| check_address(&limits, &record, it))?;
            }
        }
        let producer = Producer { id: batch.header().producer_id, epoch: batch.header().producer_epoch };
        let stream = partition.stream();
        let mut entry = Entry::new();
        entry.batch(std::slice::from_ref(stream), batch);
        let place = (topic.shared_name(), partition.index(), stream);
        Ok(self.transactions().append(id, producer, place, adds_partition, entry)?)
    }

    /// Whether the end of a transaction reads its records for the hub's subscribers, which may be on the disk.
    #[must_use]
    pub fn relays_transaction(&self, id: &str) -> bool {
        let partitions = self.transactions().partitions(id);
        partitions.iter().any(|(topic, _)| self.topic(topic).is_some_and(|topic| is_relayed(self, &topic)))
    }

    /// Ends the producer's open transaction: its records and offsets become visible together, or never. `bumps`: the
    /// producer gets a new epoch, of an id by `new_producer` where its epochs are used up. Can read from disk where
    /// [`relays_transaction`](Self::relays_transaction) says so: call it where blocking is allowed then.
    pub fn end_transaction(
        &self,
        client: Option<&Permissions>,
        id: &str,
        producer: Producer,
        is_commit: bool,
        bumps: bool,
        new_producer: impl FnOnce() -> Result<(i64, Completion), SubmitError>,
    ) -> Result<Ended, TransactionError> {
        let ending = self.transactions().prepare_end(id, producer, is_commit, bumps, new_producer)?;
        if let Some(ended) = ending.repeated() {
            return Ok(ended);
        }
        if !is_commit {
            return ending.finish(Entry::new(), self.committed_offsets(), |entry| self.log().submit(entry));
        }
        let mut relay = Relay::new(self, &ending);
        let first = relay.read(self);
        let mut ended = Err(TransactionError::InvalidState);
        relay_batches(self, client, &first, |entry, retained| {
            ended = ending.finish(entry, self.committed_offsets(), |entry| retained.submit(self, entry));
            ended.is_ok()
        });
        let mut ended = ended?;
        loop {
            let more = relay.read(self);
            if more.is_empty() {
                return Ok(ended);
            }
            relay_batches(self, client, &more, |entry, retained| match retained.submit(self, entry) {
                Ok(submitted) => {
                    ended.completion = ended.completion.and(Completion::At(submitted.lsn));
                    true
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to pass records of a transaction on to the hub");
                    false
                }
            });
        }
    }

    /// Ends the transactions of a producer in partitions, whatever its transactional id says: for transactions that hang.
    pub fn write_markers(
        &self,
        producer: Producer,
        is_commit: bool,
        coordinator_epoch: i32,
        streams: &[Stream],
    ) -> Result<Completion, SubmitError> {
        let mut entry = Entry::new();
        let now_ms = self.clock().now_ms();
        entry.batch(streams, marker(producer.id, producer.epoch, is_commit, coordinator_epoch, now_ms));
        if entry.is_empty() {
            return Ok(Completion::Now);
        }
        Ok(Completion::At(self.log().submit(entry)?.lsn))
    }
}

/// Whether records of a topic can have receivers beside its readers.
fn is_relayed(namespace: &Namespace, topic: &Topic) -> bool {
    topic.hub() != HubMode::Off && (namespace.has_hub_subscribers() || topic.retains())
}

/// The records of a transaction that are to be passed on.
struct Relay {
    producer_id: i64,
    parts: VecDeque<Part>,
}

/// A partition, and what of it is left to read.
struct Part {
    topic: Arc<Topic>,
    stream: Stream,
    next: Offset,
    end: Offset,
}

impl Relay {
    fn new(namespace: &Namespace, ending: &Ending) -> Relay {
        let producer_id = ending.producer_id();
        let part = |(name, index, stream): (Arc<str>, u32, inver_storage::StreamId)| {
            let topic = namespace.topic(&name).filter(|topic| is_relayed(namespace, topic))?;
            let stream = topic.partition(index).filter(|p| p.stream().id() == stream)?.stream().clone();
            let open = stream.open_transactions();
            let next = open.iter().find(|open| open.producer_id == producer_id)?.first;
            let end = stream.next_offset();
            let next = next.max(stream.start());
            Some(Part { topic, stream, next, end })
        };
        let parts: VecDeque<Part> = ending.partitions().into_iter().filter_map(part).collect();
        if parts.iter().any(|part| part.stream.high_watermark() < part.end) {
            // A failure of the log is reported by the submission.
            let _ = namespace.log().wait_committed_blocking(namespace.log().submitted());
        }
        Relay { producer_id, parts }
    }

    /// The next batches of the transaction, up to [`RELAYED_BYTES_MAX`]; none at the end.
    fn read(&mut self, namespace: &Namespace) -> Vec<(Arc<Topic>, StoredBatch)> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        while bytes < RELAYED_BYTES_MAX
            && let Some(part) = self.parts.front_mut()
        {
            match part.read(self.producer_id, RELAYED_BYTES_MAX - bytes) {
                Ok(Some(batches)) => {
                    bytes += batches.iter().map(|batch| batch.bytes.len()).sum::<usize>();
                    found.extend(batches.into_iter().map(|batch| (part.topic.clone(), batch)));
                }
                Ok(None) => drop(self.parts.pop_front()),
                Err(error) => {
                    let (namespace, topic) = (namespace.name(), part.topic.name());
                    tracing::error!(namespace, topic, %error, "failed to read a transaction for the hub");
                    self.parts.pop_front();
                }
            }
        }
        found
    }
}

impl Part {
    /// Batches of the producer at and behind `next`; none at the end.
    fn read(&mut self, producer_id: i64, bytes_max: usize) -> Result<Option<Vec<StoredBatch>>, ReadError> {
        if self.next >= self.end {
            return Ok(None);
        }
        let mut batches = peek::read(&self.stream, self.next, bytes_max)?;
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

/// Copies records for the subscribers of their addresses into an entry, and delivers them once it was submitted.
fn relay_batches(
    namespace: &Namespace,
    client: Option<&Permissions>,
    batches: &[(Arc<Topic>, StoredBatch)],
    submit: impl FnOnce(Entry, RetainedChanges) -> bool,
) {
    let client = client.filter(|permissions| !permissions.is_unrestricted());
    let mut copies = WriteBatch::default();
    let mut limited: Vec<Arc<Queue>> = Vec::new();
    let mut retained = RetainedChanges::default();
    // Held from the routing on: who subscribes meanwhile finds the value retained.
    let retains = batches.iter().any(|(topic, _)| topic.retains());
    let _order = retains.then(|| namespace.retained().in_order());
    for (topic, batch) in batches {
        let retained = topic.retains().then_some(&mut retained);
        let copied = match records(&batch.bytes) {
            Ok(records) => copy_each(namespace, client, topic, records, &mut copies, &mut limited, retained),
            Err(_) => continue,
        };
        if let Err(error) = copied {
            let (namespace, topic) = (namespace.name(), topic.name());
            tracing::error!(namespace, topic, %error, "failed to pass records of a transaction on to the hub");
        }
    }
    let mut entry = Entry::new();
    copies.put_in(&mut entry);
    if !submit(entry, retained) {
        return;
    }
    copies.deliver();
    for queue in limited {
        let ttl = queue.spec().limits.message_ttl_ms.is_some();
        queue.check_new(namespace.clock().steady_ms().saturating_add(LENGTH_CHECK_MS), ttl);
    }
}
