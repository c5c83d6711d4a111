//! Maintenance: everything that a log does beside writing, on a thread of its own.
//!
//! One pass prepares the next segment file, syncs under the policies `Interval` and `Os`, seals closed segments, cleans
//! and compacts, takes checkpoints, and removes segments without live data. Only one pass runs at a time.

mod background;
mod checkpointer;
mod cleaner;
mod compactor;
mod rewrite;
mod seal;
mod survivors;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

pub(crate) use self::background::Background;
pub use self::background::BackgroundTask;
pub(crate) use self::checkpointer::{Checkpointer, CheckpointerParts};
use self::cleaner::Cleaner;
use self::compactor::Compactor;
use self::rewrite::Rewriter;
use self::seal::Sealer;
use crate::allocator::SegmentAllocator;
use crate::clock::Clock;
use crate::durability::Durability;
use crate::entry::Entry;
use crate::error::{BackupError, LogError, SubmitError};
use crate::format::segment::SegmentId;
use crate::intake::Intake;
use crate::medium::Medium;
use crate::metrics::{LogMetrics, Sizes};
use crate::options::{CommitPolicy, LogOptions};
use crate::read::ReadPath;
use crate::sealing::SealQueue;
use crate::space::DiskSpace;
use crate::waiter::CommitWaiter;
use crate::writer::UNSYNCED_BYTES_MAX;

/// The longest pause between two passes.
const PAUSE_MAX: Duration = Duration::from_secs(1);

pub(crate) struct Maintenance {
    parts: MaintenanceParts,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) background: Arc<Background>,
    sealer: Sealer,
    rewriter: Arc<Rewriter>,
    cleaner: Cleaner,
    compactor: Compactor,
    commit: CommitPolicy,
    segment_age_ms_max: i64,
    /// Held during a pass, before all other locks.
    running: Mutex<()>,
}

/// The parts of the log that maintenance works on.
pub(crate) struct MaintenanceParts {
    pub(crate) log_id: u128,
    pub(crate) medium: Arc<dyn Medium>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) read: Arc<ReadPath>,
    pub(crate) allocator: Arc<SegmentAllocator>,
    pub(crate) sealing: Arc<SealQueue>,
    pub(crate) waiter: Arc<CommitWaiter>,
    pub(crate) durability: Arc<Durability>,
    pub(crate) metrics: Arc<LogMetrics>,
    pub(crate) space: Arc<DiskSpace>,
}

impl Maintenance {
    pub(crate) fn new(parts: MaintenanceParts, checkpointer: Checkpointer, options: &LogOptions) -> Self {
        let (clock, metrics) = (&parts.clock, &parts.metrics);
        let background = checkpointer.background();
        let rewriter = Arc::new(Rewriter::new(
            parts.log_id,
            parts.medium.clone(),
            clock.clone(),
            parts.intake.clone(),
            parts.read.clone(),
            background.clone(),
        ));
        let directory = parts.intake.directory.clone();
        Self {
            checkpointer,
            sealer: Sealer::new(
                parts.sealing.clone(),
                directory,
                parts.read.clone(),
                parts.intake.clone(),
                background.clone(),
            ),
            background,
            cleaner: Cleaner::new(rewriter.clone(), clock.clone(), metrics.clone(), options),
            compactor: Compactor::new(rewriter.clone(), clock.clone(), metrics.clone(), options),
            rewriter,
            commit: options.commit,
            segment_age_ms_max: i64::try_from(options.segment_age_max.as_millis()).unwrap_or(i64::MAX),
            running: Mutex::new(()),
            parts,
        }
    }

    /// Runs the maintenance thread until the log is closed or fails.
    pub(crate) fn run(&self) {
        let pause = match self.commit {
            CommitPolicy::Interval(interval) => interval.clamp(Duration::from_millis(1), PAUSE_MAX),
            CommitPolicy::Always | CommitPolicy::Os => PAUSE_MAX,
        };
        // Closed segments that cannot be sealed now are no reason to hurry.
        while self.parts.sealing.wait(pause, || self.background.may_try(BackgroundTask::Sealing)) {
            // A failure has ended the log and was logged where it happened.
            if self.pass().is_err() {
                return;
            }
        }
    }

    /// Makes one pass.
    pub(crate) fn pass(&self) -> Result<(), LogError> {
        if let Some(failure) = self.parts.intake.failure() {
            return Err(failure);
        }
        let _running = self.lock();
        self.parts.allocator.prepare_spare();
        self.parts.space.check();
        self.parts.space.keep();
        self.sync_if_due()?;
        self.sealer.seal_closed()?;
        self.roll_if_old()?;
        let rewrote = self.rewriter.is_ready() && (self.cleaner.clean()? | self.compactor.compact()?);
        let wants = rewrote
            || self.checkpointer.is_due()
            || self.parts.read.segments.is_any_dead()
            || self.background.is_due(BackgroundTask::CheckpointCopy);
        self.checkpointer.remove_left();
        if wants && self.background.may_try(BackgroundTask::Checkpoint) {
            self.reclaim()?;
        }
        self.publish_sizes();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.running.lock()
    }

    /// Takes a checkpoint and removes segments without live data. False if the checkpoint was put off. One that found no
    /// space is tried again with the space that is kept for it.
    fn reclaim(&self) -> Result<bool, LogError> {
        let mut is_taken = self.checkpointer.reclaim()?;
        if !is_taken && self.parts.space.is_short() && self.parts.space.give_up_kept() {
            is_taken = self.checkpointer.reclaim()?;
        }
        self.parts.space.check();
        Ok(is_taken)
    }

    /// Takes a checkpoint and removes segments without live data. False if the checkpoint was put off.
    pub(crate) fn checkpoint(&self) -> Result<bool, LogError> {
        let _running = self.lock();
        self.sealer.seal_closed()?;
        self.reclaim()
    }

    /// Compacts streams, and takes a checkpoint if there were any.
    pub(crate) fn compact(&self) -> Result<bool, LogError> {
        let _running = self.lock();
        self.sealer.seal_closed()?;
        let compacted = self.compactor.compact()?;
        if compacted {
            self.reclaim()?;
        }
        Ok(compacted)
    }

    /// Cleans one set of segments, and takes a checkpoint if there was any.
    pub(crate) fn clean(&self) -> Result<bool, LogError> {
        let _running = self.lock();
        self.sealer.seal_closed()?;
        let cleaned = self.cleaner.clean()?;
        if cleaned {
            self.reclaim()?;
        }
        Ok(cleaned)
    }

    /// Seals closed segments and takes the last checkpoint of a log that is shut down.
    pub(crate) fn shut_down(&self) -> Result<(), LogError> {
        self.sealer.seal_closed()?;
        if !self.checkpointer.take(&[])? {
            // Without a checkpoint the next start replays more; everything must be on the medium as well.
            let submitted = self.parts.intake.lock().submitted();
            self.parts.durability.make_durable(submitted)?;
        }
        Ok(())
    }

    /// Takes a checkpoint, copies it into a file, and holds all segment files until [`Maintenance::end_backup`]. Returns the
    /// segments that are sealed in the checkpoint.
    pub(crate) fn begin_backup(&self, copy: &str) -> Result<Vec<SegmentId>, BackupError> {
        let _running = self.lock();
        if self.checkpointer.is_held.swap(true, Ordering::AcqRel) {
            return Err(BackupError::Running);
        }
        let begun = self.copy_checkpoint(copy);
        if begun.is_err() {
            self.end_backup();
        }
        begun
    }

    fn copy_checkpoint(&self, copy: &str) -> Result<Vec<SegmentId>, BackupError> {
        self.sealer.seal_closed()?;
        if let Some(reason) = self.background.reason(BackgroundTask::Sealing) {
            return Err(BackupError::PutOff(reason));
        }
        if !self.reclaim()? {
            return Err(BackupError::PutOff(
                self.background.reason(BackgroundTask::Checkpoint).unwrap_or_default(),
            ));
        }
        self.checkpointer.copy_to(copy)?;
        let segments = self.parts.read.segments.list();
        Ok(segments.iter().filter(|segment| segment.is_sealed()).map(|segment| segment.id).collect())
    }

    /// Lets segment files be removed again.
    pub(crate) fn end_backup(&self) {
        self.checkpointer.is_held.store(false, Ordering::Release);
    }

    /// The segments that were not written by the cleaner, in order.
    pub(crate) fn log_segments(&self) -> Vec<SegmentId> {
        let mut ids: Vec<SegmentId> =
            self.parts.read.segments.list().iter().map(|segment| segment.id).collect();
        ids.retain(|id| !id.is_cleaned());
        ids.sort_unstable();
        ids
    }

    pub(crate) fn committed(&self) -> u64 {
        self.parts.intake.marks.committed()
    }

    pub(crate) fn medium(&self) -> Arc<dyn Medium> {
        self.parts.medium.clone()
    }

    pub(crate) fn log_id(&self) -> u128 {
        self.parts.log_id
    }

    fn sync_if_due(&self) -> Result<(), LogError> {
        let unsynced = self.parts.durability.unsynced_bytes();
        let is_due = match self.commit {
            CommitPolicy::Always => false,
            CommitPolicy::Interval(_) => unsynced > 0,
            CommitPolicy::Os => unsynced > UNSYNCED_BYTES_MAX,
        };
        if is_due { self.parts.durability.sync_written().map(drop) } else { Ok(()) }
    }

    /// Closes an old segment, so that what was trimmed in it can be reclaimed, and compaction reaches it.
    fn roll_if_old(&self) -> Result<(), LogError> {
        let Some(active) = self.parts.allocator.active() else { return Ok(()) };
        let created_ms = active.segment.known_created_ms().unwrap_or_default();
        let age_ms = self.parts.clock.now_ms().saturating_sub(created_ms);
        if age_ms < self.segment_age_ms_max && !self.compactor.must_close(&active.segment) {
            return Ok(());
        }
        let rolls = self.parts.intake.lock().request_roll(active.segment.base);
        if !rolls {
            return Ok(());
        }
        match self.parts.intake.submit(Entry::new()) {
            Ok(submitted) => self.parts.waiter.wait(submitted.lsn.0),
            Err(SubmitError::Log(LogError::Closed)) => Ok(()),
            Err(SubmitError::Log(error)) => Err(error),
            Err(_) => Ok(()),
        }
    }

    fn publish_sizes(&self) {
        let (segments, disk_bytes) = self.parts.read.segments.totals();
        let directory = &self.parts.intake.directory;
        self.parts.metrics.set_sizes(&Sizes {
            segments,
            disk_bytes,
            streams: directory.streams.len() as u64,
            cursors: directory.cursors.len() as u64,
            checkpoint_age: self.checkpointer.age(),
            checkpoint_files: 1 + u64::from(self.checkpointer.is_mirrored()),
        });
    }
}
