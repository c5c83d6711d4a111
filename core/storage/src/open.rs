//! Opening a log: recovery, then the parts that make it run, each with what it needs.

use std::sync::{Arc, OnceLock};

use crate::allocator::SegmentAllocator;
use crate::clock::Clock;
use crate::durability::Durability;
use crate::error::OpenError;
use crate::intake::Intake;
use crate::maintenance::{Checkpointer, CheckpointerParts, Maintenance, MaintenanceParts};
use crate::medium::Medium;
use crate::memory::Memory;
use crate::metrics::LogMetrics;
use crate::options::LogOptions;
use crate::read::ReadPath;
use crate::recovery;
use crate::sealing::SealQueue;
use crate::space::{self, DiskSpace};
use crate::stream::Listener;
use crate::waiter::CommitWaiter;
use crate::writer::{Writer, WriterParts};

/// Identity of every log without threads, because a simulation has to be repeatable.
const SIMULATED_LOG_ID: u128 = 1;

/// The parts of an open log.
pub(crate) struct OpenLog {
    pub(crate) intake: Arc<Intake>,
    pub(crate) read: Arc<ReadPath>,
    pub(crate) allocator: Arc<SegmentAllocator>,
    pub(crate) sealing: Arc<SealQueue>,
    pub(crate) space: Arc<DiskSpace>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) waiter: Arc<CommitWaiter>,
    pub(crate) durability: Arc<Durability>,
    pub(crate) maintenance: Arc<Maintenance>,
    pub(crate) metrics: Arc<LogMetrics>,
    /// Called when a watched stream grew above its bounds.
    pub(crate) overflow: Arc<OnceLock<Arc<dyn Listener>>>,
    /// The writer for a thread of its own; `None` in a log without threads.
    pub(crate) writer: Option<Writer>,
    /// Taken by the log's handle.
    pub(crate) folder_lock: Option<Box<dyn Send + Sync>>,
}

/// Opens a log and recovers its committed entries. `has_threads`: the caller runs the writer and maintenance on threads.
pub(crate) fn open(
    medium: Arc<dyn Medium>,
    clock: Arc<dyn Clock>,
    options: &LogOptions,
    has_threads: bool,
) -> Result<OpenLog, OpenError> {
    options.check()?;
    let new_log_id = if has_threads { uuid::Uuid::new_v4().as_u128() } else { SIMULATED_LOG_ID };
    let fitted = space::fit(options, medium.as_ref()).map_err(OpenError::io("look at the free space"))?;
    let options = &fitted;
    let space = Arc::new(DiskSpace::new(medium.clone(), options));
    let log = recovery::recover(&medium, &clock, options, &space, new_log_id)?;
    space.check();
    let of_clock = clock.clone();
    let memory_limit = options.memory_limit.unwrap_or(usize::MAX);
    let memory = Memory::new(memory_limit, space.gate.clone(), move || of_clock.monotonic());
    let (intake, read, allocator, sealing) = (log.intake, log.read, log.allocator, log.sealing);
    let metrics = Arc::new(LogMetrics::new());
    let overflow = Arc::new(OnceLock::new());
    let writer_parts = WriterParts {
        overflow: overflow.clone(),
        intake: intake.clone(),
        allocator: allocator.clone(),
        sealing: sealing.clone(),
        metrics: metrics.clone(),
        memory: memory.clone(),
        clock: clock.clone(),
    };
    let writer = Writer::new(writer_parts, medium.clone(), options, log.active, log.position);
    let (writer, waiter) = match has_threads {
        true => (Some(writer), CommitWaiter::parking(intake.clone())),
        false => (None, CommitWaiter::stepping(intake.clone(), writer)),
    };
    let waiter = Arc::new(waiter);
    let durability =
        Durability::new(intake.clone(), allocator.clone(), waiter.clone(), metrics.clone(), clock.clone());
    let parts = MaintenanceParts {
        log_id: log.log_id,
        medium,
        clock,
        intake: intake.clone(),
        read: read.clone(),
        allocator: allocator.clone(),
        sealing: sealing.clone(),
        waiter: waiter.clone(),
        durability: Arc::new(durability),
        space: space.clone(),
        metrics: metrics.clone(),
    };
    let durability = parts.durability.clone();
    let checkpointer = Checkpointer::new(checkpointer_parts(&parts, options), log.store, log.checkpoint_lsn);
    let maintenance = Arc::new(Maintenance::new(parts, checkpointer, options));
    let folder_lock = Some(log.folder_lock);
    Ok(OpenLog {
        intake,
        read,
        allocator,
        sealing,
        space,
        memory,
        waiter,
        durability,
        maintenance,
        metrics,
        overflow,
        writer,
        folder_lock,
    })
}

fn checkpointer_parts(parts: &MaintenanceParts, options: &LogOptions) -> CheckpointerParts {
    CheckpointerParts {
        log_id: parts.log_id,
        medium: parts.medium.clone(),
        clock: parts.clock.clone(),
        intake: parts.intake.clone(),
        read: parts.read.clone(),
        waiter: parts.waiter.clone(),
        durability: parts.durability.clone(),
        metrics: parts.metrics.clone(),
        interval: options.checkpoint_interval,
        bytes_max: options.checkpoint_bytes,
    }
}
