//! Removal of many stored objects: entries of bounded size, so that neither an entry nor the writes that wait for the disk
//! grow with what is removed.

use bytes::Bytes;
use inver_storage::{CursorId, Entry, Log, Lsn, StreamId, SubmitError, TableId};

/// Parts of one entry.
const ENTRY_PARTS_MAX: usize = 1024;

/// A removal in progress.
pub(crate) struct Removal<'a> {
    log: &'a Log,
    entry: Entry,
    parts: usize,
    /// The position of the last entry.
    last: Option<Lsn>,
}

impl<'a> Removal<'a> {
    pub(crate) fn new(log: &'a Log) -> Removal<'a> {
        Removal { log, entry: Entry::new(), parts: 0, last: None }
    }

    pub(crate) fn row(&mut self, table: TableId, key: Bytes) {
        self.parts += 1;
        self.entry.delete(table, key);
    }

    /// A stream; a missing one is no error.
    pub(crate) fn stream(&mut self, stream: u64) {
        if self.log.stream(StreamId(stream)).is_some() {
            self.parts += 1;
            self.entry.delete_stream(StreamId(stream));
        }
    }

    /// A cursor; a missing one is no error.
    pub(crate) fn cursor(&mut self, cursor: u64) {
        if self.log.cursor(CursorId(cursor)).is_some() {
            self.parts += 1;
            self.entry.delete_cursor(CursorId(cursor));
        }
    }

    /// Ends what must be removed whole: an object with its parts. Blocks while the log writes many entries.
    pub(crate) fn end_of_object(&mut self) -> Result<(), SubmitError> {
        if self.parts >= ENTRY_PARTS_MAX { self.submit() } else { Ok(()) }
    }

    /// Removes what is left; the position at which all is removed.
    pub(crate) fn finish(mut self) -> Result<Option<Lsn>, SubmitError> {
        self.submit()?;
        Ok(self.last)
    }

    fn submit(&mut self) -> Result<(), SubmitError> {
        if self.parts == 0 {
            return Ok(());
        }
        if let Some(before) = self.last {
            // One entry waits at a time. A failure shows when the next one is submitted.
            let _failed = self.log.wait_committed_blocking(before);
        }
        self.parts = 0;
        self.last = Some(self.log.submit(std::mem::take(&mut self.entry))?.lsn);
        Ok(())
    }
}
