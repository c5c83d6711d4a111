//! Rewriting of segments: live batches are copied into a new segment file, which then replaces the old ones.
//!
//! The copy becomes part of the log with the checkpoint that names it and no longer names the segments it replaces; until
//! then it is a leftover that the next start removes. Offsets and batches do not change. Shared by the cleaner and by
//! compaction.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{BufMut, BytesMut};

use super::background::{Background, BackgroundTask};
use crate::batch::HEADER_BYTES;
use crate::clock::Clock;
use crate::error::{LogError, ReadError};
use crate::format::entry::{
    ENTRY_ALIGNMENT, ENTRY_HEADER_BYTES, EntryHeader, KIND_COPIED, entry_bytes, seal, tag,
};
use crate::format::index::{Extent, IndexBuilder};
use crate::format::segment::{
    HEADER_BYTES as SEGMENT_HEADER_BYTES, SegmentHeader, SegmentId, SegmentTrailer,
};
use crate::intake::Intake;
use crate::medium::{Medium, MediumFile};
use crate::read::segments::Segment;
use crate::read::{ReadPath, StoredBatch};
use crate::seeded_bugs::{Bug, is_seeded};
use crate::stream::StreamInner;
use crate::stream::runs::Run;

/// Batches of one stream are copied into entries of about this size.
const READ_BYTES: usize = 64 << 10;
/// Bytes written to the file at a time.
const WRITE_BYTES: usize = 1 << 20;
/// Name of an unfinished copy.
const COPY_FILE: &str = "clean.tmp";

/// What keeps a segment from being rewritten.
#[derive(Debug, thiserror::Error)]
pub(super) enum RewriteError {
    /// The old segment cannot be read: it is kept as it is.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// The new one cannot be written; nothing depends on it yet.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Reads old segments and writes new ones.
pub(super) struct Rewriter {
    log_id: u128,
    medium: Arc<dyn Medium>,
    clock: Arc<dyn Clock>,
    pub(super) intake: Arc<Intake>,
    pub(super) read: Arc<ReadPath>,
    background: Arc<Background>,
}

/// A stream's run in a segment to be rewritten.
pub(super) struct OldRun {
    pub(super) segment: Arc<Segment>,
    pub(super) first: u64,
    /// Where the next run starts.
    pub(super) end: u64,
}

/// The place of a run in the new segment.
pub(super) struct MovedRun {
    pub(super) old: OldRun,
    first: u64,
    bytes: u64,
    max_timestamp: i64,
    first_timestamp: Option<(u64, i64)>,
}

impl MovedRun {
    pub(super) fn new(old: OldRun) -> Self {
        Self { old, first: 0, bytes: 0, max_timestamp: i64::MIN, first_timestamp: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(super) fn add(&mut self, extents: &[Extent]) {
        for extent in extents {
            if self.bytes == 0 {
                self.first = extent.base;
                self.first_timestamp = Some((extent.base, extent.max_timestamp));
            }
            self.bytes += u64::from(extent.length);
            self.max_timestamp = self.max_timestamp.max(extent.max_timestamp);
        }
    }
}

impl Rewriter {
    pub(super) fn new(
        log_id: u128,
        medium: Arc<dyn Medium>,
        clock: Arc<dyn Clock>,
        intake: Arc<Intake>,
        read: Arc<ReadPath>,
        background: Arc<Background>,
    ) -> Self {
        Self { log_id, medium, clock, intake, read, background }
    }

    /// Whether rewriting is not paused after a failed copy.
    pub(super) fn is_ready(&self) -> bool {
        self.background.may_try(BackgroundTask::Rewriting)
    }

    /// Pauses after a copy could not be written, most likely because the disk is full. Nothing depends on the copy yet: it
    /// is removed and tried again later.
    pub(super) fn pause(&self, error: &io::Error) {
        self.discard();
        self.background.put_off(BackgroundTask::Rewriting, error);
    }

    /// Removes an unfinished copy.
    pub(super) fn discard(&self) {
        let _ = self.medium.remove(COPY_FILE);
    }

    /// Some batches of a sealed run from an offset on, with their extents.
    pub(super) fn read_run(
        &self,
        stream: &StreamInner,
        run: &OldRun,
        from: u64,
    ) -> Result<(Vec<Extent>, Vec<StoredBatch>), RewriteError> {
        let mut extents = self.read.extents(&run.segment, stream.id, from, READ_BYTES)?;
        extents.retain(|extent| extent.base < run.end);
        if is_seeded(Bug::CopyTooLittle) {
            extents.truncate(2);
        }
        let batches = self.read.batches(&run.segment, &extents)?;
        Ok((extents, batches))
    }

    /// Creates the file of a copy.
    pub(super) fn create(&self) -> Result<SegmentCopy, RewriteError> {
        let id = SegmentId::cleaned(self.intake.directory.allocate_cleaned());
        let created_ms = self.clock.now_ms();
        let file = self.medium.create(COPY_FILE)?;
        let header = SegmentHeader { log_id: self.log_id, id, base: 0, created_ms };
        let mut buffer = BytesMut::with_capacity(WRITE_BYTES + READ_BYTES);
        buffer.put_slice(&header.encode());
        Ok(SegmentCopy {
            id,
            created_ms,
            file,
            position: SEGMENT_HEADER_BYTES,
            written: 0,
            buffer,
            index: IndexBuilder::default(),
            max_timestamp: i64::MIN,
        })
    }

    /// Writes index and trailer, syncs the copy, names it, and adds it to the log's segments. What comes from these segments
    /// was written when they were, not now.
    pub(super) fn finish<'a>(
        &self,
        mut copy: SegmentCopy,
        sources: impl IntoIterator<Item = &'a Arc<Segment>>,
    ) -> Result<Arc<Segment>, RewriteError> {
        let id = copy.id;
        let entries_end = copy.position;
        copy.put_index()?;
        if !is_seeded(Bug::SkipCopySync) {
            copy.file.sync()?;
        }
        let named = self.medium.rename(COPY_FILE, &id.file_name()).and_then(|()| self.medium.sync_folder());
        if let Err(error) = named {
            // No checkpoint names it: what stays of it is removed by the next start.
            let _ = self.medium.remove(&id.file_name());
            return Err(error.into());
        }
        self.background.done(BackgroundTask::Rewriting);
        let segment =
            Segment::new(id, 0, Some(copy.created_ms)).sealed(entries_end, copy.written, copy.max_timestamp);
        let segment = Arc::new(segment);
        let written = sources.into_iter().map(|source| self.read.written_until_ms(source).ok().flatten());
        if let Some(until_ms) = written.max_by_key(|until_ms| until_ms.unwrap_or(i64::MAX)).flatten() {
            segment.note_written_until(until_ms);
        }
        self.read.segments.insert(segment.clone());
        Ok(segment)
    }

    /// Redirects a stream's runs to the new segment. `None`: nothing of them is live any more.
    pub(super) fn install(
        &self,
        stream: &Arc<StreamInner>,
        is_old: impl Fn(&Run) -> bool,
        runs: &[MovedRun],
        segment: Option<&Arc<Segment>>,
    ) {
        self.intake.lock().mark_stream(stream);
        let mut state = stream.state.lock();
        if stream.deleted.load(Ordering::Acquire) {
            return;
        }
        state.runs.replace(is_old, |old| {
            let is_same = |moved: &&MovedRun| {
                moved.old.first == old.first && Arc::ptr_eq(&moved.old.segment, &old.segment)
            };
            let moved = runs.iter().find(is_same)?;
            Some(Run {
                segment: segment?.clone(),
                first: moved.first,
                bytes: moved.bytes,
                dead: 0,
                max_timestamp: moved.max_timestamp,
                first_timestamp: moved.first_timestamp,
                is_unreadable: false,
                extents: Vec::new(),
            })
        });
        let start = stream.start.load(Ordering::Acquire);
        let high = stream.high.load(Ordering::Acquire);
        state.runs.release_below(start, high);
    }
}

/// A new segment under construction.
pub(super) struct SegmentCopy {
    id: SegmentId,
    created_ms: i64,
    file: Arc<dyn MediumFile>,
    /// Position of the next entry.
    position: u64,
    written: u64,
    buffer: BytesMut,
    index: IndexBuilder,
    max_timestamp: i64,
}

impl SegmentCopy {
    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.position
    }

    /// Adds one entry with batches of one stream.
    pub(super) fn put_entry(
        &mut self,
        stream: u64,
        extents: &[Extent],
        batches: &[StoredBatch],
    ) -> Result<(), RewriteError> {
        const PART_BYTES: usize = 1 + 4 + 4 + 8 + 16;
        let description_bytes = batches.len() * PART_BYTES;
        let batch_bytes: usize = batches.iter().map(|batch| batch.bytes.len()).sum();
        let length = entry_bytes(description_bytes, batch_bytes);
        let header = EntryHeader {
            crc: 0,
            length: length as u32,
            description_bytes: description_bytes as u32,
            lsn: self.position,
            synced: 0,
            part_count: batches.len() as u32,
            kind: KIND_COPIED,
        };
        let start = self.buffer.len();
        header.put(&mut self.buffer);
        for (extent, batch) in extents.iter().zip(batches) {
            self.buffer.put_u8(tag::BATCH);
            self.buffer.put_u32_le(1);
            self.buffer.put_u32_le(batch.bytes.len() as u32);
            self.buffer.put_u64_le(extent.origin);
            self.buffer.put_u64_le(stream);
            self.buffer.put_u64_le(extent.base);
        }
        let heads = batches.iter().filter_map(|batch| batch.bytes.get(..HEADER_BYTES));
        seal(&mut self.buffer, start, description_bytes, heads);
        let mut position = self.position + (ENTRY_HEADER_BYTES + description_bytes) as u64;
        for (extent, batch) in extents.iter().zip(batches) {
            self.index.push(stream, &Extent { position: position as u32, ..*extent });
            self.max_timestamp = self.max_timestamp.max(extent.max_timestamp);
            self.buffer.put_slice(&batch.bytes);
            position += batch.bytes.len() as u64;
        }
        let padding = (position as usize).next_multiple_of(ENTRY_ALIGNMENT) - position as usize;
        self.buffer.put_bytes(0, padding);
        self.position += length as u64;
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), RewriteError> {
        self.file.write_at(self.written, &[IoSlice::new(&self.buffer)])?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes everything left, index and trailer included.
    fn put_index(&mut self) -> Result<(), RewriteError> {
        let index = std::mem::take(&mut self.index);
        let spread = index.spread();
        let (blocks, index_blocks, index_entries) = index.finish();
        let trailer = SegmentTrailer {
            id: self.id,
            entries_end: self.position,
            index_start: self.position,
            index_blocks,
            index_entries,
            max_timestamp: self.max_timestamp,
            spread,
        };
        self.buffer.put_slice(&blocks);
        self.buffer.put_slice(&trailer.encode());
        self.flush()
    }
}
