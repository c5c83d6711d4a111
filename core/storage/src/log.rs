//! The log's handle.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::checkpoint::{SegmentChanges, Space};
use crate::clock::{Clock, SystemClock};
use crate::compaction::Compaction;
use crate::cursor::Cursor;
use crate::entry::Entry;
use crate::error::{LogError, OpenError, SubmitError};
use crate::ids::{CursorId, Lsn, StreamId, TableId};
use crate::inner::Inner;
use crate::medium::{Files, Medium};
use crate::options::LogOptions;
use crate::recovery;
use crate::stream::Stream;
use crate::submit::Submitted;
use crate::watermarks::ThreadWaker;

/// The log. Cheap to clone. When the last clone is dropped, what was submitted is written (and synced, under the
/// policy), and the log's threads end; [`Log::shutdown`] also takes a checkpoint, so that the next start is quick.
#[derive(Clone, Debug)]
pub struct Log {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    inner: Arc<Inner>,
}

/// Future of [`Log::wait_committed`].
#[derive(Debug)]
pub struct Committed {
    inner: Arc<Inner>,
    lsn: Lsn,
}

/// Future of [`Log::admit`].
#[derive(Debug)]
pub struct Admission {
    inner: Arc<Inner>,
}

/// What the log counted since it was opened, and how full it is. For metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Entries committed.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Groups written.
    pub groups: u64,
    /// Syncs of segment files.
    pub syncs: u64,
    /// Checkpoints taken.
    pub checkpoints: u64,
    /// Segment files removed because nothing in them was wanted any more.
    pub reclaimed_segments: u64,
    /// Segment files rewritten by the cleaner.
    pub cleaned_segments: u64,
    /// Streams compacted by key.
    pub compactions: u64,
    /// Segment files now.
    pub segments: u64,
    /// Streams now.
    pub streams: u64,
    /// Cursors now.
    pub cursors: u64,
    /// Bytes submitted and not yet committed.
    pub queued_bytes: u64,
    /// Entries submitted and not yet committed.
    pub queued_entries: u64,
}

impl Future for Committed {
    type Output = Result<(), LogError>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.inner.poll_committed(self.lsn.0, cx)
    }
}

impl Future for Admission {
    type Output = Result<(), LogError>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.inner.marks.poll_room(|| self.inner.is_room(), cx)
    }
}

impl Log {
    /// Opens the log in a folder, making both if need be; recovers what was committed. Blocks.
    ///
    /// Recovery reads the last checkpoint and replays what came after it. A torn tail of the last segment is cut off;
    /// any other damage is an error, and then no file of the log was changed.
    pub fn open(dir: &Path, options: LogOptions) -> Result<Log, OpenError> {
        let io = |source| OpenError::Io { what: format!("making {}", dir.display()), source };
        let medium = Files::new(dir).map_err(io)?;
        Self::open_on(Arc::new(medium), Arc::new(SystemClock), options)
    }

    /// Opens the log on any medium, with threads of its own.
    pub fn open_on(
        medium: Arc<dyn Medium>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
    ) -> Result<Log, OpenError> {
        let inner = recovery::open(medium, clock, options, false)?;
        let log = Log { handle: Arc::new(Handle { inner: inner.clone() }) };
        inner.start_thread("log-writer", Inner::run_writer)?;
        inner.start_thread("log-chores", Inner::run_chores)?;
        Ok(log)
    }

    /// Opens the log without threads: it moves only when [`Log::step_writer`] and [`Log::step_chores`] are called, or
    /// when somebody blocks on it. For simulation.
    pub fn open_manual(
        medium: Arc<dyn Medium>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
    ) -> Result<Log, OpenError> {
        let inner = recovery::open(medium, clock, options, true)?;
        Ok(Log { handle: Arc::new(Handle { inner }) })
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.handle.inner
    }

    /// What the layers above stored in a table, in key order. Read it once, at start-up: it comes from the disk.
    ///
    /// A failure to read ends the log, as all other failures of the medium do; what was read so far is returned then.
    #[must_use]
    pub fn recovered_state(&self, table: TableId) -> Vec<(Bytes, Bytes)> {
        let inner = self.inner();
        let checkpoints = inner.checkpoints.lock();
        let prefix = table.0.to_be_bytes();
        let mut rows = std::collections::BTreeMap::new();
        let read = checkpoints.store.scan(Space::State, &prefix, &mut |key, value| {
            let key = Bytes::copy_from_slice(key.get(prefix.len()..).unwrap_or_default());
            rows.insert(key, Bytes::copy_from_slice(value));
            Ok(())
        });
        if let Err(error) = read {
            inner.fail("reading the recovered state", &error);
        }
        for ((changed, key), value) in &inner.intake.lock().dirty.state {
            if *changed == table.0 {
                match value {
                    Some(value) => rows.insert(key.clone(), value.clone()),
                    None => rows.remove(key),
                };
            }
        }
        rows.into_iter().collect()
    }

    /// An id for a new stream, never given before.
    #[must_use]
    pub fn allocate_stream(&self) -> StreamId {
        StreamId(self.inner().next_stream.fetch_add(1, Ordering::Relaxed))
    }

    /// The handle of a stream that exists.
    #[must_use]
    pub fn stream(&self, id: StreamId) -> Option<Stream> {
        self.inner().streams.get(id.0).map(Stream)
    }

    /// The ids of all streams, in order. For start-up: what nothing above knows any more can be deleted.
    #[must_use]
    pub fn stream_ids(&self) -> Vec<StreamId> {
        self.inner().streams.ids().into_iter().map(StreamId).collect()
    }

    /// An id for a new cursor, never given before.
    #[must_use]
    pub fn allocate_cursor(&self) -> CursorId {
        CursorId(self.inner().next_cursor.fetch_add(1, Ordering::Relaxed))
    }

    /// The handle of a cursor that exists.
    #[must_use]
    pub fn cursor(&self, id: CursorId) -> Option<Cursor> {
        self.inner().cursors.get(id.0).map(Cursor)
    }

    /// The ids of all cursors, in order.
    #[must_use]
    pub fn cursor_ids(&self) -> Vec<CursorId> {
        self.inner().cursors.ids().into_iter().map(CursorId).collect()
    }

    /// Gives the entry its place in the one order and its batches their offsets. Never blocks, never waits: the
    /// entry is on its way to the disk, committed when [`Log::committed`] has reached the returned position.
    pub fn submit(&self, entry: Entry) -> Result<Submitted, SubmitError> {
        self.inner().submit(entry)
    }

    /// Acknowledgements of entries up to here may be sent: synced under the policy `Always`, else written.
    #[must_use]
    pub fn committed(&self) -> Lsn {
        Lsn(self.inner().marks.committed())
    }

    /// The end of the last entry that was submitted: who waits for it sees what was submitted before, whoever did.
    #[must_use]
    pub fn submitted(&self) -> Lsn {
        Lsn(self.inner().intake.lock().next_lsn)
    }

    /// Synced up to here.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        Lsn(self.inner().marks.durable())
    }

    /// Ready when the entry is committed, or with the error that ended the log.
    #[must_use]
    pub fn wait_committed(&self, lsn: Lsn) -> Committed {
        Committed { inner: self.inner().clone(), lsn }
    }

    /// As [`Log::wait_committed`], by hand. The task is woken once, when `lsn` is committed or the log ended.
    pub fn poll_committed(&self, lsn: Lsn, cx: &mut Context<'_>) -> Poll<Result<(), LogError>> {
        self.inner().poll_committed(lsn.0, cx)
    }

    /// Ready while the writer's queue is below its bounds. Await it before reading more from a client.
    #[must_use]
    pub fn admit(&self) -> Admission {
        Admission { inner: self.inner().clone() }
    }

    /// As [`Log::admit`], by hand.
    pub fn poll_admit(&self, cx: &mut Context<'_>) -> Poll<Result<(), LogError>> {
        self.inner().marks.poll_room(|| self.inner().is_room(), cx)
    }

    /// Whether [`Log::admit`] would be ready now.
    #[must_use]
    pub fn is_admitting(&self) -> bool {
        self.inner().is_room() && self.inner().failure().is_none()
    }

    /// The error that ended the log, if any.
    #[must_use]
    pub fn failure(&self) -> Option<LogError> {
        self.inner().failure()
    }

    /// Blocks until the entry is committed. For tools, tests and start-up, not for the runtime's threads.
    pub fn wait_committed_blocking(&self, lsn: Lsn) -> Result<(), LogError> {
        self.inner().wait_committed_blocking(lsn.0)
    }

    /// Makes everything submitted so far durable, whatever the policy. Blocks.
    pub fn sync(&self) -> Result<Lsn, LogError> {
        let submitted = self.inner().intake.lock().submitted();
        self.inner().make_durable(submitted).map(Lsn)
    }

    /// Takes a checkpoint now, which also removes segment files that nothing wants any more. Blocks.
    pub fn checkpoint(&self) -> Result<(), LogError> {
        let _at_work = self.inner().chores_at_work.lock();
        self.inner().seal_closed()?;
        self.inner().reclaim_or_checkpoint()
    }

    /// How a stream is compacted by key, if it is; see [`Entry::set_compaction`].
    #[must_use]
    pub fn compaction(&self, stream: StreamId) -> Option<Compaction> {
        self.inner().compaction_of(stream.0)
    }

    /// Compacts the streams that have enough new in them, if there are any, and takes a checkpoint then. Whether there
    /// were. Blocks. The log does this by itself; this is for tools and tests.
    pub fn compact(&self) -> Result<bool, LogError> {
        let _at_work = self.inner().chores_at_work.lock();
        self.inner().seal_closed()?;
        let compacted = self.inner().compact()?;
        if compacted {
            self.inner().reclaim_or_checkpoint()?;
        }
        Ok(compacted)
    }

    /// Rewrites one set of mostly dead segments, if there is any, and takes a checkpoint then. Whether there was. Blocks.
    /// The log does this by itself; this is for tools and tests.
    pub fn clean(&self) -> Result<bool, LogError> {
        let _at_work = self.inner().chores_at_work.lock();
        self.inner().seal_closed()?;
        let cleaned = self.inner().clean()?;
        if cleaned {
            self.inner().reclaim_or_checkpoint()?;
        }
        Ok(cleaned)
    }

    /// One round of the writer, for a log opened by hand. Whether there was anything to do.
    pub fn step_writer(&self) -> Result<bool, LogError> {
        self.inner().step_writer()
    }

    /// One round of the chores, for a log opened by hand.
    pub fn step_chores(&self) -> Result<(), LogError> {
        self.inner().do_chores()
    }

    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let inner = self.inner();
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        LogStats {
            entries: get(&inner.counters.entries),
            bytes: get(&inner.counters.bytes),
            groups: get(&inner.counters.groups),
            syncs: get(&inner.counters.syncs),
            checkpoints: get(&inner.counters.checkpoints),
            reclaimed_segments: get(&inner.counters.reclaimed_segments),
            cleaned_segments: get(&inner.counters.cleaned_segments),
            compactions: get(&inner.counters.compactions),
            segments: inner.segments.list().len() as u64,
            streams: inner.streams.len() as u64,
            cursors: inner.cursors.len() as u64,
            queued_bytes: inner.queued_bytes.load(Ordering::Relaxed) as u64,
            queued_entries: inner.queued_entries.load(Ordering::Relaxed) as u64,
        }
    }

    /// Whether [`Log::admit`] would complete at once. For work that is repeated later instead of waiting.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.inner().is_room()
    }

    /// Refuses new entries, writes and syncs what was submitted, takes a checkpoint, ends the log's threads and lets
    /// go of the folder. Blocks. Called again it does nothing.
    pub fn shutdown(&self) -> Result<(), LogError> {
        let inner = self.inner();
        if !inner.begin_close() {
            return inner.failure().map_or(Ok(()), |failure| match failure {
                LogError::Closed => Ok(()),
                failure => Err(failure),
            });
        }
        let result = inner.failure().map_or(Ok(()), Err);
        let result = result.and_then(|()| inner.seal_closed());
        let result = result.and_then(|()| inner.checkpoint(&SegmentChanges::default()));
        inner.finish_close();
        result
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.inner.begin_close() {
            self.inner.finish_close();
        }
    }
}

impl Inner {
    fn start_thread(self: &Arc<Self>, name: &str, run: fn(&Inner)) -> Result<(), OpenError> {
        let inner = self.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&inner));
        self.threads.lock().push(thread.map_err(open_io(format!("starting {name}")))?);
        Ok(())
    }

    pub(crate) fn wait_committed_blocking(&self, lsn: u64) -> Result<(), LogError> {
        let waker = ThreadWaker::current();
        let mut cx = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(result) = self.poll_committed(lsn, &mut cx) {
                return result;
            }
            if self.is_manual {
                if !self.step_writer()? {
                    return Err(self.fail("waiting", &format!("position {lsn} was never submitted")));
                }
            } else {
                std::thread::park();
            }
        }
    }

    /// Refuses new entries, drains the writer and joins the threads. False when that was done before.
    fn begin_close(&self) -> bool {
        {
            let mut intake = self.intake.lock();
            if intake.is_closing {
                return false;
            }
            intake.is_closing = true;
        }
        self.intake_ready.notify_all();
        if self.is_manual {
            let _ = self.step_writer();
        }
        self.chores.lock().is_closing = true;
        self.chores_ready.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
        true
    }

    fn finish_close(&self) {
        self.marks.end(LogError::Closed);
        *self.writer.lock() = None;
        *self.current.lock() = None;
        *self.folder_lock.lock() = None;
    }
}

pub(crate) fn open_io(what: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
    let what = what.into();
    move |source| OpenError::Io { what, source }
}
