//! The intake: where entries are submitted, wait for the writer, and where callers wait for their commit.
//!
//! Owns the queue in front of the writer, the watermarks, and the failure that ends the log. Does not write: the writer
//! takes groups from here and reports their commit.
//!
//! Locks of the log, in the order in which they may be taken: maintenance → checkpoints → writer (in a log without
//! threads) → cursors (by id) → intake → compaction table, producers of a stream → state of a stream → segments.

mod acks;
mod queue;
mod submit;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

pub use self::queue::Submitted;
use self::queue::WriterWaits;
pub(crate) use self::queue::{Dirty, Group, IntakeState, Pending};
use crate::clock::Clock;
use crate::directory::Directory;
use crate::error::{FailureCause, LogError, LogFailure};
use crate::medium::Medium;
use crate::options::LogOptions;
use crate::read::ReadPath;
use crate::watermarks::Watermarks;

/// Time between two attempts to create a segment file on a disk without space.
const SPACE_PAUSE: Duration = Duration::from_millis(200);
/// Marker file of a failed log: the page cache may differ from the medium.
pub(crate) const FAILED_FILE: &str = "failed";

/// The limits of an intake.
#[derive(Clone, Copy, Debug)]
struct Limits {
    entry_bytes_max: usize,
    segment_bytes_max: u64,
    submit_bytes_max: usize,
    submit_entries_max: usize,
    ack_linger: Duration,
    producers_per_stream_max: usize,
    transactions_per_stream_max: usize,
    producer_expiry: Duration,
}

pub(crate) struct Intake {
    me: Weak<Intake>,
    limits: Limits,
    clock: Arc<dyn Clock>,
    medium: Arc<dyn Medium>,
    pub(crate) directory: Arc<Directory>,
    /// Read path of new streams.
    read: Weak<ReadPath>,
    state: Mutex<IntakeState>,
    /// Signals the writer.
    ready: Condvar,
    /// Submitted and not yet committed.
    queued_bytes: AtomicUsize,
    queued_entries: AtomicUsize,
    /// When the first entry of the group being written was submitted, in microseconds, plus one; 0: none is.
    writing_since: AtomicU64,
    /// Acknowledgements are being gathered and the writer was not woken for them.
    are_acks_lingering: AtomicBool,
    pub(crate) marks: Watermarks,
    failure: OnceLock<LogError>,
}

impl Intake {
    pub(crate) fn new(
        options: &LogOptions,
        clock: Arc<dyn Clock>,
        medium: Arc<dyn Medium>,
        directory: Arc<Directory>,
        read: &Arc<ReadPath>,
    ) -> Arc<Self> {
        let limits = Limits {
            entry_bytes_max: options.entry_bytes_max,
            segment_bytes_max: options.segment_bytes_max,
            submit_bytes_max: options.submit_bytes_max,
            submit_entries_max: options.submit_entries_max,
            ack_linger: options.ack_linger,
            producers_per_stream_max: options.producers_per_stream_max,
            transactions_per_stream_max: options.transactions_per_stream_max,
            producer_expiry: options.producer_expiry,
        };
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            limits,
            clock,
            medium,
            directory,
            read: Arc::downgrade(read),
            state: Mutex::new(IntakeState::new()),
            ready: Condvar::new(),
            queued_bytes: AtomicUsize::new(0),
            queued_entries: AtomicUsize::new(0),
            writing_since: AtomicU64::new(0),
            are_acks_lingering: AtomicBool::new(false),
            marks: Watermarks::default(),
            failure: OnceLock::new(),
        })
    }

    pub(crate) fn entry_bytes_max(&self) -> usize {
        self.limits.entry_bytes_max
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, IntakeState> {
        self.state.lock()
    }

    /// Ends the log: the content of the medium is unknown from now on, so nothing is acknowledged any more. `attempt`: an
    /// infinitive with the file's name. Returns the first failure of the log.
    pub(crate) fn fail(&self, attempt: impl Into<String>, cause: impl Into<FailureCause>) -> LogError {
        let failure =
            LogError::Poisoned(Arc::new(LogFailure { attempt: attempt.into(), cause: cause.into() }));
        if self.failure.set(failure.clone()).is_err() {
            return self.failure.get().cloned().unwrap_or(failure);
        }
        // A writer that found no failure under the lock is waiting by now, and is woken below.
        drop(self.state.lock());
        // Tells the next start not to trust the page cache. If this fails as well, nothing better can be done.
        let _ = self.medium.create(FAILED_FILE).and_then(|_| self.medium.sync_folder());
        tracing::error!(folder = %self.medium.describe(), error = %failure, "log failed");
        self.marks.end(failure.clone());
        self.ready.notify_all();
        failure
    }

    /// The error that ended the log, if any: a failure, or the shutdown.
    pub(crate) fn failure(&self) -> Option<LogError> {
        self.marks.failure()
    }

    /// An error if the log failed or is closing. Checked under the intake lock.
    fn check_open(&self, state: &IntakeState) -> Result<(), LogError> {
        if let Some(failure) = self.failure.get() {
            return Err(failure.clone());
        }
        if state.is_closing { Err(LogError::Closed) } else { Ok(()) }
    }

    /// The failure, as soon as it is known. Checked under the intake lock.
    pub(crate) fn check_failure(&self) -> Result<(), LogError> {
        self.failure.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Rejects new entries from now on and lets the writer drain the queue. False if this was done before.
    pub(crate) fn close(&self) -> bool {
        let was_closing = std::mem::replace(&mut self.state.lock().is_closing, true);
        self.ready.notify_all();
        !was_closing
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn queued_entries(&self) -> usize {
        self.queued_entries.load(Ordering::Relaxed)
    }

    /// For how long the oldest entry that is not committed has waited; zero without any.
    pub(crate) fn oldest_wait(&self) -> Duration {
        let since = match self.writing_since.load(Ordering::Relaxed) {
            0 => self.state.lock().queued_since,
            since => Some(Duration::from_micros(since - 1)),
        };
        since.map_or(Duration::ZERO, |since| self.clock.monotonic().saturating_sub(since))
    }

    /// Whether the queue is below its limits.
    pub(crate) fn has_room(&self) -> bool {
        self.queued_bytes() < self.limits.submit_bytes_max
            && self.queued_entries() < self.limits.submit_entries_max
    }

    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), LogError>> {
        self.marks.poll_room(|| self.has_room(), cx)
    }

    /// Polls for a commit. Acknowledgements that the caller waits for no longer linger.
    pub(crate) fn poll_committed(&self, lsn: u64, cx: &mut Context<'_>) -> Poll<Result<(), LogError>> {
        let polled = self.marks.poll_committed(lsn, cx);
        if polled.is_pending() && self.are_acks_lingering.load(Ordering::Acquire) {
            let mut state = self.state.lock();
            if lsn > state.next_lsn && !state.acks.is_empty() {
                state.are_acks_wanted = true;
                self.are_acks_lingering.store(false, Ordering::Release);
                self.wake_writer(state, WriterWaits::Lingering);
            }
        }
        polled
    }

    /// Waits for a group; `None` when the log was closed or failed. For the writer thread.
    pub(crate) fn wait_for_group(&self, group: &mut Group) -> Option<()> {
        let mut state = self.state.lock();
        state.has_writer_thread = true;
        let mut linger_until = None;
        while state.queue.is_empty() && !state.is_closing && self.failure.get().is_none() {
            if state.acks.is_empty() {
                state.writer_waits = WriterWaits::Idle;
                self.ready.wait(&mut state);
                continue;
            }
            let now = self.clock.monotonic();
            let until = *linger_until.get_or_insert_with(|| now + self.limits.ack_linger);
            if state.are_acks_wanted || now >= until {
                break;
            }
            state.writer_waits = WriterWaits::Lingering;
            self.ready.wait_for(&mut state, until - now);
        }
        state.writer_waits = WriterWaits::No;
        if self.failure.get().is_some() || state.is_idle() {
            return None;
        }
        self.fill(&mut state, group);
        Some(())
    }

    /// Waits a little for space on the disk. False if the log was closed or failed meanwhile, or has no threads: waiting
    /// would not help then.
    pub(crate) fn wait_for_space(&self) -> bool {
        let mut state = self.state.lock();
        let may_wait = |state: &IntakeState| {
            state.has_writer_thread && !state.is_closing && self.failure.get().is_none()
        };
        if may_wait(&state) {
            self.ready.wait_for(&mut state, SPACE_PAUSE);
        }
        may_wait(&state)
    }

    /// Takes everything that waits. Returns whether there was anything.
    pub(crate) fn take_group(&self, group: &mut Group) -> bool {
        self.fill(&mut self.state.lock(), group);
        !group.entries.is_empty()
    }

    fn fill(&self, state: &mut IntakeState, group: &mut Group) {
        self.flush_acks(state);
        self.are_acks_lingering.store(false, Ordering::Release);
        state.are_acks_wanted = false;
        group.entries.clear();
        std::mem::swap(&mut group.entries, &mut state.queue);
        group.end = state.next_lsn;
        group.since = state.queued_since.take();
        let since = group.since.map_or(0, |since| since.as_micros() as u64 + 1);
        self.writing_since.store(since, Ordering::Relaxed);
    }

    /// Adds an entry to the queue.
    fn push(&self, state: &mut IntakeState, pending: Pending) {
        self.queued_bytes.fetch_add(pending.length as usize, Ordering::Relaxed);
        self.queued_entries.fetch_add(1, Ordering::Relaxed);
        if state.queue.is_empty() {
            state.queued_since = Some(self.clock.monotonic());
        }
        state.queue.push(pending);
    }

    /// Removes the entries of a committed group from the counts of the queue.
    pub(crate) fn dequeued(&self, entries: usize, bytes: usize) {
        self.writing_since.store(0, Ordering::Relaxed);
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.queued_entries.fetch_sub(entries, Ordering::Relaxed);
    }

    /// Wakes the writer if it waits for nothing more specific than `least`.
    fn wake_writer(&self, mut state: MutexGuard<'_, IntakeState>, least: WriterWaits) {
        let wakes = match state.writer_waits {
            WriterWaits::No => false,
            WriterWaits::Idle => true,
            WriterWaits::Lingering => least == WriterWaits::Lingering,
        };
        if wakes {
            state.writer_waits = WriterWaits::No;
        }
        drop(state);
        if wakes {
            self.ready.notify_one();
        }
    }
}
