//! The end of a transaction: one entry with the markers of all its partitions, its offsets, and the row of its id.

use std::sync::Arc;

use inver_storage::batch::marker;
use inver_storage::{Entry, Stream, StreamId, SubmitError, Submitted};

use super::error::TransactionError;
use super::rows;
use super::state::{Producer, State, TransactionState};
use super::transaction::{Transaction, next_producer};
use crate::committed_offsets::{CommittedOffset, CommittedOffsets};
use crate::completion::Completion;

/// Epoch of the coordinator, as markers tell it: there is one, which never changes.
const COORDINATOR_EPOCH: i32 = 0;

/// Pause after a failure to abort a transaction whose time is over.
const RETRY_MS: i64 = 1000;

/// How a transaction is to be ended.
#[derive(Clone, Copy, Debug)]
pub struct TransactionEnd {
    /// Committed, or aborted.
    pub is_commit: bool,
    /// The producer gets a new epoch, of another id where its epochs are used up.
    pub bumps: bool,
    /// The caller may be blocked, by reads from the disk.
    pub may_block: bool,
}

/// A transaction that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The producer, with its epoch from now on.
    pub producer: Producer,
    /// When it may be answered.
    pub completion: Completion,
}

/// The end of a transaction that was asked for. Until [`Ending::finish`] nothing of it has happened; dropping it leaves
/// the transaction as it was.
pub(crate) struct Ending {
    transaction: Arc<Transaction>,
    /// It has ended before.
    repeated: Option<Ended>,
    is_commit: bool,
    /// Of the markers.
    marker: Producer,
    next: Producer,
    previous: Option<Producer>,
    reserved: Completion,
}

impl Transaction {
    /// See [`super::Transactions::prepare_end`].
    pub(super) fn prepare_end(
        self: Arc<Self>,
        producer: Producer,
        is_commit: bool,
        bumps: bool,
        new_producer: impl FnOnce() -> Result<(i64, Completion), SubmitError>,
    ) -> Result<Ending, TransactionError> {
        let mut state = self.state.lock();
        let repeated = state.check_end(producer, is_commit, bumps)?;
        let (next, reserved) = match bumps && !repeated {
            true => next_producer(&state, new_producer)?,
            false => (state.producer, Completion::Now),
        };
        let marker = match bumps {
            true => Producer { epoch: state.fencing_epoch(), ..state.producer },
            false => state.producer,
        };
        let previous = if bumps { Some(state.producer) } else { state.previous };
        let ended = Ended { producer: state.producer, completion: self.submitted() };
        if !repeated {
            state.ending = Some(is_commit);
        }
        drop(state);
        Ok(Ending {
            transaction: self,
            repeated: repeated.then_some(ended),
            is_commit,
            marker,
            next,
            previous,
            reserved,
        })
    }

    fn submitted(&self) -> Completion {
        Completion::At(self.shared.context.log.submitted())
    }

    /// Adds the markers of its partitions and the removal of its parts to an entry.
    pub(super) fn put_end(&self, entry: &mut Entry, state: &State, producer: Producer, is_commit: bool) {
        let log = &self.shared.context.log;
        let streams = state.partitions.keys().filter_map(|stream| log.stream(StreamId(*stream)));
        let streams: Vec<Stream> = streams.collect();
        let now_ms = self.shared.context.clock.now_ms();
        let marker = marker(producer.id, producer.epoch, is_commit, COORDINATOR_EPOCH, now_ms);
        entry.batch(&streams, marker);
        for part in state.parts() {
            let key = rows::part_key(self.shared.namespace, &self.id, &part);
            entry.delete(rows::TRANSACTION_PARTS, key);
        }
    }

    /// Aborts the transaction if it has taken too long, and fences its producer.
    pub(super) fn abort_if_overdue(self: &Arc<Self>, now_ms: i64) {
        let mut state = self.state.lock();
        let Some(deadline_ms) = state.deadline_ms() else { return };
        if state.is_removed {
            return;
        }
        if state.ending.is_some() || deadline_ms > now_ms {
            // It is another one, or it ends now; if that fails it is checked again.
            return self.schedule(deadline_ms.max(now_ms + RETRY_MS));
        }
        let fencing = Producer { epoch: state.fencing_epoch(), ..state.producer };
        let mut next = State::new(fencing, state.timeout_ms, now_ms);
        next.previous = Some(state.producer);
        next.state = TransactionState::Aborted;
        let mut entry = Entry::new();
        self.put_end(&mut entry, &state, fencing, false);
        entry.put(rows::TRANSACTIONS, self.shared.key(&self.id), rows::encode_transaction(&next));
        match self.shared.context.log.submit(entry) {
            Ok(_) => {
                tracing::info!(transactional_id = %self.id, timeout_ms = state.timeout_ms, "aborted a transaction after its timeout");
                self.replace(&mut state, next);
            }
            Err(error) => {
                tracing::warn!(transactional_id = %self.id, %error, "failed to abort a transaction after its timeout");
                self.schedule(now_ms + RETRY_MS);
            }
        }
    }
}

impl Ending {
    /// What it was answered before, if it has ended already: then nothing is to be done.
    pub(crate) fn repeated(&self) -> Option<Ended> {
        self.repeated
    }

    /// The partitions of the transaction, with their streams.
    pub(crate) fn partitions(&self) -> Vec<(Arc<str>, u32, StreamId)> {
        let state = self.transaction.state.lock();
        let partitions = state.partitions.iter();
        partitions.map(|(stream, (topic, index))| (topic.clone(), *index, StreamId(*stream))).collect()
    }

    /// The producer whose transaction it is.
    pub(crate) fn producer_id(&self) -> i64 {
        self.marker.id
    }

    /// Ends the transaction in one entry with what is in `entry`, without the offsets in partitions that `exists` does not
    /// know any more. `submit` submits it.
    pub(crate) fn finish(
        mut self,
        mut entry: Entry,
        offsets: &CommittedOffsets,
        exists: impl Fn(&str, u32) -> bool,
        submit: impl FnOnce(Entry) -> Result<Submitted, SubmitError>,
    ) -> Result<Ended, TransactionError> {
        if let Some(ended) = self.repeated {
            return Ok(ended);
        }
        // Held by the transaction as well: this is dropped after the lock.
        let transaction = self.transaction.clone();
        let mut state = transaction.state.lock();
        if state.is_removed {
            return Err(TransactionError::UnknownProducer);
        }
        let mut next = State::new(self.next, state.timeout_ms, transaction.shared.now_ms());
        next.previous = self.previous;
        next.state = if self.is_commit { TransactionState::Committed } else { TransactionState::Aborted };
        transaction.put_end(&mut entry, &state, self.marker, self.is_commit);
        entry.put(
            rows::TRANSACTIONS,
            transaction.shared.key(&transaction.id),
            rows::encode_transaction(&next),
        );
        let submitted = match self.is_commit && !state.offsets.is_empty() {
            true => {
                let of_state = state.offsets.iter();
                let committed: Vec<(&str, &str, u32, &CommittedOffset)> = of_state
                    .map(|((group, topic, partition), offset)| (&**group, &**topic, *partition, offset))
                    .collect();
                offsets.commit_with(&transaction.shared.context.log, entry, committed, exists, submit)?
            }
            false => submit(entry)?,
        };
        transaction.replace(&mut state, next);
        // Nothing is left to undo.
        self.repeated = Some(Ended { producer: self.next, completion: Completion::Now });
        drop(state);
        let completion = Completion::At(submitted.lsn).and(self.reserved);
        Ok(Ended { producer: self.next, completion })
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.repeated.is_none() {
            self.transaction.state.lock().ending = None;
        }
    }
}
