//! The records of a batch as a stream, decompressed piece by piece: looking at them takes little memory.

use std::io::Read;

use bytes::Bytes;

use super::checked::Batch;
use super::compression::{Compression, SnappyBlocks, failed, reader};
use super::error::BatchError;
use super::header::HEADER_BYTES;

/// Bytes that are decompressed at a time, unless more of them are wanted in one piece.
const PIECE_BYTES: usize = 64 * 1024;

/// The bytes of a batch's records in their order, through a window. Holds the window, and what the codec needs.
pub struct Inflated<'a> {
    source: Source<'a>,
    window: Vec<u8>,
    /// Start of what is not consumed in the window.
    at: usize,
    /// Bytes decompressed so far, and their bound.
    bytes: usize,
    bytes_max: usize,
    is_at_end: bool,
}

enum Source<'a> {
    Reader(Box<dyn Read + Send + 'a>),
    Snappy(SnappyBlocks<'a>),
}

impl<'a> Inflated<'a> {
    /// Of a batch whose records decompress to at most `bytes_max` bytes; an error is met where there are more.
    pub fn new(batch: &'a Batch, bytes_max: usize) -> Result<Inflated<'a>, BatchError> {
        let codec = Compression::from_attributes(batch.header().attributes)?;
        let stored: &Bytes = batch.bytes();
        let stored = stored.get(HEADER_BYTES..).unwrap_or_default();
        let source = match codec {
            Compression::Snappy => Source::Snappy(SnappyBlocks::new(stored)?),
            codec => Source::Reader(reader(codec, stored)?),
        };
        Ok(Inflated { source, window: Vec::new(), at: 0, bytes: 0, bytes_max, is_at_end: false })
    }

    /// What is next: at least `wanted` bytes, unless fewer are left.
    pub fn window(&mut self, wanted: usize) -> Result<&[u8], BatchError> {
        while self.window.len() - self.at < wanted && !self.is_at_end {
            self.fill(wanted)?;
        }
        Ok(self.window.get(self.at..).unwrap_or_default())
    }

    /// Goes past bytes of the window.
    pub fn advance(&mut self, bytes: usize) {
        self.at = self.window.len().min(self.at + bytes);
    }

    /// Goes past bytes, whatever the window holds. False if fewer are left.
    pub fn skip(&mut self, mut bytes: usize) -> Result<bool, BatchError> {
        while bytes > 0 {
            let there = self.window(1)?.len();
            if there == 0 {
                return Ok(false);
            }
            self.advance(bytes.min(there));
            bytes -= bytes.min(there);
        }
        Ok(true)
    }

    /// Bytes that were decompressed so far.
    #[must_use]
    pub fn inflated_bytes(&self) -> usize {
        self.bytes
    }

    fn fill(&mut self, wanted: usize) -> Result<(), BatchError> {
        self.window.drain(..self.at);
        self.at = 0;
        let (before, bytes_max) = (self.window.len(), self.bytes_max);
        let left = bytes_max.saturating_sub(self.bytes);
        let read = match &mut self.source {
            Source::Snappy(blocks) => {
                blocks.next_into(&mut self.window, left, bytes_max).map(|is_read| self.is_at_end = !is_read)
            }
            Source::Reader(reader) => {
                // One byte beyond the bound tells that there are more.
                let room = wanted.saturating_sub(before).max(PIECE_BYTES).min(left.saturating_add(1));
                let mut piece = reader.take(room as u64);
                // Memory grows with what has come only.
                let read = piece.read_to_end(&mut self.window).map_err(failed);
                read.map(|count| self.is_at_end = count < room)
            }
        };
        // Also what came before an error.
        self.bytes += self.window.len() - before;
        read?;
        if self.bytes > bytes_max { Err(BatchError::TooLarge { bytes_max }) } else { Ok(()) }
    }
}

impl std::fmt::Debug for Inflated<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflated").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}
