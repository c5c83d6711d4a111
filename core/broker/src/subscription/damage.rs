//! Messages that cannot be read, because the log is damaged or the disk fails. Whatever waits behind them must not wait for
//! ever without anybody being told.
//!
//! By default a damaged batch is stepped over: its messages are acknowledged, counted and told in the log, and the queue's
//! dead-letter exchange gets a record without a value in the place of the first of them. Where that is not wanted
//! ([`OnDamage::Stop`](crate::OnDamage::Stop)) or not possible, the consumers are told by their pulls, each once it holds
//! nothing: were it told before, what it holds would come again and again and the damage never be reached. That ends when
//! a consumer attaches, when messages come back, and when an operator steps over the damage. Readers by offset (which do
//! not acknowledge) are told by an error instead.
//!
//! The consumers of a queue with priorities are told as soon as damage is met: what cannot be read may come before what can.
//! So is one that takes single messages (`basic.get` of AMQP), whatever it holds, and so are those that share by keys, for
//! which messages in front of the damage may wait: they get these when they come again.
//!
//! A dead letter without a receiver that cannot be read stops nobody: it is tried again, and stepped over with the rest.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use inver_storage::batch::{BatchBuilder, Record, records};
use inver_storage::{Offset, ReadError, SubmitError};

use super::drops::{AckBatch, Dropped};
use super::slots::SlotId;
use super::source::{READ_BYTES, Source, SteppedOver};
use super::state::{Load, State};
use super::terms::Pull;
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
    /// Handles a batch that a load could not read, because it is damaged or the disk fails. Whether it was stepped over,
    /// then or before.
    pub(super) fn meet_unreadable(self: &Arc<Self>, load: &Load, error: &ReadError) -> bool {
        let place = self.locked(|state| state.place_of(load));
        match place {
            Place::Next | Place::Undelivered => {}
            // What is in front of it is delivered first. Then it is read again.
            Place::Ahead => return false,
            Place::Passed => return true,
        }
        let is_stepped_over =
            matches!(error, ReadError::Damaged { .. }) && self.context.stops_at_damage.get() != Some(&true);
        let unknown_end = match is_stepped_over.then(|| self.step_over_damage(load, error)) {
            Some(Ok((_, acks))) => {
                self.commit_acks_unattended(acks);
                return true;
            }
            Some(Err(index)) => Some(index),
            None => None,
        };
        let error = unknown_end.as_ref().unwrap_or(error);
        match place {
            Place::Undelivered => self.put_off_undelivered(load.id(), error),
            _ => self.stop_consumers(error),
        }
        false
    }

    /// Has the consumers learn that their next messages cannot be read.
    fn stop_consumers(self: &Arc<Self>, error: &ReadError) {
        if !self.locked(State::stop_unreadable) {
            return;
        }
        let subscription = self.name();
        tracing::error!(subscription, %error, "stopped the consumers: their next messages cannot be read");
        self.context.counters.unreadable.increment(1);
    }

    /// Has a dead letter that waits for a receiver wait longer, because it cannot be read. No consumer gets it, and none is
    /// stopped.
    fn put_off_undelivered(&self, id: DeliveryId, error: &ReadError) {
        if self.locked(|state| state.put_off_undelivered(id)) {
            let (subscription, offset) = (self.name(), id.offset);
            tracing::error!(subscription, offset, %error, "cannot read a dead letter that waits for a receiver");
        }
    }

    /// Steps over damaged batches at its position, and over those of messages that wait again: 10,000 at most. How many
    /// messages they had that were not acknowledged. Reads from the disk.
    ///
    /// # Errors
    /// The disk fails or the end of the damage is not known, before any was stepped over. Or the log rejects the first write:
    /// then that batch was stepped over, and comes again after a restart.
    pub fn skip_damaged(self: &Arc<Self>) -> Result<(u64, Completion), SkipError> {
        let (mut skipped, mut completion) = (0, Completion::Now);
        let ended = self.skip_batches(&mut skipped, &mut completion);
        self.locked(State::try_again);
        self.recheck();
        match ended {
            Err(error) if skipped == 0 => return Err(error),
            // The caller is told what was done, and of the error if it asks again.
            Err(error) => {
                tracing::warn!(subscription = self.name(), %error, "failed to step over all damage");
            }
            Ok(()) => {}
        }
        Ok((skipped, completion))
    }

    fn skip_batches(
        self: &Arc<Self>,
        skipped: &mut u64,
        completion: &mut Completion,
    ) -> Result<(), SkipError> {
        for _ in 0..SKIPPED_BATCHES_MAX {
            let Some((load, error)) = self.find_damage()? else { break };
            let (messages, acks) = self.step_over_damage(&load, &error)?;
            *completion = completion.and(self.commit_acks(acks)?);
            *skipped += messages;
        }
        Ok(())
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
        let Range { start: Offset(first), end: Offset(end) } = match load.read.first_batch() {
            Ok(Some(batch)) => batch,
            // It was trimmed or deleted meanwhile.
            Ok(None) | Err(ReadError::OutOfRange { .. } | ReadError::Deleted) => {
                return Ok((0, AckBatch::default()));
            }
            Err(error) => return Err(error),
        };
        let SteppedOverBatch { id, messages, acks } =
            self.locked(|state| state.step_over(load.source, first..end));
        self.context.counters.damaged.increment(messages);
        tracing::error!(
            subscription = self.name(), %error, messages, first, end,
            "stepped over messages that cannot be read: the log is damaged"
        );
        if let Some(id) = id
            && self.limits().is_some_and(|limits| limits.dead_letters)
            && let Some(record) = marker(self.context.clock.steady_ms())
        {
            let dropped = [Dropped { id, record, reason: DropReason::Damaged }];
            if let Err(error) = self.dead_letter(&dropped) {
                tracing::warn!(subscription = self.name(), %error, "failed to write dropped messages");
            }
        }
        Ok((messages, acks))
    }
}

/// Where what a load reads is.
pub(super) enum Place {
    /// It is delivered next.
    Next,
    /// It is a dead letter that waits for a receiver, which no consumer gets.
    Undelivered,
    /// Behind messages that are buffered and not delivered yet.
    Ahead,
    /// It does not wait any more.
    Passed,
}

/// What was taken out in place of a batch that cannot be read.
struct SteppedOverBatch {
    /// The first of its messages that waited, if any did.
    id: Option<DeliveryId>,
    messages: u64,
    acks: AckBatch,
}

impl State {
    pub(super) fn place_of(&mut self, load: &Load) -> Place {
        let offset = load.read.from().0;
        if load.again {
            let id = load.id();
            let waits = self.requeued.contains_key(&id)
                || self.priorities.as_ref().is_some_and(|priorities| priorities.has(id));
            let is_undelivered = self.undelivered.as_ref().is_some_and(|undelivered| undelivered.has(id));
            return match (waits, is_undelivered) {
                (true, _) => Place::Next,
                (false, true) => Place::Undelivered,
                (false, false) => Place::Passed,
            };
        }
        let source = self.sources.get_mut(load.source).and_then(|source| source.stream());
        match source.map(|source| offset.cmp(&source.position())) {
            Some(Ordering::Equal) => Place::Next,
            Some(Ordering::Greater) => Place::Ahead,
            Some(Ordering::Less) | None => Place::Passed,
        }
    }

    /// Wakes all consumers, to be told by their next pull that there are messages that cannot be read. False if they were
    /// before.
    fn stop_unreadable(&mut self) -> bool {
        let is_new = !std::mem::replace(&mut self.unreadable, true);
        if is_new {
            let slots: Vec<_> = self.slots.ids().collect();
            slots.into_iter().filter_map(|slot| self.slots.get(slot)).for_each(|s| s.wake(&mut self.wakeups));
            self.wake_passive();
        }
        is_new
    }

    /// Has what could not be read be read again, if that was so.
    pub(super) fn try_again(&mut self) {
        self.unreadable = false;
        self.wake_waiting();
    }

    /// What a consumer pulls while the next messages cannot be read. One that holds messages is woken once it does not, and
    /// any once they may be read.
    pub(super) fn pull_unreadable(&mut self, slot: SlotId) -> Pull {
        let holds_any = self.in_flight_by_consumer.get(&slot).is_some_and(|held| !held.unacked.is_empty());
        self.slots.wait(slot);
        if holds_any && self.slots.contains(slot) {
            return Pull { pending: true, ..Pull::default() };
        }
        Pull { unreadable: true, ..Pull::default() }
    }

    /// The reads of what is delivered next: of each source the first message that waits again, the dead letter that could not
    /// be read or is tried next, and the first other message.
    fn next_reads(&mut self) -> Vec<Load> {
        let mut reads = Vec::new();
        for (at, source) in self.sources.iter_mut().enumerate() {
            let partition = at as u32;
            let of_partition = |offset| DeliveryId { partition, offset };
            let searches = source.searches();
            let Some(stream) = source.stream() else { continue };
            let waiting = match &self.priorities {
                Some(priorities) => priorities.first_id(),
                None => {
                    self.requeued.range(of_partition(0)..of_partition(u64::MAX)).next().map(|(id, _)| *id)
                }
            };
            let undelivered = self.undelivered.as_ref().and_then(|undelivered| undelivered.to_skip());
            let undelivered = undelivered.filter(|id| id.partition == partition);
            // Of what is in memory nothing is read again: its offsets are not those of the spilled part.
            let again = waiting.into_iter().chain(undelivered).filter(|_| searches).map(|id| Load {
                source: at,
                again: true,
                read: stream.read_of(Some(id.offset), READ_BYTES),
            });
            reads.extend(again);
            reads.push(Load { source: at, again: false, read: stream.read_of(None, READ_BYTES) });
        }
        reads
    }

    /// Takes messages out that cannot be read, which wait and are not with consumers.
    fn step_over(&mut self, at: usize, damaged: Range<u64>) -> SteppedOverBatch {
        if self.mode == Mode::KeyShared {
            self.unassign_all();
        }
        let partition = at as u32;
        // Of what is in memory nothing is read again.
        let reads_again = self.sources.get(at).is_some_and(Source::searches);
        let waiting = if reads_again { self.take_waiting(partition, damaged.clone()) } else { Vec::new() };
        let (mut id, mut messages) = (waiting.iter().min().copied(), waiting.len() as u64);
        let mut acks = self.settle(waiting);
        if let Some(source) = self.sources.get_mut(at) {
            let SteppedOver { first, messages: skipped, acked } = source.step_over(damaged.end);
            if skipped > 0 {
                id = id.or(Some(DeliveryId { partition, offset: first }));
            }
            messages += skipped;
            if let (Some(cursor), false) = (source.cursor(), acked.is_empty()) {
                acks.push((cursor.clone(), vec![acked.start.into()..acked.end.into()]));
            }
        }
        if messages > 0 {
            self.limits.bytes.lose_count();
        }
        SteppedOverBatch { id, messages, acks }
    }

    /// Takes out the messages of a range that were taken from their source and wait.
    fn take_waiting(&mut self, partition: u32, offsets: Range<u64>) -> Vec<DeliveryId> {
        let at = |offset| DeliveryId { partition, offset };
        let range = at(offsets.start)..at(offsets.end);
        let mut taken: Vec<DeliveryId> = self.requeued.range(range.clone()).map(|(id, _)| *id).collect();
        for id in &taken {
            if let Some(requeued) = self.requeued.remove(id) {
                self.limits.bytes.subtract(requeued.value_bytes);
            }
        }
        if let Some(priorities) = &mut self.priorities {
            let (ids, value_bytes) = priorities.take_range(offsets);
            self.limits.bytes.change(-value_bytes);
            taken.extend(ids);
        }
        if let Some(undelivered) = &mut self.undelivered {
            let (ids, value_bytes) = undelivered.take_range(range);
            self.limits.bytes.change(-value_bytes);
            taken.extend(ids);
        }
        taken
    }
}

/// A record without a value, in the place of messages that cannot be read.
fn marker(now_ms: i64) -> Option<Record> {
    let mut batch = BatchBuilder::new(0);
    batch.push(now_ms, None, &[], None);
    records(batch.finish().bytes()).ok()?.next()?.ok()
}
