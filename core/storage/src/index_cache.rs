//! Lookups in the indexes of sealed segments, through a bounded cache of their blocks.
//!
//! Two generations: what is used moves to the young one; when that is full it becomes the old one, and what was
//! old and not used is dropped. Lookups are a binary search over the blocks, whose upper steps stay cached.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::ReadError;
use crate::format::index::{BLOCK_BYTES, BLOCK_ENTRIES_MAX, Extent, decode_block};
use crate::format::segment::{FrameFlaw, SegmentId, SegmentTrailer, Spread, TRAILER_BYTES};
use crate::medium::MediumFile;
use crate::segments::{Segment, Segments};

type Block = Arc<Vec<(u64, Extent)>>;

#[derive(Debug)]
pub(crate) struct IndexCache {
    generation_blocks_max: usize,
    blocks: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<(SegmentId, u32), Block>,
    old: HashMap<(SegmentId, u32), Block>,
}

/// A segment's index, open for lookups.
struct Index<'a> {
    cache: &'a IndexCache,
    segment: SegmentId,
    file: Arc<dyn MediumFile>,
    start: u64,
    blocks: u32,
}

impl IndexCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let block_bytes = BLOCK_ENTRIES_MAX * size_of::<(u64, Extent)>() + 64;
        let generation_blocks_max = (bytes_max / block_bytes / 2).max(16);
        Self { generation_blocks_max, blocks: Mutex::default() }
    }

    /// The extents of a stream from the one that holds `from` on (or the next above it), up to a number of bytes,
    /// at least one if there is one.
    pub(crate) fn extents(
        &self,
        segments: &Segments,
        segment: &Segment,
        stream: u64,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<Extent>, ReadError> {
        let mut bytes = 0usize;
        let mut found = Vec::new();
        self.walk(segments, segment, stream, from, |extent| {
            bytes = bytes.saturating_add(extent.length as usize);
            if bytes > bytes_max && !found.is_empty() {
                return false;
            }
            found.push(*extent);
            true
        })?;
        Ok(found)
    }

    /// The first extent of a stream at or above `from` that is wanted.
    pub(crate) fn first_extent(
        &self,
        segments: &Segments,
        segment: &Segment,
        stream: u64,
        from: u64,
        wanted: impl Fn(&Extent) -> bool,
    ) -> Result<Option<Extent>, ReadError> {
        let mut found = None;
        self.walk(segments, segment, stream, from, |extent| {
            found = wanted(extent).then_some(*extent);
            found.is_none()
        })?;
        Ok(found)
    }

    /// The ids of all streams in a segment, added to `ids`.
    pub(crate) fn stream_ids(
        &self,
        segments: &Segments,
        segment: &Segment,
        ids: &mut Vec<u64>,
    ) -> Result<(), ReadError> {
        let index = self.open(segments, segment)?;
        for number in 0..index.blocks {
            for (stream, _) in index.read(number)?.iter() {
                if ids.last() != Some(stream) {
                    ids.push(*stream);
                }
            }
        }
        Ok(())
    }

    /// How much the segment's streams lie among each other.
    pub(crate) fn spread(&self, segments: &Segments, segment: &Segment) -> Result<Spread, ReadError> {
        self.open(segments, segment)?;
        Ok(segment.spread.get().copied().unwrap_or_default())
    }

    /// Visits the stream's extents in order while `visit` says so.
    fn walk(
        &self,
        segments: &Segments,
        segment: &Segment,
        stream: u64,
        from: u64,
        mut visit: impl FnMut(&Extent) -> bool,
    ) -> Result<(), ReadError> {
        let index = self.open(segments, segment)?;
        // The last block whose first entry is not beyond what is sought.
        let (mut low, mut high) = (0, index.blocks);
        while low < high {
            let middle = low + (high - low) / 2;
            let block = index.block(middle)?;
            match block.first() {
                Some((first, extent)) if (*first, extent.base) <= (stream, from) => low = middle + 1,
                _ => high = middle,
            }
        }
        for number in low.saturating_sub(1)..index.blocks {
            let block = index.block(number)?;
            let first = block.partition_point(|(id, extent)| (*id, extent.end()) <= (stream, from));
            for (id, extent) in block.get(first..).unwrap_or_default() {
                if *id != stream || !visit(extent) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn open(&self, segments: &Segments, segment: &Segment) -> Result<Index<'_>, ReadError> {
        let file = segments.file(segment.id).map_err(|error| io(segment.id, &error))?;
        let place = match segment.index_place.get() {
            Some(place) => *place,
            None => {
                let trailer = read_trailer(segment.id, file.as_ref())?;
                let _ = segment.spread.set(trailer.spread);
                *segment.index_place.get_or_init(|| (trailer.index_start, trailer.index_blocks))
            }
        };
        Ok(Index { cache: self, segment: segment.id, file, start: place.0, blocks: place.1 })
    }

    fn cached(&self, key: (SegmentId, u32)) -> Option<Block> {
        let mut blocks = self.blocks.lock();
        if let Some(block) = blocks.young.get(&key) {
            return Some(block.clone());
        }
        let block = blocks.old.remove(&key)?;
        self.keep(&mut blocks, key, block.clone());
        Some(block)
    }

    fn keep(&self, blocks: &mut Generations, key: (SegmentId, u32), block: Block) {
        if blocks.young.len() >= self.generation_blocks_max {
            blocks.old = std::mem::take(&mut blocks.young);
        }
        blocks.young.insert(key, block);
    }
}

impl Index<'_> {
    fn block(&self, number: u32) -> Result<Block, ReadError> {
        let key = (self.segment, number);
        if let Some(block) = self.cache.cached(key) {
            return Ok(block);
        }
        let block: Block = Arc::new(self.read(number)?);
        self.cache.keep(&mut self.cache.blocks.lock(), key, block.clone());
        Ok(block)
    }

    /// Past the cache.
    fn read(&self, number: u32) -> Result<Vec<(u64, Extent)>, ReadError> {
        let position = self.start + u64::from(number) * BLOCK_BYTES as u64;
        let mut bytes = vec![0; BLOCK_BYTES];
        let read = self.file.read_at(position, &mut bytes).map_err(|error| io(self.segment, &error))?;
        bytes.truncate(read);
        decode_block(&bytes).map_err(|flaw| damaged(self.segment, position, flaw))
    }
}

/// The trailer of a sealed segment.
pub(crate) fn read_trailer(id: SegmentId, file: &dyn MediumFile) -> Result<SegmentTrailer, ReadError> {
    let length = file.len().map_err(|error| io(id, &error))?;
    let position = length.saturating_sub(TRAILER_BYTES);
    let mut bytes = [0; TRAILER_BYTES as usize];
    file.read_at(position, &mut bytes).map_err(|error| io(id, &error))?;
    let trailer = SegmentTrailer::decode(&bytes).map_err(|flaw| match flaw {
        FrameFlaw::Flaw(flaw) => damaged(id, position, flaw),
        FrameFlaw::Version(_) => damaged(id, position, "unknown version"),
    })?;
    let blocks_bytes = u64::from(trailer.index_blocks) * BLOCK_BYTES as u64;
    if trailer.id != id || trailer.index_start.checked_add(blocks_bytes) != Some(position) {
        return Err(damaged(id, position, "the trailer does not fit the file"));
    }
    Ok(trailer)
}

fn io(id: SegmentId, error: &std::io::Error) -> ReadError {
    ReadError::Io { file: id.file_name(), detail: error.to_string() }
}

fn damaged(id: SegmentId, position: u64, detail: &str) -> ReadError {
    ReadError::Damaged { file: id.file_name(), position, detail: detail.to_owned() }
}
