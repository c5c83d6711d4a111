//! Statistics of a log: counters since it was opened, and current sizes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::open::OpenLog;

/// Counters since the log was opened, and its current sizes. The same values are published through the `metrics` facade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Entries committed.
    pub entries: u64,
    /// Bytes of entries committed.
    pub bytes: u64,
    /// Commit groups written.
    pub groups: u64,
    /// Syncs of segment files.
    pub syncs: u64,
    /// Checkpoints taken.
    pub checkpoints: u64,
    /// Attempts of a checkpoint that could not be written and were put off.
    pub checkpoints_put_off: u64,
    /// Segment files removed because they held no live data.
    pub reclaimed_segments: u64,
    /// Bytes of these files.
    pub reclaimed_bytes: u64,
    /// Segment files rewritten by the cleaner.
    pub cleaned_segments: u64,
    /// Compactions of a stream by key.
    pub compactions: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes of segment files, reserved space included.
    pub disk_bytes: u64,
    /// Streams.
    pub streams: u64,
    /// Cursors.
    pub cursors: u64,
    /// Bytes submitted and not yet committed.
    pub queued_bytes: u64,
    /// Entries submitted and not yet committed.
    pub queued_entries: u64,
    /// Bytes of the tail cache.
    pub tail_cache_bytes: u64,
    /// Bytes of the index cache.
    pub index_cache_bytes: u64,
    /// Bytes of read buffers that nobody uses.
    pub idle_read_buffer_bytes: u64,
    /// Time since the last checkpoint, or since the start.
    pub checkpoint_age: Duration,
}

impl LogStats {
    pub(crate) fn of(log: &OpenLog) -> Self {
        let (metrics, directory) = (&log.metrics, &log.intake.directory);
        let (segments, disk_bytes) = log.read.segments.totals();
        LogStats {
            entries: metrics.entries.get(),
            bytes: metrics.bytes.get(),
            groups: metrics.groups.load(Ordering::Relaxed),
            syncs: metrics.syncs.load(Ordering::Relaxed),
            checkpoints: metrics.checkpoints.get(),
            checkpoints_put_off: metrics.checkpoints_put_off.get(),
            reclaimed_segments: metrics.reclaimed_segments.get(),
            reclaimed_bytes: metrics.reclaimed_bytes.get(),
            cleaned_segments: metrics.cleaned_segments.get(),
            compactions: metrics.compactions.get(),
            segments,
            disk_bytes,
            streams: directory.streams.len() as u64,
            cursors: directory.cursors.len() as u64,
            queued_bytes: log.intake.queued_bytes() as u64,
            queued_entries: log.intake.queued_entries() as u64,
            tail_cache_bytes: metrics.tail_cache_bytes.load(Ordering::Relaxed),
            index_cache_bytes: log.read.index_cache_bytes(),
            idle_read_buffer_bytes: log.read.idle_buffer_bytes(),
            checkpoint_age: log.maintenance.checkpointer.age(),
        }
    }
}
