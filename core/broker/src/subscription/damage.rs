//! Messages that cannot be read, because the log is damaged or the disk fails. Whatever waits behind them must not wait for
//! ever without anybody being told.
//!
//! By default a damaged batch is stepped over: its messages are acknowledged, counted and told in the log, and the queue's
//! dead-letter exchange gets a record without a value in the place of the first of them. Where that is not wanted
//! ([`OnDamage::Stop`](crate::OnDamage::Stop)) or not possible, the consumers are told by their pulls, until they attach again or an operator steps
//! over it. Readers by offset (which do not acknowledge) are told by an error instead.

use std::ops::Range;
use std::sync::Arc;

use inver_storage::batch::{BatchBuilder, Record, records};
use inver_storage::{Offset, ReadError, SubmitError};

use super::drops::{AckBatch, Dropped};
use super::source::READ_BYTES;
use super::state::{Load, State};
use super::{DeliveryId, Mode, Subscription};
use crate::completion::Completion;
use crate::spec::DropReason;

/// Damaged batches that one request steps over.
const SKIPPED_BATCHES_MAX: usize = 10_000;

/// Why damage cannot be stepped over.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SkipError {
    /// Not only the messages are damaged but also what tells where they end, or the disk fails.
    #[error("cannot tell where the damage ends: {0}")]
    Unknown(#[from] ReadError),
    /// The log rejects the acknowledgement.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
}

impl Subscription {
    /// Handles a batch that a load could not read. Whether it was stepped over.
    pub(super) fn meet_damage(self: &Arc<Self>, load: &Load, error: &ReadError) -> bool {
        if self.locked(|state| state.is_ahead(load)) {
            // What is in front of it is delivered first. Then it is read again.
            return false;
        }
        if self.context.stops_at_damage.get() == Some(&true) {
            self.stop_consumers(error);
            return false;
        }
        match self.step_over_damage(load, error) {
            Ok((_, acks)) => {
                self.commit_acks_unattended(acks);
                true
            }
            Err(index) => {
                self.stop_consumers(&index);
                false
            }
        }
    }

    /// Has the consumers learn that their next messages cannot be read.
    pub(super) fn stop_consumers(self: &Arc<Self>, error: &ReadError) {
        let subscription = self.name();
        tracing::error!(subscription, %error, "stopped the consumers: their next messages cannot be read");
        self.context.counters.unreadable.increment(1);
        self.locked(State::stop_unreadable);
    }

    /// Steps over damaged batches at its position, and over those of messages that wait again. How many messages they had
    /// that were not acknowledged. Reads from the disk.
    ///
    /// # Errors
    /// The disk fails, or the end of the damage is not known.
    pub fn skip_damaged(self: &Arc<Self>) -> Result<(u64, Completion), SkipError> {
        let (mut skipped, mut completion) = (0, Completion::Now);
        for _ in 0..SKIPPED_BATCHES_MAX {
            let Some((load, error)) = self.find_damage()? else { break };
            let (messages, acks) = self.step_over_damage(&load, &error)?;
            skipped += messages;
            completion = completion.and(self.commit_acks(acks)?);
        }
        self.locked(|state| {
            state.unreadable = false;
            state.wake_waiting();
        });
        Ok((skipped, completion))
    }

    /// A read of what is delivered next that meets damage.
    fn find_damage(&self) -> Result<Option<(Load, ReadError)>, ReadError> {
        for load in self.locked(State::next_reads) {
            match load.read.run() {
                Err(error @ ReadError::Damaged { .. }) => return Ok(Some((load, error))),
                Err(error @ ReadError::Io { .. }) => return Err(error),
                Ok(_) | Err(ReadError::OutOfRange { .. } | ReadError::Deleted) => {}
            }
        }
        Ok(None)
    }

    /// Steps over the batch that a load could not read: how many messages it had, and what is to be acknowledged. Fails if
    /// it is not known where the batch ends.
    fn step_over_damage(
        self: &Arc<Self>,
        load: &Load,
        error: &ReadError,
    ) -> Result<(u64, AckBatch), ReadError> {
        let Some(Range { start: Offset(first), end: Offset(end) }) = load.read.first_batch()? else {
            return Ok((0, AckBatch::default()));
        };
        let (messages, acks) = self.locked(|state| state.step_over(load.source, first..end));
        self.context.counters.damaged.increment(messages);
        tracing::error!(
            subscription = self.name(), %error, messages, first, end,
            "stepped over messages that cannot be read: the log is damaged"
        );
        if messages > 0
            && self.limits().is_some_and(|limits| limits.dead_letters)
            && let Some(record) = marker(self.context.clock.steady_ms())
        {
            let id = DeliveryId { partition: load.source as u32, offset: first };
            let dropped = [Dropped { id, record, reason: DropReason::Damaged }];
            if let Err(error) = self.dead_letter(&dropped) {
                tracing::warn!(subscription = self.name(), %error, "failed to write dropped messages");
            }
        }
        Ok((messages, acks))
    }
}

impl State {
    /// Whether a load reads behind messages that are buffered and not delivered yet.
    fn is_ahead(&mut self, load: &Load) -> bool {
        let source = self.sources.get_mut(load.source).and_then(|source| source.stream());
        !load.again && source.is_some_and(|source| load.read.from().0 > source.position())
    }

    /// Wakes all consumers, to be told by their next pull that there are messages that cannot be read.
    fn stop_unreadable(&mut self) {
        self.unreadable = true;
        let slots: Vec<_> = self.slots.ids().collect();
        slots.into_iter().filter_map(|slot| self.slots.get(slot)).for_each(|s| s.wake(&mut self.wakeups));
        self.wake_passive();
    }

    /// The reads of what is delivered next: of each source the first message that waits again, and the first other one.
    fn next_reads(&mut self) -> Vec<Load> {
        let mut reads = Vec::new();
        for (at, source) in self.sources.iter_mut().enumerate() {
            let partition = at as u32;
            let of_partition = |offset| DeliveryId { partition, offset };
            let Some(stream) = source.stream() else { continue };
            let waiting = self.requeued.range(of_partition(0)..of_partition(u64::MAX)).next();
            let again = waiting.map(|(id, _)| Load {
                source: at,
                again: true,
                read: stream.read_of(Some(id.offset), READ_BYTES),
            });
            reads.extend(again);
            reads.push(Load { source: at, again: false, read: stream.read_of(None, READ_BYTES) });
        }
        reads
    }

    /// Skips messages that cannot be read. How many of them were not acknowledged, and what to write to the log.
    fn step_over(&mut self, source: usize, damaged: Range<u64>) -> (u64, AckBatch) {
        let partition = source as u32;
        let at = |offset| DeliveryId { partition, offset };
        if self.mode == Mode::KeyShared {
            self.unassign_all();
        }
        // Those that wait again or are with consumers keep their count; consumers settle theirs as any other.
        let waiting: Vec<DeliveryId> =
            self.requeued.range(at(damaged.start)..at(damaged.end)).map(|(id, _)| *id).collect();
        for id in &waiting {
            if let Some(requeued) = self.requeued.remove(id) {
                self.limits.bytes.subtract(requeued.value_bytes);
            }
        }
        let mut messages = waiting.len() as u64;
        let mut acks = self.settle(waiting);
        if let Some(source) = self.sources.get_mut(source) {
            let (skipped, offsets) = source.step_over(damaged.end);
            messages += skipped;
            if let (Some(cursor), false) = (source.cursor(), offsets.is_empty()) {
                acks.push((cursor.clone(), vec![offsets.start.into()..offsets.end.into()]));
            }
        }
        (messages, acks)
    }
}

/// A record without a value, in the place of messages that cannot be read.
fn marker(now_ms: i64) -> Option<Record> {
    let mut batch = BatchBuilder::new(0);
    batch.push(now_ms, None, &[], None);
    records(batch.finish().bytes()).ok()?.next()?.ok()
}
