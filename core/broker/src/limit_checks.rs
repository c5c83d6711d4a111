//! Queues with limits, or with messages that expire, as receivers of a write batch: which of them refuse a message, what
//! is counted in them before it is there, and the checks that they need once it is.

use std::sync::Arc;

use crate::completion::Completion;
use crate::message::Message;
use crate::queue::Queue;
use crate::receivers::ReceiverSet;
use crate::spec::Overflow;
use crate::write_batch::WriteBatch;

/// A queue with length limits is checked this long after a publish, milliseconds, if not before.
pub(crate) const LENGTH_CHECK_MS: i64 = 10;

/// Dead letters that one dead letter may cause in turn, because full queues refuse each of them.
pub(crate) const NESTED_LETTERS_MAX: u8 = 16;

/// The queues that refuse a message.
#[derive(Default)]
pub(crate) struct Refusals {
    pub(crate) by: Vec<Arc<Queue>>,
    /// If receivers of their dead-letter exchanges have it: complete once it is in these.
    pub(crate) dead_lettered: Option<Completion>,
}

/// A check of a queue.
pub(crate) struct LimitCheck {
    pub(crate) queue: Arc<Queue>,
    pub(crate) at_ms: i64,
    /// A message with a time to live is among those to come.
    pub(crate) ttl: bool,
    /// Value bytes counted in the queue for messages that are not in it yet.
    pub(crate) counted_bytes: usize,
}

/// Checks to schedule once a write batch is in the queues: an earlier check would not find the messages.
#[derive(Default)]
pub(crate) struct LimitChecks(Vec<LimitCheck>);

impl LimitChecks {
    /// Whether limits have to be applied to a message for these receivers.
    #[inline]
    pub(crate) fn are_needed(set: &ReceiverSet, message: &Message<'_>) -> bool {
        set.queues.iter().any(|queue| queue.has_limits() || message.headers.expires_ms.is_some())
    }

    /// Notes the checks that the queues' limits need for a message that is to be added to the batch; returns the queues
    /// that refuse it. With `to_all`, no queue takes it then, and none dead-letters it. A message that is such a dead letter
    /// comes with how many more it may cause (`nested`).
    pub(crate) fn apply(
        &mut self,
        batch: &WriteBatch,
        set: &ReceiverSet,
        message: &Message<'_>,
        to_all: bool,
        nested: &mut Option<u8>,
    ) -> Refusals {
        let mut refusals = Refusals::default();
        if to_all {
            refusals.by.extend(set.queues.iter().filter(|queue| is_refused_by(queue, batch)).cloned());
            if !refusals.by.is_empty() {
                return refusals;
            }
        }
        for queue in &set.queues {
            let limits = queue.bounds();
            let by_queue = limits.message_ttl_ms.map(|ttl| message.timestamp_ms.saturating_add_unsigned(ttl));
            let expires_ms = message.headers.expires_ms.into_iter().chain(by_queue).min();
            let length_ms =
                limits.bounds_length().then(|| message.timestamp_ms.saturating_add(LENGTH_CHECK_MS));
            // Asked once: a queue that fills up meanwhile must not refuse what others were given.
            if !to_all && is_refused_by(queue, batch) {
                let mut own = NESTED_LETTERS_MAX;
                let left = nested.as_mut().unwrap_or(&mut own);
                if limits.overflow == Overflow::RejectPublishDeadLetter
                    && let Some(done) = queue.subscription().refuse(message, left)
                {
                    refusals.dead_lettered = Some(refusals.dead_lettered.unwrap_or_default().and(done));
                }
                refusals.by.push(queue.clone());
                continue;
            }
            let counted_bytes = message.value.map_or(0, <[u8]>::len);
            queue.subscription().add_bytes(counted_bytes);
            if let Some(at_ms) = expires_ms.into_iter().chain(length_ms).min() {
                let (queue, ttl) = (queue.clone(), expires_ms.is_some());
                self.note(LimitCheck { queue, at_ms, ttl, counted_bytes });
            }
        }
        refusals
    }

    pub(crate) fn note(&mut self, check: LimitCheck) {
        match self.0.last_mut().filter(|last| Arc::ptr_eq(&last.queue, &check.queue)) {
            Some(last) => {
                last.at_ms = last.at_ms.min(check.at_ms);
                last.ttl |= check.ttl;
                last.counted_bytes += check.counted_bytes;
            }
            None => self.0.push(check),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The queues to check, some of them more than once.
    pub(crate) fn queues(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.0.iter().map(|check| &check.queue)
    }

    /// Forgets the checks of a batch without messages.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes back what was counted for a batch that is discarded.
    pub(crate) fn discard(&mut self) {
        for check in self.0.drain(..) {
            check.queue.subscription().subtract_bytes(check.counted_bytes);
        }
    }

    /// Schedules the checks of a batch that was submitted, or that the log rejected.
    pub(crate) fn schedule(&mut self, is_submitted: bool) {
        for LimitCheck { queue, at_ms, ttl, counted_bytes } in self.0.drain(..) {
            if !is_submitted {
                queue.subscription().subtract_bytes(counted_bytes);
            }
            queue.check_new(at_ms, ttl);
        }
    }
}

/// Whether a queue is full, with what a write batch has for it, and takes no more.
fn is_refused_by(queue: &Arc<Queue>, batch: &WriteBatch) -> bool {
    queue.bounds().overflow != Overflow::DropHead && queue.is_full(batch.messages_for(queue))
}
