//! Lookups in the indexes of sealed segments, through a bounded cache of their blocks.
//!
//! A lookup is a binary search over the blocks of one segment; its upper steps stay in the cache.

use std::hash::BuildHasherDefault;
use std::sync::Arc;

use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use super::segments::{Segment, Segments};
use crate::error::ReadError;
use crate::format::index::{BLOCK_BYTES, BLOCK_ENTRIES_MAX, Extent, decode_block};
use crate::format::segment::{FrameFlaw, SegmentId, SegmentTrailer, Spread, TRAILER_BYTES};
use crate::medium::MediumFile;
use crate::registry::IdHasher;

/// Blocks that the cache holds at least.
const BLOCKS_LEAST: usize = 32;

type Block = Arc<Vec<(u64, Extent)>>;
type Blocks = Cache<(SegmentId, u32), Block, UnitWeighter, BuildHasherDefault<IdHasher>>;

pub(crate) struct IndexCache {
    blocks: Blocks,
}

/// Memory of a block in the cache.
const CACHED_BLOCK_BYTES: usize = BLOCK_ENTRIES_MAX * size_of::<(u64, Extent)>() + 64;

/// The index of one segment, opened for lookups.
struct Index<'a> {
    cache: &'a IndexCache,
    segment: SegmentId,
    file: Arc<dyn MediumFile>,
    start: u64,
    blocks: u32,
}

impl IndexCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let blocks_max = (bytes_max / CACHED_BLOCK_BYTES).max(BLOCKS_LEAST);
        let hasher = BuildHasherDefault::default();
        let lifecycle = DefaultLifecycle::default();
        Self { blocks: Cache::with(blocks_max, blocks_max as u64, UnitWeighter, hasher, lifecycle) }
    }

    /// Memory of the blocks that it has.
    pub(crate) fn bytes(&self) -> u64 {
        (self.blocks.len() * CACHED_BLOCK_BYTES) as u64
    }

    /// Extents of a stream from the one that contains `from` (or the next above it), up to a number of bytes, at least
    /// one if there is one.
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

    /// The first extent of a stream at or above `from` that satisfies `is_wanted`.
    pub(crate) fn first_extent(
        &self,
        segments: &Segments,
        segment: &Segment,
        stream: u64,
        from: u64,
        mut is_wanted: impl FnMut(&Extent) -> bool,
    ) -> Result<Option<Extent>, ReadError> {
        let mut found = None;
        self.walk(segments, segment, stream, from, |extent| {
            found = is_wanted(extent).then_some(*extent);
            found.is_none()
        })?;
        Ok(found)
    }

    /// Appends the ids of all streams in a segment to `ids`.
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

    /// How far the segment's streams are interleaved.
    pub(crate) fn spread(&self, segments: &Segments, segment: &Segment) -> Result<Spread, ReadError> {
        self.open(segments, segment)?;
        Ok(segment.spread.get().copied().unwrap_or_default())
    }

    /// Visits the stream's extents in order until `visit` returns false.
    fn walk(
        &self,
        segments: &Segments,
        segment: &Segment,
        stream: u64,
        from: u64,
        mut visit: impl FnMut(&Extent) -> bool,
    ) -> Result<(), ReadError> {
        let index = self.open(segments, segment)?;
        // The last block whose first entry is not beyond the extent sought.
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
        let id = segment.id;
        let file = segments.file(id).map_err(ReadError::io(id.file_name()))?;
        let place = match segment.index_place.get() {
            Some(place) => *place,
            None => {
                let trailer = read_trailer(id, file.as_ref())?;
                let _ = segment.spread.set(trailer.spread);
                *segment.index_place.get_or_init(|| (trailer.index_start, trailer.index_blocks))
            }
        };
        Ok(Index { cache: self, segment: id, file, start: place.0, blocks: place.1 })
    }
}

impl Index<'_> {
    fn block(&self, number: u32) -> Result<Block, ReadError> {
        let key = (self.segment, number);
        if let Some(block) = self.cache.blocks.get(&key) {
            return Ok(block);
        }
        let block: Block = Arc::new(self.read(number)?);
        self.cache.blocks.insert(key, block.clone());
        Ok(block)
    }

    /// Reads a block without using the cache.
    fn read(&self, number: u32) -> Result<Vec<(u64, Extent)>, ReadError> {
        let position = self.start + u64::from(number) * BLOCK_BYTES as u64;
        let mut bytes = vec![0; BLOCK_BYTES];
        let read =
            self.file.read_at(position, &mut bytes).map_err(ReadError::io(self.segment.file_name()))?;
        bytes.truncate(read);
        decode_block(&bytes).map_err(|flaw| damaged(self.segment, position, flaw))
    }
}

/// The trailer of a sealed segment.
pub(crate) fn read_trailer(id: SegmentId, file: &dyn MediumFile) -> Result<SegmentTrailer, ReadError> {
    let length = file.len().map_err(ReadError::io(id.file_name()))?;
    let position = length.saturating_sub(TRAILER_BYTES);
    let mut bytes = [0; TRAILER_BYTES as usize];
    file.read_at(position, &mut bytes).map_err(ReadError::io(id.file_name()))?;
    let trailer = SegmentTrailer::decode(&bytes).map_err(|flaw| match flaw {
        FrameFlaw::Flaw(flaw) => damaged(id, position, flaw),
        FrameFlaw::Version(_) => damaged(id, position, "unknown version"),
    })?;
    let blocks_bytes = u64::from(trailer.index_blocks) * BLOCK_BYTES as u64;
    if trailer.id != id || trailer.index_start.checked_add(blocks_bytes) != Some(position) {
        return Err(damaged(id, position, "trailer does not match the file"));
    }
    Ok(trailer)
}

fn damaged(id: SegmentId, position: u64, detail: &'static str) -> ReadError {
    ReadError::Damaged { file: id.file_name(), position, detail }
}
