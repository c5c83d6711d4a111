//! Options of a log, with every bound named.

use std::time::Duration;

use crate::error::OpenError;

/// The largest segment whose positions fit the index, with room for one entry beyond the bound.
const SEGMENT_BYTES_LIMIT: u64 = 2 << 30;
/// Bytes at which the first segment is closed, if the configured size is not smaller.
const SEGMENT_BYTES_FIRST: u64 = 8 << 20;
const SEGMENT_BYTES_LEAST: u64 = 4096;

/// Bytes at which the segment at a position is closed. The first segments are small, so that a small log takes little
/// space: each may become as large as the log before it, up to the configured size.
pub(crate) fn segment_bytes_at(base: u64, segment_bytes_max: u64) -> u64 {
    base.max(SEGMENT_BYTES_FIRST).min(segment_bytes_max)
}

/// When an append counts as committed, i.e. when acknowledgements for it may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitPolicy {
    /// Written and synced. Survives the loss of power.
    Always,
    /// Written; synced at least this often. Survives the end of the process; a loss of power loses at most the writes
    /// of this interval.
    Interval(Duration),
    /// Written; the operating system decides when to sync. Survives the end of the process.
    Os,
}

/// The bounds and settings of a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The commit policy. Default: `Always`.
    pub commit: CommitPolicy,
    /// Bytes of entries at which a segment file is closed. The first ones are closed earlier, from 8 MiB on. Default 128 MiB,
    /// at most 2 GiB.
    pub segment_bytes_max: u64,
    /// Age at which a segment that holds any entry is closed. Default 1 hour.
    pub segment_age_max: Duration,
    /// Bytes of the largest entry, i.e. the sum of its parts. Default 128 MiB.
    pub entry_bytes_max: usize,
    /// Memory for recently appended batches, so that tailing readers never touch the disk. Default 64 MiB.
    pub tail_cache_bytes_max: usize,
    /// Bytes submitted and not yet committed above which [`crate::Log::admit`] holds callers back. Default 32 MiB.
    pub submit_bytes_max: usize,
    /// Entries submitted and not yet committed above which [`crate::Log::admit`] holds callers back. Default 65,536.
    pub submit_entries_max: usize,
    /// Time that acknowledgements without a waiting caller are gathered before they are written. Default 3 ms.
    pub ack_linger: Duration,
    /// Time between checkpoints. Default 30 s.
    pub checkpoint_interval: Duration,
    /// Bytes of log after which a checkpoint is taken as well; bounds the time of recovery. Default 256 MiB.
    pub checkpoint_bytes: u64,
    /// Memory for index blocks of sealed segments. Default 16 MiB.
    pub index_cache_bytes_max: usize,
    /// Memory for file reads that is kept for reuse. Default 8 MiB.
    pub read_buffers_bytes_max: usize,
    /// Memory of the checkpoint store's page cache. Default 16 MiB.
    pub checkpoint_cache_bytes_max: usize,
    /// Segment files kept open for reading. Default 256.
    pub open_files_max: usize,
    /// Idempotent producers remembered per stream; beyond it the longest idle one is forgotten. Default 4,096.
    pub producers_per_stream_max: usize,
    /// Idle time after which an idempotent producer is forgotten when room is needed. Default 7 days.
    pub producer_expiry: Duration,
    /// Transactions known per stream: open, or aborted with records that are kept; further ones are refused. Default 100,000.
    pub transactions_per_stream_max: usize,
    /// Free bytes of the disk below which publishers are held back by [`crate::Log::gate`]; what is left is for consumers,
    /// acknowledgements and removals. Default (`None`): the larger of 256 MiB and 2 % of the disk, at most half of what
    /// the log could use.
    pub free_bytes_min: Option<u64>,
    /// Bytes of memory that clients can make the layers above hold, see [`crate::Memory`]. Default (`None`): without a bound.
    pub memory_limit: Option<usize>,
    /// Whether disk space of a segment is reserved when it is created, so that appends do not run out of space and syncs
    /// stay cheap. Default true.
    pub preallocate: bool,
    /// Under `Always`, groups of up to this many bytes are written with `O_DIRECT`, where the file system supports it and
    /// space is reserved (`preallocate`): that makes a sync cheap. 0 turns it off. Default 256 KiB.
    pub direct_bytes_max: usize,
    /// Keys that one compaction of a stream keeps in memory (48 bytes each); records beyond the last of them are left to
    /// the next compaction. Default 1,000,000.
    pub compaction_keys_max: usize,
    /// Share of live bytes (percent) below which the cleaner rewrites a sealed segment. Default 30.
    pub clean_live_percent_max: u32,
    /// Separate places per stream, on average, from which on the cleaner sorts a sealed segment, so that reading one
    /// stream does not seek. 0: never. Default 64.
    pub clean_places_min: u32,
    /// Age before which a segment is not sorted: most of its content may be trimmed by then. Default 10 minutes.
    pub clean_places_age: Duration,
}

impl LogOptions {
    /// Rejects options that the format cannot represent.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        if !(SEGMENT_BYTES_LEAST..=SEGMENT_BYTES_LIMIT).contains(&self.segment_bytes_max) {
            let range = format!("segment_bytes_max must be {SEGMENT_BYTES_LEAST} to {SEGMENT_BYTES_LIMIT}");
            return Err(OpenError::Option(range));
        }
        if self.entry_bytes_max as u64 > SEGMENT_BYTES_LIMIT - (1 << 20) {
            return Err(OpenError::Option(format!(
                "entry_bytes_max must be less than {SEGMENT_BYTES_LIMIT}"
            )));
        }
        Ok(())
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            commit: CommitPolicy::Always,
            segment_bytes_max: 128 << 20,
            segment_age_max: Duration::from_secs(3600),
            entry_bytes_max: 128 << 20,
            tail_cache_bytes_max: 64 << 20,
            submit_bytes_max: 32 << 20,
            submit_entries_max: 65_536,
            ack_linger: Duration::from_millis(3),
            checkpoint_interval: Duration::from_secs(30),
            checkpoint_bytes: 256 << 20,
            index_cache_bytes_max: 16 << 20,
            read_buffers_bytes_max: 8 << 20,
            checkpoint_cache_bytes_max: 16 << 20,
            open_files_max: 256,
            producers_per_stream_max: 4_096,
            producer_expiry: Duration::from_secs(7 * 24 * 3600),
            transactions_per_stream_max: 100_000,
            free_bytes_min: None,
            memory_limit: None,
            preallocate: true,
            direct_bytes_max: 256 << 10,
            compaction_keys_max: 1_000_000,
            clean_live_percent_max: 30,
            clean_places_min: 64,
            clean_places_age: Duration::from_secs(600),
        }
    }
}
