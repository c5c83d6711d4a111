//! Delivery to very many receivers in memory, in slices: one publish to 50,000 queues must not hold the turn of its
//! connection for as long as it takes to give it to all of them.

use std::collections::VecDeque;
use std::sync::Arc;

use inver_storage::batch::Batch;

use crate::receivers::ReceiverSet;
use crate::subscription::Subscription;

/// Receivers that are given batches in one slice: about half a millisecond's work.
pub(crate) const SLICE_RECEIVERS: usize = 512;

/// Batches of a write batch on their way to their receivers in memory, in order.
pub(crate) struct FanOut {
    batches: VecDeque<(Arc<ReceiverSet>, Batch)>,
    /// How many receivers of the first batch have it.
    given: usize,
    /// The first batch as they share it, if they do.
    shared: Option<Batch>,
}

impl FanOut {
    /// None if there are so few receivers that no slices are needed.
    pub(crate) fn of(batches: &mut Vec<(Arc<ReceiverSet>, Batch)>) -> Option<FanOut> {
        let receivers: usize = batches.iter().map(|(set, _)| set.live.len()).sum();
        let batches = (receivers > SLICE_RECEIVERS).then(|| batches.drain(..).collect())?;
        Some(FanOut { batches, given: 0, shared: None })
    }

    /// Delivers a slice. True if there is more.
    pub(crate) fn deliver_slice(&mut self) -> bool {
        let mut left = SLICE_RECEIVERS;
        while left > 0
            && let Some((set, batch)) = self.batches.front()
        {
            if self.given == 0 {
                self.shared = Subscription::counted_once(&set.live, batch);
            }
            let rest = set.live.get(self.given..).unwrap_or_default();
            let slice = rest.get(..left).unwrap_or(rest);
            let plain = self.shared.as_ref().unwrap_or(batch);
            Subscription::push_to_each(slice, batch, plain, None, self.shared.is_some());
            left -= slice.len();
            self.given += slice.len();
            if slice.len() == rest.len() {
                self.batches.pop_front();
                self.given = 0;
            }
        }
        !self.batches.is_empty()
    }
}

impl Drop for FanOut {
    /// What was flushed reaches its receivers, although its publisher has gone.
    fn drop(&mut self) {
        while self.deliver_slice() {}
    }
}
