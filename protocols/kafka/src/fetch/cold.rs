//! Reads from disk, on blocking threads: for the fetch under way, or ahead of the next one.

use std::sync::Arc;

use inver_broker::Mailbox;
use inver_storage::{ColdRead, ReadError, StoredBatch};
use parking_lot::Mutex;

use crate::budget::{Share, charged};

/// Mailbox token posted when a read from disk is done.
pub(super) const COLD: u64 = 1 << 62;

/// The reads from disk of one connection.
#[derive(Default)]
pub(super) struct ColdReads {
    results: Arc<Mutex<Vec<ColdResult>>>,
    /// Read-aheads in progress.
    pub(super) aheads: usize,
    /// Number of the last read-ahead.
    ahead_number: u64,
}

/// A finished read.
pub(super) struct ColdResult {
    pub(super) purpose: Purpose,
    /// Key of the slot.
    pub(super) place: usize,
    share: Share,
    result: Result<Vec<StoredBatch>, ReadError>,
}

/// The purpose of a read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// The fetch with this number.
    Fetch(u64),
    /// The next fetch. The read has this number.
    Ahead(u64),
}

impl ColdReads {
    /// Starts a read, which posts [`COLD`] when it is done.
    pub(super) fn start(
        &self,
        mailbox: &Arc<Mailbox>,
        purpose: Purpose,
        place: usize,
        cold: ColdRead,
        share: Share,
    ) {
        let (results, mailbox) = (self.results.clone(), mailbox.clone());
        tokio::task::spawn_blocking(move || {
            let result = cold.run();
            results.lock().push(ColdResult { purpose, place, share, result });
            mailbox.post(COLD);
        });
    }

    /// The number of a new read-ahead.
    pub(super) fn next_ahead(&mut self) -> u64 {
        self.aheads += 1;
        self.ahead_number += 1;
        self.ahead_number
    }

    /// The reads finished since the last call.
    pub(super) fn take_results(&self) -> Vec<ColdResult> {
        std::mem::take(&mut *self.results.lock())
    }
}

impl ColdResult {
    /// The batches read. They hold the memory budget that was taken for the read.
    pub(super) fn into_batches(self) -> Result<Vec<StoredBatch>, ReadError> {
        let mut batches = self.result?;
        let share = self.share.shrunk(batches.iter().map(|batch| batch.bytes.len()).sum());
        for batch in &mut batches {
            batch.bytes = charged(std::mem::take(&mut batch.bytes), &share);
        }
        Ok(batches)
    }
}
