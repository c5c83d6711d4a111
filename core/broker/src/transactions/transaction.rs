//! One transaction: its state with its rows and its deadline.
//!
//! Everything is submitted to the log under the lock of the state, so that the log's order is the order in which the acts
//! of a transaction took effect.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use inver_storage::{Entry, Stream, SubmitError, Submitted, TableId};
use parking_lot::{Mutex, MutexGuard};

use super::error::TransactionError;
use super::info::TransactionInfo;
use super::rows;
use super::shared::Shared;
use super::state::{NO_DEADLINE, Part, Producer, State, TransactionState};
use crate::committed_offsets::CommittedOffset;
use crate::completion::Completion;
use crate::context::{Due, Timed};
use crate::limits;
use crate::tables::RowError;

pub(super) struct Transaction {
    pub(super) id: Arc<str>,
    pub(super) shared: Arc<Shared>,
    /// The deadline that a timer is set for.
    armed_ms: AtomicI64,
    pub(super) state: Mutex<State>,
}

impl Transaction {
    /// A new or restored transaction. An open one ends at its deadline.
    pub(super) fn new(shared: Arc<Shared>, id: Arc<str>, state: State) -> Arc<Transaction> {
        let deadline = state.deadline_ms();
        let armed_ms = AtomicI64::new(NO_DEADLINE);
        let transaction = Arc::new(Transaction { id, shared, armed_ms, state: Mutex::new(state) });
        if let Some(deadline) = deadline {
            transaction.schedule(deadline);
        }
        transaction
    }

    /// Lets it end at a deadline.
    pub(super) fn schedule(self: &Arc<Self>, deadline_ms: i64) {
        self.shared.context.timers.schedule_by(&self.armed_ms, deadline_ms, || Due::of(self));
    }

    /// Writes the row of a new id.
    pub(super) fn created(&self) -> Result<(Producer, Completion), SubmitError> {
        let state = self.state.lock();
        let mut entry = Entry::new();
        entry.put(rows::TRANSACTIONS, self.shared.key(&self.id), rows::encode_transaction(&state));
        let submitted = self.shared.context.log.submit(entry)?;
        Ok((state.producer, Completion::At(submitted.lsn)))
    }

    /// See [`super::Transactions::begin`].
    pub(super) fn begin(
        &self,
        timeout_ms: i32,
        expected: Option<Producer>,
        new_producer: impl FnOnce() -> Result<(i64, Completion), SubmitError>,
    ) -> Result<(Producer, Completion), TransactionError> {
        let mut state = self.state.lock();
        if state.check_begin(expected)? {
            return Ok((state.producer, self.begin_again(&mut state, timeout_ms)?));
        }
        let mut entry = Entry::new();
        if state.is_open() {
            let fencing = Producer { epoch: state.fencing_epoch(), ..state.producer };
            self.put_end(&mut entry, &state, fencing, false);
        }
        let (producer, reserved) = next_producer(&state, new_producer)?;
        let next = State { previous: expected, ..State::new(producer, timeout_ms, self.shared.now_ms()) };
        entry.put(rows::TRANSACTIONS, self.shared.key(&self.id), rows::encode_transaction(&next));
        let submitted = self.shared.context.log.submit(entry)?;
        self.replace(&mut state, next);
        Ok((producer, Completion::At(submitted.lsn).and(reserved)))
    }

    /// Answers a producer that asks again, with another timeout perhaps.
    fn begin_again(&self, state: &mut State, timeout_ms: i32) -> Result<Completion, SubmitError> {
        let log = &self.shared.context.log;
        if state.timeout_ms == timeout_ms {
            return Ok(Completion::At(log.submitted()));
        }
        let before = std::mem::replace(&mut state.timeout_ms, timeout_ms);
        let mut entry = Entry::new();
        entry.put(rows::TRANSACTIONS, self.shared.key(&self.id), rows::encode_transaction(state));
        let submitted = log.submit(entry).inspect_err(|_| state.timeout_ms = before)?;
        Ok(Completion::At(submitted.lsn))
    }

    /// See [`super::Transactions::add_partitions`].
    pub(super) fn add_partitions(
        self: &Arc<Self>,
        producer: Producer,
        partitions: &[(Arc<str>, u32, &Stream)],
    ) -> Result<Completion, TransactionError> {
        let mut state = self.state.lock();
        state.check(producer)?;
        let parts = partitions.iter().map(|(topic, index, stream)| Part::Partition {
            stream: stream.id().0,
            topic: topic.clone(),
            index: *index,
        });
        self.add(&mut state, parts.collect())
    }

    /// See [`super::Transactions::missing_partitions`].
    pub(super) fn missing_partitions(
        &self,
        producer: Producer,
        streams: &[&Stream],
    ) -> Result<Vec<bool>, TransactionError> {
        let state = self.state.lock();
        state.check(producer)?;
        let is_missing =
            |stream: &&Stream| !state.is_open() || !state.partitions.contains_key(&stream.id().0);
        Ok(streams.iter().map(is_missing).collect())
    }

    /// See [`super::Transactions::add_group`].
    pub(super) fn add_group(
        self: &Arc<Self>,
        producer: Producer,
        group: &str,
    ) -> Result<Completion, TransactionError> {
        let mut state = self.state.lock();
        state.check(producer)?;
        self.add(&mut state, vec![Part::Group { group: group.to_owned() }])
    }

    /// See [`super::Transactions::commit_offsets`].
    pub(super) fn commit_offsets(
        self: &Arc<Self>,
        producer: Producer,
        group: &str,
        offsets: &[(&str, u32, CommittedOffset)],
        adds_group: bool,
    ) -> Result<Completion, TransactionError> {
        let mut state = self.state.lock();
        state.check(producer)?;
        let is_in = state.is_open() && state.groups.contains(group);
        if !is_in && !adds_group {
            return Err(TransactionError::InvalidState);
        }
        let offsets = offsets.iter().map(|(topic, partition, offset)| Part::Offset {
            group: group.to_owned(),
            topic: (*topic).to_owned(),
            partition: *partition,
            offset: offset.clone(),
        });
        let mut parts = vec![Part::Group { group: group.to_owned() }];
        parts.extend(offsets);
        self.add(&mut state, parts)
    }

    /// See [`super::Transactions::append`].
    pub(super) fn append(
        self: &Arc<Self>,
        producer: Producer,
        (topic, index, stream): (&Arc<str>, u32, &Stream),
        adds_partition: bool,
        entry: Entry,
    ) -> Result<Submitted, TransactionError> {
        let mut state = self.state.lock();
        state.check(producer)?;
        let is_in = state.is_open() && state.partitions.contains_key(&stream.id().0);
        if is_in {
            return Ok(self.shared.context.log.submit(entry)?);
        }
        if !adds_partition {
            return Err(TransactionError::InvalidState);
        }
        let part = Part::Partition { stream: stream.id().0, topic: topic.clone(), index };
        let submitted = self.change(&mut state, vec![part], entry)?;
        submitted.ok_or(TransactionError::InvalidState)
    }

    /// As [`change`](Self::change), with nothing else. Where nothing is to be written, what was answered before is in the log
    /// up to the completion.
    fn add(self: &Arc<Self>, state: &mut State, parts: Vec<Part>) -> Result<Completion, TransactionError> {
        let added = self.change(state, parts, Entry::new())?;
        let before = || self.shared.context.log.submitted();
        Ok(Completion::At(added.map_or_else(before, |submitted| submitted.lsn)))
    }

    /// Adds parts to the transaction, which begins with them where none is open. What is in it already is not written again;
    /// none if nothing is to be written.
    fn change(
        self: &Arc<Self>,
        state: &mut State,
        parts: Vec<Part>,
        mut entry: Entry,
    ) -> Result<Option<Submitted>, TransactionError> {
        let key = |part: &Part| rows::part_key(self.shared.namespace, &self.id, part);
        // By key: of one that is repeated, the last.
        let parts: BTreeMap<Bytes, Part> =
            parts.into_iter().filter(|part| !state.has(part)).map(|part| (key(&part), part)).collect();
        let begins = !state.is_open();
        if parts.is_empty() && entry.is_empty() && !begins {
            return Ok(None);
        }
        let (new, bytes) = state.growth(&self.id, parts.values());
        limits::check(
            "partitions, groups and offsets in a transaction",
            (state.count() + new).saturating_sub(1),
            self.shared.parts_max,
        )?;
        limits::check(
            "bytes of partitions, groups and offsets in a transaction",
            (state.end_bytes(&self.id) + bytes).saturating_sub(1),
            self.shared.part_bytes_max(),
        )?;
        let now_ms = self.shared.now_ms();
        if begins {
            let before = (state.state, state.started_ms, state.updated_ms);
            (state.state, state.started_ms, state.updated_ms) = (TransactionState::Open, now_ms, now_ms);
            let row = rows::encode_transaction(state);
            // Until the log has accepted it.
            (state.state, state.started_ms, state.updated_ms) = before;
            entry.put(rows::TRANSACTIONS, self.shared.key(&self.id), row);
        }
        for (key, part) in &parts {
            entry.put(rows::TRANSACTION_PARTS, key.clone(), rows::encode_part(part));
        }
        let submitted = self.shared.context.log.submit(entry)?;
        if begins {
            (state.state, state.started_ms, state.updated_ms) = (TransactionState::Open, now_ms, now_ms);
            if let Some(deadline) = state.deadline_ms() {
                self.schedule(deadline);
            }
        }
        parts.into_values().for_each(|part| self.apply(state, part));
        Ok(Some(submitted))
    }

    fn apply(&self, state: &mut State, part: Part) {
        let pending = match &part {
            Part::Offset { group, topic, partition, .. } => Some((group.clone(), topic.clone(), *partition)),
            _ => None,
        };
        let before = state.end_bytes(&self.id);
        let is_new_offset = state.add(part);
        self.shared.account(before, state.end_bytes(&self.id));
        if is_new_offset && let Some((group, topic, partition)) = pending {
            self.shared.pending.add(&group, &topic, partition);
        }
    }

    /// Puts another state in its place; nothing of the old one is pending any more.
    pub(super) fn replace(&self, state: &mut State, next: State) {
        let old = std::mem::replace(state, next);
        self.shared.account(old.end_bytes(&self.id), state.end_bytes(&self.id));
        for (group, topic, partition) in old.offsets.keys() {
            self.shared.pending.remove(group, topic, *partition);
        }
    }

    /// See [`super::Transactions::forget_topic`].
    pub(super) fn forget_topic(&self, topic: &str) {
        let mut state = self.state.lock();
        let before = state.end_bytes(&self.id);
        let removed = state.remove_offsets_of(topic);
        if removed.is_empty() {
            return;
        }
        self.shared.account(before, state.end_bytes(&self.id));
        let mut entry = Entry::new();
        for (group, partition) in removed {
            self.shared.pending.remove(&group, topic, partition);
            let key = rows::offset_key(self.shared.namespace, &self.id, (&group, topic, partition));
            entry.delete(rows::TRANSACTION_PARTS, key);
        }
        if let Err(error) = self.shared.context.log.submit(entry) {
            // After a restart they are there again, and are dropped at the end unless the topic is.
            tracing::warn!(transactional_id = %self.id, topic, %error, "failed to delete offsets of a deleted topic");
        }
    }

    /// See [`super::Transactions::info`].
    pub(super) fn info(&self) -> TransactionInfo {
        let state = self.state.lock();
        TransactionInfo {
            id: self.id.clone(),
            producer: state.producer,
            state: match state.ending {
                Some(true) => TransactionState::Committing,
                Some(false) => TransactionState::Aborting,
                None => state.state,
            },
            timeout_ms: state.timeout_ms,
            started_ms: state.is_open().then_some(state.started_ms),
            partitions: state.partitions.values().cloned().collect(),
        }
    }

    /// The lock of a transaction that is not open and was not used since `before_ms`.
    pub(super) fn lock_if_unused(&self, before_ms: i64) -> Option<(&Transaction, MutexGuard<'_, State>)> {
        let state = self.state.try_lock()?;
        let is_unused = !state.is_open() && state.ending.is_none() && state.updated_ms < before_ms;
        is_unused.then_some((self, state))
    }

    /// See [`super::Transactions::recover_part`].
    pub(super) fn recover_part(&self, key: &Bytes, row: &[u8]) -> Result<(), RowError> {
        if let Some(part) = rows::decode_part(key, row)? {
            self.apply(&mut self.state.lock(), part);
        }
        Ok(())
    }

    /// The keys of its rows. It is used no more.
    pub(super) fn take_keys(&self) -> Vec<(TableId, Bytes)> {
        let mut state = self.state.lock();
        state.is_removed = true;
        let part = |part| (rows::TRANSACTION_PARTS, rows::part_key(self.shared.namespace, &self.id, &part));
        let mut keys: Vec<(TableId, Bytes)> = state.parts().map(part).collect();
        keys.push((rows::TRANSACTIONS, self.shared.key(&self.id)));
        keys
    }
}

/// The producer's next epoch, or a new id where its epochs are used up.
pub(super) fn next_producer(
    state: &State,
    new_producer: impl FnOnce() -> Result<(i64, Completion), SubmitError>,
) -> Result<(Producer, Completion), SubmitError> {
    if state.is_exhausted() {
        let (id, reserved) = new_producer()?;
        return Ok((Producer { id, epoch: 0 }, reserved));
    }
    Ok((Producer { epoch: state.producer.epoch + 1, ..state.producer }, Completion::Now))
}

impl Timed for Transaction {
    fn order(&self) -> u64 {
        self.id.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)))
    }

    fn due(self: Arc<Self>, _at_ms: i64, now_ms: i64) {
        self.armed_ms.store(NO_DEADLINE, Ordering::Release);
        self.abort_if_overdue(now_ms);
    }
}
