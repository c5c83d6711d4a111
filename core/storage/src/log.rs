//! The log's handle: submission, waits, and the lifecycle of the log's threads.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::backup::Backup;
use crate::clock::{Clock, SystemClock};
use crate::compaction::Compaction;
use crate::cursor::Cursor;
use crate::entry::Entry;
use crate::error::{BackupError, LogError, OpenError, SubmitError};
use crate::gate::Gate;
use crate::ids::{CursorId, Lsn, StreamId, TableId};
use crate::intake::{Intake, Submitted};
use crate::maintenance::BackgroundTask;
use crate::medium::{Files, Medium};
use crate::memory::Memory;
use crate::open::{OpenLog, open};
use crate::options::LogOptions;
use crate::stats::LogStats;
use crate::stream::{Listener, Stream};
use crate::writer::Writer;

/// The log. Cheap to clone. Dropping the last clone writes the submitted entries (and syncs them, under the policy) and
/// ends the log's threads; [`Log::shutdown`] also takes a checkpoint, so that the next start is quick.
#[derive(Clone, Debug)]
pub struct Log {
    handle: Arc<Handle>,
}

struct Handle {
    parts: OpenLog,
    threads: Mutex<Vec<JoinHandle<()>>>,
    folder_lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

/// Future of [`Log::wait_committed`].
pub struct Committed {
    intake: Arc<Intake>,
    lsn: Lsn,
}

/// Future of [`Log::admit`].
pub struct Admission {
    intake: Arc<Intake>,
}

impl Future for Committed {
    type Output = Result<(), LogError>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.intake.poll_committed(self.lsn.0, cx)
    }
}

impl Future for Admission {
    type Output = Result<(), LogError>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.intake.poll_room(cx)
    }
}

impl Log {
    /// Opens the log in a folder, creating both if necessary, and recovers the committed entries. Blocks.
    ///
    /// Recovery reads the last checkpoint and replays later entries. A torn tail of the last segment is cut off; any other
    /// damage is an error, and then no file of the log was changed.
    pub fn open(dir: &Path, options: LogOptions) -> Result<Log, OpenError> {
        let medium = Files::new(dir).map_err(OpenError::io(format!("create {}", dir.display())))?;
        Self::open_on(Arc::new(medium), Arc::new(SystemClock), options)
    }

    /// Opens the log on any medium, with threads of its own.
    #[allow(clippy::needless_pass_by_value, reason = "symmetry with `open`")]
    pub fn open_on(
        medium: Arc<dyn Medium>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
    ) -> Result<Log, OpenError> {
        let mut parts = open(medium, clock, &options, true)?;
        let writer = parts.writer.take();
        let log = Self::new(parts);
        if let Some(writer) = writer {
            log.handle.start_thread("log-writer", move || Writer::run(writer))?;
        }
        let maintenance = log.parts().maintenance.clone();
        log.handle.start_thread("log-maintenance", move || maintenance.run())?;
        Ok(log)
    }

    /// Opens the log without threads: it makes progress only when [`Log::step_writer`] and [`Log::step_maintenance`] are
    /// called, or when a caller blocks on it. For simulation.
    #[allow(clippy::needless_pass_by_value, reason = "symmetry with `open`")]
    pub fn open_manual(
        medium: Arc<dyn Medium>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
    ) -> Result<Log, OpenError> {
        Ok(Self::new(open(medium, clock, &options, false)?))
    }

    fn new(mut parts: OpenLog) -> Log {
        let folder_lock = parts.folder_lock.take();
        let handle = Handle { parts, threads: Mutex::default(), folder_lock: Mutex::new(folder_lock) };
        Log { handle: Arc::new(handle) }
    }

    fn parts(&self) -> &OpenLog {
        &self.handle.parts
    }

    fn intake(&self) -> &Arc<Intake> {
        &self.handle.parts.intake
    }

    /// Calls `listener.advanced` with the id of a stream that grew above what [`Stream::watch`] bounds. One listener a log:
    /// later ones are ignored.
    pub fn on_overflow(&self, listener: Arc<dyn Listener>) {
        let _first = self.parts().overflow.set(listener);
    }

    /// The rows of a table, in key order. Reads the disk: call it once, at start-up.
    ///
    /// A failure to read ends the log, as every other failure of the medium does; the rows read so far are returned then.
    #[must_use]
    pub fn recovered_state(&self, table: TableId) -> Vec<(Bytes, Bytes)> {
        self.parts().maintenance.checkpointer.rows(table)
    }

    /// A new stream id, never used before.
    #[must_use]
    pub fn allocate_stream(&self) -> StreamId {
        StreamId(self.intake().directory.allocate_stream())
    }

    /// The handle of a stream that exists.
    #[must_use]
    pub fn stream(&self, id: StreamId) -> Option<Stream> {
        self.intake().directory.streams.get(id.0).map(Stream)
    }

    /// The ids of all streams, in order. At start-up, streams unknown to the layers above can be deleted.
    #[must_use]
    pub fn stream_ids(&self) -> Vec<StreamId> {
        self.intake().directory.streams.ids().into_iter().map(StreamId).collect()
    }

    /// A new cursor id, never used before.
    #[must_use]
    pub fn allocate_cursor(&self) -> CursorId {
        CursorId(self.intake().directory.allocate_cursor())
    }

    /// The handle of a cursor that exists.
    #[must_use]
    pub fn cursor(&self, id: CursorId) -> Option<Cursor> {
        self.intake().directory.cursors.get(id.0).map(Cursor)
    }

    /// The ids of all cursors, in order.
    #[must_use]
    pub fn cursor_ids(&self) -> Vec<CursorId> {
        self.intake().directory.cursors.ids().into_iter().map(CursorId).collect()
    }

    /// Submits an entry: assigns its position in the log and the offsets of its batches. Never blocks. The entry is
    /// committed when [`Log::committed`] has reached the returned position.
    pub fn submit(&self, entry: Entry) -> Result<Submitted, SubmitError> {
        self.intake().submit(entry)
    }

    /// The commit position: acknowledgements of entries up to here may be sent. Synced under the policy `Always`, else
    /// written.
    #[must_use]
    pub fn committed(&self) -> Lsn {
        Lsn(self.intake().marks.committed())
    }

    /// The end of the last submitted entry. A caller that waits for it sees everything submitted before, by any caller.
    #[must_use]
    pub fn submitted(&self) -> Lsn {
        Lsn(self.intake().lock().next_lsn)
    }

    /// The durable position: everything up to here is synced.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        Lsn(self.intake().marks.durable())
    }

    /// Waits until the entry is committed; an error if the log ended before.
    #[must_use]
    pub fn wait_committed(&self, lsn: Lsn) -> Committed {
        Committed { intake: self.intake().clone(), lsn }
    }

    /// Polls for [`Log::wait_committed`]. The task is woken once, when `lsn` is committed or the log ended.
    pub fn poll_committed(&self, lsn: Lsn, cx: &mut Context<'_>) -> Poll<Result<(), LogError>> {
        self.intake().poll_committed(lsn.0, cx)
    }

    /// Waits until the writer's queue is below its limits. Await it before reading more from a client.
    #[must_use]
    pub fn admit(&self) -> Admission {
        Admission { intake: self.intake().clone() }
    }

    /// Polls for [`Log::admit`].
    pub fn poll_admit(&self, cx: &mut Context<'_>) -> Poll<Result<(), LogError>> {
        self.intake().poll_room(cx)
    }

    /// Whether [`Log::admit`] would be ready now.
    #[must_use]
    pub fn is_admitting(&self) -> bool {
        self.intake().has_room() && self.intake().failure().is_none()
    }

    /// The error that ended the log, if any.
    #[must_use]
    pub fn failure(&self) -> Option<LogError> {
        self.intake().failure()
    }

    /// Blocks until the entry is committed. For tools, tests and start-up, not for the runtime's threads.
    pub fn wait_committed_blocking(&self, lsn: Lsn) -> Result<(), LogError> {
        self.parts().waiter.wait(lsn.0)
    }

    /// Makes everything submitted so far durable, whatever the policy. Blocks.
    pub fn sync(&self) -> Result<Lsn, LogError> {
        let submitted = self.intake().lock().submitted();
        self.parts().durability.make_durable(submitted).map(Lsn)
    }

    /// Takes a checkpoint now and removes segment files without live data. False if it could not be written and was put
    /// off. Blocks.
    pub fn checkpoint(&self) -> Result<bool, LogError> {
        self.parts().maintenance.checkpoint()
    }

    /// The compaction policy of a stream, if any; see [`Entry::set_compaction`].
    #[must_use]
    pub fn compaction(&self, stream: StreamId) -> Option<Compaction> {
        self.intake().directory.compaction.policy(stream.0)
    }

    /// Compacts the streams with enough new data, if there are any, and then takes a checkpoint. Returns whether there
    /// were any. Blocks. Maintenance does this on its own; this is for tools and tests.
    pub fn compact(&self) -> Result<bool, LogError> {
        self.parts().maintenance.compact()
    }

    /// Rewrites one set of mostly dead segments, if there is any, and then takes a checkpoint. Returns whether there was
    /// any. Blocks. Maintenance does this on its own; this is for tools and tests.
    pub fn clean(&self) -> Result<bool, LogError> {
        self.parts().maintenance.clean()
    }

    /// Runs one round of the writer of a log opened manually. Returns whether there was anything to write.
    pub fn step_writer(&self) -> Result<bool, LogError> {
        self.parts().waiter.step()
    }

    /// Runs one maintenance pass of a log opened manually.
    pub fn step_maintenance(&self) -> Result<(), LogError> {
        self.parts().maintenance.pass()
    }

    /// Takes a checkpoint and begins a backup, which reads the log's files while the log goes on. Blocks.
    pub fn begin_backup(&self) -> Result<Backup, BackupError> {
        Backup::begin(self.parts())
    }

    /// Bytes of the largest entry that the log takes.
    #[must_use]
    pub fn entry_bytes_max(&self) -> usize {
        self.intake().entry_bytes_max()
    }

    /// The gate that publishers pass: shut while the disk is low, or while a layer above says that memory is.
    #[must_use]
    pub fn gate(&self) -> &Arc<Gate> {
        &self.parts().space.gate
    }

    /// The account of the memory that clients make grow, which shuts the gate as well.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.parts().memory
    }

    /// Free bytes of the disk, as they were last seen, and the bound below which publishers are held back; none if the
    /// medium does not say.
    #[must_use]
    pub fn free_bytes(&self) -> Option<(u64, u64)> {
        let space = &self.parts().space;
        Some((space.free_bytes()?, space.free_bytes_min))
    }

    /// Size of the disk, as it was last seen; none if the medium does not say.
    #[must_use]
    pub fn disk_size_bytes(&self) -> Option<u64> {
        self.parts().space.size_bytes()
    }

    /// For how long the oldest entry that is not committed has waited: a disk that hangs is seen here.
    #[must_use]
    pub fn oldest_wait(&self) -> Duration {
        self.intake().oldest_wait()
    }

    /// Work beside writing that failed and is tried again, and why. The log goes on.
    #[must_use]
    pub fn put_off(&self) -> Vec<(BackgroundTask, String)> {
        self.parts().maintenance.background.all()
    }

    /// Whether the checkpoint is in two files, so that damage of one loses nothing. False for a while after damage, and
    /// while the second file cannot be written.
    #[must_use]
    pub fn is_checkpoint_mirrored(&self) -> bool {
        self.parts().maintenance.checkpointer.is_mirrored()
    }

    /// A snapshot of counters and sizes. Does no I/O.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        LogStats::of(self.parts())
    }

    /// Whether [`Log::admit`] would complete at once. For work that is repeated later instead of waiting.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.intake().has_room()
    }

    /// Rejects new entries, writes and syncs the submitted ones, takes a checkpoint, ends the log's threads and releases
    /// the folder's lock. Blocks. Further calls do nothing.
    pub fn shutdown(&self) -> Result<(), LogError> {
        let handle = &self.handle;
        if !handle.begin_close() {
            return match self.failure() {
                None | Some(LogError::Closed) => Ok(()),
                Some(failure) => Err(failure),
            };
        }
        let result = self.failure().map_or(Ok(()), Err);
        let result = result.and_then(|()| self.parts().maintenance.shut_down());
        handle.finish_close();
        result
    }
}

impl Handle {
    fn start_thread(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        self.threads.lock().push(thread.map_err(OpenError::io(format!("start thread {name}")))?);
        Ok(())
    }

    /// Rejects new entries, drains the writer and joins the threads. False when that was done before.
    fn begin_close(&self) -> bool {
        if !self.parts.intake.close() {
            return false;
        }
        // Does nothing if the writer has a thread.
        let _ = self.parts.waiter.step();
        self.parts.sealing.close();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
        true
    }

    fn finish_close(&self) {
        self.parts.intake.marks.end(LogError::Closed);
        self.parts.waiter.close();
        self.parts.allocator.set_active(None);
        self.parts.maintenance.checkpointer.close();
        *self.folder_lock.lock() = None;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.begin_close() {
            self.finish_close();
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let intake = &self.parts.intake;
        f.debug_struct("Log")
            .field("streams", &intake.directory.streams.len())
            .field("marks", &intake.marks)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Committed({})", self.lsn)
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admission")
    }
}
