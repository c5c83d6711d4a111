//! The fetch under way.

use inver_storage::StoredBatch;
use tokio::time::Instant;

use super::slot::Slot;
use crate::codec::header::ResponseHeader;

/// The fetch under way: its limits and what it has found so far.
pub(super) struct Running {
    pub(super) number: u64,
    pub(super) header: ResponseHeader,
    /// When to respond with what there is.
    pub(super) deadline: Instant,
    /// Bytes at which to respond.
    pub(super) bytes_min: usize,
    /// Bytes of records in the response at most, except for a first batch that is larger.
    pub(super) bytes_max: usize,
    /// Bytes found.
    pub(super) bytes: usize,
    /// Bytes that reads in progress may still add.
    pub(super) granted: usize,
    /// Reads from disk in progress.
    pub(super) cold_reads: usize,
    /// Whether a partition has an error, which is reported without waiting.
    pub(super) failed: bool,
    pub(super) session_id: i32,
    /// Whether the response leaves out partitions that have not changed.
    pub(super) incremental: bool,
}

impl Running {
    /// Whether to respond now. A read in progress is always waited for.
    pub(super) fn is_done(&self, now: Instant) -> bool {
        let enough = self.bytes >= self.bytes_min || self.bytes >= self.bytes_max;
        self.cold_reads == 0 && (enough || self.failed || now >= self.deadline)
    }

    /// Notes that a read of up to `room` bytes is in progress for a slot.
    pub(super) fn await_read(&mut self, slot: &mut Slot, room: usize) {
        let room = room.max(1);
        slot.granted = Some(room);
        self.granted += room;
        self.cold_reads += 1;
    }

    /// Takes batches that were read from disk, as many as there is room for. The rest stays in `batches`.
    pub(super) fn take_cold(
        &mut self,
        slot: &mut Slot,
        batches: &mut Vec<StoredBatch>,
        room: usize,
        first: bool,
    ) {
        let bytes = slot.take(batches, room, first);
        self.bytes += bytes;
        slot.cold = true;
        // The disk gave as much as there was room for; another read would return a batch that does not fit.
        slot.exhausted = bytes == 0 || self.bytes >= self.bytes_min;
    }
}
