//! Syncs beside the writer: for the policies `Interval` and `Os`, for checkpoints, and on request.

use std::sync::Arc;

use crate::allocator::SegmentAllocator;
use crate::clock::Clock;
use crate::error::LogError;
use crate::intake::Intake;
use crate::metrics::LogMetrics;
use crate::waiter::CommitWaiter;

pub(crate) struct Durability {
    intake: Arc<Intake>,
    allocator: Arc<SegmentAllocator>,
    waiter: Arc<CommitWaiter>,
    metrics: Arc<LogMetrics>,
    clock: Arc<dyn Clock>,
}

impl Durability {
    pub(crate) fn new(
        intake: Arc<Intake>,
        allocator: Arc<SegmentAllocator>,
        waiter: Arc<CommitWaiter>,
        metrics: Arc<LogMetrics>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { intake, allocator, waiter, metrics, clock }
    }

    /// Bytes written and not yet synced.
    pub(crate) fn unsynced_bytes(&self) -> u64 {
        self.intake.marks.committed().saturating_sub(self.intake.marks.durable())
    }

    /// Syncs everything written so far, without holding up the writer. Returns the durable position.
    pub(crate) fn sync_written(&self) -> Result<u64, LogError> {
        let written = self.intake.marks.committed();
        if self.intake.marks.durable() >= written {
            return Ok(written);
        }
        // Taken after the mark: if the writer started another segment in between, it has synced the earlier one.
        if let Some(active) = self.allocator.active() {
            let start = self.clock.monotonic();
            let synced = active.file.sync();
            synced.map_err(|error| self.intake.fail(format!("sync {:?}", active.segment), error))?;
            self.metrics.synced(self.clock.monotonic().saturating_sub(start));
        }
        self.intake.marks.set_durable(written);
        Ok(written)
    }

    /// Blocks until everything up to `lsn` is on the medium. Returns the durable position.
    pub(crate) fn make_durable(&self, lsn: u64) -> Result<u64, LogError> {
        self.waiter.wait(lsn)?;
        self.sync_written()
    }
}
