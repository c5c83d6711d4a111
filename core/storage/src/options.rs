//! What can be set on a log, with every bound named.

use std::time::Duration;

/// When an append counts as committed, i.e. when acknowledgements for it may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitPolicy {
    /// Written and synced. Survives the loss of power.
    Always,
    /// Written; synced at least this often. Survives the end of the process; a loss of power loses at
    /// most what was written in this time.
    Interval(Duration),
    /// Written; the operating system syncs when it likes. Survives the end of the process.
    Os,
}

/// The bounds and settings of a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// See [`CommitPolicy`]. Default: `Always`.
    pub commit: CommitPolicy,
    /// A segment file is closed when its entries would exceed this many bytes. Default 128 MiB, at most 2 GiB.
    pub segment_bytes_max: u64,
    /// A segment that holds anything is closed when it is older than this. Default 1 hour.
    pub segment_age_max: Duration,
    /// The largest entry, i.e. the sum of its parts. Default 128 MiB.
    pub entry_bytes_max: usize,
    /// Memory for recently appended batches, so that tailing readers never touch the disk. Default 64 MiB.
    pub tail_cache_bytes_max: usize,
    /// Above this many bytes submitted and not yet written, [`crate::Log::admit`] holds callers back. Default 32 MiB.
    pub submit_bytes_max: usize,
    /// The same by number of entries. Default 65,536.
    pub submit_entries_max: usize,
    /// Acknowledgements that nobody waits for may wait this long for company before they are written. Default 3 ms.
    pub ack_linger: Duration,
    /// Time between checkpoints. Default 30 s.
    pub checkpoint_interval: Duration,
    /// A checkpoint is also taken after this many bytes of log, which bounds recovery. Default 256 MiB.
    pub checkpoint_bytes: u64,
    /// Memory for index blocks of sealed segments. Default 16 MiB.
    pub index_cache_bytes_max: usize,
    /// Memory for reading files that is kept while nothing is read. Default 8 MiB.
    pub read_buffers_bytes_max: usize,
    /// Memory of the checkpoint store's page cache. Default 16 MiB.
    pub checkpoint_cache_bytes_max: usize,
    /// Segment files held open for reading. Default 256.
    pub open_files_max: usize,
    /// Idempotent producers remembered a stream; beyond it the longest idle one is forgotten. Default 4,096.
    pub producers_per_stream_max: usize,
    /// An idempotent producer idle for longer is forgotten when room is wanted. Default 7 days.
    pub producer_expiry: Duration,
    /// Disk space is reserved in one go for a new segment, so that appends meet no surprise and syncs stay
    /// cheap. Default true.
    pub preallocate: bool,
    /// Under `Always`, groups of up to this many bytes are written past the page cache, where the file system allows it
    /// and room is reserved (`preallocate`): that makes a sync cheap. 0: none. Default 256 KiB.
    pub direct_bytes_max: usize,
    /// Keys that one compaction of a stream keeps in memory (48 bytes each); what lies behind the last of them waits
    /// for the next one. Default 1,000,000.
    pub compaction_keys_max: usize,
    /// The cleaner rewrites a sealed segment of which less than this share (percent) is live. Default 30.
    pub clean_live_percent_max: u32,
    /// The cleaner also sorts a sealed segment in which the average stream lies in at least this many separate places, so
    /// that reading one stream is not reading a little here and there. 0: never. Default 64.
    pub clean_places_min: u32,
    /// Only segments older than this are sorted: most of what is in them may be gone by then. Default 10 minutes.
    pub clean_places_age: Duration,
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
            preallocate: true,
            direct_bytes_max: 256 << 10,
            compaction_keys_max: 1_000_000,
            clean_live_percent_max: 30,
            clean_places_min: 64,
            clean_places_age: Duration::from_secs(600),
        }
    }
}
