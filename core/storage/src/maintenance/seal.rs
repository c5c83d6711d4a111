//! Sealing: a closed segment gets its index and trailer.
//!
//! Until then its index is in memory, and a restart reads it again: sealing that fails is tried again later. A failed sync
//! ends the log, as everywhere, because the segment holds acknowledged entries.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::background::{Background, BackgroundTask};
use crate::directory::Directory;
use crate::error::LogError;
use crate::format::index::IndexBuilder;
use crate::format::segment::SegmentTrailer;
use crate::intake::Intake;
use crate::read::ReadPath;
use crate::read::segments::Segment;
use crate::sealing::SealQueue;
use crate::seeded_bugs::{Bug, is_seeded};
use crate::stream::StreamInner;

pub(super) struct Sealer {
    queue: Arc<SealQueue>,
    directory: Arc<Directory>,
    read: Arc<ReadPath>,
    intake: Arc<Intake>,
    background: Arc<Background>,
}

/// What keeps a segment from being sealed.
enum SealError {
    /// The index could not be written; the entries before it are not concerned.
    Write(io::Error),
    Sync(io::Error),
}

impl Sealer {
    pub(super) fn new(
        queue: Arc<SealQueue>,
        directory: Arc<Directory>,
        read: Arc<ReadPath>,
        intake: Arc<Intake>,
        background: Arc<Background>,
    ) -> Self {
        Self { queue, directory, read, intake, background }
    }

    /// Seals all closed segments, or puts it off.
    pub(super) fn seal_closed(&self) -> Result<(), LogError> {
        if !self.background.may_try(BackgroundTask::Sealing) {
            return Ok(());
        }
        while let Some(segment) = self.queue.first() {
            match self.seal(&segment) {
                Ok(()) => self.queue.remove(&segment),
                Err(SealError::Write(error)) => {
                    self.background.put_off(BackgroundTask::Sealing, &error);
                    return Ok(());
                }
                Err(SealError::Sync(error)) => {
                    return Err(self.intake.fail(format!("seal {segment:?}"), error));
                }
            }
        }
        self.background.done(BackgroundTask::Sealing);
        Ok(())
    }

    fn seal(&self, segment: &Arc<Segment>) -> Result<(), SealError> {
        if segment.is_sealed() {
            return Ok(());
        }
        let touched = self.streams_of(segment);
        let mut index = IndexBuilder::default();
        for stream in &touched {
            let start = stream.start.load(Ordering::Acquire);
            let extents = stream.state.lock().runs.extents_to_seal(segment, start);
            for extent in &extents {
                index.push(stream.id, extent);
            }
        }
        let spread = index.spread();
        let (blocks_bytes, index_blocks, index_entries) = index.finish();
        let entries_end = segment.entries_end.load(Ordering::Acquire);
        let trailer = SegmentTrailer {
            id: segment.id,
            entries_end,
            index_start: entries_end,
            index_blocks,
            index_entries,
            max_timestamp: segment.max_timestamp.load(Ordering::Relaxed),
            spread,
        };
        let file = self.read.segments.file(segment.id).map_err(SealError::Write)?;
        let trailer_bytes = trailer.encode();
        let total = entries_end + (blocks_bytes.len() + trailer_bytes.len()) as u64;
        let pieces = [IoSlice::new(&blocks_bytes), IoSlice::new(&trailer_bytes)];
        let written = file.write_at(entries_end, &pieces).and_then(|()| file.set_len(total));
        written.map_err(SealError::Write)?;
        if !is_seeded(Bug::SkipSealSync) {
            file.sync().map_err(SealError::Sync)?;
        }
        let _ = segment.index_place.set((entries_end, index_blocks));
        let _ = segment.spread.set(spread);
        segment.file_bytes.store(total, Ordering::Relaxed);
        segment.touched.lock().clear();
        segment.sealed.store(true, Ordering::Release);
        for stream in &touched {
            let mut state = stream.state.lock();
            let start = stream.start.load(Ordering::Acquire);
            let high = stream.high.load(Ordering::Acquire);
            state.runs.sealed(segment, start);
            state.runs.release_below(start, high);
        }
        Ok(())
    }

    /// The streams that have data in a closed segment, by id. Deleted ones have none.
    fn streams_of(&self, segment: &Segment) -> Vec<Arc<StreamInner>> {
        // Kept for another attempt.
        let mut ids = segment.touched.lock().clone();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().filter_map(|id| self.directory.streams.get(id)).collect()
    }
}
