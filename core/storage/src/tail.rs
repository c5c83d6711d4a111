//! The tail cache's bound: which batches are kept for tailing readers, oldest first. The bytes themselves are held by
//! the streams; dropping them there frees them once no reader has them any more.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::stream::StreamInner;

/// What a batch costs beside its bytes, and what each destination costs.
const OVERHEAD_BYTES: usize = 96;

pub(crate) type TailPlaces = SmallVec<[(Arc<StreamInner>, u64); 1]>;

#[derive(Debug)]
pub(crate) struct TailRing {
    bytes_max: usize,
    bytes: usize,
    batches: VecDeque<(usize, TailPlaces)>,
}

impl TailRing {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, batches: VecDeque::new() }
    }

    /// Takes note of a batch and of the base offset it has in each stream.
    pub(crate) fn push(&mut self, bytes: usize, places: TailPlaces) {
        let cost = bytes + OVERHEAD_BYTES * (places.len() + 1);
        self.bytes += cost;
        self.batches.push_back((cost, places));
    }

    /// Drops the oldest down to the bound.
    pub(crate) fn evict(&mut self) {
        while self.bytes > self.bytes_max {
            let Some((cost, places)) = self.batches.pop_front() else { return };
            self.bytes -= cost;
            for (stream, base) in places {
                stream.evict(base);
            }
        }
    }
}
