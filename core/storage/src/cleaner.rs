//! The cleaner: copies what is still wanted out of segments that are mostly dead into a new one, sorted by stream, so
//! that one stream whose position never moves does not keep the others' data on the disk. It also sorts segments whose
//! streams lie in very many places, so that reading one of them does not go back and forth.
//!
//! The copy is a segment file of its own. It becomes the log's with the checkpoint that names it and no longer names
//! those it replaces; before that it is a leftover that the next start removes. Offsets and batches stay as they are.
//! Runs before the checkpoint, under the chores' lock; appends go on meanwhile.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{BufMut, BytesMut};

use crate::batch::HEADER_BYTES;
use crate::error::{LogError, ReadError};
use crate::format::entry::{
    ENTRY_ALIGNMENT, ENTRY_HEADER_BYTES, EntryHeader, KIND_COPIED, entry_bytes, seal, tag,
};
use crate::format::index::{Extent, IndexBuilder};
use crate::format::segment::{
    HEADER_BYTES as SEGMENT_HEADER_BYTES, SegmentHeader, SegmentId, SegmentTrailer,
};
use crate::inner::Inner;
use crate::medium::MediumFile;
use crate::sabotage::{Bug, is_seeded};
use crate::segments::Segment;
use crate::stream::cold::read_extents;
use crate::stream::runs::Run;
use crate::stream::{StoredBatch, StreamInner};

/// Batches of one stream are copied into entries of about this size.
pub(crate) const READ_BYTES: usize = 64 << 10;
/// Written to the file at a time.
const WRITE_BYTES: usize = 1 << 20;
const COPY_FILE: &str = "clean.tmp";
/// Pause after a copy could not be written.
const RETRY_MS: i64 = 30_000;

/// So many small segments are made into a larger one.
const SMALL_MAX: usize = 16;

/// What keeps a segment from being cleaned.
pub(crate) enum CleanError {
    /// The old segment cannot be read: it stays as it is.
    Unreadable(ReadError),
    /// The new one cannot be written; nothing depends on it yet.
    Io(io::Error),
    /// The log is over.
    Log(LogError),
}

impl From<io::Error> for CleanError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A new segment in the making.
pub(crate) struct Copy {
    id: SegmentId,
    created_ms: i64,
    file: Arc<dyn MediumFile>,
    /// Where the next entry goes.
    position: u64,
    written: u64,
    buffer: BytesMut,
    index: IndexBuilder,
    max_timestamp: i64,
}

/// A stream's run in a segment to be cleaned.
pub(crate) struct OldRun {
    pub(crate) segment: Arc<Segment>,
    pub(crate) first: u64,
    /// Where the next run starts.
    pub(crate) end: u64,
}

type StreamRuns = (Arc<StreamInner>, Vec<OldRun>);

/// What became of a run, in the new segment.
pub(crate) struct Moved {
    pub(crate) old: OldRun,
    first: u64,
    bytes: u64,
    max_timestamp: i64,
}

impl Moved {
    pub(crate) fn nothing_of(old: OldRun) -> Self {
        Self { old, first: 0, bytes: 0, max_timestamp: i64::MIN }
    }

    pub(crate) fn is_anything(&self) -> bool {
        self.bytes > 0
    }

    pub(crate) fn add(&mut self, extents: &[Extent]) {
        for extent in extents {
            if self.bytes == 0 {
                self.first = extent.base;
            }
            self.bytes += u64::from(extent.length);
            self.max_timestamp = self.max_timestamp.max(extent.max_timestamp);
        }
    }
}

impl Inner {
    /// Rewrites one set of mostly dead segments, if there is any. Whether a checkpoint is wanted now.
    pub(crate) fn clean(&self) -> Result<bool, LogError> {
        let chosen = self.choose();
        if chosen.is_empty() {
            return Ok(false);
        }
        match self.clean_segments(&chosen) {
            Ok(()) => Ok(true),
            Err(CleanError::Unreadable(error)) => {
                tracing::error!(%error, "a segment cannot be cleaned");
                for segment in &chosen {
                    if error.file() == Some(segment.id.file_name().as_str()) {
                        segment.is_unreadable.store(true, Ordering::Relaxed);
                    }
                }
                self.drop_copy();
                Ok(false)
            }
            Err(CleanError::Io(error)) => {
                self.put_off_cleaning(&error);
                Ok(false)
            }
            Err(CleanError::Log(error)) => Err(error),
        }
    }

    /// The copy could not be written, most likely because the disk is full. Nothing depends on it yet: it is removed,
    /// and tried again later.
    pub(crate) fn put_off_cleaning(&self, error: &io::Error) {
        tracing::warn!(%error, "cleaning is put off");
        self.drop_copy();
        self.cleans_from_ms.store(self.clock.now_ms().saturating_add(RETRY_MS), Ordering::Relaxed);
    }

    /// Not after a copy failed a short while ago.
    pub(crate) fn may_clean(&self) -> bool {
        self.clock.now_ms() >= self.cleans_from_ms.load(Ordering::Relaxed)
    }

    /// What to rewrite into one new segment: mostly dead segments, and small ones that the cleaner wrote before. If there
    /// are none of the first kind: one whose streams lie among each other, or else small ones if they have become many.
    fn choose(&self) -> Vec<Arc<Segment>> {
        let percent = u64::from(self.options.clean_live_percent_max);
        let room = self.options.segment_bytes_max;
        let mut chosen: Vec<Arc<Segment>> = Vec::new();
        let mut bytes = 0;
        let live = |segment: &Segment| segment.live_bytes.load(Ordering::Relaxed);
        let (mut small, mut others) = (Vec::new(), Vec::new());
        for segment in self.segments.list() {
            let total = segment.entries_end.load(Ordering::Relaxed);
            let is_live = segment.live_runs.load(Ordering::Relaxed) > 0;
            if !segment.is_sealed() || !is_live || segment.is_unreadable.load(Ordering::Relaxed) {
                continue;
            }
            if live(&segment) * 100 < total * percent {
                if bytes + live(&segment) <= room {
                    bytes += live(&segment);
                    chosen.push(segment);
                }
            } else if segment.id.is_cleaned() && total < room / 2 {
                small.push(segment);
            } else if !segment.id.is_cleaned() {
                others.push(segment);
            }
        }
        if chosen.is_empty()
            && let Some(spread) =
                others.into_iter().find(|segment| live(segment) <= room && self.is_spread(segment))
        {
            return vec![spread];
        }
        let (dead, is_many) = (chosen.len(), small.len() >= SMALL_MAX);
        for segment in small {
            // A small one joins when it at most doubles the work, so that the number of files stays low.
            let is_worth_it = is_many || (!chosen.is_empty() && live(&segment) <= bytes);
            if is_worth_it && bytes + live(&segment) <= room {
                bytes += live(&segment);
                chosen.push(segment);
            }
        }
        // One alone would only be copied.
        if dead == 0 && chosen.len() < 2 { Vec::new() } else { chosen }
    }

    /// Whether its streams lie so much among each other that it is worth sorting.
    fn is_spread(&self, segment: &Segment) -> bool {
        let age_ms = self.clock.now_ms().saturating_sub(segment.created_ms);
        let age_ms_min = i64::try_from(self.options.clean_places_age.as_millis()).unwrap_or(i64::MAX);
        let places_min = u64::from(self.options.clean_places_min);
        if places_min == 0 || age_ms < age_ms_min {
            return false;
        }
        match self.index.spread(&self.segments, segment) {
            Ok(spread) => u64::from(spread.places) >= u64::from(spread.streams).max(1) * places_min,
            Err(error) => {
                tracing::error!(%error, "a segment cannot be cleaned");
                segment.is_unreadable.store(true, Ordering::Relaxed);
                false
            }
        }
    }

    fn clean_segments(&self, chosen: &[Arc<Segment>]) -> Result<(), CleanError> {
        let mut copy = Copy::make(self)?;
        let mut moved: BTreeMap<u64, (Arc<StreamInner>, Vec<Moved>)> = BTreeMap::new();
        for (stream, olds) in self.live_streams(chosen)? {
            let mut runs = Vec::new();
            for old in olds {
                if let Some(run) = self.copy_run(&mut copy, &stream, old)? {
                    runs.push(run);
                }
            }
            moved.insert(stream.id, (stream, runs));
        }
        if let Some(failure) = self.failure() {
            return Err(CleanError::Log(failure));
        }
        let segment = copy.finish(self)?;
        self.segments.insert(segment.clone());
        for (stream, runs) in moved.values() {
            self.intake.lock().mark_stream(stream);
            let is_old = |run: &Run| chosen.iter().any(|old| Arc::ptr_eq(old, &run.segment));
            install(stream, is_old, runs, Some(&segment));
        }
        self.counters.cleaned_segments.fetch_add(chosen.len() as u64, Ordering::Relaxed);
        tracing::info!(segment = %segment.id.file_name(), replaced = chosen.len(), bytes = segment.live_bytes.load(Ordering::Relaxed), "cleaned");
        Ok(())
    }

    /// The streams that have runs in these segments, with these runs in order.
    fn live_streams(&self, chosen: &[Arc<Segment>]) -> Result<Vec<StreamRuns>, CleanError> {
        let mut ids = Vec::new();
        for segment in chosen {
            self.index.stream_ids(&self.segments, segment, &mut ids).map_err(CleanError::Unreadable)?;
        }
        ids.sort_unstable();
        ids.dedup();
        let mut streams = Vec::new();
        for stream in ids.into_iter().filter_map(|id| self.streams.get(id)) {
            let state = stream.state.lock();
            let ends = state.runs.iter().skip(1).map(|next| next.first).chain([u64::MAX]);
            let olds: Vec<OldRun> = state
                .runs
                .iter()
                .zip(ends)
                .filter(|(run, _)| chosen.iter().any(|old| Arc::ptr_eq(old, &run.segment)))
                .map(|(run, end)| OldRun { segment: run.segment.clone(), first: run.first, end })
                .collect();
            drop(state);
            if !olds.is_empty() {
                streams.push((stream, olds));
            }
        }
        Ok(streams)
    }

    /// Copies what is live of a run.
    fn copy_run(
        &self,
        copy: &mut Copy,
        stream: &Arc<StreamInner>,
        old: OldRun,
    ) -> Result<Option<Moved>, CleanError> {
        let mut from = stream.start.load(Ordering::Acquire).max(old.first);
        let mut moved = Moved::nothing_of(old);
        loop {
            let mut extents = self
                .index
                .extents(&self.segments, &moved.old.segment, stream.id, from, READ_BYTES)
                .map_err(CleanError::Unreadable)?;
            extents.retain(|extent| extent.base < moved.old.end);
            if is_seeded(Bug::CopyTooLittle) {
                extents.truncate(2);
            }
            let Some(last) = extents.last() else { break };
            from = last.end();
            let batches = read_extents(self, &moved.old.segment, &extents).map_err(CleanError::Unreadable)?;
            copy.put_entry(stream.id, &extents, &batches)?;
            moved.add(&extents);
            if is_seeded(Bug::CopyTooLittle) {
                break;
            }
        }
        Ok(moved.is_anything().then_some(moved))
    }

    /// Removes an unfinished copy.
    pub(crate) fn drop_copy(&self) {
        let _ = self.medium.remove(COPY_FILE);
    }
}

/// The stream reads from the new segment from now on.
pub(crate) fn install(
    stream: &StreamInner,
    is_old: impl Fn(&Run) -> bool,
    runs: &[Moved],
    segment: Option<&Arc<Segment>>,
) {
    let mut state = stream.state.lock();
    if stream.deleted.load(Ordering::Acquire) {
        return;
    }
    state.runs.replace(is_old, |old| {
        let is_it =
            |moved: &&Moved| moved.old.first == old.first && Arc::ptr_eq(&moved.old.segment, &old.segment);
        let moved = runs.iter().find(is_it)?;
        Some(Run {
            segment: segment?.clone(),
            first: moved.first,
            bytes: moved.bytes,
            dead: 0,
            max_timestamp: moved.max_timestamp,
            extents: Vec::new(),
        })
    });
    let start = stream.start.load(Ordering::Acquire);
    let high = stream.high.load(Ordering::Acquire);
    state.runs.release_below(start, high);
}

impl Copy {
    pub(crate) fn make(inner: &Inner) -> Result<Self, CleanError> {
        let id = SegmentId::cleaned(inner.next_cleaned.fetch_add(1, Ordering::Relaxed));
        let created_ms = inner.clock.now_ms();
        let file = inner.medium.create(COPY_FILE)?;
        let header = SegmentHeader { log_id: inner.log_id, id, base: 0, created_ms };
        let mut buffer = BytesMut::with_capacity(WRITE_BYTES + READ_BYTES);
        buffer.put_slice(&header.encode());
        Ok(Self {
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

    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.position
    }

    /// One entry with these batches of one stream.
    pub(crate) fn put_entry(
        &mut self,
        stream: u64,
        extents: &[Extent],
        batches: &[StoredBatch],
    ) -> Result<(), CleanError> {
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

    fn flush(&mut self) -> Result<(), CleanError> {
        self.file.write_at(self.written, &[IoSlice::new(&self.buffer)])?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Index and trailer; then the file gets its name.
    pub(crate) fn finish(mut self, inner: &Inner) -> Result<Arc<Segment>, CleanError> {
        let id = self.id;
        let entries_end = self.position;
        let spread = self.index.spread();
        let (blocks, index_blocks, index_entries) = std::mem::take(&mut self.index).finish();
        let trailer = SegmentTrailer {
            id,
            entries_end,
            index_start: entries_end,
            index_blocks,
            index_entries,
            max_timestamp: self.max_timestamp,
            spread,
        };
        self.buffer.put_slice(&blocks);
        self.buffer.put_slice(&trailer.encode());
        self.flush()?;
        if !is_seeded(Bug::SkipCopySync) {
            self.file.sync()?;
        }
        let named = inner.medium.rename(COPY_FILE, &id.file_name()).and_then(|()| inner.medium.sync_folder());
        named.map_err(|error| CleanError::Log(inner.fail("naming a cleaned segment", &error)))?;
        let segment = Segment::new(id, 0, self.created_ms);
        segment.entries_end.store(entries_end, Ordering::Relaxed);
        segment.max_timestamp.store(self.max_timestamp, Ordering::Relaxed);
        segment.sealed.store(true, Ordering::Release);
        Ok(Arc::new(segment))
    }
}
