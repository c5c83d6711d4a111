//! Stepping over a damaged batch: its messages cannot be read, and whatever waits behind them must not wait for ever.
//!
//! They are acknowledged, counted and told in the log, and the queue's dead-letter exchange gets a record without a value
//! in the place of the first of them. Readers by offset (which do not acknowledge) are told by an error instead.

use std::ops::Range;
use std::sync::Arc;

use inver_storage::ReadError;
use inver_storage::batch::{BatchBuilder, Record, records};

use super::drops::{AckBatch, Dropped};
use super::state::{Load, State};
use super::{DeliveryId, Mode, Subscription};
use crate::spec::DropReason;

impl Subscription {
    /// Steps over the batch that a load could not read. Whether it could.
    pub(super) fn step_over_damage(self: &Arc<Self>, load: &Load, error: &ReadError) -> bool {
        let subscription = self.name();
        let damaged = match load.read.first_batch() {
            Ok(Some(batch)) => batch.start.0..batch.end.0,
            Ok(None) => return false,
            Err(index) => {
                tracing::error!(subscription, %error, %index, "failed to step over damage in the log");
                return false;
            }
        };
        let (messages, acks) = self.locked(|state| state.step_over(load.source, damaged.clone()));
        self.context.counters.damaged.increment(messages);
        let (first, end) = (damaged.start, damaged.end);
        tracing::error!(
            subscription, %error, messages, first, end,
            "stepped over messages that cannot be read: the log is damaged"
        );
        if messages > 0
            && self.limits().is_some_and(|limits| limits.dead_letters)
            && let Some(record) = marker(self.context.clock.steady_ms())
        {
            let id = DeliveryId { partition: load.source as u32, offset: first };
            let dropped = [Dropped { id, record, reason: DropReason::Damaged }];
            if let Err(error) = self.dead_letter(&dropped) {
                tracing::warn!(subscription, %error, "failed to write dropped messages");
            }
        }
        self.commit_acks_unattended(acks);
        true
    }
}

impl State {
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
