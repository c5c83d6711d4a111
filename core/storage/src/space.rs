//! Free space of the medium: what is kept for consumers, and when publishers are held back.
//!
//! The log takes space a segment at a time, so the free space is checked whenever one is created, and once a second
//! because others may use the same disk. A small file is kept as well: it is given up when a checkpoint finds no space,
//! because without checkpoints no segment could be removed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::gate::{Gate, Shortage};
use crate::medium::{FreeSpace, Medium};
use crate::options::LogOptions;

/// The default of `free_bytes_min`: the larger of this and a share of the disk …
const FREE_BYTES_MIN: u64 = 256 << 20;
/// … in parts of a hundred …
const FREE_PERCENT_MIN: u64 = 2;
/// … but no more than one part in so many of what the log could use.
const FREE_PARTS_MIN: u64 = 2;
/// A segment takes at most one part in so many of what the log could use, and an entry one in `ENTRY_PARTS`.
const SEGMENT_PARTS: u64 = 16;
const ENTRY_PARTS: u64 = 8;
/// No segment and no entry is bounded below this because of a small disk.
const FITTED_BYTES_LEAST: u64 = 1 << 20;
/// Publishers go on once this part of the bound is free beyond it.
const HYSTERESIS_PARTS: u64 = 4;
/// The file that is kept for checkpoints; as every temporary file, the next start removes it.
const KEPT_FILE: &str = "kept-space.tmp";
const KEPT_BYTES_MAX: u64 = 4 << 20;
const KEPT_BYTES_LEAST: u64 = 64 << 10;
/// It takes one part in so many of the bound.
const KEPT_PARTS: u64 = 8;

/// Whether an operation failed for lack of space.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Fits options to a small disk: a segment and an entry take a part of what the log could use at most.
pub(crate) fn fit(options: &LogOptions, medium: &dyn Medium) -> io::Result<LogOptions> {
    let mut fitted = options.clone();
    let Some(space) = medium.free_space()? else { return Ok(fitted) };
    let usable = usable_bytes(space, medium)?;
    let part = |parts: u64| (usable / parts).max(FITTED_BYTES_LEAST);
    fitted.segment_bytes_max = options.segment_bytes_max.min(part(SEGMENT_PARTS));
    fitted.entry_bytes_max =
        options.entry_bytes_max.min(usize::try_from(part(ENTRY_PARTS)).unwrap_or(usize::MAX));
    let default = FREE_BYTES_MIN.max(space.size / 100 * FREE_PERCENT_MIN).min(usable / FREE_PARTS_MIN);
    fitted.free_bytes_min = Some(options.free_bytes_min.unwrap_or(default));
    Ok(fitted)
}

/// What is free, and what the log has already: a restart with a full disk changes nothing.
fn usable_bytes(space: FreeSpace, medium: &dyn Medium) -> io::Result<u64> {
    let own = medium.list()?.iter().map(|name| medium.file_bytes(name).unwrap_or(0)).sum::<u64>();
    Ok(space.free.saturating_add(own).min(space.size))
}

/// The free space of a log's disk.
pub(crate) struct DiskSpace {
    medium: Arc<dyn Medium>,
    pub(crate) gate: Arc<Gate>,
    /// Publishers are held back while less is free.
    pub(crate) free_bytes_min: u64,
    /// What was free when it was checked last.
    free_bytes: AtomicU64,
    size_bytes: AtomicU64,
    /// A segment file could not be created for lack of space.
    is_out: AtomicBool,
    /// Whether space is kept for a checkpoint.
    is_kept: Mutex<bool>,
}

impl DiskSpace {
    /// `options` as [`fit`] returned them.
    pub(crate) fn new(medium: Arc<dyn Medium>, options: &LogOptions) -> Self {
        Self {
            medium,
            gate: Arc::default(),
            free_bytes_min: options.free_bytes_min.unwrap_or(0),
            free_bytes: AtomicU64::new(u64::MAX),
            size_bytes: AtomicU64::new(u64::MAX),
            is_out: AtomicBool::new(false),
            is_kept: Mutex::new(false),
        }
    }

    /// What was free when it was checked last; none if the medium does not say.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        Some(self.free_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes != u64::MAX)
    }

    /// How large the disk was when it was checked last; none if the medium does not say.
    pub(crate) fn size_bytes(&self) -> Option<u64> {
        Some(self.size_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes != u64::MAX)
    }

    /// Notes the outcome of the creation of a segment file.
    pub(crate) fn created<T>(&self, outcome: &io::Result<T>) {
        self.is_out.store(outcome.as_ref().err().is_some_and(is_full), Ordering::Relaxed);
        self.check();
    }

    /// Looks at the free space, and shuts or opens the gate.
    pub(crate) fn check(&self) {
        // A disk that does not answer this is reported by what fails on it.
        let space = self.medium.free_space().ok().flatten();
        let free = space.as_ref().map(|space| space.free);
        self.size_bytes.store(space.map_or(u64::MAX, |space| space.size), Ordering::Relaxed);
        self.free_bytes.store(free.unwrap_or(u64::MAX), Ordering::Relaxed);
        let min = self.free_bytes_min;
        let is_short = self.gate.is_short(Shortage::Disk);
        let bound = if is_short { min + min / HYSTERESIS_PARTS } else { min };
        let is_out = self.is_out.load(Ordering::Relaxed);
        let is_short = is_out || free.is_some_and(|free| free < bound);
        if self.gate.set(Shortage::Disk, is_short) {
            let free = free.unwrap_or_default();
            if is_short {
                tracing::warn!(
                    free,
                    min,
                    is_out,
                    "disk is low: publishers are held back until there is space"
                );
            } else {
                tracing::info!(free, min, "disk has space again: publishers go on");
            }
        }
    }

    /// Whether publishers are held back for lack of space.
    pub(crate) fn is_short(&self) -> bool {
        self.gate.is_short(Shortage::Disk)
    }

    /// Keeps space for a checkpoint, unless there is too little.
    pub(crate) fn keep(&self) {
        let mut is_kept = self.is_kept.lock();
        let bytes = (self.free_bytes_min / KEPT_PARTS).min(KEPT_BYTES_MAX);
        if *is_kept || bytes < KEPT_BYTES_LEAST || self.free_bytes().is_none_or(|free| free < bytes * 2) {
            return;
        }
        let kept = self.medium.create(KEPT_FILE).and_then(|file| file.allocate(bytes));
        *is_kept = kept.is_ok();
        if let Err(error) = kept {
            tracing::debug!(%error, "no space is kept for a checkpoint");
            let _ = self.medium.remove(KEPT_FILE);
        }
    }

    /// Gives up the space that is kept. False if there was none.
    pub(crate) fn give_up_kept(&self) -> bool {
        std::mem::take(&mut *self.is_kept.lock()) && self.medium.remove(KEPT_FILE).is_ok()
    }
}
