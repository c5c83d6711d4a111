//! The tail cache: which batches are kept for tailing readers, oldest first, within a bound of bytes.
//!
//! The streams hold the bytes; an evicted batch is dropped there and freed when its last reader drops it.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::stream::StreamInner;

/// Memory of a batch beside its bytes, and of each destination.
const OVERHEAD_BYTES: usize = 96;

/// Of so many parts of the bound one is kept while memory is tight.
const TIGHT_PARTS: usize = 4;

pub(super) type TailPlaces = SmallVec<[(Arc<StreamInner>, u64); 1]>;

#[derive(Debug)]
pub(super) struct TailRing {
    bytes_max: usize,
    bytes: usize,
    batches: VecDeque<(usize, TailPlaces)>,
}

impl TailRing {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, batches: VecDeque::new() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a batch, with the base offset that it has in each stream.
    pub(super) fn push(&mut self, bytes: usize, places: TailPlaces) {
        let cost = bytes + OVERHEAD_BYTES * (places.len() + 1);
        self.bytes += cost;
        self.batches.push_back((cost, places));
    }

    /// Evicts the oldest batches down to the bound, or to a part of it while memory is tight.
    pub(super) fn evict(&mut self, is_tight: bool) {
        let bytes_max = if is_tight { self.bytes_max / TIGHT_PARTS } else { self.bytes_max };
        while self.bytes > bytes_max {
            let Some((cost, places)) = self.batches.pop_front() else { return };
            self.bytes -= cost;
            for (stream, base) in places {
                stream.evict(base);
            }
        }
    }
}
