//! Transactions that a client holds open under an id of its own: appends to partitions and offsets of consumer groups that
//! become visible together, or not at all.
//!
//! Owns the ids, which producer holds each, what its open transaction has changed so far, and their rows in the log. The
//! records of an open transaction are in their partitions already and the log holds their readers back; its offsets wait
//! here. The end of a transaction is ONE entry: the markers of all partitions, the offsets and the row of the id.
//!
//! Does not own routing: the caller that ends a transaction adds what else becomes visible to that entry.

mod end;
mod error;
mod info;
mod pending;
mod rows;
mod shared;
mod state;
mod transaction;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use inver_storage::{Entry, Stream, SubmitError, Submitted, TableId};
use parking_lot::RwLock;

use crate::committed_offsets::CommittedOffset;
use crate::completion::Completion;
use crate::context::Context;
use crate::limits;
use crate::tables::{RowError, split_counted};

pub(crate) use self::end::Ending;
pub use self::end::{Ended, TransactionEnd};
pub use self::error::TransactionError;
pub use self::info::TransactionInfo;
use self::shared::Shared;
use self::state::State;
pub use self::state::{Producer, TransactionState};
use self::transaction::Transaction;

/// The transactions of a namespace, by id.
pub struct Transactions {
    shared: Arc<Shared>,
    ids_max: usize,
    ids: RwLock<Ids>,
}

#[derive(Default)]
struct Ids {
    by_id: HashMap<Arc<str>, Arc<Transaction>>,
    /// The namespace is deleted: there are no new ones.
    is_closed: bool,
}

impl Transactions {
    pub(crate) fn new(
        namespace: u32,
        context: Arc<Context>,
        ids_max: usize,
        parts_max: usize,
    ) -> Transactions {
        let shared = Shared::new(namespace, context, parts_max);
        Transactions { shared: Arc::new(shared), ids_max, ids: RwLock::default() }
    }

    fn get(&self, id: &str) -> Result<Arc<Transaction>, TransactionError> {
        self.ids.read().by_id.get(id).cloned().ok_or(TransactionError::UnknownProducer)
    }

    /// Gives an id to a producer, which fences the one before: an open transaction is aborted. `expected`: the producer
    /// that asks and held it before. `new_producer` assigns a producer id.
    pub fn begin(
        &self,
        id: &str,
        timeout_ms: i32,
        expected: Option<Producer>,
        new_producer: impl FnOnce() -> Result<(i64, Completion), SubmitError>,
    ) -> Result<(Producer, Completion), TransactionError> {
        if let Ok(known) = self.get(id) {
            return known.begin(timeout_ms, expected, new_producer);
        }
        let mut ids = self.ids.write();
        if let Some(known) = ids.by_id.get(id).cloned() {
            drop(ids);
            return known.begin(timeout_ms, expected, new_producer);
        }
        if ids.is_closed {
            return Err(TransactionError::UnknownProducer);
        }
        limits::check("transactional ids", ids.by_id.len(), self.ids_max)?;
        let (producer, reserved) = new_producer()?;
        let state = State::new(Producer { id: producer, epoch: 0 }, timeout_ms, self.shared.now_ms());
        let transaction = Transaction::new(self.shared.clone(), id.into(), state);
        let (producer, completion) = transaction.created()?;
        ids.by_id.insert(transaction.id.clone(), transaction);
        Ok((producer, completion.and(reserved)))
    }

    /// Adds partitions to the producer's transaction, which begins with the first.
    pub fn add_partitions(
        &self,
        id: &str,
        producer: Producer,
        partitions: &[(Arc<str>, u32, &Stream)],
    ) -> Result<Completion, TransactionError> {
        self.get(id)?.add_partitions(producer, partitions)
    }

    /// Whether partitions are in the producer's open transaction; which of them are not.
    pub fn missing_partitions(
        &self,
        id: &str,
        producer: Producer,
        streams: &[&Stream],
    ) -> Result<Vec<bool>, TransactionError> {
        self.get(id)?.missing_partitions(producer, streams)
    }

    /// Adds a consumer group to the producer's transaction, which begins with the first.
    pub fn add_group(
        &self,
        id: &str,
        producer: Producer,
        group: &str,
    ) -> Result<Completion, TransactionError> {
        self.get(id)?.add_group(producer, group)
    }

    /// Keeps offsets of a group until the producer's transaction is committed. `adds_group`: the group need not be in it.
    pub fn commit_offsets(
        &self,
        id: &str,
        producer: Producer,
        group: &str,
        offsets: &[(&str, u32, CommittedOffset)],
        adds_group: bool,
    ) -> Result<Completion, TransactionError> {
        self.get(id)?.commit_offsets(producer, group, offsets, adds_group)
    }

    /// Submits an entry that appends to a partition in the producer's transaction. `adds_partition`: the partition need not
    /// be in it, and the transaction begins where none is open.
    pub(crate) fn append(
        &self,
        id: &str,
        producer: Producer,
        (topic, index, stream): (&Arc<str>, u32, &Stream),
        adds_partition: bool,
        entry: Entry,
    ) -> Result<Submitted, TransactionError> {
        self.get(id)?.append(producer, (topic, index, stream), adds_partition, entry)
    }

    /// Prepares the end of the producer's transaction. `bumps`: the producer gets a new epoch, so that nothing of this
    /// transaction can come late.
    pub(crate) fn prepare_end(
        &self,
        id: &str,
        producer: Producer,
        is_commit: bool,
        bumps: bool,
        new_producer: impl FnOnce() -> Result<(i64, Completion), SubmitError>,
    ) -> Result<Ending, TransactionError> {
        self.get(id)?.prepare_end(producer, is_commit, bumps, new_producer)
    }

    /// Whether an open transaction has an offset of a group in a partition.
    #[must_use]
    pub fn has_pending_offset(&self, group: &str, topic: &str, partition: u32) -> bool {
        self.shared.pending.contains(group, topic, partition)
    }

    /// The partitions of the open transaction of an id.
    #[must_use]
    pub fn partitions(&self, id: &str) -> Vec<(Arc<str>, u32)> {
        self.get(id).map(|transaction| transaction.info().partitions).unwrap_or_default()
    }

    /// The transaction of an id.
    #[must_use]
    pub fn info(&self, id: &str) -> Option<TransactionInfo> {
        self.get(id).ok().map(|transaction| transaction.info())
    }

    /// All transactions, by id.
    #[must_use]
    pub fn list(&self) -> Vec<TransactionInfo> {
        let mut all: Vec<TransactionInfo> = self.all().iter().map(|transaction| transaction.info()).collect();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all
    }

    fn all(&self) -> Vec<Arc<Transaction>> {
        self.ids.read().by_id.values().cloned().collect()
    }

    /// Drops the offsets in a topic, which was deleted, from the open transactions.
    pub(crate) fn forget_topic(&self, topic: &str) {
        if self.shared.pending.has_topic(topic) {
            self.all().iter().for_each(|transaction| transaction.forget_topic(topic));
        }
    }

    /// The ids without an open transaction that were not used since `before_ms` (milliseconds since 1970, steady).
    #[must_use]
    pub fn unused_since(&self, before_ms: i64) -> Vec<Arc<str>> {
        let all = self.all().into_iter();
        all.filter_map(|it| it.lock_if_unused(before_ms).is_some().then(|| it.id.clone())).collect()
    }

    /// Deletes those of the ids that are still not used since `before_ms`, in one entry.
    pub fn expire(&self, ids: &[Arc<str>], before_ms: i64) -> Result<Completion, SubmitError> {
        let all: Vec<Arc<Transaction>> = ids.iter().filter_map(|id| self.get(id).ok()).collect();
        let mut entry = Entry::new();
        let due = all.iter().filter_map(|transaction| transaction.lock_if_unused(before_ms));
        let mut due: Vec<_> = due.collect();
        if due.is_empty() {
            return Ok(Completion::Now);
        }
        for (transaction, _) in &due {
            entry.delete(rows::TRANSACTIONS, self.shared.key(&transaction.id));
        }
        let submitted = self.shared.context.log.submit(entry)?;
        let mut expired = Vec::with_capacity(due.len());
        for (transaction, state) in &mut due {
            state.is_removed = true;
            expired.push(transaction.id.clone());
        }
        drop(due);
        let by_id = &mut self.ids.write().by_id;
        expired.iter().for_each(|id| drop(by_id.remove(id)));
        Ok(Completion::At(submitted.lsn))
    }

    /// Restores an id.
    pub(crate) fn recover(&self, id: &str, row: &[u8]) -> Result<(), RowError> {
        let state = rows::decode_transaction(row)?;
        let transaction = Transaction::new(self.shared.clone(), id.into(), state);
        self.ids.write().by_id.insert(transaction.id.clone(), transaction);
        Ok(())
    }

    /// Restores a part of an open transaction. Called after the ids were restored.
    pub(crate) fn recover_part(&self, key: &Bytes, row: &[u8]) -> Result<(), RowError> {
        let Some((id, part)) = split_counted(key) else { return Ok(()) };
        let Ok(transaction) = self.get(&String::from_utf8_lossy(&id)) else { return Ok(()) };
        transaction.recover_part(&part, row)
    }

    /// Forgets all of them, and takes no more; the keys of their rows by table, which the caller deletes.
    pub(crate) fn take_keys(&self) -> Vec<(TableId, Bytes)> {
        let all = std::mem::replace(&mut *self.ids.write(), Ids { is_closed: true, ..Ids::default() });
        all.by_id.values().flat_map(|transaction| transaction.take_keys()).collect()
    }
}
