//! Sealing: a closed segment gets its index and trailer.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
}

impl Sealer {
    pub(super) fn new(
        queue: Arc<SealQueue>,
        directory: Arc<Directory>,
        read: Arc<ReadPath>,
        intake: Arc<Intake>,
    ) -> Self {
        Self { queue, directory, read, intake }
    }

    /// Seals all closed segments.
    pub(super) fn seal_closed(&self) -> Result<(), LogError> {
        while let Some(segment) = self.queue.first() {
            let sealed = self.seal(&segment);
            sealed.map_err(|error| self.intake.fail(format!("seal {segment:?}"), error))?;
            self.queue.remove(&segment);
        }
        Ok(())
    }

    fn seal(&self, segment: &Arc<Segment>) -> io::Result<()> {
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
        let file = self.read.segments.file(segment.id)?;
        let trailer_bytes = trailer.encode();
        let total = entries_end + (blocks_bytes.len() + trailer_bytes.len()) as u64;
        file.write_at(entries_end, &[IoSlice::new(&blocks_bytes), IoSlice::new(&trailer_bytes)])?;
        file.set_len(total)?;
        if !is_seeded(Bug::SkipSealSync) {
            file.sync()?;
        }
        let _ = segment.index_place.set((entries_end, index_blocks));
        let _ = segment.spread.set(spread);
        segment.file_bytes.store(total, Ordering::Relaxed);
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
        let mut ids = std::mem::take(&mut *segment.touched.lock());
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().filter_map(|id| self.directory.streams.get(id)).collect()
    }
}
