//! Producing in a transaction: a batch is appended to its partition at once, and reaches the subscribers in the hub when
//! the transaction is committed, in the entry that commits it.
//!
//! Of a transaction with many or large records for the hub, those that do not fit into it follow in entries of their own
//! behind that one.

use inver_storage::batch::marker;
use inver_storage::{Batch, Entry, Stream, SubmitError, Submitted};

use super::copies::Copies;
use super::relay::{Relay, is_relayed, relayed_partitions};
use super::{ProduceError, addressed_records, check_address, named_address};
use crate::access::Permissions;
use crate::completion::Completion;
use crate::namespace::Namespace;
use crate::topic::{Partition, Topic};
use crate::transactions::{Ended, Producer, TransactionEnd, TransactionError};

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

    /// Ends the producer's open transaction: its records and offsets become visible together, or never. `new_producer`
    /// assigns a producer id. Refused with [`TransactionError::Ending`] where it would have to block and may not: then, and
    /// where [`relays_transaction`](Self::relays_transaction) says so, call it where blocking is allowed.
    pub fn end_transaction(
        &self,
        client: Option<&Permissions>,
        id: &str,
        producer: Producer,
        end: TransactionEnd,
        new_producer: impl FnOnce() -> Result<(i64, Completion), SubmitError>,
    ) -> Result<Ended, TransactionError> {
        let TransactionEnd { is_commit, bumps, may_block } = end;
        let ending = self.transactions().prepare_end(id, producer, is_commit, bumps, new_producer)?;
        if let Some(ended) = ending.repeated() {
            return Ok(ended);
        }
        let offsets = self.committed_offsets();
        // A deleted stream counts before its topic is gone.
        let exists = |topic: &str, partition: u32| {
            let partition = self.topic(topic).and_then(|topic| topic.partition(partition));
            partition.is_some_and(|partition| !partition.stream().is_deleted())
        };
        if !is_commit {
            return ending.finish(Entry::new(), offsets, exists, |entry| self.log().submit(entry));
        }
        let partitions = relayed_partitions(self, &ending);
        if !partitions.is_empty() && !may_block {
            return Err(TransactionError::Ending);
        }
        let mut relay = Relay::new(self, ending.producer_id(), partitions);
        let (mut copies, mut order) = relay.next_copies(self, client);
        let mut with_end = Copies::default();
        if Relay::fits_with_end(self, &copies) {
            std::mem::swap(&mut with_end, &mut copies);
        }
        let mut ended = with_end.submit(Entry::new(), |entry, retained| {
            ending.finish(entry, offsets, exists, |entry| retained.submit(self, entry))
        })?;
        with_end.check_limits(self);
        loop {
            if !copies.is_empty() {
                match copies.submit(Entry::new(), |entry, retained| retained.submit(self, entry)) {
                    Ok(submitted) => ended.completion = ended.completion.and(Completion::At(submitted.lsn)),
                    Err(error) => {
                        let namespace = self.name();
                        tracing::error!(namespace, %error, "failed to pass records of a transaction on to the hub");
                    }
                }
                copies.check_limits(self);
            }
            if relay.is_done() {
                return Ok(ended);
            }
            drop(order);
            (copies, order) = relay.next_copies(self, client);
        }
    }

    /// Ends the transactions of a producer in partitions, whatever its transactional id says: for transactions that hang. That
    /// the producer was not fenced there ([`Stream::producer_epoch`]) is the caller's to check.
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
