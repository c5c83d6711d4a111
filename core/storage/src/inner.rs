//! What the handles of a log share.
//!
//! Locks, in the order in which they may be taken: cursors (by id) → intake → compacted, producers of a stream → state of a
//! stream → segments. The writer's own state is locked by whoever drives it, before all of these.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::checkpoint::CheckpointStore;
use crate::clock::Clock;
use crate::compaction::Compacted;
use crate::cursor::CursorInner;
use crate::error::LogError;
use crate::index_cache::IndexCache;
use crate::medium::{Medium, MediumFile};
use crate::options::LogOptions;
use crate::read_buffers::ReadBuffers;
use crate::registry::Registry;
use crate::segments::{Segment, Segments};
use crate::stream::StreamInner;
use crate::submit::Pending;
use crate::watermarks::Watermarks;
use crate::writer::Writer;

/// Made when the log failed: what the page cache holds may not be what the medium has.
pub(crate) const FAILED_FILE: &str = "failed";

/// The segment that is being appended to, and its file.
pub(crate) type CurrentSegment = (Arc<Segment>, Arc<dyn MediumFile>);

pub(crate) struct Inner {
    pub(crate) me: Weak<Inner>,
    pub(crate) options: LogOptions,
    pub(crate) medium: Arc<dyn Medium>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) log_id: u128,
    pub(crate) intake: Mutex<Intake>,
    pub(crate) intake_ready: Condvar,
    /// Submitted and not yet committed.
    pub(crate) queued_bytes: AtomicUsize,
    pub(crate) queued_entries: AtomicUsize,
    pub(crate) marks: Watermarks,
    /// Acknowledgements are being gathered for which the writer has not been called.
    pub(crate) are_acks_lingering: AtomicBool,
    pub(crate) streams: Registry<StreamInner>,
    pub(crate) cursors: Registry<CursorInner>,
    pub(crate) next_stream: AtomicU64,
    pub(crate) next_cursor: AtomicU64,
    pub(crate) segments: Segments,
    pub(crate) index: IndexCache,
    pub(crate) read_buffers: ReadBuffers,
    /// The segment that is being appended to.
    pub(crate) current: Mutex<Option<CurrentSegment>>,
    pub(crate) writer: Mutex<Option<Writer>>,
    /// The medium takes no direct writes.
    pub(crate) is_direct_refused: AtomicBool,
    pub(crate) checkpoints: Mutex<Checkpoints>,
    pub(crate) chores: Mutex<Chores>,
    pub(crate) chores_ready: Condvar,
    /// Held by whoever does the chores, before all other locks.
    pub(crate) chores_at_work: Mutex<()>,
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
    /// No threads: whoever waits drives the log (the simulator).
    pub(crate) is_manual: bool,
    pub(crate) next_cleaned: AtomicU64,
    /// No cleaning before this time: a copy could not be written.
    pub(crate) cleans_from_ms: AtomicI64,
    pub(crate) compacted: Mutex<BTreeMap<u64, Compacted>>,
    pub(crate) last_checkpoint_ms: AtomicI64,
    pub(crate) counters: Counters,
    pub(crate) folder_lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

/// What was submitted and not yet taken by the writer, and what changed since the last checkpoint.
#[derive(Default)]
pub(crate) struct Intake {
    pub(crate) queue: Vec<Pending>,
    /// Acknowledgements of this commit window: cursor, start, end.
    pub(crate) acks: Vec<(u64, u64, u64)>,
    pub(crate) next_lsn: u64,
    /// Base of the segment that the next entry goes to.
    pub(crate) segment_base: u64,
    pub(crate) roll_wanted: bool,
    pub(crate) failure: Option<LogError>,
    pub(crate) is_closing: bool,
    pub(crate) writer_waits: WriterWaits,
    /// Somebody waits for the acknowledgements being gathered.
    pub(crate) are_acks_wanted: bool,
    pub(crate) dirty: Dirty,
    /// The current checkpoint round; see the `dirty_round`s.
    pub(crate) round: u32,
}

/// What the writer has to be woken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum WriterWaits {
    /// Nothing: it is at work.
    #[default]
    No,
    /// Anything.
    Idle,
    /// Anything but further acknowledgements, which it is waiting to gather.
    Lingering,
}

/// What changed since the last checkpoint.
#[derive(Default)]
pub(crate) struct Dirty {
    pub(crate) state: BTreeMap<(u16, Bytes), Option<Bytes>>,
    pub(crate) streams: Vec<Arc<StreamInner>>,
    pub(crate) cursors: Vec<Arc<CursorInner>>,
}

impl Intake {
    pub(crate) fn mark_stream(&mut self, stream: &Arc<StreamInner>) {
        if stream.dirty_round.swap(self.round, Ordering::Relaxed) != self.round {
            self.dirty.streams.push(stream.clone());
        }
    }

    pub(crate) fn mark_cursor(&mut self, cursor: &Arc<CursorInner>) {
        if cursor.dirty_round.swap(self.round, Ordering::Relaxed) != self.round {
            self.dirty.cursors.push(cursor.clone());
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.acks.is_empty()
    }
}

/// The checkpoint store and what the last checkpoint covered.
pub(crate) struct Checkpoints {
    pub(crate) store: Box<dyn CheckpointStore>,
    /// Replay starts here.
    pub(crate) lsn: u64,
}

/// What the maintenance thread has been asked for.
#[derive(Default)]
pub(crate) struct Chores {
    pub(crate) to_seal: Vec<Arc<Segment>>,
    pub(crate) is_closing: bool,
    /// A segment file made ahead of its use.
    pub(crate) spare: Option<(String, Arc<dyn MediumFile>)>,
    pub(crate) spare_number: u64,
}

/// Counted since the log was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) entries: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) reclaimed_segments: AtomicU64,
    pub(crate) cleaned_segments: AtomicU64,
    pub(crate) compactions: AtomicU64,
}

impl Inner {
    /// The log is over: what is on the medium is unknown from here on, so nothing is acknowledged any more.
    pub(crate) fn fail(&self, what: &str, error: &dyn fmt::Display) -> LogError {
        let reason = format!("{what}: {error}");
        let failure = LogError::Poisoned(Arc::from(reason.as_str()));
        {
            let mut intake = self.intake.lock();
            if let Some(earlier) = &intake.failure {
                return earlier.clone();
            }
            intake.failure = Some(failure.clone());
        }
        // Tells the next life not to believe the page cache. Nothing better can be done if this fails as well.
        let _ = self.medium.create(FAILED_FILE).and_then(|_| self.medium.sync_folder());
        tracing::error!(folder = %self.medium.describe(), %reason, "the log failed; nothing is acknowledged any more");
        self.marks.end(failure.clone());
        self.intake_ready.notify_all();
        self.chores_ready.notify_all();
        failure
    }

    pub(crate) fn failure(&self) -> Option<LogError> {
        self.marks.failure()
    }

    pub(crate) fn is_room(&self) -> bool {
        self.queued_bytes.load(Ordering::Relaxed) < self.options.submit_bytes_max
            && self.queued_entries.load(Ordering::Relaxed) < self.options.submit_entries_max
    }

    /// Syncs what was written so far, without holding up the writer. Returns the position that is durable then.
    pub(crate) fn sync_written(&self) -> Result<u64, LogError> {
        let written = self.marks.committed();
        if self.marks.durable() >= written {
            return Ok(written);
        }
        // Taken after the mark: if the writer moved on to another segment in between, it synced the earlier one.
        let current = self.current.lock().clone();
        if let Some((segment, file)) = current {
            self.counters.syncs.fetch_add(1, Ordering::Relaxed);
            file.sync().map_err(|error| self.fail(&format!("sync of {segment:?}"), &error))?;
        }
        self.marks.set_durable(written);
        Ok(written)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("folder", &self.medium.describe())
            .field("streams", &self.streams.len())
            .field("marks", &self.marks)
            .finish_non_exhaustive()
    }
}
