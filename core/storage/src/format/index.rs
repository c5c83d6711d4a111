//! The index of a sealed segment: the place of each batch in the file, sorted by stream and offset, in blocks of 4 KiB
//! that are checked and cached one by one.
//!
//! ```text
//! block: 0 CRC-32C of 4..4096 u32 | 4 entries u32 | 8 entries of 44 bytes … | zero bytes
//! entry: 0 stream u64 | 8 base offset u64 | 16 greatest timestamp i64 | 24 position u32 | 28 length u32 | 32 span u32
//!        36 origin u64
//! ```

use bytes::{BufMut, BytesMut};

use super::segment::Spread;
use super::{Fields, Flaw};

pub(crate) const BLOCK_BYTES: usize = 4096;
const BLOCK_HEADER_BYTES: usize = 8;
const INDEX_ENTRY_BYTES: usize = 44;
pub(crate) const BLOCK_ENTRIES_MAX: usize = (BLOCK_BYTES - BLOCK_HEADER_BYTES) / INDEX_ENTRY_BYTES;

/// Batches at most this far apart count as adjacent: an entry's description fits between them.
const NEXT_BYTES_MAX: u64 = 256;

/// Place of one batch of a stream in a segment file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) base: u64,
    pub(crate) max_timestamp: i64,
    pub(crate) position: u32,
    pub(crate) length: u32,
    /// Number of offsets.
    pub(crate) span: u32,
    /// The first of the streams that the batch was submitted for.
    pub(crate) origin: u64,
}

impl Extent {
    pub(crate) fn end(&self) -> u64 {
        self.base.saturating_add(u64::from(self.span))
    }
}

/// Builder of index blocks. Push extents sorted by stream and base offset.
#[derive(Debug, Default)]
pub(crate) struct IndexBuilder {
    out: BytesMut,
    in_block: usize,
    /// Stream of the last extent, and its end in the file.
    last: Option<(u64, u64)>,
    spread: Spread,
    entries: u32,
    blocks: u32,
}

impl IndexBuilder {
    pub(crate) fn push(&mut self, stream: u64, extent: &Extent) {
        if self.in_block == 0 {
            self.out.put_bytes(0, BLOCK_HEADER_BYTES);
            self.blocks += 1;
        }
        self.count(stream, extent);
        self.out.put_u64_le(stream);
        self.out.put_u64_le(extent.base);
        self.out.put_i64_le(extent.max_timestamp);
        self.out.put_u32_le(extent.position);
        self.out.put_u32_le(extent.length);
        self.out.put_u32_le(extent.span);
        self.out.put_u64_le(extent.origin);
        self.in_block += 1;
        self.entries += 1;
        if self.in_block == BLOCK_ENTRIES_MAX {
            self.close_block();
        }
    }

    fn count(&mut self, stream: u64, extent: &Extent) {
        let position = u64::from(extent.position);
        let (is_same, is_next) = match self.last {
            Some((last, end)) => {
                (last == stream, last == stream && (end..=end + NEXT_BYTES_MAX).contains(&position))
            }
            None => (false, false),
        };
        self.spread.streams += u32::from(!is_same);
        self.spread.places += u32::from(!is_next);
        self.last = Some((stream, position + u64::from(extent.length)));
    }

    pub(crate) fn spread(&self) -> Spread {
        self.spread
    }

    fn close_block(&mut self) {
        if self.in_block == 0 {
            return;
        }
        let start = (self.blocks as usize - 1) * BLOCK_BYTES;
        self.out.resize(start + BLOCK_BYTES, 0);
        if let Some(block) = self.out.get_mut(start..) {
            block[4..8].copy_from_slice(&(self.in_block as u32).to_le_bytes());
            let crc = crc32c::crc32c(&block[4..]);
            block[..4].copy_from_slice(&crc.to_le_bytes());
        }
        self.in_block = 0;
    }

    pub(crate) fn finish(mut self) -> (BytesMut, u32, u32) {
        self.close_block();
        (self.out, self.blocks, self.entries)
    }
}

/// The entries of a block, after its checksum was verified.
pub(crate) fn decode_block(bytes: &[u8]) -> Result<Vec<(u64, Extent)>, Flaw> {
    if bytes.len() != BLOCK_BYTES {
        return Err("index block is truncated");
    }
    let mut fields = Fields::new(bytes);
    if fields.u32() != Some(crc32c::crc32c(fields.rest)) {
        return Err("index block checksum mismatch");
    }
    let count = fields.u32().unwrap_or_default() as usize;
    if count == 0 || count > BLOCK_ENTRIES_MAX {
        return Err("index block count is wrong");
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let mut read = || {
            let stream = fields.u64()?;
            let base = fields.u64()?;
            let max_timestamp = fields.i64()?;
            let (position, length, span) = (fields.u32()?, fields.u32()?, fields.u32()?);
            let origin = fields.u64()?;
            Some((stream, Extent { base, max_timestamp, position, length, span, origin }))
        };
        entries.push(read().ok_or("index block is truncated")?);
    }
    Ok(entries)
}
