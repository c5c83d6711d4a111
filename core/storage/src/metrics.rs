//! Metrics of a log: counters for [`crate::LogStats`], and the same values published through the `metrics` facade.
//!
//! Everything is recorded once per commit group or per background task, never per entry. Names carry their unit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

/// Time from the submission of a group's first entry to the group's commit.
const COMMIT_SECONDS: &str = "inver_log_commit_seconds";
/// Time of one sync of a segment file.
const SYNC_SECONDS: &str = "inver_log_sync_seconds";
/// Entries committed with one write and, under `always`, one sync.
const GROUP_ENTRIES: &str = "inver_log_group_entries";
/// Bytes of the entries of one group.
const GROUP_BYTES: &str = "inver_log_group_bytes";
/// Entries submitted and not yet committed, sampled once per group.
const QUEUE_ENTRIES: &str = "inver_log_queue_entries";
const ENTRIES: &str = "inver_log_entries_total";
const BYTES: &str = "inver_log_bytes_total";
const CHECKPOINTS: &str = "inver_log_checkpoints_total";
const CHECKPOINTS_PUT_OFF: &str = "inver_log_checkpoints_put_off_total";
const RECLAIMED_SEGMENTS: &str = "inver_log_reclaimed_segments_total";
const RECLAIMED_BYTES: &str = "inver_log_reclaimed_bytes_total";
const CLEANED_SEGMENTS: &str = "inver_log_cleaned_segments_total";
const COMPACTIONS: &str = "inver_log_compactions_total";
const SEGMENTS: &str = "inver_log_segments";
const DISK_BYTES: &str = "inver_log_disk_bytes";
const STREAMS: &str = "inver_log_streams";
const CURSORS: &str = "inver_log_cursors";
const CHECKPOINT_AGE_SECONDS: &str = "inver_log_checkpoint_age_seconds";
const CHECKPOINT_FILES: &str = "inver_log_checkpoint_files";

/// A counter that can be read back.
pub(crate) struct Total {
    value: AtomicU64,
    published: Counter,
}

impl Total {
    fn new(published: Counter) -> Self {
        Self { value: AtomicU64::new(0), published }
    }

    pub(crate) fn add(&self, count: u64) {
        self.value.fetch_add(count, Ordering::Relaxed);
        self.published.increment(count);
    }

    pub(crate) fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// Values counted since the log was opened.
pub(crate) struct LogMetrics {
    pub(crate) entries: Total,
    pub(crate) bytes: Total,
    pub(crate) groups: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) checkpoints: Total,
    pub(crate) checkpoints_put_off: Total,
    pub(crate) reclaimed_segments: Total,
    pub(crate) reclaimed_bytes: Total,
    pub(crate) cleaned_segments: Total,
    pub(crate) compactions: Total,
    /// As the writer left it after the last group.
    pub(crate) tail_cache_bytes: AtomicU64,
    commit_seconds: Histogram,
    sync_seconds: Histogram,
    group_entries: Histogram,
    group_bytes: Histogram,
    queue_entries: Histogram,
    gauges: Gauges,
}

struct Gauges {
    segments: Gauge,
    disk_bytes: Gauge,
    streams: Gauge,
    cursors: Gauge,
    checkpoint_age_seconds: Gauge,
    checkpoint_files: Gauge,
}

/// Values of the gauges, sampled once per maintenance pass.
pub(crate) struct Sizes {
    pub(crate) segments: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) streams: u64,
    pub(crate) cursors: u64,
    pub(crate) checkpoint_age: Duration,
    pub(crate) checkpoint_files: u64,
}

impl LogMetrics {
    /// Takes handles of the recorder that is installed now.
    pub(crate) fn new() -> Self {
        describe();
        Self {
            entries: Total::new(counter!(ENTRIES)),
            bytes: Total::new(counter!(BYTES)),
            groups: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            checkpoints: Total::new(counter!(CHECKPOINTS)),
            checkpoints_put_off: Total::new(counter!(CHECKPOINTS_PUT_OFF)),
            reclaimed_segments: Total::new(counter!(RECLAIMED_SEGMENTS)),
            reclaimed_bytes: Total::new(counter!(RECLAIMED_BYTES)),
            cleaned_segments: Total::new(counter!(CLEANED_SEGMENTS)),
            compactions: Total::new(counter!(COMPACTIONS)),
            tail_cache_bytes: AtomicU64::new(0),
            commit_seconds: histogram!(COMMIT_SECONDS),
            sync_seconds: histogram!(SYNC_SECONDS),
            group_entries: histogram!(GROUP_ENTRIES),
            group_bytes: histogram!(GROUP_BYTES),
            queue_entries: histogram!(QUEUE_ENTRIES),
            gauges: Gauges {
                segments: gauge!(SEGMENTS),
                disk_bytes: gauge!(DISK_BYTES),
                streams: gauge!(STREAMS),
                cursors: gauge!(CURSORS),
                checkpoint_age_seconds: gauge!(CHECKPOINT_AGE_SECONDS),
                checkpoint_files: gauge!(CHECKPOINT_FILES),
            },
        }
    }

    /// Counts a group, before its waiting tasks are woken.
    pub(crate) fn committed(&self, entries: u64, bytes: u64) {
        self.entries.add(entries);
        self.bytes.add(bytes);
        self.groups.fetch_add(1, Ordering::Relaxed);
    }

    /// Records a group in the histograms, after its waiting tasks were woken. `queued`: entries submitted and not yet
    /// committed before the commit, this group included.
    pub(crate) fn observe_group(&self, entries: u64, bytes: u64, queued: u64, latency: Duration) {
        self.commit_seconds.record(latency);
        self.group_entries.record(entries as f64);
        self.group_bytes.record(bytes as f64);
        self.queue_entries.record(queued as f64);
    }

    /// Records a sync of a segment file.
    pub(crate) fn synced(&self, latency: Duration) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_seconds.record(latency);
    }

    /// Publishes the gauges.
    pub(crate) fn set_sizes(&self, sizes: &Sizes) {
        self.gauges.segments.set(sizes.segments as f64);
        self.gauges.disk_bytes.set(sizes.disk_bytes as f64);
        self.gauges.streams.set(sizes.streams as f64);
        self.gauges.cursors.set(sizes.cursors as f64);
        self.gauges.checkpoint_age_seconds.set(sizes.checkpoint_age.as_secs_f64());
        self.gauges.checkpoint_files.set(sizes.checkpoint_files as f64);
    }
}

fn describe() {
    use Unit::{Bytes, Count, Seconds};
    describe_histogram!(
        COMMIT_SECONDS,
        Seconds,
        "Time from the submission of a commit group's first entry to its commit."
    );
    describe_histogram!(SYNC_SECONDS, Seconds, "Time of one sync of a segment file.");
    describe_histogram!(GROUP_ENTRIES, Count, "Entries per commit group.");
    describe_histogram!(GROUP_BYTES, Bytes, "Bytes per commit group.");
    describe_histogram!(
        QUEUE_ENTRIES,
        Count,
        "Entries submitted and not yet committed, sampled at each commit group."
    );
    describe_counter!(ENTRIES, Count, "Entries committed.");
    describe_counter!(BYTES, Bytes, "Bytes of entries committed.");
    describe_counter!(CHECKPOINTS, Count, "Checkpoints taken.");
    describe_counter!(CHECKPOINTS_PUT_OFF, Count, "Attempts of a checkpoint that could not be written.");
    describe_counter!(RECLAIMED_SEGMENTS, Count, "Segment files removed because they held no live data.");
    describe_counter!(RECLAIMED_BYTES, Bytes, "Bytes of removed segment files.");
    describe_counter!(CLEANED_SEGMENTS, Count, "Segment files rewritten by the cleaner.");
    describe_counter!(COMPACTIONS, Count, "Compactions of a stream by key.");
    describe_gauge!(SEGMENTS, Count, "Segment files.");
    describe_gauge!(DISK_BYTES, Bytes, "Bytes of segment files, reserved space included.");
    describe_gauge!(STREAMS, Count, "Streams of the log.");
    describe_gauge!(CURSORS, Count, "Cursors of the log.");
    describe_gauge!(CHECKPOINT_AGE_SECONDS, Seconds, "Time since the last checkpoint.");
    describe_gauge!(
        CHECKPOINT_FILES,
        Count,
        "Files that hold the last checkpoint: 2, or 1 while the other one is missing."
    );
}
